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


class Broken:
    """Finds the compiled module and fails to load it, as the dynamic loader does."""

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name == MODULE else None

    def create_module(self, spec):
        raise ImportError("libstdc++.so.6: version `GLIBCXX_3.4.30' not found\n(required by _core.so)")


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


def test_where_it_does_not_load_one_line_has_the_loaders_words(unloaded, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    reason = native.why_missing()
    assert "GLIBCXX_3.4.30' not found (required by _core.so)" in reason and "\n" not in reason


def test_a_module_that_the_engine_needs_is_not_mistaken_for_the_engine(unloaded, monkeypatch):
    class NeedsMore(Broken):
        def create_module(self, spec):
            raise ModuleNotFoundError("No module named 'absent'", name="absent")

    monkeypatch.setattr(sys, "meta_path", [NeedsMore(), *sys.meta_path])
    assert "No module named 'absent'" in native.why_missing()
