"""What the analyses share: their options, and the text of a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ziggurat.analyses.reporting import Report

Models = Annotated[list[str], typer.Argument(metavar="MODEL...", help="Model folders.")]
OneModel = Annotated[str, typer.Argument(metavar="MODEL", help="Model folder.")]
Folder = Annotated[
    Path, typer.Option("--out", help="Folder for the table (.md, .csv) and the figure (.png, .svg); replaced there.")
]
Names = Annotated[
    list[str] | None, typer.Option("--name", help="What to call a model; once for each (default: its folder's name).")
]
Taus = Annotated[str, typer.Option(help="Entropy thresholds, comma-separated.")]
Timed = Annotated[
    int,
    typer.Option("--texts", help="How many texts are timed, where time is measured; all else is of all rows.", min=1),
]
Buckets = Annotated[str, typer.Option(help="Last length of each bucket but the last, in tokens, comma-separated.")]

_LONGEST_TABLE = 40  # rows of a report's further tables that a terminal shows


def report_text(result: Report) -> str:
    """What people see of a report."""
    from ziggurat.report.columns import filled
    from ziggurat.report.tables import aligned

    lines = [result.title, "", aligned(result.rows, filled(result.kind, result.rows))]
    for part in result.parts:
        if len(part.rows) <= _LONGEST_TABLE:  # a longer one would push all else off the screen; it is in its file
            lines += [part.heading, "", aligned(part.rows, filled(part.kind(result.kind), part.rows))]
    return "\n".join([*lines, *result.notes, *map(str, result.files)])
