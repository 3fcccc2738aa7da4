"""Tests are in a layer, their names are short, and their files as short as those of the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]
FILES = sorted(TESTS.rglob("*.py"))
LAYERS = {"unit", "flow", "proof", "gpu", "kit"}
NAME, LINES = 60, 400  # characters, lines


def names_in(path: Path) -> list[str]:
    """Names of the tests in a file."""
    tree = ast.parse(path.read_text("utf-8"))
    found = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [name for name in found if name.startswith("test_")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_names_are_short_and_files_are_not_long(path):
    assert [name for name in names_in(path) if len(name) > NAME] == []
    assert len(path.read_text("utf-8").splitlines()) <= LINES


def test_every_test_is_in_a_layer():
    assert {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")} <= LAYERS - {"kit"}
    rooms = {path.name for path in (TESTS / "unit").iterdir() if path.is_dir() and path.name != "__pycache__"}
    package = {path.parent.name for path in (TESTS.parent / "src" / "ziggurat").glob("*/__init__.py")}
    assert rooms - package == {"hall", "house", "reproduction"}
