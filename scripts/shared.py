"""What the scripts of benchmarks/ and reproduction/ share: rows in results/, tables in pages, errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from ziggurat.errors import UserError
from ziggurat.measure import append_record, provenance, read_rows_file
from ziggurat.system import json_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS, DOCS, RUNS = ROOT / "results", ROOT / "docs", ROOT / "runs"
Row = dict[str, Any]


def command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator of a script's `main`: a user's mistake becomes one line on stderr and exit code 2."""

    def decorated(main: Callable[..., None]) -> Callable[..., None]:
        @wraps(main)
        def run(*arguments: Any) -> None:
            try:
                main(*arguments)
            except UserError as error:
                sys.stderr.write(f"{name}: {error}\n")
                sys.exit(2)

        return run

    return decorated


def record(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends each row to the file as soon as it is measured, with its provenance, and prints it without."""
    origin = provenance()
    for row in rows:
        append_record(path, origin | dict(row))
        sys.stdout.write(json_text(row) + "\n")
        sys.stdout.flush()


def stored_rows(path: Path) -> list[Row]:
    """Rows of a file of results, none where the file does not exist."""
    return read_rows_file(path) if path.exists() else []


def reported_file(folder: Path) -> Path:
    """The file of a data folder whose rows are reported: test.jsonl, else validation.jsonl."""
    for name in ("test", "validation"):
        if (path := folder / f"{name}.jsonl").exists():
            return path
    raise UserError(f"{folder}: no test.jsonl or validation.jsonl; name a folder that has one")


def grouped(rows: Iterable[Row], *keys: str) -> list[tuple[tuple[Any, ...], list[Row]]]:
    """Rows with equal values of these keys together, in the order of each group's first row."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(groups.items())


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def filled(page: str, section: str, text: str) -> str:
    """A page with `text` between the comments that begin and end the section."""
    begin, end = f"<!-- {section}:begin -->\n", f"<!-- {section}:end -->\n"
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}{text}{end}{after}"
