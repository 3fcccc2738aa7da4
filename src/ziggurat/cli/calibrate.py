"""`ziggurat calibrate`: operating points that keep a promise, with confidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.output import interactive, shown, ticker
from ziggurat.cli.sources import unseen_source
from ziggurat.cli.text import rows_text
from ziggurat.errors import UserError

if TYPE_CHECKING:
    from ziggurat.calibrate.result import Calibration, TargetResult

_FEWER = 0.95  # groups of certifying rows per row, below which people are told what they count for
_APART = 0.5  # the same where groups are not counted
_GROUPED = (
    "note: rows that share text are one group, and a group counts once, however many its rows: what is promised\n"
    "is a mean over groups. More rows of the same groups certify hardly more; other groups do."
)
_MUCH = 0.1  # share of texts that are parts of trained ones, from which on people are told


def calibrate(
    model: opt.Model,
    data: opt.Data = None,
    task: opt.Task = None,
    data_dir: opt.DataDir = None,
    max_drop: Annotated[
        str | None,
        typer.Option(help="Largest loss, 0.01 = one point; several with commas (default: exact 0, balanced, fast)."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Names of the points of --max-drop, comma-separated.")] = None,
    confidence: Annotated[float, typer.Option(help="Probability with which each promise holds.")] = 0.95,
    criterion: Annotated[
        str | None,
        typer.Option(
            help="What may be lost. Classes: accuracy. Several labels: hamming or subset-accuracy. Numbers: "
            "absolute-error or squared-error. Questions: f1 or exact-match. Any: agreement with full depth (needs no "
            "labels) or harm (wrong where full depth is right)."
        ),
    ] = None,
    scores: Annotated[
        str | None,
        typer.Option(help="Exit scores that are tried (default: entropy,max-probability,margin, or the problem's)."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Model folder that losses are counted from (default: MODEL at full depth).")
    ] = None,
    max_layers: Annotated[
        int | None, typer.Option(help="Last layer after which an answer must come: a cap on what an input can cost.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a report to decide by: one HTML file.")] = None,
    text_column: opt.TextColumn = "text",
    pair_column: opt.PairColumn = None,
    label_column: opt.LabelColumn = "label",
    encoding: opt.Encoding = None,
    on_error: opt.OnError = "fail",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "float32",
    threads: opt.Threads = None,
    batch_size: opt.BatchSize = None,
    backend: opt.Backend = "auto",
    as_json: opt.Json = False,
) -> None:
    """Certify operating points on rows that the model has not seen: the fastest that keep a promise, with confidence.

    Give the file or task that the model was trained on (rows that training kept out are used), or other labelled rows.
    """
    from ziggurat.calibrate.calibrate import calibrate_model
    from ziggurat.calibrate.points import Promise

    source = unseen_source(data, task, data_dir)
    names = None if scores is None else tuple(opt.words(scores, "--scores"))
    promise = Promise(targets_of(max_drop, name), confidence, criterion, names, reference, max_layers)
    columns = opt.columns_of(text_column, pair_column, label_column, encoding, on_error)
    options = opt.model_options(device, dtype, threads, backend, batch_size)
    with shown(as_json, calibration_text) as show, ticker() as tick:
        show(calibrate_model(model, source, promise, columns, options, html, interactive(), tick))


def targets_of(max_drop: str | None, name: str | None) -> dict[str, float]:
    """The points that are asked for: by default exact, balanced and fast; a drop without a name gets one."""
    from ziggurat.calibrate.choose import TARGETS
    from ziggurat.calibrate.points import drop_name

    if max_drop is None:
        if name is not None:
            raise UserError("--name goes with --max-drop")
        return dict(TARGETS)
    drops = opt.decimal_numbers(max_drop, "--max-drop")
    if bad := [drop for drop in drops if not 0 < drop < 1]:
        raise UserError(f"--max-drop {bad[0]:g}: must be more than 0 and less than 1; 0.01 is one point")
    names = [drop_name(drop) for drop in drops] if name is None else opt.words(name, "--name")
    if twice := [drop for drop in drops if drops.count(drop) > 1]:
        raise UserError(f"--max-drop: {twice[0]:g} is given twice; give each drop once")
    if len(set(names)) != len(drops):
        raise UserError(f"--name: {len(set(names))} different names for {len(drops)} drops; give one for each")
    return dict(zip(names, drops, strict=True))


def calibration_text(result: Calibration) -> str:
    """What people see."""
    rows, share = result.rows, f"{100 * result.confidence:g} %"
    against = "the model at full depth" if result.reference is None else result.reference
    certifying = rows_text(rows.certify, result.groups if result.grouped else None)
    lines = [
        f"{certifying} certify at {share} confidence, {rows.order:,} others chose what to test"
        + (f"; {rows.left_out:,} that the model was trained on are left out" if rows.left_out else ""),
        f"losses: {result.criterion}, against {against}; times: {result.batch_size} texts a batch, model only",
        *([result.note] if result.note else []),
        "",
    ]
    lines += [_point_text(entry, result.unit) for entry in result.points]
    if 0 < result.groups < (_FEWER if result.grouped else _APART) * rows.certify:
        lines += ["", _GROUPED if result.grouped else _groups_text(rows.certify, result.groups)]
    if result.overlap > _MUCH:
        lines += ["", _overlap_text(result.overlap)]
    if any(entry.point is not None for entry in result.points):
        lines += ["", "Use one with --operating-point NAME in predict, eval and bench."]
    return "\n".join([*lines, *([f"report  {result.html}"] if result.html is not None else [])])


def _groups_text(rows: int, groups: int) -> str:
    return (
        f"note: the {rows:,} certifying rows are {groups:,} by the text that they share, and are counted as if each "
        "were\ndrawn alone: the confidence is less than it says. More texts that share none make up for it."
    )


def _overlap_text(overlap: float) -> str:
    return (
        f"warning: {overlap:.0%} of the certifying texts are parts of texts that trained the model, or the reverse. "
        "What\nthey promise holds for such texts; new ones may lose more. Certify with rows that share none with those."
    )


def _point_text(entry: TargetResult, unit: str) -> str:
    head = f"{entry.name:<10} at most {100 * entry.target:g} {unit}: "
    proof = entry.certificate
    if proof is None:
        return f"{head}none; {entry.note}"
    if entry.certified == 0 or entry.note:
        return f"{head}full depth; {entry.note}"
    return (
        f"{head}{proof.gain:.2f}x as fast as full depth ({proof.gain_low:.2f} to {proof.gain_high:.2f}), "
        f"{proof.measured_ms:.2f} ms a text; {100 * proof.estimate:.2f} {unit} lost on the certifying rows"
    )
