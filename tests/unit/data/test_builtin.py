from __future__ import annotations

import sys
import sysconfig
from collections import Counter

import numpy as np
import pytest

from ziggurat.data import Role, load
from ziggurat.data import dataset as tasks
from ziggurat.data.builtin import AREAS, STDLIB_DOCS, stdlib_docs
from ziggurat.data.dataset import load_builtin
from ziggurat.errors import UserError

MODULE = '''"""One paragraph about towers and rivers.

The second paragraph
    is on two lines.

>>> print("this is an example and must not appear")
this is an example and must not appear

name       type of it       what it means
----       ----------       -------------
tower      a string         where it stands

f(x, y=1, *args) -> g(x[0], y_1) + h2

Too short here.
"""


class Tower:
    """A tower that stands alone."""

    async def climb(self):
        """Climb it step by step."""

        def rest():
            """Rest on every single terrace."""
'''


@pytest.fixture(scope="module")
def rows():
    return stdlib_docs()


@pytest.fixture
def library(monkeypatch, tmp_path):
    """A function that makes a standard library of these files and returns {paragraph: area}."""

    def make(files: dict[str, str]) -> dict[str, str]:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
        made = stdlib_docs()
        return dict(zip(made.texts, made.labels, strict=True))

    return make


def test_thousands_of_paragraphs_lie_in_eight_balanced_areas(rows):
    counts = Counter(rows.labels)
    assert set(counts) == set(AREAS)
    assert len(counts) == 8
    assert len(rows) > 8000  # 11,716 in CPython 3.11; later versions and Linux packages carry fewer modules
    if sys.version_info[:2] == (3, 11):
        assert max(counts.values()) < 2.5 * min(counts.values())


def test_every_paragraph_is_distinct_prose_on_one_line(rows):
    assert len(set(rows.texts)) == len(rows)
    for text in rows.texts:
        assert 4 <= len(text.split()) <= 150
        assert text == " ".join(text.split())
        assert not text.startswith((">>>", "..."))


@pytest.mark.slow
def test_two_readings_are_equal(rows):
    assert load("stdlib-docs") == rows


def test_every_role_has_every_area(rows, monkeypatch):
    monkeypatch.setattr(tasks, "stdlib_docs", lambda: rows)
    sets = load_builtin()
    n = sum(map(len, sets.values()))
    for role, fraction in zip(Role, (0.6, 0.1, 0.1, 0.2), strict=True):
        assert len(sets[role]) == pytest.approx(fraction * n, rel=0.1)
        assert sets[role].label_names == tuple(sorted(AREAS))
        assert np.bincount(sets[role].labels, minlength=8).min() > 10


def test_no_module_is_in_two_areas():
    modules = [module for names in AREAS.values() for module in names.split()]
    assert len(set(modules)) == len(modules)


def test_docstrings_at_any_depth_are_read_and_only_prose_is_kept(library):
    assert list(library({"socket.py": MODULE})) == [
        "One paragraph about towers and rivers.",
        "The second paragraph is on two lines.",
        "A tower that stands alone.",
        "Climb it step by step.",
        "Rest on every single terrace.",
    ]


def test_a_paragraph_of_two_areas_is_dropped(library):
    shared, own = '"""Returns what everybody returns here."""', '"""Only sockets do what this does."""'
    found = library({"socket.py": own, "ssl.py": own, "queue.py": shared, "json/decoder.py": shared})
    assert found == {"Only sockets do what this does.": "network"}


def test_tests_of_the_library_and_unknown_modules_are_not_read(library):
    prose = '"""This paragraph must not be read."""'
    files = {"ctypes/test/test_a.py": prose, "email/tests/b.py": prose, "nonsense.py": prose}
    assert library(files | {"json/decoder.py": '"""This paragraph must be read."""'}) == {
        "This paragraph must be read.": "text"
    }


def test_nothing_is_imported_to_be_read(library):
    library({"socket.py": '"""This is prose about sockets."""\nraise SystemExit'})


def test_a_python_without_sources_says_so(library):
    with pytest.raises(UserError, match=r"stdlib-docs: no \.py files"):
        library({})


def test_the_source_names_the_version(rows):
    assert rows.source == f"{STDLIB_DOCS} (CPython {sys.version.split()[0]})"
