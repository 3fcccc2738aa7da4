"""Pages of the documentation that are not written by hand; mkdocs calls `on_files` (see mkdocs.yml).

The reference of the commands is read from the command line itself, that of the recipes from their TOML files, and
CONTRIBUTING.md and CHANGELOG.md of the repository become pages of the site.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("NO_COLOR", "1")


def commands_page() -> str:
    """Every command with its usage, arguments and options, as `--help` shows them."""
    import typer

    from ziggurat.cli.app import app_for

    head = "# Commands\n\nMade from the command line itself: `ziggurat COMMAND --help` says the same.\n"
    return head + "".join(_described(typer.main.get_command(app_for([], complete=True)), "ziggurat"))


def _described(command: Any, name: str, level: int = 2) -> Iterator[str]:
    """The section of one command, then those of its own commands."""
    members = getattr(command, "commands", {})
    if level > 2 or not members:
        context = command.context_class(command, info_name=name)
        usage = " ".join(piece.replace("{", "").replace("}", "") for piece in command.collect_usage_pieces(context))
        yield f"\n{'#' * (level - 1)} {name}\n\n{(command.help or '').strip()}\n\n```text\n{name} {usage}\n```\n"
        records = [parameter.get_help_record(context) for parameter in command.params]
        rows = [f"| `{_cell(option)}` | {_cell(text)} |\n" for option, text in filter(None, records)]
        if rows:
            yield "\n| option | meaning |\n|---|---|\n" + "".join(rows)
    for member in sorted(members):
        yield from _described(members[member], f"{name} {member}", level + 1)


def _cell(text: str) -> str:
    """Text for a cell of a table: no bars, no tags."""
    return text.replace("|", "\\|").replace("<", "&lt;") if "`" in text or "<" not in text else text.replace("|", "\\|")


def python_page() -> str:
    """Every public name with its signature and docstring, functions first."""
    import ziggurat

    head = (
        "# Python\n\nEverything on this page is importable from `ziggurat`. `import ziggurat` is cheap: a name is\n"
        "loaded when it is first used.\n"
    )
    functions = [name for name in ziggurat.__all__ if name[0].islower()]
    classes = [name for name in ziggurat.__all__ if name[0].isupper()]
    parts = [
        f"\n## {title}\n" + "".join(map(_documented, names))
        for title, names in (("Functions", functions), ("Classes", classes))
        if names
    ]
    return head + "".join(parts)


# Of a class with many methods those that users call; of all others everything without an underscore.
MEMBERS = {
    "AdaptiveModel": "from_pretrained predict predict_proba answer stream evaluate explain calibrate save_pretrained "
    "push_to_hub labels points point rule rungs folder"
}


def _documented(name: str) -> str:
    """What mkdocstrings replaces by the docstring of a public name."""
    import ziggurat

    public = getattr(ziggurat, name)
    home = "ziggurat.model" if isinstance(public, ModuleType) else public.__module__  # `train` is a room as well
    members = f", members: [{', '.join(MEMBERS[name].split())}]" if name in MEMBERS else ""
    options = f"heading_level: 3, inherited_members: true, show_root_full_path: false{members}"
    return f"\n::: {home}.{name}\n    options: {{{options}}}\n"


def recipes_page() -> str:
    """Every shipped recipe with its description and stages."""
    from ziggurat.recipe import recipe_folder

    rows = []
    for path in sorted(recipe_folder().iterdir(), key=lambda path: path.name):
        if path.name.endswith(".toml"):
            recipe = tomllib.loads(path.read_text("utf-8"))
            stages = ", ".join(stage["kind"] for stage in recipe.get("stages", ())) or "a small model, no stages"
            rows.append(f"| `{recipe['name']}` | {recipe['description']} | {stages} |\n")
    return (
        "# Recipes\n\nA recipe is a short TOML file that says how a model is made. Name one with `--recipe`, or copy\n"
        "one and give the path of your copy. Made from the files in `src/ziggurat/training/recipes`.\n\n"
        "| recipe | what it does | stages |\n|---|---|---|\n" + "".join(rows)
    )


def page_of(name: str) -> str:
    """A file of the repository's root as a page, with its links to other pages as the site has them."""
    text = (ROOT / name).read_text("utf-8").replace("](docs/", "](")
    return text.replace("](CONTRIBUTING.md", "](contributing.md").replace("](CHANGELOG.md", "](changelog.md")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to CONTRIBUTING.md and CHANGELOG.md above docs/ are links to their pages here."""
    return re.sub(
        r"\]\(\.\./((?:\.\./)*)(CONTRIBUTING|CHANGELOG)\.md", lambda link: f"]({link[1]}{link[2].lower()}.md", markdown
    )


def on_post_build(config: Any) -> None:
    """Fails where a page would fetch something from another host: the site works without a network."""
    from mkdocs.exceptions import PluginError

    fetched = re.compile(
        r"<(?:script|img|iframe)[^>]+src=\"?https?://|<link[^>]+rel=\"?stylesheet[^>]+href=\"?https?://"
    )
    for page in Path(config.site_dir).rglob("*.html"):
        if found := fetched.search(page.read_text("utf-8")):
            raise PluginError(f"{page}: fetches from another host: {found[0]}")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are made."""
    from mkdocs.structure.files import File

    made = {
        "reference/python.md": python_page(),
        "reference/commands.md": commands_page(),
        "reference/recipes.md": recipes_page(),
        "contributing.md": page_of("CONTRIBUTING.md"),
        "changelog.md": page_of("CHANGELOG.md"),
    }
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files
