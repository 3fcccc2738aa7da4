"""The room's Python door, with and without something behind it."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.machinery import ModuleSpec

import pytest

from ziggurat import native
from ziggurat.errors import UserError

MODULE = "ziggurat.native._core"


class Failing:
    """Finds the compiled module and fails to load it."""

    def __init__(self, error: ImportError):
        self.error = error

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name == MODULE else None

    def create_module(self, spec):
        raise self.error

    def exec_module(self, module):
        raise AssertionError("there is none")


@pytest.fixture
def unloaded(monkeypatch):
    """As in a process that has not asked for the compiled module yet."""
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.delattr(native, "_core", raising=False)


def test_where_there_is_a_compiler_there_is_a_compiled_engine():
    if shutil.which(os.environ.get("CXX", "c++").split()[0]) is None:
        pytest.skip("no C++ compiler")
    assert native.why_missing() is None
    assert native.core().__name__ == MODULE


def test_where_it_was_not_compiled_one_line_says_so(unloaded, monkeypatch):
    monkeypatch.setitem(sys.modules, MODULE, None)  # what import does with a module that is not there
    reason = native.why_missing()
    assert "compiler" in reason and "\n" not in reason
    with pytest.raises(UserError) as raised:
        native.core()
    assert str(raised.value) == reason


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ImportError("version `GLIBCXX_3.4.30' not found\n(required by _core.so)"), "not found (required by _core.so)"),
        (ModuleNotFoundError("No module named 'absent'", name="absent"), "No module named 'absent'"),
    ],
)
def test_where_it_does_not_load_one_line_has_the_loaders_words(unloaded, monkeypatch, error, words):
    monkeypatch.setattr(sys, "meta_path", [Failing(error), *sys.meta_path])
    reason = native.why_missing()
    assert words in reason and "\n" not in reason
