"""An explanation as one HTML page: no scripts, nothing from the network, light and dark as the reader's system is."""

from __future__ import annotations

from html import escape

from ziggurat.report.document import document
from ziggurat.report.explained import (
    Explanation,
    Stretch,
    comparison,
    decision,
    departures,
    facts,
    fate,
    likeliest,
    stretches,
)

EARLY, LATE = 0, 270  # hues: red for tokens that left at the first layer, violet at the last

_STYLE = """
.text { font-size: 1.15em; line-height: 2.1; white-space: pre-wrap; overflow-wrap: anywhere; }
.stayed { font-weight: 650; }
.left { background: hsl(var(--hue) var(--paint)); border-radius: .2em; padding: .1em; }
.unread { color: var(--faint); text-decoration: line-through; }
.legend span { margin-right: .3em; }
sub { font-size: .6em; }
"""


def page(explanation: Explanation) -> str:
    """The whole document. Whatever comes from the text, the labels or the model's name is escaped."""
    text = "".join(_span(stretch, explanation["of_layers"]) for stretch in stretches(explanation))
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(fact)}</td></tr>\n" for name, fact in facts(explanation))
    body = f"""<p class="text">{text}</p>
<p class="legend">{_legend(explanation)}</p>
{_rungs(explanation)}
<table>
{rows}</table>
<p>Model: {escape(str(explanation["model"]))}</p>"""
    return document(likeliest(explanation), body, _STYLE)


def _span(stretch: Stretch, layers: int) -> str:
    """A stretch of the text; behind a token that left stands its layer, for not everybody sees the colours."""
    string = escape(stretch.string)
    if not stretch.token:
        return string
    title = escape(stretch.note)
    if stretch.left_at is None:
        return f'<span class="stayed" title="{title}">{string}</span>'
    if stretch.left_at == 0:
        return f'<span class="unread" title="{title}">{string}</span>'
    style = f'style="--hue: {_hue(stretch.left_at, layers)}"'
    return f'<span class="left" {style} title="{title}">{string}<sub>{stretch.left_at}</sub></span>'


def _hue(layer: int, layers: int) -> int:
    return EARLY + round((LATE - EARLY) * (layer - 1) / max(layers - 1, 1))


def _legend(explanation: Explanation) -> str:
    gone = departures(explanation)
    stayed = len(explanation["tokens"]) - sum(gone.values())
    entries = [*gone.items(), (None, stayed)]
    layers = explanation["of_layers"]
    return "\n".join(f"{_span(Stretch(fate(layer), left_at=layer), layers)} {count} &ensp;" for layer, count in entries)


def _rungs(explanation: Explanation) -> str:
    lines = "".join(
        f"<tr><td>{escape(rung['rung'])}</td><td>{escape(comparison(explanation, rung))}</td>"
        f"<td>{escape(decision(rung))}</td><td>{escape(likeliest(rung))}</td></tr>\n"
        for rung in explanation["rungs"]
    )
    head = f"<tr><th>after layer</th><th>{escape(explanation['score'])}</th><th>decision</th><th>says</th></tr>"
    return f"<table>\n{head}\n{lines}</table>"
