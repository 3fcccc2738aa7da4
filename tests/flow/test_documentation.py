"""The examples of README and documentation run, on tiny models in a folder that has the files that they name.

Every block of `python` runs, and every line of an `sh` block that begins with `ziggurat`, page by page from top to
bottom. A block that cannot run here has a comment before it: `<!-- not run: why -->`.
"""

from __future__ import annotations

import io
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import typer

from tests.kit import toy_world

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\s*)?^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path, run: bool) -> list[tuple[str, str]]:
    """Language and content of a page's blocks that are run, or of those that are not."""
    return [(kind, text) for skip, kind, text in BLOCK.findall(page.read_text("utf-8")) if bool(skip) != run]


def commands(block: str) -> Iterator[list[str]]:
    """The arguments of each `ziggurat` line of an `sh` block, comments left out."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["ziggurat"]:
            yield words[1:]


@pytest.fixture(scope="session")
def command_group():
    from ziggurat.cli.app import app_for

    return typer.main.get_command(app_for([], complete=True))


# Folders that a page may name without making them, and the commands that make each.
USUAL = {
    "my-finetuned-bert": ["train --train train.jsonl --recipe full --out my-finetuned-bert"],
    "runs/news": ["train --train train.jsonl --recipe early-exit --out runs/news"],
    "runs/mp": ["train --train train.jsonl --recipe magic-pyramid --out runs/mp"],
    "runs/mine": ["adapt my-finetuned-bert --train rows.jsonl --out runs/mine"],
    "runs/static": ["train --train train.jsonl --recipe static --teacher runs/mp --out runs/static"],
    "runs/cascade": [
        "cascade runs/static runs/mp --out runs/cascade --data train.jsonl",
        "calibrate runs/cascade --data train.jsonl --max-drop 0.01 --name balanced --criterion agreement",
    ],
}
MAKES = ("train", "adapt", "cascade")


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> dict[tuple[str, ...], Path]:
    """Model folders by the command that made them: a second page that has the command gets a copy."""
    return {}


@pytest.fixture
def tiny(monkeypatch):
    """A tiny encoder in the place of the packaged one, recipes of few epochs, and a quick look at the machine."""
    from ziggurat.measure import Effort, stored_profile
    from ziggurat.training import train

    real = train.load_recipe
    monkeypatch.setattr("ziggurat.training.train.load_recipe", lambda name: toy_world.shortened(real(name)))
    monkeypatch.setattr("ziggurat.training.train.packaged_encoder", lambda: Path("encoder").resolve())
    quick = Effort(rounds=1, seconds_per_call=0.0, longest_call=0.0)
    monkeypatch.setattr("ziggurat.calibrate.times.stored_profile", partial(stored_profile, effort=quick))


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """The folder that examples find themselves in. Shared: it is copied for each page."""
    folder = tmp_path_factory.mktemp("world")
    toy_world.write_encoder(folder / "encoder")
    toy_world.write_rows(folder)
    return folder


@pytest.fixture
def here(world, tmp_path, monkeypatch, tiny) -> Path:
    """A copy of the world, which is the current folder."""
    folder = tmp_path / "here"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ZIGGURAT_CACHE", str(world / "cache"))
    return folder


class Shell:
    """Runs commands in this process. A folder that stands where one is made is removed first."""

    def __init__(self, made: dict[tuple[str, ...], Path], store: Path) -> None:
        self.made, self.store = made, store

    def run(self, arguments: list[str]) -> None:
        from ziggurat.cli.app import app_for

        app = app_for(arguments)
        out = self.out(arguments)
        self.require(" ".join(arguments[1:]), but=[] if out is None else [out])
        if out is None:
            app(arguments, standalone_mode=False)
            return
        shutil.rmtree(out, ignore_errors=True)
        key = tuple(arguments)
        if key not in self.made:
            app(arguments, standalone_mode=False)
            self.keep(key, out)
        else:
            shutil.copytree(self.made[key], out)

    @staticmethod
    def out(arguments: list[str]) -> str | None:
        """The model folder that a command makes, if it makes one."""
        return arguments[arguments.index("--out") + 1] if arguments[0] in MAKES else None

    def require(self, text: str, but: Sequence[str] = ()) -> None:
        """Makes the usual folders that a text names and that are not there yet, except those that it makes itself."""
        for name in sorted(set(re.findall(r"runs/\w+|my-finetuned-bert", text)) & USUAL.keys() - set(but)):
            if Path(name).exists():
                continue
            if (name,) not in self.made:
                for command in USUAL[name]:
                    self.run(shlex.split(command))
                if name == "my-finetuned-bert":  # a checkpoint that Ziggurat has never seen
                    for path in Path(name).glob("ziggurat.*"):
                        path.unlink()
                self.keep((name,), name)
            else:
                shutil.copytree(self.made[(name,)], name)

    def keep(self, key: tuple[str, ...], folder: str) -> None:
        """Stores a folder for later pages."""
        self.made[key] = self.store / str(len(self.made))
        shutil.copytree(folder, self.made[key])


@pytest.fixture
def shell(made, world) -> Shell:
    return Shell(made, world.parent / "made")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, run=True)], ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page, here, shell):
    names: dict = {}
    for kind, text in blocks(page, run=True):
        if kind == "python":
            outs = re.findall(r'out="([^"]+)"', text)
            shell.require(text, but=outs)
            for out in outs:
                shutil.rmtree(out, ignore_errors=True)
            exec(compile(text, page.name, "exec"), names)
        else:
            for arguments in commands(text):
                shell.run(arguments)


def test_commands_are_written_with_options_they_have(command_group):
    """Those too that are not run."""
    lines = [
        (page.name, arguments)
        for page in PAGES
        for run in (True, False)
        for kind, text in blocks(page, run)
        if kind == "sh"
        for arguments in commands(text)
    ]
    assert len(lines) >= 9
    for page, (name, *arguments) in lines:
        command = command_group.commands[name]
        if hasattr(command, "commands"):  # of commands again: `report thresholds`
            command = command.commands[arguments[0]]
        options = {option for parameter in command.params for option in parameter.opts}
        used = {argument for argument in arguments if argument.startswith("--")}
        assert used <= options, (page, name, used - options)


SCRIPTS = {
    "adapt": ["my-finetuned-bert", "rows.jsonl", "runs/new"],
    "certify": ["runs/mine", "rows.jsonl"],
    "cascade": ["train.jsonl", "runs/mp", "runs/new"],
    "stream": ["runs/cascade"],
    "explain": ["runs/mp", "Oil prices fall again"],
}


def test_every_script_is_run():
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_in_examples_run(name, here, shell, monkeypatch, capsys):
    shell.require(" ".join(SCRIPTS[name]))
    monkeypatch.setattr("sys.argv", [f"{name}.py", *SCRIPTS[name]])
    monkeypatch.setattr("sys.stdin", io.StringIO("Oil prices fall again\nWho won the match?\n"))
    capsys.readouterr()
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) >= 2


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_in_examples_are_short(name):
    assert len((ROOT / "examples" / f"{name}.py").read_text("utf-8").splitlines()) <= 20
