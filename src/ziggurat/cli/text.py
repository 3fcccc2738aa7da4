"""Text that several commands show: an operating point and what certifies it, a table of result rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ziggurat.types import OperatingPoint


def point_line(point: OperatingPoint, unit: str) -> str:
    """Where an operating point exits, how much it prunes, what it may lose and what certifies it."""
    given = [threshold for threshold in point.thresholds if threshold is not None]
    limits = "-".join(dict.fromkeys(f"{limit:.4g}" for limit in (min(given), max(given)))) if given else ""
    exits = f"{point.score} {limits}" if given else "full depth"
    strength = {0.0: ", nothing pruned", 1.0: ""}.get(point.pruning, f", pruning x {point.pruning:g}")
    return f"{exits}{strength}, to lose at most {100 * (point.target or 0):g} {unit} ({certificate_text(point)})"


def certificate_text(point: OperatingPoint) -> str:
    """What certifies an operating point."""
    proof = point.certificate
    if proof is None or point.confidence is None:
        return "chosen, not certified; see `ziggurat calibrate`"
    return (
        f"{proof.criterion}, {100 * point.confidence:g} % by {rows_text(proof.rows, proof.groups)}, {proof.gain:.2f}x "
        f"in {proof.dtype}, batch {proof.batch_size}"
    )


def rows_text(rows: int, groups: int | None) -> str:
    """The number of rows, and of the groups that they were drawn in."""
    return f"{rows:,} rows" + ("" if groups is None else f" in {groups:,} groups")


def result_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Result rows as an aligned table."""
    from ziggurat.report.tables import aligned, result_columns

    return aligned(rows, result_columns(rows)).rstrip()


def figure_lines(figures: Sequence[Path]) -> list[str]:
    """Where a command's figures are; nothing where it drew none."""
    return [f"figure  {', '.join(map(str, figures))}"] if figures else []
