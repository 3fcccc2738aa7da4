"""What people see: a job's result as a few lines of text."""

from __future__ import annotations

from typing import Any

from ziggurat.cli.calibration import promise_text, rows_text
from ziggurat.cli.questions import answer_text, question_evaluation_text, reading_lines
from ziggurat.errors import install

_UNLEARNED = 0.05  # accuracy lost to pruning on select rows that is no price but a mishap
_LONGEST_TABLE = 40  # rows of a report's further tables that a terminal shows


def training_text(result: dict[str, Any]) -> str:
    """What `train` and `adapt` shows."""
    rows = ", ".join(f"{n:,} {role}" for role, n in result["rows"].items())
    points = "".join(
        f"\n  {point['name']:<9} {_point_text(point, result['unit'])}" for point in result["operating_points"]
    )
    head = f"{result['out']}: trained with recipe {result['recipe']} ({rows} rows)\nreads {_length_text(result)}"
    learned = "".join(
        [
            _search_text(result.get("search")),
            _copies_text(result.get("copies")),
            _trials_text(result.get("trials", {})),
            _pruned_text(result),
        ]
    )
    return f"{head}{learned}\noperating points, chosen on the select rows:{points}"


def _length_text(result: dict[str, Any]) -> str:
    length = f"up to {result['max_length']} tokens of an input"
    return f"{length}; {result['cut']:,} of these rows are longer and were cut" if result.get("cut") else length


def _copies_text(copies: dict[str, Any] | None) -> str:
    if copies is None:
        return ""
    return (
        f"\nlearned from {copies['copies']:,} changed copies too, made at {copies['per_second']:,} per second "
        f"({copies['dropped']:,} alike and dropped)"
    )


def _trials_text(trials: dict[str, Any]) -> str:
    """What of the recipe's pruning was taken back, and why."""
    tried, settled = trials.get("vocabulary"), trials.get("settled")
    lines = []
    if tried is not None and not tried["kept"]:
        lines.append(
            f"no word is left out: by {tried['share']:.0%} of the tokens, as the recipe has it, the plain model has "
            f"{tried['read']:.4f} on the select rows, by all {tried['plain']:.4f}"
        )
    elif tried is not None and settled is not None and not settled["vocabulary"]:
        lines.append("no word is left out any more: the vocabulary had learned to read too little")
    if settled is not None and settled["factor"] != 1:
        lines.append(
            f"thresholds taken back to {settled['factor']:g} of what was learned: {settled['learned']:.4f} on the "
            f"select rows became {settled['settled']:.4f}, nothing pruned {settled['plain']:.4f}"
        )
    return "".join(f"\n{line}" for line in lines)


def _pruned_text(result: dict[str, Any]) -> str:
    """A warning where pruning has unlearned what the model could."""
    before, after = result.get("regular_accuracy"), result.get("pruned_accuracy")
    if before is None or after is None or after > before - _UNLEARNED:
        return ""
    return (
        f"\nwarning: pruning as it was trained reaches {after:.1%} on the select rows, the plain model had "
        f"{before:.1%}: too much leaves. Lower `regularisation` or the epochs of stage soft; for pairs and phrases "
        "leave `vocabulary` out (as magic-pyramid-small) or fix the shares (magic-pyramid-shares)"
    )


def cascade_text(result: dict[str, Any]) -> str:
    """What `cascade` shows."""
    return (
        f"{result['out']}: a cascade of {len(result['tiers'])} tiers ({', '.join(result['tiers'])})\n"
        f"it may answer after: {', '.join(result['rungs'])}\n"
        f"now choose where: ziggurat calibrate {result['out']} --data FILE"
    )


def _search_text(search: dict[str, Any] | None) -> str:
    if search is None:
        return ""
    chosen = search["chosen"]
    return (
        f"\nshares of tokens, chosen on {search['rows']:,} select rows: {chosen['flops']:.0%} of the FLOPs, "
        f"accuracy {chosen['accuracy']:.4f} (all tokens {search['full_accuracy']:.4f})"
    )


def _point_text(point: dict[str, Any], unit: str) -> str:
    asked = [threshold for threshold in point["thresholds"] if threshold is not None]
    limits = "-".join(dict.fromkeys(f"{limit:.4g}" for limit in (min(asked), max(asked)))) if asked else ""
    exits = f"{point['score']} {limits}" if asked else "full depth"
    strength = {0: ", nothing pruned", 1: ""}.get(point["pruning"], f", pruning x {point['pruning']:g}")
    return f"{exits}{strength}, to lose at most {100 * point['target']:g} {unit} ({promise_text(point)})"


def _pruning_text(pruning: dict[str, Any] | None) -> str:
    if pruning is None:
        return "none"
    words = "" if pruning["vocabulary"] is None else f", {pruning['vocabulary']:.0%} of the tokens read at first"
    return f"{pruning['kind']} on {pruning['score']} attention{words}"


def evaluation_text(result: dict[str, Any]) -> str:
    """What `eval` shows."""
    if result.get("problem") == "question_answering":
        return question_evaluation_text(result)
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
        terms += f"{100 * promise['confidence']:g} % confidence by {rows_text(promise)}"
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


_FIGURES = ("f1_micro", "f1_macro", "subset_accuracy", "pearson", "spearman", "mean_squared_error")


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


def prediction_text(result: dict[str, Any]) -> str:
    """What `predict` shows."""
    if "out" in result:
        return f"{result['out']}: {result['n']:,} answers"
    lines = []
    for answer in result["answers"]:
        if "answer" in answer:
            lines.append(answer_text(answer))
            continue
        if "error" in answer:
            lines.append(f"null\t{answer['error']}")
            continue
        text = answer["text"] if isinstance(answer["text"], str) else " | ".join(answer["text"])
        cut = ", cut" if answer["truncated"] else ""
        head = f"{_answer_text(answer)}\t{answer['layers']} layers, {answer['tokens']} tokens{cut}"
        lines.append(f"{head}\t{text if len(text) <= 80 else text[:79] + '…'}")
    return "\n".join(lines)


