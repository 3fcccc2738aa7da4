"""A calibration as one HTML page: what is promised first, then the figure and the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ziggurat.report import calibration_panels
from ziggurat.report.calibration_data import Costly, Mechanism, Picture
from ziggurat.report.calibration_figure import frontier_svg
from ziggurat.report.calibration_panels import panels
from ziggurat.report.calibration_words import (
    against,
    amount,
    axis,
    bound,
    confidence,
    fastest,
    headline,
    is_faster,
    promise,
    speed,
)
from ziggurat.report.document import document

_LONGEST = 200  # characters of a text that are shown

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


def page(result: Mapping[str, Any], picture: Picture) -> str:
    """The whole document. `result` is what the calibration returned; whatever comes from texts, labels, or names is
    escaped. UserError where matplotlib is not installed.
    """
    targets = {entry["name"]: entry["target"] for entry in result["points"]}
    body = "\n".join(
        [
            _top(result),
            frontier_svg(picture, targets, axis(result["criterion"])),
            _figure_note(result),
            "<h2>What is promised</h2>",
            _promises(result, picture),
            "<h2>What pays here</h2>",
            _mechanisms(result, picture),
            *(["<h2>What the operating points do</h2>", _legend()] if picture.spots else []),
            *(panels(picture, spot) for spot in picture.spots),
            f"<h2>The inputs that cost most at {escape(picture.costly_at)}</h2>",
            _costly(picture),
            f'<p class="note">{_origin(result)}</p>',
        ]
    )
    return document(headline(result), body, _STYLE + calibration_panels.STYLE)


def _top(result: Mapping[str, Any]) -> str:
    best = fastest(result)
    if best is None:
        main, more = "Nothing faster than full depth is promised", "Every point below is full depth, or none."
    else:
        gain = best["point"]["certificate"]["gain"]
        main = f"{best['name']}: {gain:.1f}x as fast as full depth"
        more = f"With {confidence(result)} confidence it {bound(result, best['target'])} on texts like these."
    return f"<h1>{escape(main)} <small>{escape(more)}</small></h1>\n<p>{_origin(result)}</p>"


def _origin(result: Mapping[str, Any]) -> str:
    rows, made = result["rows"], [one["point"] for one in result["points"] if one["point"] is not None]
    text = (
        f"Model {result['model']}, data {result['data']}: {rows['certify']:,} rows certify, {rows['order']:,} others "
        f"ordered what was tested ({result['settings']:,} settings)."
    )
    if made:
        on = made[0]["certificate"]
        text += f" Timed with engine {on['engine']}, {on['dtype']}, {on['threads']} threads, batch {on['batch_size']}."
    return escape(text)


def _figure_note(result: Mapping[str, Any]) -> str:
    return f"""<p class="note">Times of curves are predicted from this machine's profile; those of operating points and of
full depth were measured, and a line ties a point to its prediction. Up is better. Shaded, and the bars of points: the
mean loss lies there with {confidence(result)} confidence at either end, by the bound that certifies; the ends of a point's
own promise are the dashed lines. Random exits let as many texts leave at each rung, but any. The oracle lets each text
leave at the first rung that loses nothing.</p>"""


def _promises(result: Mapping[str, Any], picture: Picture) -> str:
    accuracy = {spot.name: spot.accuracy for spot in picture.spots}
    head = ["point", "promise", "rows", f"loss seen ({_unit(result)})", "accuracy", "speed, measured", "ms", "predicted"]
    rows = []
    for entry in result["points"]:
        seen = None if entry["point"] is None else entry["point"]["certificate"]
        share = accuracy.get(entry["name"], picture.full_accuracy)
        note = "" if entry["note"] is None else f'<br><span class="note">{escape(entry["note"])}</span>'
        rows.append(
            [
                f"<b>{escape(entry['name'])}</b>",
                escape(promise(result, entry)) + note,
                "–" if seen is None else f"{seen['rows']:,}",
                "–" if seen is None else f"{100 * seen['estimate']:.2f}",
                "–" if seen is None or share is None else f"{share:.2%}",
                escape(speed(entry)),
                "–" if seen is None else f"{seen['measured_ms']:.3g}",
                "–" if seen is None or not is_faster(entry) else f"{seen['predicted_ms']:.3g}",
            ]
        )
    return _table(head, rows, numbers=range(2, 8))


def _unit(result: Mapping[str, Any]) -> str:
    return "points" if result["criterion"] == "accuracy" else "%"


def _mechanisms(result: Mapping[str, Any], picture: Picture) -> str:
    target = max((entry["target"] for entry in result["points"]), default=0.0)
    full = next((one.ms for one in picture.mechanisms if one.ms is not None), None)
    rows = [[escape(one.name), *_times(one, full), escape(_why(one))] for one in picture.mechanisms]
    return (
        f'<p class="note">The fastest setting of each kind that is expected to keep {escape(amount(result["criterion"], target))},'
        " by predicted time: before anything is certified.</p>\n"
        + _table(["kind", "ms", "speed", ""], rows, numbers=(1, 2))
    )


def _times(one: Mechanism, full: float | None) -> tuple[str, str]:
    if one.ms is None or full is None:
        return "–", "–"
    return f"{one.ms:.3g}", f"{full / one.ms:.2f}x"


def _why(one: Mechanism) -> str:
    if one.why is not None:
        return one.why
    return f"leaves after {', '.join(one.asked)}" if one.asked else ""


def _legend() -> str:
    return """<p class="note">On the rows that certify. Bars of layers: tokens that are left of all that were read, in texts that
have no answer yet; the mark is where pruning alone would leave them.</p>"""


def _costly(picture: Picture) -> str:
    labelled = any(one.label is not None for one in picture.costly)
    head = ["text", "tokens", "kept", "leaves after", "GFLOPs", "answer", *(["label"] if labelled else [])]
    rows = [_costly_row(one, labelled) for one in picture.costly]
    return (
        f'<p class="note">A text costs {picture.mean_gflops:.3g} GFLOPs there on average.</p>\n'
        + _table(head, rows, numbers=(1, 2, 4))
    )


def _costly_row(one: Costly, labelled: bool) -> list[str]:
    text = one.text if len(one.text) <= _LONGEST else one.text[:_LONGEST] + " …"
    wrong = one.label is not None and one.label != one.answer
    return [
        f'<span class="excerpt">{escape(text)}</span>',
        str(one.read),
        str(one.kept),
        f"layer {one.layer}",
        f"{one.gflops:.3g}",
        f'<span class="wrong">{escape(one.answer)}</span>' if wrong else escape(one.answer),
        *([escape(str(one.label))] if labelled else []),
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """`head` is text, cells are HTML; columns `numbers` stand flush right."""
    flush = set(numbers)
    kinds = [' class="number"' if place in flush else "" for place in range(len(head))]
    titles = "".join(f"<th{kind}>{escape(title)}</th>" for title, kind in zip(head, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>\n"
        for row in rows
    )
    return f'<div class="wide"><table>\n<tr>{titles}</tr>\n{body}</table></div>'
