"""TangoBERT's Tables 2 and 3 in our terms: what cascades save at 99 % and 98 % of the last tier's accuracy.

    python -m reproduction.tango DATA_FOLDER [DATA_FOLDER ...] [--small static] [--students distil pkd ...]

Starts from the models that `reproduction.reproduce` left (the full one, those with exits), puts small models in front
of them, chooses settings on select rows and reports test rows. Finished models and rows stay. `make tango` calls it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np

from reproduction.models import FULL, Experiment, recipe_of
from reproduction.reproduce import choosing_rows
from scripts.shared import RESULTS, RUNS, Row, command, stored_rows
from ziggurat.calibrate import choose_points, fit_temperatures, select_ladders
from ziggurat.data import Dataset
from ziggurat.data.tokenizer import Encoded
from ziggurat.encoder import write_cascade
from ziggurat.engine import OpenedModel, Outcomes
from ziggurat.errors import UserError
from ziggurat.measure import (
    append_row,
    data_and_split,
    interleave,
    lengths_summary,
    paired_ratio,
    provenance,
    rows_to_measure,
    sample,
)
from ziggurat.policies import ExitRule
from ziggurat.problems import accuracy_interval
from ziggurat.training import TrainOptions, train_model

ROWS = RESULTS / "cascades.jsonl"
SHARES = (0.99, 0.98)  # of the last tier's accuracy, as in the paper
LAST = ("magic-pyramid", "magic-pyramid-shares", "magic-pyramid-joint", "early-exit", FULL)
STUDENTS = ("distil", "pkd", "theseus", "tinybert", "truncated")  # each alone, beside the cascades
TIMED = {1: 64, 32: 256}  # texts, by batch size


@dataclass(frozen=True)
class Rows:
    """The rows on which settings are chosen, and those that are reported."""

    select: Dataset
    test: Dataset
    encoded: Encoded  # the test rows


@dataclass(frozen=True)
class Subject:
    """A model and the rule that it is run with."""

    system: str
    model: OpenedModel
    rule: ExitRule


def full_depth(system: str, model: OpenedModel) -> Subject:
    """A model without exits."""
    return Subject(system, model, ExitRule.full_depth(len(model.rungs)))


# --- one row -------------------------------------------------------------------------------------------------------


def measured(subject: Subject, full: OpenedModel, rows: Rows) -> Iterator[Row]:
    """A row for each batch size: accuracy and FLOPs on the test rows, which do not depend on it, and time."""
    model, rule, n = subject.model, subject.rule, len(rows.test)
    outcomes = model.run(rows.encoded, rule)
    correct = int((outcomes.predictions == rows.test.classes).sum())
    low, high = accuracy_interval(correct, n)
    flops = model.flops(rows.encoded, outcomes.token_counts, rule)[np.arange(n), outcomes.rungs]
    fixed = {
        "what": subject.system, "accuracy": correct / n, "accuracy_low": low, "accuracy_high": high, "n_accuracy": n,
        "flops_gain": float(full.full_flops(rows.encoded).sum() / max(1, flops.sum())),
        "escalated": escalated(model, outcomes),
    }  # fmt: skip
    for batch, count in TIMED.items():
        timed = rows.encoded.take(sample(n, count))
        calls = {
            "subject": partial(model.run, timed, rule, batch),
            FULL: partial(full.run, timed, ExitRule.full_depth(len(full.rungs)), batch),
        }
        timings = interleave(calls)
        gain = paired_ratio(timings[FULL], timings["subject"])
        yield fixed | {
            "batch": batch, "n_texts": len(timed), **lengths_summary(timed),
            "texts_per_second_p50": len(timed) / timings["subject"].p50,
            "texts_per_second_p95": len(timed) / timings["subject"].p95,
            "full_texts_per_second_p50": len(timed) / timings[FULL].p50,
            "time_gain": gain.median, "time_gain_low": gain.low, "time_gain_high": gain.high,
        }  # fmt: skip


def escalated(model: OpenedModel, outcomes: Outcomes) -> float:
    """Share of inputs that the tiers before the last did not answer; 1 for a model alone."""
    first = sum(tier.n_rungs for tier in model.tiers[:-1])
    return float((outcomes.rungs >= first).mean())


def correct_at_full_depth(model: OpenedModel, rows: Rows) -> np.ndarray:
    """Which test rows a model alone answers correctly at full depth, (n) bool."""
    return model.run(rows.encoded, ExitRule.full_depth(len(model.rungs))).predictions == rows.test.classes


def routers(
    small: OpenedModel, full: OpenedModel, rows: Rows, correct: tuple[np.ndarray, np.ndarray], fields: Row
) -> Iterator[Row]:
    """What a random and an oracle router would save: tier 1 on all rows, tier 2 on escalated ones (Tango's accounting).

    Computed from the tiers' own times. They are set on the test rows and so flattered: bounds, not methods. `correct`:
    which test rows each tier answers correctly, (n) bool.
    """
    (first, last), share, batch = correct, fields["share"], fields["batch"]
    timed = rows.encoded.take(sample(len(rows.test), TIMED[batch]))
    calls = {
        "small": partial(small.run, timed, ExitRule.full_depth(1), batch),
        FULL: partial(full.run, timed, ExitRule.full_depth(len(full.rungs)), batch),
    }
    timings = interleave(calls)
    time_share = 1 / paired_ratio(timings[FULL], timings["small"]).median  # tier 1's time over tier 2's
    missing, n = max(0.0, share * last.mean() - first.mean()), len(rows.test)
    speed = len(timed) / timings[FULL].p50
    full_flops, small_flops = (model.full_flops(rows.encoded).sum() for model in (full, small))
    for system, rate in (("random", missing / max(1e-12, last.mean() - first.mean())), ("oracle", missing)):
        accuracy = float(first.mean()) + missing
        low, high = accuracy_interval(round(accuracy * n), n)
        gain = float(1 / (time_share + rate))
        yield fields | {
            "what": system, "accuracy": accuracy, "accuracy_low": min(low, accuracy),
            "accuracy_high": max(high, accuracy), "n_accuracy": n, "escalated": float(rate), "n_texts": len(timed),
            **lengths_summary(timed), "time_gain": gain, "texts_per_second_p50": speed * gain,
            "texts_per_second_p95": speed * gain, "full_texts_per_second_p50": speed,
            "flops_gain": float(full_flops / (small_flops + rate * full_flops)), "computed": True,
        }  # fmt: skip


# --- models and settings -------------------------------------------------------------------------------------------


def students(experiment: Experiment, kinds: Sequence[str]) -> dict[str, Path]:
    """Folders of models that the full one teaches, small or of fewer layers; trained unless they exist."""
    folders = {kind: experiment.model(kind) for kind in kinds}
    for kind, folder in folders.items():
        if not folder.exists():
            sys.stderr.write(f"{experiment.name}: {kind}, seed {experiment.seed}\n")
            train_model(experiment.train, folder, kind, None, TrainOptions(), str(experiment.model(FULL)))
    return folders


def cascade(experiment: Experiment, firsts: list[Path], last: str) -> Path:
    """The folder of a cascade: these small models in front of a model."""
    name = "+".join([*(first.name.removesuffix(f"-{experiment.seed}") for first in firsts), last])
    out = experiment.model(name)
    if not out.exists():
        write_cascade([*firsts, experiment.model(last)], out)
    return out


def chosen_rules(model: OpenedModel, select: Dataset, full_accuracy: float) -> dict[float, ExitRule]:
    """For each of SHARES the cheapest rule that keeps that share of the full model's accuracy on the select rows."""
    ladders = select_ladders(model, select)
    temperatures = fit_temperatures(ladders[-1].all_readings, select.classes) if len(model.rungs) > 1 else None
    points = choose_points(
        ladders,
        select.labels,
        model.manifest.fingerprint,
        select.digest,
        "entropy",
        {str(share): (1 - share) * full_accuracy for share in SHARES},
        temperatures,
        full_accuracy,
    )
    return {share: model.rule_of(point) for share, point in zip(SHARES, points, strict=True)}


# --- all rows of an experiment -------------------------------------------------------------------------------------


def read_rows(experiment: Experiment, full: OpenedModel) -> Rows:
    """The rows of a data set, as the full model's tokens."""
    test = rows_to_measure(full, experiment.test)
    encoded = full.tokenizer.encode(test.texts, test.pairs)
    return Rows(choosing_rows(recipe_of(FULL, experiment), experiment), test, encoded)


def common_fields(experiment: Experiment, full: OpenedModel, full_correct: np.ndarray) -> Row:
    """What all rows of an experiment share; `full_correct` (n) bool: which test rows the full model gets right."""
    data, split = data_and_split(experiment.test)
    return {
        "data": data, "split": split, "seed": experiment.seed, "model": "MiniLM-L6-H384", "timed": "model",
        "padding": "packed", "device": full.backend.device, "threads": full.backend.threads,
        "dtype": full.backend.dtype, "full_accuracy": float(full_correct.mean()),
    }  # fmt: skip


def student_rows(experiment: Experiment, kinds: list[str]) -> Iterator[Row]:
    """A row for each batch size and distilled model, alone."""
    full = OpenedModel.from_pretrained(experiment.model(FULL))
    rows = read_rows(experiment, full)
    fields = common_fields(experiment, full, correct_at_full_depth(full, rows)) | {"share": None, "small": []}
    for kind, folder in students(experiment, kinds).items():
        subject = full_depth(f"{kind} alone", OpenedModel.from_pretrained(folder))
        for row in measured(subject, full, rows):
            yield fields | row


def cascade_rows(experiment: Experiment, small: list[str]) -> Iterator[Row]:
    """All rows of cascades whose first tiers are `small`, as they are measured."""
    full = OpenedModel.from_pretrained(experiment.model(FULL))
    rows = read_rows(experiment, full)
    [ladder] = select_ladders(full, rows.select, (1.0,))
    select_accuracy = float((ladder.all_readings[:, -1].argmax(axis=1) == rows.select.classes).mean())
    full_correct = correct_at_full_depth(full, rows)
    fields = common_fields(experiment, full, full_correct) | {"small": small}
    folders = students(experiment, small)
    alone = {kind: OpenedModel.from_pretrained(folder) for kind, folder in folders.items()}
    for kind, model in alone.items():
        for row in measured(full_depth(f"{kind} alone", model), full, rows):
            yield fields | row | {"share": None}
    existing = [last for last in LAST if experiment.model(last).exists()]
    subjects = {last: experiment.model(last) for last in existing if last != FULL}
    subjects |= {f"{'+'.join(small)} > {last}": cascade(experiment, list(folders.values()), last) for last in existing}
    for system, folder in subjects.items():
        model = OpenedModel.from_pretrained(folder)
        for share, rule in chosen_rules(model, rows.select, select_accuracy).items():
            for row in measured(Subject(system, model, rule), full, rows):
                yield fields | row | {"share": share}
    first = alone[small[-1]]
    correct = correct_at_full_depth(first, rows), full_correct
    for share in SHARES:
        for batch in TIMED:
            yield from routers(first, full, rows, correct, fields | {"share": share, "batch": batch})


def missing_rows(experiment: Experiment, options: argparse.Namespace) -> Iterator[Row]:
    """Rows that the file lacks since the models were made: of the cascades, which come together, and of each student.

    UserError where no model exists yet.
    """
    made = [experiment.model(last).stat().st_mtime for last in LAST if experiment.model(last).exists()]
    if not made:
        raise UserError(f"{experiment.model(FULL)}: no such model; `make reproduce` trains it")
    finished = [
        row
        for row in stored_rows(options.rows)
        if (row["data"], row["seed"]) == (experiment.name, experiment.seed)
        and datetime.fromisoformat(row["date"]).timestamp() >= int(max(made))
    ]
    if not any(row["small"] == options.small for row in finished):
        yield from list(cascade_rows(experiment, options.small))
    names = {row["what"] for row in finished}
    yield from student_rows(experiment, [kind for kind in options.students if f"{kind} alone" not in names])


@command("tango")
def main(arguments: list[str] | None = None) -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, help="folders with train.jsonl and test or validation.jsonl")
    parser.add_argument("--runs", type=Path, default=RUNS / "reproduction")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file of result rows to append to")
    parser.add_argument("--small", nargs="+", default=["static"], help="recipes of the first tiers, cheapest first")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--students", nargs="*", default=list(STUDENTS), help="recipes of distilled models, each alone")
    options = parser.parse_args(arguments)
    for data in options.data:
        for seed in options.seeds:
            experiment, origin = Experiment(data, options.runs, seed), provenance()
            experiment.check_complete()
            for row in missing_rows(experiment, options):
                append_row(options.rows, row, origin)


if __name__ == "__main__":
    main()
