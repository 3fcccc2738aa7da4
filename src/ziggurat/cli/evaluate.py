"""`ziggurat eval`: accuracy, cost and speed on labelled rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.output import interactive, shown
from ziggurat.cli.sources import measured_source
from ziggurat.cli.text import rows_text

if TYPE_CHECKING:
    from ziggurat.measure.evaluation import Evaluation, Figures, PointPromise

# What people see of a problem's figures, in this order.
_FIGURES = (
    "accuracy",
    "f1_micro",
    "f1_macro",
    "subset_accuracy",
    "pearson",
    "spearman",
    "mean_squared_error",
    "exact_match",
    "f1",
)


def evaluate(
    model: opt.Model,
    data: opt.Data = None,
    task: opt.Task = None,
    data_dir: opt.DataDir = None,
    operating_point: opt.OperatingPoint = "balanced",
    threshold: opt.Threshold = None,
    score: opt.Score = None,
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
    metric: Annotated[
        str | None,
        typer.Option(help="Beside accuracy: f1, f1-macro, f1-micro, mcc, pearson, spearman (default: the task's own)."),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Measure accuracy, cost and speed on labelled rows, beside the same model at full depth."""
    from ziggurat.measure.evaluate import evaluate as measured

    source = measured_source(data, task, data_dir)
    metrics = None if metric is None else opt.words(metric, "--metric")
    columns = opt.columns_of(text_column, pair_column, label_column, encoding, on_error)
    options = opt.model_options(device, dtype, threads, backend, batch_size)
    exits = operating_point, threshold, score
    with shown(as_json, evaluation_text) as show:
        show(measured(model, source, *exits, columns, options, progress=interactive(), metrics=metrics))


def evaluation_text(result: Evaluation) -> str:
    """What people see."""
    counted, ratio = result.speed.counted, result.speed.ratio
    windows = "" if result.windows is None else f", in {result.windows:,} windows"
    exits = ", ".join(f"{name}: {n}" for name, n in result.exit_histogram.items())
    lines = [
        *_quality_lines(result),
        *_metric_lines(result.metrics),
        ("FLOPs", f"{result.flops_ratio:.2f}x fewer, {result.mean_layers:.2f} layers on average"),
        (
            f"{counted}/s",
            f"{result.speed.per_second:.0f}   full depth {result.speed.full_per_second:.0f}   "
            f"{ratio.median:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]   "
            f"(batch {result.batch_size}, {result.device}, {result.threads} threads, {result.dtype})",
        ),
        ("exits", exits),
    ]
    if result.promise is not None and result.promise.broken is None:
        lines.append(("promise", _promise_text(result.promise, result.unit)))
    if min(result.tokens_left) < 1:
        shares = ", ".join(f"{share:.0%}" for share in result.tokens_left)
        lines.append(("tokens", f"{shares} are read, left after layer 1, 2, … (of the inputs that come so far)"))
    width = max(10, len(counted) + 2)
    rows = "rows" if result.windows is None else counted
    head = f"{result.model} at {result.operating_point} on {result.n:,} {rows} of {result.data}{windows}"
    return "\n".join([head, *(f"  {name:<{width}} {text}" for name, text in lines), *_remarks(result)])


def _promise_text(promise: PointPromise, unit: str) -> str:
    """The terms of a promise that holds."""
    return (
        f"at most {100 * (promise.target or 0):g} {unit} of {promise.criterion} lost, with "
        f"{100 * (promise.confidence or 0):g} % confidence by {rows_text(promise.rows, promise.groups)}"
    )


def _remarks(result: Evaluation) -> Iterator[str]:
    """What a reader of the figures must know."""
    if "f1_unanswerable" in result.figures:
        known, unknown = (_shown(result.figures[f"f1_{kind}"]) for kind in ("answerable", "unanswerable"))
        yield f"  F1 of questions with an answer {known}, without one {unknown}"
    if result.promise is not None and result.promise.broken is not None:
        yield f"  warning: {result.promise.broken}"
    if result.truncated:
        yield f"  {result.truncated} {result.speed.counted} were longer than the model reads and were cut"
    if result.seen_in_training:
        yield f"  warning: {result.seen_in_training} of these rows trained the model; its quality is overstated"


def _shown(value: float | None) -> str:
    """A figure with four digits; one that is not defined is a dash."""
    return "–" if value is None else f"{value:.4f}"


def _metric_lines(metrics: Figures) -> list[tuple[str, str]]:
    """The task's own measures, with their intervals."""
    shown = {key: _shown(value) for key, value in metrics.items()}
    names = [key.removeprefix("full_") for key in metrics if key.startswith("full_")]
    return [
        (
            name.replace("_", "-"),
            f"{shown[name]} [{shown[f'{name}_low']}, {shown[f'{name}_high']}]   full depth {shown[f'full_{name}']}",
        )
        for name in names
    ]


def _quality_lines(result: Evaluation) -> list[tuple[str, str]]:
    """How good the answers are, beside those of full depth; a figure with an interval comes first."""
    shown = {name: _shown(value) for name, value in result.figures.items()}
    agreement = f", same answer on {result.figures['agreement']:.2%}"
    lines: list[tuple[str, str]] = []
    for name in (key for key in _FIGURES if key in shown and key not in result.metrics):
        interval = f" [{shown[f'{name}_low']}, {shown[f'{name}_high']}]" if f"{name}_low" in shown else ""
        full = f"   full depth {shown[f'full_{name}']}" if f"full_{name}" in shown else ""
        lines.append((name.replace("_", " "), f"{shown[name]}{interval}{full}{agreement if not lines else ''}"))
    return lines
