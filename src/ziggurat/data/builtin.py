"""The built-in data set: paragraphs of documentation, labelled with an area of Python's standard library.

It needs no download: every CPython carries the texts. They are read from the source files and never imported.
"""

from __future__ import annotations

import ast
import platform
import re
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from ziggurat.data.sources import Rows
from ziggurat.errors import UserError

STDLIB_DOCS = "stdlib-docs"  # the name of this source
WORDS = range(4, 151)  # paragraphs of this many words are kept

# Area → top-level modules. A Python that lacks some of them (3.13 dropped a good few, some Linux packages leave out
# tkinter) has fewer paragraphs. Left out on purpose: idlelib, an application nearly as large as an area, and encodings,
# a hundred times the same generated sentence.
AREAS: Mapping[str, str] = MappingProxyType(
    {
        "concurrency": """_threading_local asyncio concurrent contextvars multiprocessing pty queue sched selectors
            signal subprocess threading""",
        "data": """_collections_abc _pydecimal _strptime bisect calendar collections colorsys copy datetime decimal
            fractions graphlib hashlib heapq hmac numbers pprint random reprlib secrets statistics uuid weakref
            zoneinfo""",
        "files": """_compression _pyio aifc bz2 chunk configparser csv dbm filecmp fileinput fnmatch genericpath glob
            gzip imghdr io linecache lzma netrc nturl2path ntpath os pathlib pickle pickletools plistlib posixpath
            shelve shutil sndhdr sqlite3 stat sunau tarfile tempfile tomllib wave xdrlib zipapp zipfile""",
        "interface": """argparse cmd code curses getopt getpass optparse rlcompleter tkinter tty turtle
            turtledemo""",
        "language": """__future__ _py_abc _sitebuiltins abc ast codeop contextlib copyreg ctypes dataclasses dis enum
            functools imp importlib inspect keyword modulefinder opcode operator pkgutil py_compile pyclbr runpy
            symtable token tokenize types typing zipimport""",
        "network": """asynchat asyncore cgi cgitb ftplib http imaplib ipaddress nntplib poplib smtpd smtplib socket
            socketserver ssl telnetlib urllib webbrowser wsgiref xmlrpc""",
        "text": """_markupbase base64 codecs difflib email gettext html json locale mailbox mailcap mimetypes
            quopri re shlex string stringprep textwrap uu xml""",
        "tools": """_aix_support _osx_support bdb cProfile compileall distutils doctest ensurepip lib2to3 logging pdb
            pipes platform profile pstats pydoc site sysconfig tabnanny timeit trace traceback tracemalloc unittest
            venv warnings""",
    }
)
TEST_FOLDERS = frozenset({"test", "tests"})

PLAIN_WORD = re.compile(r"""[("'`*]*[A-Za-z][a-z]*(?:['/-][A-Za-z]+)*[.,;:!?)"'`*]*""")
COLUMN_GAP = re.compile(r"\S {3,}\S")


def stdlib_docs() -> Rows:
    """About 12,000 distinct paragraphs of docstrings, labelled with their area; the same for the same CPython.

    Raises:
        UserError: this Python comes without the sources of its standard library.
    """
    root = Path(sysconfig.get_path("stdlib"))
    areas: dict[str, set[str]] = {}  # paragraph → the areas it occurs in; keeps the order of the first occurrence
    for area, modules in AREAS.items():
        for module in modules.split():
            for path in _source_files(root, module):
                for paragraph in _paragraphs(path):
                    areas.setdefault(paragraph, set()).add(area)
    labels = {paragraph: found.pop() for paragraph, found in areas.items() if len(found) == 1}
    if not labels:
        raise UserError(f"{STDLIB_DOCS}: no .py files in {root}; use a CPython that comes with its standard library")
    return Rows(list(labels), None, list(labels.values()), f"{STDLIB_DOCS} (CPython {platform.python_version()})")


def _source_files(root: Path, module: str) -> list[Path]:
    """The files of a module or package without its tests; none if this Python has no such module."""
    files = [root / f"{module}.py", *sorted((root / module).rglob("*.py"))]
    return [path for path in files if path.is_file() and TEST_FOLDERS.isdisjoint(path.relative_to(root).parts)]


def _paragraphs(path: Path) -> Iterator[str]:
    """The prose in all docstrings of a file, from the outer definitions to the inner ones."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for block in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                if prose := _prose(block):
                    yield prose


def _prose(block: str) -> str | None:
    """The block on one line, or None if it is no prose: an example, a table, a signature, a formula."""
    lines = [line for line in block.splitlines() if any(map(str.isalnum, line))]  # without rules such as -----
    if any(line.lstrip().startswith((">>>", "...", "#")) for line in lines):
        return None
    if sum(COLUMN_GAP.search(line) is not None for line in lines) > 1:
        return None
    words = " ".join(lines).split()
    plain = sum(PLAIN_WORD.fullmatch(word) is not None for word in words)
    return " ".join(words) if len(words) in WORDS and plain >= max(WORDS[0], 0.6 * len(words)) else None
