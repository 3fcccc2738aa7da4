"""`report`: the papers' analyses of one or several models on labelled rows, as tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.analyses.measured import (
    Measured,
    bucket_names,
    buckets,
    histogram,
    lengths_kept,
    right_beside_wrong,
    summary,
    trajectory,
)
from ziggurat.analyses.reporting import Report, Request, Subject, caveats, exits_replayed, write_report
from ziggurat.analyses.selection import selection_costs
from ziggurat.analyses.settings import EXITS, EXITS_AND_PRUNING, FULL_DEPTH, PRUNING, Exits, strength_note
from ziggurat.errors import UserError
from ziggurat.files import require_target
from ziggurat.measure.subject import check_has_layers, check_one_encoder
from ziggurat.policies.rules import ExitRule
from ziggurat.report.plots import Panel, Series, require_matplotlib

TAUS = (0.1, 0.2, 0.3, 0.5, 0.8)  # MP Table 4 has 0.1, 0.5 and 0.8
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)
EDGES = (35, 70)  # tokens: MP Figure 1's short, middle and long
SELECTION_LENGTHS = (64, 128, 256, 512, 1024)
SELECTION_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)  # LTP Figure 4.5
_BINS = 20


def thresholds(request: Request, taus: Sequence[float] = TAUS) -> Report:
    """Accuracy, FLOPs and depth at each entropy threshold τ, as in MP Table 4: with and without the model's pruning."""
    _check_numbers("--taus", taus)
    rows: list[dict[str, Any]] = []
    notes, speeds, accuracies = [], [], []
    for subject in request.subjects(partial(check_has_layers, command="report thresholds")):
        for setting in (EXITS, EXITS_AND_PRUNING) if subject.classifier.token_rule is not None else (EXITS,):
            tokens = subject.classifier.token_rule if setting == EXITS_AND_PRUNING else None
            curve = []
            for tau in taus:
                rule = replace(ExitRule.uniform("entropy", tau, subject.n_rungs), tokens=tokens)
                quality = summary(subject.measured(rule), subject.full)
                curve.append({"model": subject.name, "setting": setting, "threshold": tau, **quality})
            rows += curve
            label = f"{subject.name}, {setting}"
            speeds.append(Series(label, taus, [row["flops_ratio"] for row in curve], marker="o"))
            accuracies.append(accuracy_series(label, taus, curve))
        notes += caveats(subject)
    notes.append("τ: an input leaves at the first exit whose entropy over ln N is at most τ. Heads are charged.")
    panels = [
        Panel("threshold τ", speeds, log_x=False, ylabel="FLOPs of full depth over spent (x)", percent=False),
        Panel("threshold τ", accuracies, log_x=False),
    ]
    return write_report(request.out, "thresholds", f"Exit thresholds: {request.data}", rows, notes, panels)


@dataclass(frozen=True, eq=False)
class Cell:
    """One setting of a joint sweep."""

    scale: float | None  # factor on the pruning rule's values; None = no pruning
    threshold: float | None  # of the entropy; None = no exits
    rule: ExitRule
    measured: Measured


def joint_sweep(subject: Subject, scales: Sequence[float], taus: Sequence[float]) -> Iterator[Cell]:
    """All combinations of pruning scales and exit thresholds; the first cell is full depth.

    The model is run at each pruning scale, since pruning changes all rungs; exits are replayed from that run.
    """
    trained = subject.classifier.token_rule
    if trained is None:
        raise UserError(f"{subject.model}: prunes no tokens; give a model that was trained with pruning")
    for scale in (None, *scales):
        tokens = None if scale is None else replace(trained, values=trained.values * scale)
        runs = subject.classifier.every_rung(subject.encoded, subject.batch_size, subject.progress, tokens)
        for tau in (None, *taus):
            exits = (
                ExitRule.full_depth(subject.n_rungs)
                if tau is None
                else ExitRule.uniform("entropy", tau, subject.n_rungs)
            )
            rule = replace(exits, tokens=tokens)
            yield Cell(scale, tau, rule, exits_replayed(subject, runs, rule))