def _answer_text(answer: dict[str, Any]) -> str:
    """A class with its probability, all labels that apply with theirs, or a number."""
    if "probabilities" not in answer:
        return f"{answer['label']:.4g}"
    if "probability" in answer:
        return f"{answer['label']}\t{answer['probability']:.3f}"
    said = [f"{label} {answer['probabilities'][str(label)]:.3f}" for label in answer["label"]]
    return ", ".join(said) or "no label"


def bench_text(result: dict[str, Any]) -> str:
    """What `bench` shows."""
    from ziggurat.report.tables import aligned, result_columns

    lines = [aligned(result["rows"], result_columns(result["rows"])).rstrip()]
    return "\n".join([*lines, *_figure_lines(result)])


def _figure_lines(result: dict[str, Any]) -> list[str]:
    return [f"figure  {', '.join(result['figures'])}"] if result.get("figures") else []


def competition_text(result: dict[str, Any]) -> str:
    """What `bench --peers` shows."""
    from ziggurat.bench.tables import competition_tables

    lines = [competition_tables(result["rows"])]
    if result["calibration"] is not None:
        lines.append(f"int8 peers were calibrated with {result['calibration']}")
    lines += [f"left out: {one['name']} {one['dtype']}: {one['reason']}" for one in result["left_out"]]
    lines += _figure_lines(result)
    return "\n".join(lines).rstrip()


def report_text(result: dict[str, Any]) -> str:
    """What the `report` commands show."""
    from ziggurat.report.columns import filled
    from ziggurat.report.tables import aligned

    lines = [result["title"], "", aligned(result["rows"], filled(result["kind"], result["rows"]))]
    for part in result.get("parts", ()):
        if len(part["rows"]) <= _LONGEST_TABLE:  # a longer one would push all else off the screen; it is in its file
            columns = filled(f"{result['kind']}-{part['name']}", part["rows"])
            lines += [part["heading"], "", aligned(part["rows"], columns)]
    return "\n".join([*lines, *result["notes"], *result["files"]])


def information_text(result: dict[str, Any]) -> str:
    """What `info` shows."""
    heads, rows = result["heads"], result["training"].get("data", {})
    after = ", ".join(map(str, heads["after_layers"]))
    exits = f"{heads['kind']} after layers {after}" if after else "none"
    lines = [
        f"{result['model']}: {_architecture_text(result)}",
        *(f"  asks first {_architecture_text(tier)}" for tier in result["tiers"]),
        *reading_lines(result, _labels_text(result)),
        f"  heads      {exits}",
        f"  pruning    {_pruning_text(result['pruning'])}{', layers in INT8' if result['int8'] else ''}",
        *_cost_lines(result["gflops_at_64_tokens"]),
        f"  engine     {_engine_text(result['engine'])}",
        f"  trained on {rows.get('rows', 0):,} rows of {rows.get('source', 'unknown')}",
        *(f"  {point['name']:<10} {_point_text(point, result['unit'])}" for point in result["operating_points"]),
    ]
    return "\n".join(lines)


def sealing_text(result: dict[str, Any]) -> str:
    """What `seal` shows."""
    if not result["changed"]:
        return f"{result['model']}: nothing has changed since it was written"
    lines = [f"{result['model']}: kept as it is now; changed: {', '.join(result['changed'])}"]
    if result["uncertified"]:
        names = ", ".join(result["uncertified"])
        lines.append(f"  no longer certified: {names}; run `ziggurat calibrate {result['model']}`")
    return "\n".join(lines)


def _labels_text(result: dict[str, Any]) -> str:
    if result["problem"] == "regression":
        known = result["label_range"]
        return "numbers" if known is None else f"numbers, whose losses are counted from {known[0]:g} to {known[1]:g}"
    names = ", ".join(map(str, result["labels"]))
    return f"any of {names}" if result["problem"] == "multi_label_classification" else names


def _architecture_text(tier: dict[str, Any]) -> str:
    if not tier["layers"]:
        return f"{tier['architecture']} model, without layers"
    return f"{tier['architecture']}, {tier['layers']} layers x {tier['hidden']}"


def _cost_lines(gflops: float | None) -> list[str]:
    return [] if gflops is None else [f"  cost       {gflops:.2f} GFLOPs for 64 tokens at full depth"]


def _engine_text(engine: dict[str, Any]) -> str:
    if engine["name"] is None:
        return f"none: {engine['why_not_native']}; or {install('torch')}"
    sets = f" ({engine['instructions'][0]})" if engine["name"] == "native" else ""
    why = f"; no compiled engine: {engine['why_not_native']}" if engine["why_not_native"] else ""
    return f"{engine['name']}{sets}, {', '.join(engine['dtypes'])}{why}"


def demonstration_text(result: dict[str, Any]) -> str:
    """What `demo` shows."""
    example = "ziggurat predict {model} 'Return the sine of x.' 'Wait until the thread terminates.'"
    return "\n".join(
        [
            "",
            bench_text(result),
            "",
            f"{result['n_test']:,} test paragraphs of Python's own documentation, labelled with their area; "
            "gains are over the full depth of Ziggurat's own engine.",
            f"table   {result['table']}",
            f"figure  {result['figure']}",
            f"model   {result['model']}   ({result['seconds']:.0f} s in all)",
            "",
            "Classify your own sentences:",
            f"  {example.format(model=result['model'])}",
        ]
    )
