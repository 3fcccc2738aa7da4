"""Moves modules of the package, or single names, and rewrites all that mention them: imports, dotted names in strings
(`monkeypatch` targets, lazy tables), paths in docs and settings.

usage: move.py OLD=NEW [OLD=NEW ...]   dotted names without `ziggurat.`, such as jobs.watching=calibrate.watching

A module whose new place is taken is appended to what is there: its imports go to the imports, its body to the end. A
package is moved with all its modules. A name (`a.b.Name=c.d.Name`) is only rewritten where it is used: move its
definition by hand, before or after. Run `make format lint` afterwards: it sorts and merges the imports.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "ziggurat"
TEXTS = {".md", ".toml", ".txt", ".cfg", ".yml"}
HISTORY = {"LOG.md", "CHANGELOG.md"}  # what was called so then
NOT_OURS = {"build", "runs", "results"}


class Edit(NamedTuple):
    """Replace these characters of a source, (line, column) from 1 and 0 in bytes, by `text`."""

    start: tuple[int, int]
    end: tuple[int, int]
    text: str


def moved(name: str, moves: Mapping[str, str]) -> str:
    """A dotted name after the moves: the longest part of it that is moved decides."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if (found := moves.get(".".join(parts[:length]))) is not None:
            return ".".join([found, *parts[length:]])
    return name


def _dotted(node: ast.AST) -> str | None:
    """`a.b.c` of nested attributes; None for another expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value)) is not None:
        return f"{before}.{node.attr}"
    return None


def _alias(name: str, new: str, local: str | None) -> str:
    """`new`, under the name by which the file knows it."""
    known = local or name
    return new if new == known else f"{new} as {known}"


def _import_from(node: ast.ImportFrom, moves: Mapping[str, str]) -> str | None:
    """The statement after the moves; None where nothing changes."""
    homes: dict[str, list[str]] = {}
    for alias in node.names:
        before = f"{node.module}.{alias.name}"
        after = moved(before, moves) if alias.name != "*" else f"{moved(node.module or '', moves)}.*"
        home, _, name = after.rpartition(".")
        homes.setdefault(home, []).append(_alias(alias.name, name, alias.asname))
    if list(homes) == [node.module] and all(alias.name in homes[node.module or ""] for alias in node.names):
        return None
    indent = " " * node.col_offset
    return f"\n{indent}".join(f"from {home} import {', '.join(names)}" for home, names in homes.items())


def edits_of(source: str, moves: Mapping[str, str]) -> Iterator[Edit]:
    """What changes in a Python source."""
    inner: set[int] = set()  # parts of dotted names that were looked at as a whole
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and _dotted(node) is not None:
            inner |= {id(part) for part in ast.walk(node)} - {id(node)}
        if id(node) not in inner and (text := _replacement(node, source, moves)) is not None:
            end = node.end_lineno, node.end_col_offset  # type: ignore[attr-defined]
            yield Edit((node.lineno, node.col_offset), end, text)  # type: ignore[attr-defined]


def _replacement(node: ast.AST, source: str, moves: Mapping[str, str]) -> str | None:
    """What stands in this node's place after the moves; None where nothing changes."""
    if isinstance(node, ast.ImportFrom):
        return _import_from(node, moves) if (node.module or "").split(".")[0] == PACKAGE else None
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        before = ast.get_source_segment(source, node) or ""
        after = in_text(before, moves)
    else:
        before = node.name if isinstance(node, ast.alias) else _dotted(node) or ""
        after = moved(before, moves) if before.startswith(f"{PACKAGE}.") else before
    local = f" as {node.asname}" if isinstance(node, ast.alias) and node.asname else ""
    return None if after == before else after + local


def in_text(text: str, moves: Mapping[str, str]) -> str:
    """A text in which dotted names and paths of modules are those after the moves."""
    text = re.sub(rf"\b{PACKAGE}(\.\w+)+", lambda match: moved(match[0], moves), text)
    for old in sorted(moves, key=len, reverse=True):
        before, after = (name.removeprefix(f"{PACKAGE}.").replace(".", "/") for name in (old, moves[old]))
        # A single word is a path only behind the package's folder, or where code begins with it.
        single = "" if "/" in before else rf"(?:(?<=src/{PACKAGE}/)|(?<=`)(?=\w+/))"
        text = re.sub(rf"(?<![\w.-])(?<![\w.-]/)(src/{PACKAGE}/)?{single}{before}(?![\w-])", rf"\g<1>{after}", text)
    return text


