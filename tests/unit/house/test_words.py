"""House rules of language: finds words that no engineer would say at a whiteboard, and pronouns used as names.

Prose is what people read: comments, docstrings, texts with blanks in the code, and the Markdown pages. Names are those
that a file defines: variables, parameters, functions, classes and attributes.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[3]
PYTHON = ("src", "scripts", "benchmarks", "reproduction", "examples")
PAGES = ("README.md", "CONTRIBUTING.md", "docs", "benchmarks", "reproduction", "scripts", "tests")

# Persons for data, archaic or literary words, and phrases that have to be decoded. The plain word stands beside each.
WORDS = {
    r"nobody|no one": "none; no row, no input",
    r"every(body|one)|any(body|one)": "all; all inputs",
    r"some(body|one)": "a user, another program",
    r"who(m|so)?ever": "the caller, code that",
    r"\w*manieth": "index, position",
    r"he|she|him|his|her|hers": "it, the user",
    r"hears?|heard": "receives, gets, history",
    r"vouch(es|ed|ing)?": "certifies, guarantees",
    r"daring": "aggressive",
    r"(mine|theirs|ours|yours)": "name the thing",
    r"sa(ys|id|y|ying) (of|to)": "means, records",
    r"who (leaves?|left|exits?|stays?|answers?|asks?|comes?)": "inputs that leave",
    r"(which|that|inputs?|tokens?) of whom|whose own": "name the thing",
    r"mends?|mended": "fix",
    r"behold|between whiles|lest|where(in|of|by|upon)|there(of|in|upon|from)|here(in|of)": "plain clauses",
    r"in the company of|in whose company|keeps? company": "in the same batch",
    r"may(be)? not be trusted|for ever": "plain words",
    r"as much as nothing|the more so|so much as|all the same": "plain words",
    r"be(comes?|came) of": "happens to",
    r"ask(s|ed)? (it|them|him) ": "call, query",
    r"the one that asks|the asked|the asking": "the caller",
}
PROSE = re.compile("|".join(rf"(?<![\w'-])(?:{word})(?![\w'-])" for word in WORDS), re.IGNORECASE)

# Pronouns, quantifiers and lone participles: they say nothing about what a variable holds.
_PRONOUNS = """
    mine theirs ours yours own some one ones every each everybody everything nobody nothing somebody something anything
    anybody whoever several whole said says heard hears left kept asked asks seen sees tried told spent gone taken
    stays goes who whom whose what which this that these those others both either neither they them it itself
    here there thing things stuff
"""
NAMES = frozenset(_PRONOUNS.split())


class Fault(NamedTuple):
    """A word or a name, and the line where it stands."""

    line: int
    word: str


def banned_in(text: str, first_line: int) -> Iterator[Fault]:
    """The banned words of a text that starts on line `first_line`. Code in backquotes is not prose."""
    prose = re.sub(r"`[^`\n]*`", lambda code: " " * len(code[0]), text)
    for match in PROSE.finditer(prose):
        yield Fault(first_line + prose[: match.start()].count("\n"), match[0])


def banned_words(source: str) -> Iterator[Fault]:
    """Banned words in comments, docstrings and texts of a Python source. A text without a blank is a key or a name."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from banned_in(token.string, token.start[0])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield from banned_in(node.value, node.lineno)


def defined_names(tree: ast.AST) -> Iterator[Fault]:
    """Names that a source defines: variables, parameters, functions, classes, attributes that it sets."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield Fault(node.lineno, node.id)
        elif isinstance(node, ast.arg):
            yield Fault(node.lineno, node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield Fault(node.lineno, node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield Fault(node.lineno, node.attr)
        elif isinstance(node, ast.alias) and node.asname:
            yield Fault(node.lineno, node.asname)


def banned_names(source: str) -> Iterator[Fault]:
    """Pronouns among the names that a source defines; a leading underscore or capitals do not excuse them."""
    for fault in defined_names(ast.parse(source)):
        if fault.word.strip("_").lower() in NAMES:
            yield fault


def faults_of(path: Path) -> list[Fault]:
    """All faults of a Python file or a Markdown page, by line."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return sorted({*banned_words(text), *banned_names(text)})
    return sorted(banned_in(re.sub(r"^```.*?^```", lambda c: "\n" * c[0].count("\n"), text, flags=re.M | re.S), 1))


def files() -> list[Path]:
    """All Python files and pages that the rules are for."""
    python = [path for folder in PYTHON for path in (ROOT / folder).rglob("*.py")]
    pages = [
        path for name in PAGES for path in ([ROOT / name] if name.endswith(".md") else (ROOT / name).rglob("*.md"))
    ]
    return sorted(path for path in {*python, *pages} if path.exists())


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_is_written_in_plain_words(path):
    """A fault gives the line and the word; `WORDS` has the plain one."""
    assert not faults_of(path)


def test_the_rules_of_words_can_be_broken():
    source = (
        '"""Nobody leaves here."""\n'
        "def kept(own, other):  # who leaves is heard\n"
        "    'no text of people'\n"
        "    fine = 'nobody'\n"
        "    self.said = f'{own} is for whoever asks'\n"
        "    return lambda mine: [one for one in `theirs`]\n".replace("`", "")
    )
    assert [fault.word for fault in sorted(banned_words(source))] == ["Nobody", "heard", "who leaves", "whoever"]
    assert [fault.word for fault in sorted(banned_names(source))] == ["kept", "own", "said", "mine", "one"]


def test_code_in_backquotes_and_keys_are_not_prose():
    assert not list(banned_words("KEY = 'theirs'\n'''The key `theirs` of a row.'''\n"))
