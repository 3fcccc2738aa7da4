"""Links, pictures, workflows: what a reader follows exists, and what is drawn is drawn from the source of today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FRONT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
PICTURES = ROOT / "docs" / "pictures"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings]
    return {re.sub(r"\s", "-", heading) for heading in plain}


def broken_links(page: Path) -> list[str]:
    """Links of a page to files or anchors of ours that do not exist."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", FRONT, ids=lambda page: page.stem)
def test_links_of_the_front_pages_lead_somewhere(page):
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A title\n[here](#a-title) [gone](nothing.md) [away](#other) [web](https://example.org)\n")
    assert broken_links(page) == ["nothing.md", "#other"]


def test_the_picture_of_the_rooms_is_what_the_imports_say():
    """`make pictures` draws it anew."""
    from scripts import rooms

    graph = rooms.dependences()
    assert {"data", "policies", "engine", "cli", rooms.BASE} <= set(graph) and not graph[rooms.BASE]
    assert (PICTURES / "rooms.svg").read_text("utf-8") == rooms.picture(graph)


def test_arrows_that_follow_from_others_are_left_out():
    from scripts import rooms

    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert rooms.reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert rooms.floors(graph) == {"d": 0, "c": 1, "b": 2, "a": 3}
    with pytest.raises(ValueError, match="circle"):
        rooms.reduced({"a": {"b"}, "b": {"a"}})


def test_the_pictures_are_what_the_script_draws():
    from scripts import pictures

    for name, draw in pictures.PICTURES.items():
        assert (PICTURES / f"{name}.svg").read_text("utf-8") == draw(), name


def test_workflows_and_hooks_call_targets_that_exist():
    files = [
        *(ROOT / ".github" / "workflows").glob("*.yml"),
        ROOT / ".pre-commit-config.yaml",
        ROOT / "CONTRIBUTING.md",
    ]
    called = {target for file in files for target in re.findall(r"make ([a-z][a-z-]*)$", file.read_text("utf-8"), re.M)}
    assert {"lint", "test", "docs", "test-oldest", "sanitize"} <= called
    assert called - TARGETS == set()


def test_help_shows_every_target_with_a_description():
    described = re.findall(r"^([a-z][a-z-]*):.*## \S", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert {"help", "demo", "test", "lint", "docs", "format", "clean"} <= set(described) <= TARGETS


def test_fields_are_described_by_their_comments():
    pytest.importorskip("griffe")
    from scripts.site_docstrings import comment_of, with_blocks

    lines = [
        "    one: int = 1  # the first",
        "    # above",
        "    # and more",
        "    two: str = (",
        '        "#"',
        "    )",
    ]
    assert comment_of(lines, 0, 0) == "the first"
    assert comment_of(lines, 3, 5) == "above and more"
    assert comment_of(["    three: int"], 0, 0) == ""
    assert with_blocks("Does.\n\n>>> f(1)\n2\n\nMore:\n- one\n") == (
        "Does.\n\n```pycon\n>>> f(1)\n2\n```\n\nMore:\n\n- one\n"
    )


def missing_paths(page: Path) -> list[str]:
    """Paths in backquotes that do not exist, from the top of the repository or from that of the package."""
    package = ROOT / "src" / "ziggurat"
    tops = {path.name for top in (ROOT, package) for path in top.iterdir() if path.is_dir()} - {"runs"}
    names = re.findall(r"`([a-z_]+/[\w./-]*\w)`", page.read_text("utf-8"))
    known = [name for name in names if name.split("/")[0] in tops]
    return [n for n in known if not any((top / f"{n}{end}").exists() for top in (ROOT, package) for end in ("", ".py"))]


@pytest.mark.parametrize("page", [*FRONT[:2], *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.stem)
def test_paths_that_pages_name_exist(page):
    assert missing_paths(page) == []
