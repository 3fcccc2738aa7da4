import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
ANALYSES = (ROOT / "docs" / "analyses.md").read_text("utf-8")
SUPPORT = (ROOT / "docs" / "support.md").read_text("utf-8")


def test_the_results_table_is_made_from_the_rows():
    from benchmarks.tables import readme_page
    from scripts.shared import RESULTS, stored_rows

    assert readme_page(README, stored_rows(RESULTS / "peers.jsonl")) == README


def test_it_is_short():
    assert len(README.splitlines()) <= 150


def test_files_that_it_names_exist():
    named = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README) + re.findall(r"\| `((?:src|results|docs)/[\w/]+)`", README)
    assert len(named) >= 8
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_its_ten_lines_of_python_run(tmp_path, monkeypatch, rows_file, tiny_recipe, tiny_checkpoint):
    import ziggurat
    from ziggurat.train.fit import TrainOptions

    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    (tmp_path / "train.jsonl").write_text(rows_file.read_text())
    monkeypatch.chdir(tmp_path)
    real = ziggurat.train_model
    quick = TrainOptions(device="cpu", progress=False, mixed_precision=False)
    monkeypatch.setattr(
        ziggurat,
        "train_model",
        lambda source, out: real(source, Path(out), str(tiny_recipe), str(tiny_checkpoint), quick),
    )
    names: dict = {}
    exec(code, names)
    assert len(names["answers"]) == 1


def test_its_commands_are_known_with_their_options():
    import typer

    from ziggurat.cli.app import app_for
    from ziggurat.cli.report.app import report_app

    group = typer.main.get_command(app_for())
    analyses = typer.main.get_command(report_app())
    written = (README + ANALYSES + SUPPORT).splitlines()
    lines = [line.split("#")[0].split() for line in written if line.startswith("ziggurat ")]
    assert len(lines) >= 9
    for _, name, *arguments in lines:
        command = analyses.commands[arguments[0]] if name == "report" else group.commands[name]
        options = {option for parameter in command.params for option in parameter.opts}
        used = {argument for argument in arguments if argument.startswith("--")}
        assert used <= options, (name, used - options)


def test_every_analysis_is_described():
    from ziggurat.cli.report.app import ANALYSES as COMMANDS
    from ziggurat.report.columns import COLUMNS

    described = re.findall(r"^\| `(\w+)` \|", ANALYSES, re.MULTILINE)
    assert sorted(described) == sorted(COLUMNS) == sorted(COMMANDS)


def test_every_task_that_has_a_name_is_described():
    from ziggurat.data.catalogue import TASKS

    described = re.findall(r"^\| `([\w/]+)` \| `([\w/-]+)", SUPPORT, re.MULTILINE)
    assert described == [(task.name, task.hub) for task in TASKS.values()]