def sweep(request: Request, scales: Sequence[float] = SCALES, taus: Sequence[float] = TAUS) -> Report:
    """The joint sweep of a pruning model: accuracy and FLOPs of all pruning scales and exit thresholds."""
    _check_numbers("--taus", taus)
    _check_numbers("--scales", scales)
    (subject,) = request.subjects(*_one_encoder("sweep"))
    cells = list(joint_sweep(subject, scales, taus))
    rows = []
    for cell in cells:
        mean_share = float(lengths_kept(cell.measured, cells[0].measured)["mean share over layers"].mean())
        place = {"model": subject.name, "scale": cell.scale, "threshold": cell.threshold}
        rows.append({**place, **summary(cell.measured, cells[0].measured), "share_mean": mean_share})
    curves = []
    for scale in (None, *scales):
        curve = [row for row in rows if row["scale"] == scale]
        label = "no pruning" if scale is None else f"pruning x {scale:g}"
        curves.append(accuracy_series(label, [row["gflops_mean"] for row in curve], curve))
    notes = [
        *caveats(subject),
        "Pruning: the factor on the rule's number at every layer, really run; – is without pruning. Larger prunes more "
        "where the rule is a threshold, and less where it is a share or a count.",
        "τ: the exit threshold, replayed; – is without exits.",
    ]
    title = f"Pruning and exits together: {subject.name}, {request.data}"
    return write_report(request.out, "sweep", title, rows, notes, [Panel("GFLOPs per text", curves)])


def trajectories(request: Request, edges: Sequence[int] = EDGES, exits: Exits = Exits()) -> Report:
    """Tokens that remain after each layer by input length, mean and quartiles (LTP Figure 4.6)."""
    check_edges(edges)
    rows, notes, panels = [], [], []
    for subject in request.subjects(*_one_encoder("trajectories"), exits.check_has_point):
        for setting, rule in subject.settings(exits).items():
            if setting == FULL_DEPTH:
                continue
            measured, series = subject.measured(rule), []
            groups = buckets(subject.encoded.lengths, edges)
            for index, bucket in enumerate(bucket_names(edges)):
                tokens = measured.remaining[groups == index]
                steps = trajectory(tokens, subject.full.remaining[groups == index]) if len(tokens) else []
                place = {"model": subject.name, "setting": setting, "bucket": bucket, "n": len(tokens)}
                rows += [{**place, **step} for step in steps]
                if steps:
                    series.append(_trajectory_series(f"{bucket} tokens", steps))
            if setting != EXITS or subject.classifier.token_rule is None:  # without pruning the curve is flat
                panels.append(_tokens_panel(f"{subject.name}, {setting}: behind layer", series))
        notes += [*caveats(subject), *strength_note(subject.name, subject.classifier, exits)]
    notes.append(f"A text that has its answer counts with 0 tokens from then on. Exits: {exits.name}.")
    notes.append("Bands in the figure hold the middle half of the texts.")
    return write_report(request.out, "trajectories", f"Tokens left: {request.data}", rows, notes, panels)


def correctness(request: Request, exits: Exits = Exits()) -> Report:
    """How much of a text was kept, for right and for wrong answers (LTP Figure 4.7)."""
    rows, notes, panels = [], [], []
    for subject in request.subjects(*_one_encoder("correctness"), exits.check_has_point):
        found = subject.settings(exits)
        if PRUNING not in found:
            raise UserError(f"{subject.model}: prunes no tokens; give a model that was trained with pruning")
        for setting in (PRUNING, EXITS_AND_PRUNING):
            measured = subject.measured(found[setting])
            for measure, values in lengths_kept(measured, subject.full).items():
                place = {"model": subject.name, "setting": setting, "measure": measure}
                rows.append({**place, **right_beside_wrong(values, measured.right)})
                if setting == PRUNING and measure != "tokens read":
                    panels.append(_correctness_panel(f"{subject.name}: {measure} (%)", values, measured.right))
        notes += [*caveats(subject), *strength_note(subject.name, subject.classifier, exits)]
    notes.append(
        "Wrong above right: the chance that a wrong answer's value is above a right one's. 0.5 says that length kept "
        "and correctness have nothing to do with one another; by chance alone it is in the last two columns' range "
        f"95 times of 100. Exits: {exits.name}."
    )
    return write_report(request.out, "correctness", f"Length kept and correctness: {request.data}", rows, notes, panels)


