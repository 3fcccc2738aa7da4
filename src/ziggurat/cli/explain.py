"""`ziggurat explain`: where the tokens of a text were dropped, its rungs, its answer and its cost."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.output import shown
from ziggurat.cli.sources import explained_text
from ziggurat.explain.page import Stretch, comparison, decision, departures, facts, fate, likeliest, stretches

if TYPE_CHECKING:
    from ziggurat.explain.record import Explanation

DROPPED = "·"
TITLE = 13  # columns of what stands before each line
# Backgrounds of the 256-colour table from early to late, light enough for black letters.
SCALE = (217, 216, 222, 229, 228, 192, 157, 158, 159, 153, 147, 183)
NOT_READ, STAYED, PLAIN = "\x1b[2;9m", "\x1b[1m", "\x1b[0m"  # dim and struck through; bold


def explain(
    model: opt.Model,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Text to explain, or - for the line on standard input.")],
    pair: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT]", help="Second text, for a model that reads pairs; of a question its context."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write an HTML page.")] = None,
    operating_point: opt.OperatingPoint = "balanced",
    threshold: opt.Threshold = None,
    score: opt.Score = None,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "float32",
    threads: opt.Threads = None,
    backend: opt.Backend = "auto",
    as_json: opt.Json = False,
) -> None:
    """Show which tokens of a text were dropped at which layer, and why it exited where it did."""
    from ziggurat.explain.explain import explain as explained

    # https://no-color.org: set to anything but nothing means no colours.
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    view = partial(explanation_text, colour=colour, width=shutil.get_terminal_size((100, 24)).columns)
    options = opt.model_options(device, dtype, threads, backend)
    with shown(as_json, view) as show:
        given = explained_text(text, pair)
        show(explained(model, given, operating_point, threshold, score, options, html))


def explanation_text(result: Explanation, colour: bool = False, width: int = 100) -> str:
    """An explanation in lines of `width` characters; with `colour` in ANSI's."""
    pieces = stretches(result)
    way = [_coloured(pieces, result), "", _legend(result)] if colour else _layer_lines(pieces, result, width)
    details = [*facts(result), *([("page", str(result.html))] if result.html is not None else [])]
    return "\n".join([*way, "", *_rung_lines(result), "", *(f"{name:<{TITLE}} {fact}" for name, fact in details)])


def _layer_lines(pieces: Sequence[Stretch], result: Explanation, width: int) -> list[str]:
    """The text, then what the vocabulary and each layer where tokens left spared of it, with dots for what is gone."""
    lines = _wrapped("text", [piece.string for piece in pieces], width)
    for layer, count in departures(result).items():
        title = f"layer {layer} -{count}" if layer else f"read -{count}"
        lines += _wrapped(title, [_with_dots(piece, layer) for piece in pieces], width)
    return lines


def _with_dots(piece: Stretch, layer: int) -> str:
    """The characters, or as many dots if their token left at this layer or before."""
    dropped = piece.left_at is not None and piece.left_at <= layer
    return DROPPED * len(piece.string) if dropped else piece.string


def _wrapped(title: str, strings: Sequence[str], width: int) -> list[str]:
    """A paragraph behind its title; all paragraphs of one text break at the same places, for dots are as long."""
    return textwrap.wrap(
        "".join(strings),
        max(width, 40),
        initial_indent=f"{title:<{TITLE}} ",
        subsequent_indent=" " * (TITLE + 1),
        break_on_hyphens=False,
    )


def _coloured(pieces: Sequence[Stretch], result: Explanation) -> str:
    layers = result.of_layers
    return "".join(_painted(piece.string, piece.left_at, layers) if piece.token else piece.string for piece in pieces)


def _painted(string: str, left_at: int | None, layers: int) -> str:
    """The string in the colour of the layer, of `layers`, where its token left."""
    if left_at is None:
        return f"{STAYED}{string}{PLAIN}"
    if left_at == 0:
        return f"{NOT_READ}{string}{PLAIN}"
    return f"\x1b[30;48;5;{SCALE[(left_at - 1) * len(SCALE) // layers]}m{string}{PLAIN}"


def _legend(result: Explanation) -> str:
    counts = departures(result)
    stayed = len(result.tokens) - sum(counts.values())
    entries = [*counts.items(), (None, stayed)]
    return "  ".join(f"{_painted(fate(layer), layer, result.of_layers)} {count}" for layer, count in entries)


def _rung_lines(result: Explanation) -> list[str]:
    """One line for each rung that the rule looked at, in columns."""
    rungs = result.rungs
    rows = [(f"{result.score} {comparison(result, rung)}", decision(rung), likeliest(rung.answer)) for rung in rungs]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    titles = [rung.rung for rung in rungs]
    return [
        f"{title:<{TITLE}} {'  '.join(map(str.ljust, row, widths))}".rstrip()
        for title, row in zip(titles, rows, strict=True)
    ]
