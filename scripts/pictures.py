"""Draws the pictures of docs/concepts. A test compares the committed files with what this file draws now.

usage: python -m scripts.pictures
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from scripts.drawing import Canvas

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"


def exits() -> str:
    """Layers from bottom to top, a rung behind each, and three texts that exit at different ones."""
    canvas = Canvas(720, 372, "Three texts climb the layers of a model; each exits at the first rung that is confident")
    canvas.text(110, 26, "the model")
    canvas.text(250, 26, "rungs")
    for layer in range(6, 0, -1):
        y = 40 + (6 - layer) * 50
        canvas.box(40, y, 140, 36, f"layer {layer}", "room")
        canvas.arrow(180, y + 18, 208, y + 18)
        canvas.box(210, y + 3, 84, 30, "classifier" if layer == 6 else "exit head", "exit")
    texts = (("“Oil prices fall”", 1, 345), ("“A close final”", 3, 475), ("“Apple opens”", 6, 605))
    for text, layer, x in texts:
        top = 40 + (6 - layer) * 50 + 18
        canvas.line([(x + 30, 336), (x + 30, top)], "#3b73b9", 5)
        canvas.box(x - 5, top - 15, 70, 30, "answer", "strong")
        canvas.text(x + 30, 356, text, size=12)
    return canvas.svg()


def pruning() -> str:
    """Six words, of which fewer stay at each layer."""
    words = ("[CLS]", "the", "price", "of", "oil", "fell", "again", "today")
    rows = ((0, 1, 2, 3, 4, 5, 6, 7), (0, 2, 4, 5, 6, 7), (0, 2, 4, 5), (0, 4, 5))
    canvas = Canvas(720, 268, "A text loses unimportant tokens at each layer; the next layer runs on what is left")
    for row, places in enumerate(rows):
        y = 20 + row * 62
        canvas.text(20, y + 22, "read" if row == 0 else f"layer {row}", anchor="start")
        for place, word in enumerate(words):
            alive = place in places
            before = place in rows[max(row - 1, 0)]
            if alive or before:
                canvas.box(100 + place * 75, y, 66, 34, word, "strong" if alive else "gone")
            if alive and row:
                canvas.arrow(133 + place * 75, y - 27, 133 + place * 75, y - 2)
    return canvas.svg()


def packing() -> str:
    """The same four texts padded, and packed behind one another."""
    lengths, kinds = (3, 7, 2, 5), ("strong", "exit", "warn", "base")
    canvas = Canvas(720, 306, "Four texts in a padded batch and in a packed one")
    canvas.text(20, 24, "padded: 28 places, 11 of them empty", anchor="start")
    for row, (length, kind) in enumerate(zip(lengths, kinds, strict=True)):
        for place in range(max(lengths)):
            canvas.box(
                20 + place * 40,
                36 + row * 34,
                36,
                28,
                "" if place < length else "pad",
                kind if place < length else "gone",
            )
    canvas.text(20, 204, "packed: 17 places, none of them empty", anchor="start")
    place = 0
    for length, kind in zip(lengths, kinds, strict=True):
        for _ in range(length):
            canvas.box(20 + place * 40, 216, 36, 28, "", kind)
            place += 1
    canvas.text(20, 272, "cu_seqlens", anchor="start", size=12)
    for edge in (0, 3, 10, 12, 17):
        canvas.line([(18 + edge * 40, 212), (18 + edge * 40, 252)])
        canvas.text(18 + edge * 40 + (4 if edge == 0 else 0), 290, str(edge), size=12)
    return canvas.svg()


def cascade() -> str:
    """A stream of texts, most of which the first tier answers."""
    canvas = Canvas(720, 226, "A small model answers most texts; the large one gets the rest")
    canvas.text(60, 84, "all texts")
    tiers = (
        (130, "static tier", "counts words"),
        (350, "layers 1 to 3", "early exits"),
        (570, "layers 4 to 6", "full depth"),
    )
    shares = ("70 % answered", "22 % answered", "8 % answered")
    for number, ((x, name, note), share) in enumerate(zip(tiers, shares, strict=True)):
        canvas.box(x, 56, 120, 48, "", "room")
        canvas.text(x + 60, 77, name)
        canvas.text(x + 60, 95, note, size=11)
        canvas.arrow(x + 60, 104, x + 60, 150)
        canvas.box(x, 152, 120, 34, share, "exit")
        if number:
            canvas.text(x - 52, 70, "not confident", size=11)
        canvas.arrow(x - (98 if number else 30), 80, x - 2, 80)
    canvas.text(
        360, 214, "The shares are an example. Thresholds set them, and “calibrate” sets the thresholds.", size=12
    )
    return canvas.svg()


def certificate() -> str:
    """Settings along a path, with the loss that each can have at most, and the target."""
    canvas = Canvas(
        720, 330, "Settings on a path are tested in order until one fails; the fastest that passed is certified"
    )
    origin, bottom = 70, 260
    canvas.line([(origin, 30), (origin, bottom), (690, bottom)])
    canvas.text(64, 22, "loss")
    canvas.text(560, 312, "settings, from full depth to fastest", size=12)
    estimates = (0, 4, 9, 17, 30, 46, 66, 92)
    bounds = (30, 36, 42, 52, 68, 88, 112, 142)
    target = bottom - 100
    canvas.line([(origin, target), (690, target)], "#c0562f", 2)
    canvas.text(origin + 14, target - 8, "promised: at most this loss", anchor="start", size=12)
    for number, (estimate, bound) in enumerate(zip(estimates, bounds, strict=True)):
        x = origin + 45 + number * 75
        passed = bound < 100
        canvas.line([(x, bottom - estimate), (x, bottom - bound)], "#3b73b9" if passed else "#b9c2cb", 3)
        canvas.box(x - 6, bottom - estimate - 6, 12, 12, "", "strong" if passed else "gone")
        canvas.line([(x - 9, bottom - bound), (x + 9, bottom - bound)], "#3b73b9" if passed else "#b9c2cb", 3)
        canvas.text(
            x,
            282,
            ("certified" if number == 5 else "passes") if passed else ("fails" if number == 6 else "not tested"),
            size=11,
        )
    canvas.text(origin + 14, 58, "box: loss measured on rows that chose nothing", anchor="start", size=12)
    canvas.text(origin + 14, 76, "bar above it: how large the true loss may still be", anchor="start", size=12)
    return canvas.svg()


PICTURES: Mapping[str, Callable[[], str]] = {
    "exits": exits,
    "pruning": pruning,
    "packing": packing,
    "cascade": cascade,
    "certificate": certificate,
}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw(), "utf-8")
