"""`ziggurat seal`: takes an edited model folder as it is now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ziggurat.cli import options as opt
from ziggurat.cli.output import shown

if TYPE_CHECKING:
    from ziggurat.encoder.sealing import Sealing


def seal(model: opt.Model, as_json: opt.Json = False) -> None:
    """Accept an edited model folder, such as one with other names of labels; its certificates are removed."""
    from ziggurat.encoder.sealing import seal_folder

    with shown(as_json, sealing_text) as show:
        show(seal_folder(model))


def sealing_text(result: Sealing) -> str:
    """What people see."""
    if not result.changed:
        return f"{result.model}: nothing has changed since it was written"
    lines = [f"{result.model}: kept as it is now; changed: {', '.join(result.changed)}"]
    if result.uncertified:
        names = ", ".join(result.uncertified)
        lines.append(f"  no longer certified: {names}; run `ziggurat calibrate {result.model}`")
    return "\n".join(lines)
