"""`ziggurat eval`: accuracy, cost and speed on labelled rows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.output import Values, interactive, shown
from ziggurat.cli.sources import measured_source
from ziggurat.cli.text import rows_text

_FIGURES = ("f1_micro", "f1_macro", "subset_accuracy", "pearson", "spearman", "mean_squared_error")


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
        show(Values(measured(model, source, *exits, columns, options, progress=interactive(), metrics=metrics)))


def evaluation_text(result: dict[str, Any]) -> str:
    """What `eval` shows."""
    if result.get("problem") == "question_answering":
        return _question_evaluation_text(result)
    exits = ", ".join(f"{name}: {n}" for name, n in result["exit_histogram"].items())
    lines = [
        f"{result['model']} at {result['operating_point']} on {result['n']:,} rows of {result['data']}",
        *_quality_lines(result),
        *_metric_lines(result["metrics"]),
        f"  FLOPs      {result['flops_ratio']:.2f}x fewer, {result['mean_layers']:.2f} layers on average",
        f"  texts/s    {result['texts_per_second']:.0f}   full depth {result['full_texts_per_second']:.0f}   "
        f"{result['time_ratio']:.2f}x [{result['time_ratio_low']:.2f}, {result['time_ratio_high']:.2f}]   "
        f"(batch {result['batch_size']}, {result['device']}, {result['threads']} threads, {result['dtype']})",
        f"  exits      {exits}",
    ]
    if promise := result["promise"]:
        terms = f"at most {100 * promise['target']:g} {result['unit']} of {promise['criterion']} lost, with "
        terms += f"{100 * promise['confidence']:g} % confidence by {rows_text(promise['rows'], promise['groups'])}"
        lines.append(f"  promise    {terms}" if promise["broken"] is None else f"  warning: {promise['broken']}")
    if min(result["tokens_left"]) < 1:
        shares = ", ".join(f"{share:.0%}" for share in result["tokens_left"])
        lines.append(f"  tokens     {shares} are read, left after layer 1, 2, … (of the texts that come so far)")
    if result["truncated"]:
        lines.append(f"  {result['truncated']} texts were longer than the model reads and were cut")
    if result["seen_in_training"]:
        lines.append(f"  warning: {result['seen_in_training']} of these rows trained the model; the accuracy flatters")
    return "\n".join(lines)


def _metric_lines(metrics: dict[str, float | None]) -> list[str]:
    """The task's own measures; one that is not defined, as a correlation with a constant, is a dash."""
    shown = {key: "–" if value is None else f"{value:.4f}" for key, value in metrics.items()}
    names = [key.removeprefix("full_") for key in metrics if key.startswith("full_")]
    return [
        f"  {name.replace('_', '-'):<10} {shown[name]} [{shown[f'{name}_low']}, {shown[f'{name}_high']}]   "
        f"full depth {shown[f'full_{name}']}"
        for name in names
    ]


def _quality_lines(result: dict[str, Any]) -> list[str]:
    """How good the answers are: of classes accuracy, else whatever figures there are, beside those of full depth."""
    if "accuracy" in result:
        return [
            f"  accuracy   {result['accuracy']:.4f} [{result['accuracy_low']:.4f}, {result['accuracy_high']:.4f}]   "
            f"full depth {result['full_accuracy']:.4f}, same answer on {result['agreement']:.2%}"
        ]
    names = [name for name in _FIGURES if name in result and name not in result["metrics"]]
    return [
        f"  {name.replace('_', ' '):<18} {result[name]:.4f}   full depth {result[f'full_{name}']:.4f}" for name in names
    ]


def _question_evaluation_text(result: dict[str, Any]) -> str:
    """What `eval` shows."""
    exits = ", ".join(f"{name}: {n}" for name, n in result["exit_histogram"].items())
    lines = [
        f"{result['model']} at {result['operating_point']} on {result['n']:,} questions of {result['data']}, in "
        f"{result['windows']:,} windows",
        f"  exact match {100 * result['exact_match']:.2f} [{100 * result['exact_match_low']:.2f}, "
        f"{100 * result['exact_match_high']:.2f}]   full depth {100 * result['full_exact_match']:.2f}",
        f"  F1          {100 * result['f1']:.2f}   full depth {100 * result['full_f1']:.2f}, same answer on "
        f"{result['agreement']:.2%}",
        f"  FLOPs       {result['flops_ratio']:.2f}x fewer, {result['mean_layers']:.2f} layers on average",
        f"  questions/s {result['questions_per_second']:.1f}   full depth {result['full_questions_per_second']:.1f}   "
        f"{result['time_ratio']:.2f}x [{result['time_ratio_low']:.2f}, {result['time_ratio_high']:.2f}]   "
        f"(batch {result['batch_size']}, {result['device']}, {result['threads']} threads, {result['dtype']})",
        f"  exits       {exits}",
    ]
    if "f1_unanswerable" in result:
        known = result["f1_answerable"]
        parts = f"{'–' if known is None else f'{100 * known:.2f}'}, without one {100 * result['f1_unanswerable']:.2f}"
        lines.insert(3, f"  F1 of questions with an answer {parts}")
    if promise := result["promise"]:
        terms = f"at most {100 * promise['target']:g} points of {promise['criterion']} lost, with "
        terms += f"{100 * promise['confidence']:g} % confidence by {promise['rows']:,} questions"
        lines.append(f"  promise     {terms}" if promise["broken"] is None else f"  warning: {promise['broken']}")
    if min(result["tokens_left"]) < 1:
        shares = ", ".join(f"{share:.0%}" for share in result["tokens_left"])
        lines.append(f"  tokens      {shares} are read, left after layer 1, 2, … (of the windows that come so far)")
    if result["truncated"]:
        lines.append(f"  {result['truncated']} questions were longer than the model reads and were cut")
    if result["seen_in_training"]:
        lines.append(f"  warning: {result['seen_in_training']} are about contexts that trained the model; F1 flatters")
    return "\n".join(lines)
