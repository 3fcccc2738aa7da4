"""House rules that a program can check: sizes, no output from the library, no state, no pickles, no remote code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ziggurat

SOURCE = Path(ziggurat.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
FILE_LINES, FUNCTION_LINES = 400, 60  # alarms; the house aims at 250 and 40
UNSAFE = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve"}
CONTAINERS = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
MAKERS = {"list", "dict", "set", "defaultdict", "deque", "Counter", "OrderedDict"}
CHANGES = {"append", "add", "update", "pop", "clear", "extend", "insert", "remove", "setdefault", "popitem", "discard"}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def function_lines(function: FUNCTIONS) -> int:
    """Lines from `def` to the end, docstring excluded."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    docstring = first.end_lineno - first.lineno + 1 if has_docstring else 0
    return function.end_lineno - function.lineno + 1 - docstring


def called(node: ast.AST) -> str | None:
    """The name by which a call calls, without what stands before the last dot; None for another node."""
    if not isinstance(node, ast.Call):
        return None
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)


def module_containers(tree: ast.Module) -> set[str]:
    """Names that stand for a list, dictionary or set of the module's own."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and (
            isinstance(node.value, CONTAINERS) or called(node.value) in MAKERS
        ):
            names |= {target.id for target in getattr(node, "targets", None) or [node.target]}
    return names


def changed(tree: ast.Module) -> Iterator[str]:
    """Names whose entries are written, or that are rebound inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            yield getattr(node.value, "id", "")
        elif called(node) in CHANGES and isinstance(node.func, ast.Attribute):
            yield getattr(node.func.value, "id", "")
        elif isinstance(node, ast.Global):
            yield from node.names
        elif isinstance(node, ast.AugAssign):
            yield getattr(node.target, "id", "")


def state_faults(tree: ast.Module) -> set[str]:
    """Module-level containers that are not constants: not in capitals, or changed somewhere in the file."""
    names = module_containers(tree) - {"__all__"}
    return {name for name in names if not name.isupper()} | names & set(changed(tree))


def unsafe_imports(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found & UNSAFE


def remote_code(tree: ast.Module) -> list[int]:
    """Lines where `trust_remote_code` is anything but a plain False."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            lines += [] if isinstance(node.value, ast.Constant) and node.value.value is False else [node.value.lineno]
        elif isinstance(node, ast.Constant) and node.value == "trust_remote_code":
            lines.append(node.lineno)
    return lines


def test_there_is_something_to_look_at():
    assert len(FILES) >= 55


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_keeps_the_house_rules(path):
    tree = tree_of(path)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES
    long = [f.name for f in ast.walk(tree) if isinstance(f, FUNCTIONS) and function_lines(f) > FUNCTION_LINES]
    assert not long
    assert not [node.lineno for node in ast.walk(tree) if called(node) == "print"]
    assert not state_faults(tree)
    assert not unsafe_imports(tree)
    assert not remote_code(tree)


def test_the_rules_can_be_broken():
    tree = ast.parse(
        "import pickle\nfrom dill import x\ncache = {}\nSEEN: list = []\nKEPT = {1: 2}\nALSO = set()\n"
        "def f(a):\n    '''Doc.\n    more\n    '''\n    SEEN.append(a)\n    ALSO.add(a)\n    print(a)\n"
        "    load(a, trust_remote_code=True)\n    load(a, trust_remote_code=False)\n"
    )
    assert state_faults(tree) == {"cache", "SEEN", "ALSO"}
    assert unsafe_imports(tree) == {"pickle", "dill"}
    assert len(remote_code(tree)) == 1
    assert function_lines(tree.body[-1]) == 6
    assert [node.lineno for node in ast.walk(tree) if called(node) == "print"] == [13]