def applied(source: str, edits: Iterator[Edit]) -> str:
    """A source with its edits made."""
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    content = b"".join(lines)
    for edit in sorted(set(edits), reverse=True):
        begin, end = (starts[line - 1] + column for line, column in (edit.start, edit.end))
        content = content[:begin] + edit.text.encode() + content[end:]
    return content.decode()


def appended(target: str, source: str) -> str:
    """A module with another's imports and body behind its own; its docstring goes."""
    lines, added = target.splitlines(keepends=True), source.splitlines(keepends=True)
    imports, body = _imports_end(target), _imports_end(source)
    start = _docstring_end(source)
    return "".join([*lines[:imports], *added[start:body], *lines[imports:], "\n\n", *added[body:]])


def _docstring_end(source: str) -> int:
    """How many lines stand before the first statement behind the docstring."""
    tree = ast.parse(source)
    return tree.body[0].end_lineno or 0 if ast.get_docstring(tree) is not None else 0


def _imports_end(source: str) -> int:
    """How many lines stand before the first statement that neither is the docstring nor imports."""
    end = _docstring_end(source)
    for node in ast.parse(source).body:
        types_only = isinstance(node, ast.If) and _dotted(node.test) == "TYPE_CHECKING"
        if isinstance(node, ast.Import | ast.ImportFrom) or types_only:
            end = node.end_lineno or end
        elif not isinstance(node, ast.Expr):
            break
    return end


def without_imports_of_itself(source: str, module: str) -> str:
    """A merged module without imports from itself."""
    imports = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.module == module
    ]
    renamed = [alias.asname for node in imports for alias in node.names if alias.asname]
    if renamed:
        raise SystemExit(f"{module}: takes {', '.join(renamed)} from itself under other names; rename them first")
    edits = (Edit((n.lineno, n.col_offset), (n.end_lineno or 0, n.end_col_offset or 0), "") for n in imports)
    return applied(source, edits)


def file_of(root: Path, name: str) -> Path:
    """Where a dotted module stands, or would stand."""
    path = root.joinpath("src", *name.split("."))
    return path if path.is_dir() else path.with_suffix(".py")


def move_files(root: Path, moves: Mapping[str, str]) -> None:
    """Puts the files of all modules and packages among the moves into their places."""
    for old, new in moves.items():
        source, target = file_of(root, old), root.joinpath("src", *new.split("."))
        if source.is_dir():
            for path in sorted(source.rglob("*.py")):
                part = path.relative_to(source).with_suffix("")
                if part.name != "__init__" or not (target / "__init__.py").exists():
                    _put(path, target / part.with_suffix(".py"))
                else:
                    path.unlink()
        elif source.is_file():
            _put(source, target.with_suffix(".py"))


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.write_text(appended(target.read_text("utf-8"), source.read_text("utf-8")), "utf-8")
        source.unlink()
    else:
        source.rename(target)


def _rewritten(root: Path) -> Iterator[Path]:
    """The files below `root` that may mention a module."""
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if parts[0] in NOT_OURS or parts[0].startswith(".") or path.name in HISTORY:
            continue
        if path.is_file() and (path.suffix in TEXTS | {".py"} or path.name == "Makefile"):
            yield path


def move(root: Path, moves: Mapping[str, str]) -> list[Path]:
    """Makes all moves below `root`; the files that changed. Names are dotted, with the package before them."""
    move_files(root, moves)
    changed = []
    for path in _rewritten(root):
        before = path.read_text("utf-8")
        after = applied(before, edits_of(before, moves)) if path.suffix == ".py" else in_text(before, moves)
        if path.suffix == ".py" and path.is_relative_to(root / "src"):
            module = ".".join(path.relative_to(root / "src").with_suffix("").parts)
            after = without_imports_of_itself(after, module)
        if after != before:
            path.write_text(after, "utf-8")
            changed.append(path)
    return changed


def main(arguments: list[str]) -> None:
    """The command."""
    pairs = [argument.split("=") for argument in arguments]
    if not pairs or any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise SystemExit(__doc__)
    moves = {f"{PACKAGE}.{old}": f"{PACKAGE}.{new}" for old, new in pairs}
    for path in move(ROOT, moves):
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
