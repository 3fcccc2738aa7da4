"""Columns of the analyses' tables. A column without any value is omitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ziggurat.report.tables import ACCURACY_COLUMNS, Column, Row

_MODEL = Column("model", "model")
_SETTING = Column("setting", "setting")
_ROUTER = Column("router", "router")
_THRESHOLD = Column("threshold", "τ", "", ".3g")
_N = Column("n", "texts", "", ",")
_TENTH = (
    Column("decile", "tenth", "1 = least sure"),
    _N,
    Column("confidence_low", "margin from", "", ".3f"),
    Column("confidence_high", "to", "", ".3f"),
)
_TOKENS = Column("tokens_mean", "tokens", "mean", ".1f")
_FULL = Column("full_accuracy", "full depth", "", ".2%")
_FLOPS = Column("flops_ratio", "FLOPs", "x fewer", ".2f")
_LAYERS = Column("mean_layers", "layers", "mean", ".2f")
_MILLISECONDS = Column("milliseconds_per_text", "time", "ms per text", ".3f")
_TIME = (
    Column("time_ratio", "time", "x less", ".2f"),
    Column("time_ratio_low", "least", "x", ".2f"),
    Column("time_ratio_high", "most", "x", ".2f"),
)


# Quality of answers that are not classes; "full depth" refers to the first of these columns that has values.
_FIGURES = (
    Column("f1", "F1", "", ".2%"),
    Column("exact_match", "exact match", "", ".2%"),
    Column("pearson", "Pearson", "", ".4f"),
    Column("spearman", "Spearman", "", ".4f"),
    Column("mean_absolute_error", "error", "mean absolute", ".4g"),
    Column("f1_micro", "micro F1", "", ".2%"),
    Column("f1_macro", "macro F1", "", ".2%"),
    Column("subset_accuracy", "all labels right", "", ".2%"),
    Column("full_quality", "full depth", "", ".4f"),
)


def _quartiles(name: str, header: str, form: str) -> tuple[Column, ...]:
    return (
        Column(f"{name}_median", f"{header}, median", "", form),
        Column(f"{name}_q25", "25 %", "", form),
        Column(f"{name}_q75", "75 %", "", form),
    )


COLUMNS: Mapping[str, Sequence[Column]] = {
    "methods": (
        _MODEL,
        _SETTING,
        _THRESHOLD,
        *ACCURACY_COLUMNS,
        Column("gflops_mean", "GFLOPs", "per text", ".3f"),
        _FLOPS,
        _MILLISECONDS,
        *_TIME,
        _LAYERS,
    ),
    "thresholds": (_MODEL, _SETTING, _THRESHOLD, *ACCURACY_COLUMNS, _FULL, _FLOPS, _LAYERS),
    "lengths": (
        _MODEL,
        _SETTING,
        Column("bucket", "length", "tokens"),
        _N,
        _TOKENS,
        *ACCURACY_COLUMNS,
        _FULL,
        *_FIGURES,
        _FLOPS,
        _MILLISECONDS,
        *_TIME,
        _LAYERS,
    ),
    "quantiles": (
        _MODEL,
        _SETTING,
        Column("quantile", "quantile of length"),
        Column("span", "length", "tokens"),
        _N,
        *ACCURACY_COLUMNS,
        _FULL,
        *_FIGURES,
        Column("accuracy_change", "change", "", "+.2%"),
        Column("relative_flops", "FLOPs", "of full depth", ".2%"),
        _LAYERS,
    ),
    "trajectories": (
        _MODEL,
        _SETTING,
        Column("bucket", "length", "tokens"),
        _N,
        Column("layer", "behind layer"),
        Column("tokens_mean", "tokens left, mean", "", ".1f"),
        *_quartiles("tokens", "tokens left", ".1f"),
        Column("share_mean", "share left", "mean", ".1%"),
    ),
    "correctness": (
        _MODEL,
        _SETTING,
        Column("measure", "measure"),
        Column("n_right", "right", "texts", ","),
        *_quartiles("right", "right", ".3g"),
        Column("n_wrong", "wrong", "texts", ","),
        *_quartiles("wrong", "wrong", ".3g"),
        Column("wrong_above_right", "wrong above right", "", ".3f"),
        Column("chance_low", "by chance from", "", ".3f"),
        Column("chance_high", "to", "", ".3f"),
    ),
    "kernel": (
        Column("length", "length", "tokens"),
        Column("share", "stay", "", ".0%"),
        Column("batch", "batch", "texts"),
        Column("threshold_us", "threshold", "µs", ".1f"),
        Column("top_us", "top-k", "µs", ".1f"),
        Column("partition_us", "partition", "µs", ".1f"),
        Column("ratio", "top-k", "x threshold", ".1f"),
        Column("ratio_low", "least", "x", ".1f"),
        Column("ratio_high", "most", "x", ".1f"),
        Column("partition_ratio", "partition", "x threshold", ".1f"),
    ),
    "deferral": (
        _MODEL,
        _ROUTER,
        Column("share_of_oracle", "gain over random", "of the oracle's", ".1%"),
        Column("stays_99", "may stay", "at 99 % of the last", ".1%"),
        Column("flops_ratio_99", "FLOPs there", "x fewer", ",.2f"),
        Column("stays_98", "may stay", "at 98 %", ".1%"),
        Column("flops_ratio_98", "FLOPs there", "x fewer", ",.2f"),
    ),
    "sweep": (
        _MODEL,
        Column("scale", "pruning", "x", ".3g"),
        _THRESHOLD,
        *ACCURACY_COLUMNS,
        _FULL,
        _FLOPS,
        _LAYERS,
        Column("share_mean", "share left", "mean", ".1%"),
    ),
}

# Columns of a report's further tables; keys are "report-table".
PART_COLUMNS: Mapping[str, Sequence[Column]] = {
    "deferral-errors": (
        _MODEL,
        *_TENTH,
        Column("corrected", "last corrects", "of all texts", ".2%"),
        Column("introduced", "last spoils", "of all texts", ".2%"),
        Column("both_wrong", "both wrong", "of all texts", ".2%"),
        Column("accuracy", "accuracy", "first", ".1%"),
        Column("last_accuracy", "accuracy", "last", ".1%"),
    ),
    "deferral-steps": (
        _MODEL,
        Column("step", "step"),
        Column("tier", "tier"),
        Column("next_tier", "next tier"),
        *_TENTH,
        Column("corrected", "next corrects", "of all texts", ".2%"),
        Column("introduced", "next spoils", "of all texts", ".2%"),
        Column("both_wrong", "both wrong", "of all texts", ".2%"),
        Column("accuracy", "accuracy", "tier", ".1%"),
        Column("next_accuracy", "accuracy", "next tier", ".1%"),
    ),
    "deferral-curves": (
        _MODEL,
        _ROUTER,
        Column("share", "escalated", "", ".0%"),
        *ACCURACY_COLUMNS,
        Column("gflops_mean", "GFLOPs", "per text", ".3g"),
        _FLOPS,
    ),
}


def filled(kind: str, rows: Sequence[Row]) -> list[Column]:
    """The columns of an analysis, or of one of its further tables, that have at least one value."""
    return [
        column for column in {**COLUMNS, **PART_COLUMNS}[kind] if any(row.get(column.key) is not None for row in rows)
    ]
