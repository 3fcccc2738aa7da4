"""An explanation as one HTML page, without scripts or network access, in the system's light or dark colours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING

from ziggurat.report.document import document
from ziggurat.system import legible

if TYPE_CHECKING:  # the command line loads this module before numpy
    from ziggurat.explain.record import Answered, Explanation, PruningShown, RungDecision, TokenFate

SHOWN_LABELS = 2
CUT = "…"


@dataclass(frozen=True)
class Stretch:
    """Characters of the text, with the fate of their token; word pieces follow without a gap."""

    string: str
    token: bool = True  # False = text between tokens
    left_at: int | None = None  # layer that dropped it; 0 = not read, None = stayed
    note: str = ""  # its pieces and scores, shown on hover


def stretches(explanation: Explanation) -> list[Stretch]:
    """The user's text with its special tokens, in order; a text that was cut ends with `CUT`."""
    sides = [explanation.text] if isinstance(explanation.text, str) else list(explanation.text)
    found: list[Stretch] = []
    side, begin, cursor = None, 0, 0  # the side being read; where its latest stretch begins and ends
    for token in explanation.tokens:
        if token.side is None or token.side != side:
            if side is not None and explanation.truncated and sides[side][cursor:].strip():
                found.append(Stretch(f" {CUT}", token=False))
            found += [Stretch(" ", token=False)] if found else []
            side, cursor = token.side, 0
        if side is None:
            found.append(Stretch(legible(token.piece), True, token.left_at, _note(token)))
            continue
        start, end = token.start or 0, token.end or 0
        if start < cursor:  # several tokens of one character, such as a Korean syllable's letters
            cursor = max(cursor, end)
            found[-1] = _joined(found[-1], legible(sides[side][begin:cursor]), token)
            continue
        gap = legible(sides[side][cursor:start])
        found += [Stretch(gap if cursor else gap.lstrip(), token=False)] if gap.strip() or (gap and cursor) else []
        found.append(Stretch(legible(sides[side][start:end]), True, token.left_at, _note(token)))
        begin, cursor = start, end
    return found


def _joined(stretch: Stretch, string: str, token: TokenFate) -> Stretch:
    """Adds a token of the same characters to a stretch; characters stay as long as any of their tokens."""
    layers = [at for at in (stretch.left_at, token.left_at) if at is not None]
    later = max(layers) if len(layers) == 2 else None
    return replace(stretch, string=string, left_at=later, note=f"{stretch.note}\n{_note(token)}")


def _note(token: TokenFate) -> str:
    scores = "".join(f", {step.score:.3f} at layer {step.layer}" for step in token.scores)
    return f"{token.piece}: {fate(token.left_at)}{scores}"


def fate(left_at: int | None) -> str:
    """The fate of a token as text."""
    return "stayed" if left_at is None else f"left at layer {left_at}" if left_at else "not read"


def departures(explanation: Explanation) -> dict[int, int]:
    """Number of tokens dropped at each layer where any was, 0 = not read, in rising order."""
    places = [token.left_at for token in explanation.tokens if token.left_at is not None]
    return {layer: places.count(layer) for layer in sorted(set(places))}


def comparison(explanation: Explanation, rung: RungDecision) -> str:
    """The comparison of a rung's score with its threshold: "0.41 > 0.30"; the score alone without a threshold."""
    score, threshold = math.nan if rung.score is None else float(rung.score), rung.threshold
    if threshold is None:
        return f"{score:.2f}"
    sign = {(True, True): ">=", (True, False): "<", (False, True): "<=", (False, False): ">"}
    threshold = float(threshold)
    # Two digits, or more if the numbers would look equal.
    digits = next((n for n in (2, 3, 4, 6, 8) if f"{score:.{n}f}" != f"{threshold:.{n}f}"), 2)
    return f"{score:.{digits}f} {sign[explanation.larger_is_surer, rung.leaves]} {threshold:.{digits}f}"


def decision(rung: RungDecision) -> str:
    """The decision of the rung."""
    return "stays" if not rung.leaves else "answers, for it is the last" if rung.threshold is None else "leaves"


