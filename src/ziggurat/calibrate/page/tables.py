"""The tables of a calibration's page, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ziggurat.calibrate.page.data import Costly, Mechanism, Picture
from ziggurat.calibrate.page.words import amount, promise, speed, unit
from ziggurat.calibrate.result import Calibration, TargetResult

_LONGEST = 200  # shown characters of a text
_PROMISE_COLUMNS = ("accuracy", "speed, measured", "ms", "ms, predicted")
_KINDS = (
    ("Leaving early", ("exits alone", "both")),
    ("Pruning", ("pruning alone", "both")),
)  # the mechanisms that include each kind


def promises_table(result: Calibration, picture: Picture) -> str:
    """The promise of each point, and its figures."""
    accuracy = {spot.name: spot.accuracy for spot in picture.spots}
    head = ["point", "promise", "rows", f"loss seen ({unit(result.criterion)})", *_PROMISE_COLUMNS]
    rows = [_promise_row(result, entry, accuracy.get(entry.name, picture.full_accuracy)) for entry in result.points]
    return _table(head, rows, numbers=range(2, 8))


def _promise_row(result: Calibration, entry: TargetResult, accuracy: float | None) -> list[str]:
    note = "" if entry.note is None else f'<br><span class="note">{escape(entry.note)}</span>'
    cells = [f"<b>{escape(entry.name)}</b>", escape(promise(result, entry)) + note]
    proof = entry.certificate
    if proof is None:
        return [*cells, *["–"] * 6]
    return [
        *cells,
        f"{proof.rows:,}",
        f"{100 * proof.estimate:.2f}",
        "–" if accuracy is None else f"{accuracy:.2%}",
        escape(speed(entry)),
        f"{proof.measured_ms:.3g}",
        f"{proof.predicted_ms:.3g}" if entry.is_faster else "–",
    ]


def mechanisms_table(result: Calibration, picture: Picture) -> str:
    """The gains of early exits and of pruning, separately and together."""
    target = max((entry.target for entry in result.points), default=0.0)
    full = next((mechanism.ms for mechanism in picture.mechanisms if mechanism.ms is not None), None)
    rows = [
        [escape(mechanism.name), *_times(mechanism, full), escape(_why(mechanism))] for mechanism in picture.mechanisms
    ]
    most = amount(result.criterion, target)
    return (
        f"<p>{escape(_verdict(picture.mechanisms))}</p>\n"
        '<p class="note">The fastest setting of each kind, by predicted time, that is expected to lose at most '
        f"{escape(most)}: an estimate from the ordering rows, before anything is certified.</p>\n"
        + _table(["kind", "ms", "speed", ""], rows, numbers=(1, 2))
    )


def _times(mechanism: Mechanism, full: float | None) -> tuple[str, str]:
    if mechanism.ms is None or full is None:
        return "–", "–"
    return f"{mechanism.ms:.3g}", f"{full / mechanism.ms:.2f}x"


def _why(mechanism: Mechanism) -> str:
    if mechanism.why is not None:
        return mechanism.why
    ways = [f"may leave after {', '.join(mechanism.exits)}"] if mechanism.exits else []
    ways += [] if mechanism.pruning is None else [f"pruning at {mechanism.pruning:g}x the trained thresholds"]
    return "; ".join(ways)


def _verdict(mechanisms: Sequence[Mechanism]) -> str:
    """Sentences on the gains of early exits and of pruning, or why they are off."""
    sentences = []
    for name, kinds in _KINDS:
        using, without_it = (
            [mechanism for mechanism in mechanisms if (mechanism.name in kinds) is wanted] for wanted in (True, False)
        )
        sentences.append(_worth(name, using, without_it))
    return " ".join(sentences)


def _worth(name: str, using: Sequence[Mechanism], without_it: Sequence[Mechanism]) -> str:
    best, without = (
        min((mechanism.ms for mechanism in kinds if mechanism.ms is not None), default=None)
        for kinds in (using, without_it)
    )
    if best is None:
        return f"{name} is off: {using[0].why}."
    if without is not None and best >= without:
        return f"{name} does not pay: {best:.3g} ms with it, {without:.3g} ms without."
    return f"{name} pays: {best:.3g} ms with it" + ("." if without is None else f", {without:.3g} ms without.")


def costly_table(picture: Picture) -> str:
    """Table of the most expensive inputs."""
    labelled = any(entry.label is not None for entry in picture.costly)
    head = ["text", "tokens", "kept", "leaves after", "GFLOPs", "answer", *(["label"] if labelled else [])]
    rows = [_costly_row(entry, labelled) for entry in picture.costly]
    mean = f'<p class="note">A text costs {picture.mean_gflops:.3g} GFLOPs there on average.</p>\n'
    return mean + _table(head, rows, numbers=(1, 2, 4))


def _costly_row(entry: Costly, labelled: bool) -> list[str]:
    text = entry.text if len(entry.text) <= _LONGEST else entry.text[:_LONGEST] + " …"
    return [
        f'<span class="excerpt">{escape(text)}</span>',
        str(entry.read),
        str(entry.remaining),
        entry.rung,
        f"{entry.gflops:.3g}",
        f'<span class="wrong">{escape(entry.answer)}</span>' if entry.wrong else escape(entry.answer),
        *([escape(str(entry.label))] if labelled else []),
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """`head` is text, cells are HTML; columns `numbers` are right-aligned."""
    flush = set(numbers)
    kinds = [' class="number"' if place in flush else "" for place in range(len(head))]
    titles = "".join(f"<th{kind}>{escape(title)}</th>" for title, kind in zip(head, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>\n"
        for row in rows
    )
    return f'<div class="wide"><table>\n<tr>{titles}</tr>\n{body}</table></div>'
