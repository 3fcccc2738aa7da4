"""The tables of a calibration's page, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ziggurat.calibrate.page.data import Costly, Mechanism, Picture
from ziggurat.calibrate.page.words import amount, promise, speed, unit
from ziggurat.calibrate.result import Calibration, TargetResult

_LONGEST = 200  # characters of a text that are shown
_PROMISE_COLUMNS = ("accuracy", "speed, measured", "ms", "ms, predicted")
_KINDS = (("Leaving early", ("exits alone", "both")), ("Pruning", ("pruning alone", "both")))  # mechanisms that use it


def promises_table(result: Calibration, picture: Picture) -> str:
    """What each point promises, and what was seen of it."""
    accuracy = {spot.name: spot.accuracy for spot in picture.spots}
    head = ["point", "promise", "rows", f"loss seen ({unit(result.criterion)})", *_PROMISE_COLUMNS]
    rows = [_promise_row(result, one, accuracy.get(one.name, picture.full_accuracy)) for one in result.points]
    return _table(head, rows, numbers=range(2, 8))


def _promise_row(result: Calibration, entry: TargetResult, accuracy: float | None) -> list[str]:
    note = "" if entry.note is None else f'<br><span class="note">{escape(entry.note)}</span>'
    cells = [f"<b>{escape(entry.name)}</b>", escape(promise(result, entry)) + note]
    seen = entry.certificate
    if seen is None:
        return [*cells, *["–"] * 6]
    return [
        *cells,
        f"{seen.rows:,}",
        f"{100 * seen.estimate:.2f}",
        "–" if accuracy is None else f"{accuracy:.2%}",
        escape(speed(entry)),
        f"{seen.measured_ms:.3g}",
        f"{seen.predicted_ms:.3g}" if entry.is_faster else "–",
    ]


def mechanisms_table(result: Calibration, picture: Picture) -> str:
    """Whether leaving early and pruning pay, each and together."""
    target = max((entry.target for entry in result.points), default=0.0)
    full = next((one.ms for one in picture.mechanisms if one.ms is not None), None)
    rows = [[escape(one.name), *_times(one, full), escape(_why(one))] for one in picture.mechanisms]
    most = amount(result.criterion, target)
    return (
        f"<p>{escape(_verdict(picture.mechanisms))}</p>\n"
        '<p class="note">The fastest setting of each kind, by predicted time, that is expected to lose at most '
        f"{escape(most)}: an estimate from the ordering rows, before anything is certified.</p>\n"
        + _table(["kind", "ms", "speed", ""], rows, numbers=(1, 2))
    )


def _times(one: Mechanism, full: float | None) -> tuple[str, str]:
    if one.ms is None or full is None:
        return "–", "–"
    return f"{one.ms:.3g}", f"{full / one.ms:.2f}x"


def _why(one: Mechanism) -> str:
    if one.why is not None:
        return one.why
    ways = [f"may leave after {', '.join(one.asked)}"] if one.asked else []
    ways += [] if one.pruning is None else [f"pruning at {one.pruning:g}x the trained thresholds"]
    return "; ".join(ways)


def _verdict(mechanisms: Sequence[Mechanism]) -> str:
    """What leaving early and pruning are each worth, or why they are off."""
    sentences = []
    for name, kinds in _KINDS:
        using, others = ([one for one in mechanisms if (one.name in kinds) is wanted] for wanted in (True, False))
        sentences.append(_worth(name, using, others))
    return " ".join(sentences)


def _worth(name: str, using: Sequence[Mechanism], others: Sequence[Mechanism]) -> str:
    best, without = (min((one.ms for one in some if one.ms is not None), default=None) for some in (using, others))
    if best is None:
        return f"{name} is off: {using[0].why}."
    if without is not None and best >= without:
        return f"{name} does not pay: {best:.3g} ms with it, {without:.3g} ms without."
    return f"{name} pays: {best:.3g} ms with it" + ("." if without is None else f", {without:.3g} ms without.")


def costly_table(picture: Picture) -> str:
    """The inputs that cost most."""
    labelled = any(one.label is not None for one in picture.costly)
    head = ["text", "tokens", "kept", "leaves after", "GFLOPs", "answer", *(["label"] if labelled else [])]
    rows = [_costly_row(one, labelled) for one in picture.costly]
    mean = f'<p class="note">A text costs {picture.mean_gflops:.3g} GFLOPs there on average.</p>\n'
    return mean + _table(head, rows, numbers=(1, 2, 4))


def _costly_row(one: Costly, labelled: bool) -> list[str]:
    text = one.text if len(one.text) <= _LONGEST else one.text[:_LONGEST] + " …"
    return [
        f'<span class="excerpt">{escape(text)}</span>',
        str(one.read),
        str(one.kept),
        one.rung,
        f"{one.gflops:.3g}",
        f'<span class="wrong">{escape(one.answer)}</span>' if one.wrong else escape(one.answer),
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