def likeliest(answer: Answered) -> str:
    """The most likely labels: "World 0.62, Business 0.30"; the number of a regression, or the answer to a question."""
    if "probabilities" not in answer:
        if isinstance(answer["label"], str):
            return legible(answer["label"]) or "(no answer)"
        return f"{answer['label']:.4g}"
    ordered = sorted(answer["probabilities"].items(), key=lambda item: -item[1])[:SHOWN_LABELS]
    return ", ".join(f"{legible(label)} {share:.2f}" for label, share in ordered)


def facts(explanation: Explanation) -> Iterator[tuple[str, str]]:
    """The answer and its cost, as pairs of name and fact."""
    dropped, total = departures(explanation), len(explanation.tokens)
    ratio = explanation.flops_ratio
    change = f"{ratio:.2f}x fewer" if ratio >= 1 else f"{1 / ratio:.2f}x more"
    agreement = "the same answer" if explanation.agrees else "another answer"
    yield "answer", likeliest(explanation.answer)
    if (shown := explanation.windows) is not None:
        place = f"characters {shown.start}-{shown.end} of the text"
        yield "window", f"{shown.shown} of {shown.of}, {place}; a rung's score is that of the least sure window"
    yield "layers", f"{explanation.layers} of {explanation.of_layers} ran, at {explanation.operating_point}"
    if explanation.layers:  # a small tier has no layers
        cut = "; the text was cut" * explanation.truncated
        yield "tokens", f"{total - sum(dropped.values())} of {total} stayed{cut}"
    if explanation.pruning is not None:
        yield "pruning", _pruning(explanation.pruning)
    yield "FLOPs", f"{explanation.flops / 1e9:.3g} of {explanation.full_flops / 1e9:.3g} G, {change}"
    yield "full depth", f"{agreement}: {likeliest(explanation.full)}"


def _pruning(pruning: PruningShown) -> str:
    values = ", ".join("–" if value is None else f"{float(value):.3g}" for value in pruning.thresholds.values())
    return f"{pruning.kind} on {pruning.score} attention, by layer: {values}"


EARLY, LATE = 0, 270  # hues: red for tokens dropped at the first layer, violet at the last

_STYLE = """
.text { font-size: 1.15em; line-height: 2.1; white-space: pre-wrap; overflow-wrap: anywhere; }
.stayed { font-weight: 650; }
.left { background: hsl(var(--hue) var(--paint)); border-radius: .2em; padding: .1em; }
.unread { color: var(--faint); text-decoration: line-through; }
.legend span { margin-right: .3em; }
sub { font-size: .6em; }
"""


def page(explanation: Explanation) -> str:
    """The whole document. The text, the labels and the model's name are escaped."""
    text = "".join(_span(stretch, explanation.of_layers) for stretch in stretches(explanation))
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(fact)}</td></tr>\n" for name, fact in facts(explanation))
    body = f"""<p class="text">{text}</p>
<p class="legend">{_legend(explanation)}</p>
{_rungs(explanation)}
<table>
{rows}</table>
<p>Model: {escape(str(explanation.model))}</p>"""
    return document(likeliest(explanation.answer), body, _STYLE)


def _span(stretch: Stretch, layers: int) -> str:
    """A stretch of the text. A dropped token is followed by its layer, for readers who cannot see the colours."""
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
    dropped = departures(explanation)
    stayed = len(explanation.tokens) - sum(dropped.values())
    entries = [*dropped.items(), (None, stayed)]
    layers = explanation.of_layers
    return "\n".join(f"{_span(Stretch(fate(layer), left_at=layer), layers)} {count} &ensp;" for layer, count in entries)


def _rungs(explanation: Explanation) -> str:
    lines = "".join(
        f"<tr><td>{escape(rung.rung)}</td><td>{escape(comparison(explanation, rung))}</td>"
        f"<td>{escape(decision(rung))}</td><td>{escape(likeliest(rung.answer))}</td></tr>\n"
        for rung in explanation.rungs
    )
    head = f"<tr><th>after layer</th><th>{escape(explanation.score)}</th><th>decision</th><th>says</th></tr>"
    return f"<table>\n{head}\n{lines}</table>"
