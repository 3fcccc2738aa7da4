"""`ziggurat demo`: from nothing to a trained model, a table and a figure, on built-in data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.output import shown, ticker
from ziggurat.cli.text import result_table

if TYPE_CHECKING:
    from ziggurat.analyses.demonstration import Demonstration


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model, the table and the figure.")] = Path("runs/demo"),
    device: opt.Device = "auto",
    as_json: opt.Json = False,
) -> None:
    """Train an early-exit classifier on the built-in data and show what it saves. A few minutes on 2 cores."""
    from ziggurat.analyses.demonstration import demonstrate

    with shown(as_json, demonstration_text) as show, ticker() as tick:
        show(demonstrate(out, device, tick))


def demonstration_text(result: Demonstration) -> str:
    """What people see."""
    return "\n".join(
        [
            "",
            result_table([row.to_dict() for row in result.rows]),
            "",
            f"{result.n_test:,} test paragraphs of Python's own documentation, labelled with their area; "
            "gains are over the full depth of Ziggurat's own engine.",
            f"table   {result.table}",
            f"figure  {result.figure}",
            f"model   {result.model}   ({result.seconds:.0f} s in all)",
            "",
            "Classify your own sentences:",
            f"  ziggurat predict {result.model} 'Return the sine of x.' 'Wait until the thread terminates.'",
        ]
    )