def kernel(
    out: Path,
    lengths: Sequence[int] = SELECTION_LENGTHS,
    shares: Sequence[float] = SELECTION_SHARES,
    batch_size: int = 32,
    repeats: int = 11,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Time of choosing tokens by threshold and by top-k, on random scores (LTP Figure 4.5); needs no model."""
    if min(lengths) < 2 or batch_size < 1:
        raise UserError("--lengths must be at least 2 and --batch-size at least 1")
    if not all(0 < share < 1 for share in shares):
        raise UserError(f"--shares {_listed(shares)}: each must be between 0 and 1")
    require_matplotlib()  # checked before measuring
    require_target(out / "kernel.md")
    rows = selection_costs(lengths, shares, batch_size, repeats, progress)
    series = []
    for label, key in (("top-k (one sort)", "ratio"), ("partition of a full grid", "partition_ratio")):
        y = [float(np.median([row[key] for row in rows if row["length"] == length])) for length in lengths]
        series.append(Series(label, list(lengths), y, marker="o"))
    notes = [
        f"Median of {repeats} interleaved rounds, numpy on one core, {batch_size} texts of one length, random scores.",
        "Threshold and top-k are the rules that pruning runs here; partition is what numpy's top-k costs where all "
        "texts are equally long. LTP measured other kernels: its ratios may differ.",
        "Choosing is a small part of a layer's time; what it costs a model is in `ziggurat bench`.",
    ]
    panel = Panel("tokens per text", series, ylabel="time over a threshold's (x), median of shares", percent=False)
    return write_report(
        out, "kernel", f"Choosing tokens: threshold and top-k, batch {batch_size}", rows, notes, [panel]
    )


def accuracy_series(label: str, x: Sequence[float], rows: Sequence[dict[str, Any]]) -> Series:
    """Accuracy of rows against x, with its interval as a band."""
    low, high = [row["accuracy_low"] for row in rows], [row["accuracy_high"] for row in rows]
    return Series(label, x, [row["accuracy"] for row in rows], low, high, marker="o")


def check_edges(edges: Sequence[int]) -> None:
    """UserError unless bucket edges rise from at least 1."""
    if not edges or edges[0] < 1 or (np.diff(edges) < 1).any():
        raise UserError(f"--buckets {_listed(edges)}: must rise from at least 1, such as 35,70")


def _one_encoder(kind: str) -> tuple[Callable[[str], None], ...]:
    """Checks for analyses of a single encoder's layers."""
    return tuple(partial(check, command=f"report {kind}") for check in (check_has_layers, check_one_encoder))


def _check_numbers(option: str, values: Sequence[float]) -> None:
    if not values or not all(np.isfinite(value) and value >= 0 for value in values):
        raise UserError(f"{option} {_listed(values)}: give finite numbers of at least 0, such as 0.5,1")


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _trajectory_series(label: str, steps: Sequence[dict[str, Any]]) -> Series:
    mean, low, high = ([step[f"tokens_{key}"] for step in steps] for key in ("mean", "q25", "q75"))
    return Series(label, [step["layer"] for step in steps], mean, low, high, marker="o")


def _tokens_panel(xlabel: str, series: Sequence[Series]) -> Panel:
    return Panel(xlabel, series, log_x=False, ylabel="tokens left, mean", percent=False)


def _correctness_panel(xlabel: str, shares: np.ndarray, right: np.ndarray) -> Panel:
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    middles = (100 * (edges[1:] + edges[:-1]) / 2).tolist()
    series = []
    for label, values in (("right answers", shares[right]), ("wrong answers", shares[~right])):
        if len(values):
            series.append(Series(label, middles, histogram(values, edges).tolist(), marker="o"))
    return Panel(xlabel, series, log_x=False, ylabel="texts (%)")
