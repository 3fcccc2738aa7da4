"""`ziggurat info`: what a model folder is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ziggurat.cli import options as opt
from ziggurat.cli.output import shown
from ziggurat.cli.text import point_line
from ziggurat.errors import install

if TYPE_CHECKING:
    from ziggurat.measure.information import Architecture, EngineHere, Information
    from ziggurat.recipe import PruningConfig


def info(model: opt.Model, as_json: opt.Json = False) -> None:
    """Describe a model folder: architecture, heads, operating points, origin."""
    from ziggurat.measure.information import information

    with shown(as_json, information_text) as show:
        show(information(model))


def information_text(result: Information) -> str:
    """What people see."""
    heads, rows = result.heads, result.training.get("data", {})
    after = ", ".join(map(str, heads.after_layers))
    exits = f"{heads.kind} after layers {after}" if after else "none"
    gflops = result.architecture.gflops_at_64_tokens
    lines = [
        f"{result.model}: {_architecture_text(result.architecture)}",
        *(f"  asks first {_architecture_text(tier)}" for tier in result.tiers),
        *_reading_lines(result),
        f"  heads      {exits}",
        f"  pruning    {_pruning_text(result.pruning)}{', layers in INT8' if result.int8 else ''}",
        *([] if gflops is None else [f"  cost       {gflops:.2f} GFLOPs for 64 tokens at full depth"]),
        f"  engine     {_engine_text(result.engine)}",
        f"  trained on {rows.get('rows', 0):,} rows of {rows.get('source', 'unknown')}",
        *(f"  {point.name:<10} {point_line(point, result.unit)}" for point in result.operating_points),
    ]
    return "\n".join(lines)


def _reading_lines(result: Information) -> list[str]:
    """What the model reads, and what it answers."""
    if (spans := result.spans) is None:
        kind = "pairs of texts" if result.pairs else "texts"
        return [f"  reads      {kind} of up to {result.max_length} tokens", f"  labels     {_labels_text(result)}"]
    never = "every question has an answer" if result.no_answer is None else "or says that there is none"
    return [
        f"  reads      questions of up to {spans.question} tokens, contexts in windows of {result.max_length} "
        f"that share {spans.stride}",
        f"  answers    spans of up to {spans.answer + 1} tokens, {never}",
    ]


def _labels_text(result: Information) -> str:
    if result.problem == "regression":
        known = result.label_range
        return "numbers" if known is None else f"numbers, whose losses are counted from {known[0]:g} to {known[1]:g}"
    names = ", ".join(map(str, result.labels))
    return f"any of {names}" if result.problem == "multi_label_classification" else names


def _architecture_text(tier: Architecture) -> str:
    if not tier.layers:
        return f"{tier.architecture} model, without layers"
    return f"{tier.architecture}, {tier.layers} layers x {tier.hidden}"


def _pruning_text(pruning: PruningConfig | None) -> str:
    if pruning is None:
        return "none"
    words = "" if pruning.vocabulary is None else f", {pruning.vocabulary:.0%} of the tokens read at first"
    return f"{pruning.kind} on {pruning.score} attention{words}"


def _engine_text(engine: EngineHere) -> str:
    if engine.name is None:
        return f"none: {engine.why_not_native}; or {install('torch')}"
    sets = f" ({engine.instructions[0]})" if engine.name == "native" else ""
    why = f"; no compiled engine: {engine.why_not_native}" if engine.why_not_native else ""
    return f"{engine.name}{sets}, {', '.join(engine.dtypes)}{why}"
