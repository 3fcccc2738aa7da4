"""`scripts/move.py`: what mentions a module that moves, or a name, mentions its new place."""

from __future__ import annotations

import pytest

from scripts import move

MOVES = {
    "ziggurat.shed": "ziggurat.barn",
    "ziggurat.shed.rake": "ziggurat.garden.tools",
    "ziggurat.garden.plot.Bed": "ziggurat.garden.bed.Bed",
    "ziggurat.plough": "ziggurat.field",
}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import ziggurat.shed.hoe\n", "import ziggurat.barn.hoe\n"),
        ("import ziggurat.shed.rake as r\n", "import ziggurat.garden.tools as r\n"),
        ("from ziggurat.shed.rake import comb\n", "from ziggurat.garden.tools import comb\n"),
        ("from ziggurat.shed import rake\n", "from ziggurat.garden import tools as rake\n"),
        (
            "from ziggurat.shed import rake as r, hoe\n",
            "from ziggurat.garden import tools as r\nfrom ziggurat.barn import hoe\n",
        ),
        (
            "from ziggurat.garden.plot import Bed, Row\n",
            "from ziggurat.garden.bed import Bed\nfrom ziggurat.garden.plot import Row\n",
        ),
        ("def f():\n    from ziggurat.shed.rake import a\n", "def f():\n    from ziggurat.garden.tools import a\n"),
        ("x = ziggurat.shed.rake.comb(1).y\n", "x = ziggurat.garden.tools.comb(1).y\n"),
        ('patch("ziggurat.garden.plot.Bed.dig", 1)\n', 'patch("ziggurat.garden.bed.Bed.dig", 1)\n'),
        ('é = "é"; patch("ziggurat.plough.x")\n', 'é = "é"; patch("ziggurat.field.x")\n'),
        ('"""See `shed/rake` and\n`ziggurat.shed`."""\n', '"""See `garden/tools` and\n`ziggurat.barn`."""\n'),
        ("import ziggurat.shedding\nfrom ziggurat.garden.plot import Bedding\nplough = shed.rake\n", None),
    ],
)
def test_a_source_after_the_moves(before, after):
    found = move.applied(before, move.edits_of(before, MOVES))
    assert found == (before if after is None else after)


def test_prose_and_settings_follow_and_other_words_do_not():
    text = "`shed/rake.py`, src/ziggurat/plough.py, ziggurat.shed.hoe; a plough/x, shed/rakes, my/shed/rake"
    after = "`garden/tools.py`, src/ziggurat/field.py, ziggurat.barn.hoe; a plough/x, shed/rakes, my/shed/rake"
    assert move.in_text(text, MOVES) == after


def test_a_tree_is_moved_and_what_meets_becomes_one_module(tmp_path):
    package = tmp_path / "src" / "ziggurat"
    files = {
        "shed/__init__.py": '"""Shed."""\n',
        "shed/hoe.py": '"""Hoe."""\n\nimport os\n\nfrom ziggurat.shed.rake import comb\n\nX = comb(os.sep)\n',
        "shed/rake.py": '"""Rake."""\n\nimport sys\n\n\ndef comb(x):\n    return x, sys.path\n',
        "garden/tools.py": '"""Tools."""\n\nimport re\n\nfrom ziggurat.shed.rake import comb\n\nY = comb(re)\n',
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    (tmp_path / "README.md").write_text("`shed/hoe` takes `ziggurat.shed.rake.comb`.\n")
    (tmp_path / "LOG.md").write_text("`shed/hoe` was new.\n")
    changed = move.move(tmp_path, {"ziggurat.shed.rake": "ziggurat.garden.tools", "ziggurat.shed": "ziggurat.barn"})
    assert {path.name for path in changed} == {"hoe.py", "tools.py", "README.md"}
    assert not list((package / "shed").glob("*.py"))
    assert "from ziggurat.garden.tools import comb" in (package / "barn/hoe.py").read_text()
    assert (package / "barn/__init__.py").read_text() == '"""Shed."""\n'
    tools = (package / "garden/tools.py").read_text()
    assert tools.startswith('"""Tools."""\n\nimport re\n') and "Rake." not in tools
    assert "from ziggurat" not in tools and tools.index("import sys") < tools.index("Y = ") < tools.index("def comb")
    assert (tmp_path / "README.md").read_text() == "`barn/hoe` takes `ziggurat.garden.tools.comb`.\n"
    assert "shed/hoe" in (tmp_path / "LOG.md").read_text()


def test_a_module_that_renames_its_own_part_is_left_to_people():
    with pytest.raises(SystemExit, match="takes r from itself"):
        move.without_imports_of_itself("from ziggurat.a import b as r\n", "ziggurat.a")
