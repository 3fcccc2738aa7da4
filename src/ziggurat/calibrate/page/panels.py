"""Panels of an operating point as HTML: bars for exits and tokens, shaded cells for errors."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from ziggurat.calibrate.page.data import Deciles, Picture, Spot

STYLE = """
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(19em, 1fr)); gap: 0 2.5em; }
.bars { width: 100%; margin: .3em 0 1em; }
.bars th, .bars td { border: none; padding: .1em .6em .1em 0; white-space: nowrap; font-weight: normal; }
.bars td:last-child { width: 100%; }
.bar { display: block; position: relative; height: .85em; margin-top: .35em; background: var(--soft); }
.bar i { position: absolute; inset: 0 auto 0 0; width: var(--share); background: var(--blue); }
.bar b { position: absolute; inset: -.15em auto -.15em var(--share); width: 2px; background: var(--orange); }
.heat { margin: .3em 0 .5em; width: 100%; }
.heat td { text-align: right; padding: .25em .5em; border: 1px solid var(--back); font-size: .9em;
  background: color-mix(in srgb, var(--shade) var(--share), var(--soft)); }
.heat th { font-weight: normal; border: none; padding-right: .8em; }
.heat thead th { text-align: right; padding: .1em .5em; color: var(--faint); font-size: .85em; }
.corrected { --shade: var(--orange); } .added { --shade: var(--green); } .early { --shade: var(--blue); }
"""


def panels(picture: Picture, spot: Spot) -> str:
    """A point's exits, tokens and errors."""
    return f"""<section>
<h3>{escape(spot.name)}</h3>
<div class="panels">
<div><h4>Where texts leave</h4>
{_exits(picture.rungs, spot)}</div>
<div><h4>Tokens that are left behind each layer</h4>
{_tokens(spot)}</div>
</div>
<h4>{_errors_title(spot)}</h4>
{_heat(spot.deciles)}
<p class="note">Ten groups of equal size by {escape(spot.sorted_by)}, the least sure on the left. Cells are shares
of all texts, in %.</p>
</section>"""


def _exits(rungs: Sequence[str], spot: Spot) -> str:
    rows = [
        f"<tr><th>{escape(name)}</th><td>{100 * share:.1f} %</td><td>{_bar(share)}</td></tr>"
        for name, share in zip(rungs, spot.exits, strict=True)
    ]
    return _table("bars", rows)


def _tokens(spot: Spot) -> str:
    """Bars of the computed tokens, with a mark for pruning without exits."""
    rows = [
        f"<tr><th>layer {layer}</th><td>{100 * computed:.1f} %</td><td>{_bar(computed, pruned)}</td></tr>"
        for layer, (computed, pruned) in enumerate(zip(spot.tokens.computed, spot.tokens.pruned, strict=True), start=1)
    ]
    return _table("bars", rows)


def _bar(share: float, mark: float | None = None) -> str:
    at = "" if mark is None else f'<b style="--share: {100 * mark:.2f}%" title="without exits {100 * mark:.1f} %"></b>'
    return f'<span class="bar"><i style="--share: {100 * share:.2f}%"></i>{at}</span>'


def _errors_title(spot: Spot) -> str:
    if spot.deciles.corrected is None:
        return "Answers that differ from full depth's, by confidence"
    return "Errors that full depth would have corrected, and errors that it would have added, by confidence"


def _heat(groups: Deciles) -> str:
    if groups.corrected is None or groups.added is None:
        lines = [("corrected", "differs from full depth", groups.differs)]
    else:
        lines = [
            ("corrected", "would have corrected", groups.corrected),
            ("added", "would have added", groups.added),
        ]
    largest = max(float(values.max()) for _, _, values in lines)
    rows = [_heat_row(kind, name, values, largest) for kind, name, values in lines]
    rows.append(_heat_row("early", "left before full depth", groups.early, 1 / len(groups.early)))
    numbers = "".join(f"<th>{number}</th>" for number in range(1, len(groups.early) + 1))
    return _table("heat", rows, f"<thead><tr><th></th><th>all</th>{numbers}</tr></thead>")


def _heat_row(kind: str, name: str, values: np.ndarray, largest: float) -> str:
    """Shading ends at 80 %, so that text stays readable on the darkest cell."""
    shades = 80 * values / largest if largest else np.zeros(len(values))
    cells = "".join(
        f'<td style="--share: {shade:.0f}%">{100 * value:.2f}</td>' for value, shade in zip(values, shades, strict=True)
    )
    return f'<tr class="{kind}"><th>{name}</th><th>{100 * values.sum():.2f}</th>{cells}</tr>'


def _table(kind: str, rows: Sequence[str], head: str = "") -> str:
    return f'<table class="{kind}">{head}<tbody>\n' + "\n".join(rows) + "\n</tbody></table>"
