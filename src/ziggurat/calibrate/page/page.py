"""A calibration as one HTML page: first the promise, then the figure and its numbers."""

from __future__ import annotations

from html import escape

from ziggurat.calibrate.page import panels as calibration_panels
from ziggurat.calibrate.page.data import Picture
from ziggurat.calibrate.page.figure import frontier_svg
from ziggurat.calibrate.page.panels import panels
from ziggurat.calibrate.page.tables import costly_table, mechanisms_table, promises_table
from ziggurat.calibrate.page.words import axis, bound, confidence, fastest, gain_of, headline
from ziggurat.calibrate.result import Calibration
from ziggurat.report.document import document

_STYLE = """
:root { --soft: #f0f0f0; --blue: #0072b2; --orange: #d55e00; --green: #009e73; --pink: #b5568a; }
@media (prefers-color-scheme: dark) {
  :root { --soft: #262930; --blue: #56b4e9; --orange: #f28e4b; --green: #2fc59a; --pink: #e39ac4; }
}
body { max-width: 66em; }
h1 { font-size: 1.7em; line-height: 1.25; margin: .2em 0; } h1 small { display: block; font-size: .62em;
  font-weight: normal; }
h2 { margin: 2em 0 .3em; font-size: 1.25em; } h3 { margin: 1.6em 0 .2em; }
h4 { margin: .6em 0 0; font-size: .95em; }
svg { width: 100%; height: auto; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.wide { overflow-x: auto; } .wide table { width: 100%; margin: .5em 0; font-size: .95em; }
.note { color: var(--faint); font-size: .9em; margin: .3em 0; }
.excerpt { overflow-wrap: anywhere; }
.wrong { color: var(--orange); }
"""


def page(result: Calibration, picture: Picture) -> str:
    """The whole document; texts, labels and names are escaped.

    `result` is the calibration's result. UserError if matplotlib is not installed.
    """
    targets = {entry.name: entry.target for entry in result.points}
    body = [
        _top(result),
        frontier_svg(picture, targets, axis(result.criterion)),
        _figure_note(result),
        "<h2>What is promised</h2>",
        promises_table(result, picture),
        "<h2>What pays here</h2>",
        mechanisms_table(result, picture),
        _spots(picture),
        f"<h2>The inputs that cost most at {escape(picture.costly_at)}</h2>",
        costly_table(picture),
    ]
    return document(headline(result), "\n".join(body), _STYLE + calibration_panels.STYLE)


def _top(result: Calibration) -> str:
    best = fastest(result)
    if best is None:
        loosest = max(result.points, key=lambda entry: entry.target)
        main, more = "Nothing faster than full depth is promised", f"{loosest.name}: {loosest.note}."
    else:
        main = f"{best.name}: {gain_of(best):.1f}x as fast as full depth"
        more = f"With {confidence(result)} confidence it {bound(result, best.target)}, on texts like these."
    return f"<h1>{escape(main)} <small>{escape(more)}</small></h1>\n<p>{escape(_origin(result))}</p>"


def _origin(result: Calibration) -> str:
    rows, proofs = result.rows, [entry.certificate for entry in result.points if entry.certificate is not None]
    groups = f" in {result.groups:,} groups by the text that they share" if result.grouped else ""
    text = (
        f"Model {result.model}, data {result.data}: {rows.certify:,} rows{groups} certify, "
        f"{rows.order:,} others chose what to test out of {result.settings:,} settings."
    )
    if proofs:
        on = proofs[0]
        threads = f"{on.threads} thread" + ("s" if on.threads != 1 else "")
        text += f" Timed with engine {on.engine}, {on.dtype}, {threads}, batch {on.batch_size}."
    return text


def _figure_note(result: Calibration) -> str:
    sure = confidence(result)
    return f"""<p class="note">Up is better, and left is faster. The curve is the best of all settings that were tried;
the dotted one is the estimate that chose them, on other rows. The shading, and a point's bar, ends where the loss could
still be with {sure} confidence, by the bound that certifies: a point keeps its promise if its bar ends above its dashed
line. Points and full depth stand at their measured time. The curves' speeds against full depth are predicted from this
machine's profile, and a line ties each point to its prediction. With random exits as many texts leave at each rung, but
any of them; the oracle knows the first rung at which each text loses nothing.</p>"""


def _spots(picture: Picture) -> str:
    if not picture.spots:
        return ""
    return """<h2>What the points do</h2>
<p class="note">On the rows that certify. Tokens are those behind each layer, of all that were read, in texts that still
have no answer; the mark is where pruning alone would leave them.</p>
""" + "\n".join(panels(picture, spot) for spot in picture.spots)
