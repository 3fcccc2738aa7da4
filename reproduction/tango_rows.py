"""What a row of a cascade is: accuracy, FLOPs and time of a model and a rule, and the bounds that routers set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from reproduction.models import FULL
from ziggurat.data.dataset import Dataset
from ziggurat.data.tokenizer import Encoded
from ziggurat.engine import rules
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.engine.rules import ExitRule
from ziggurat.engine.runner import Outcomes
from ziggurat.measure.clock import interleave, paired_ratio
from ziggurat.measure.subject import lengths_summary, sample
from ziggurat.problems.metrics import accuracy_interval

TIMED = {1: 64, 32: 256}  # texts, by batch size


@dataclass(frozen=True)
class Rows:
    """What settings are chosen and reported on."""

    select: Dataset
    test: Dataset
    encoded: Encoded  # the test rows


@dataclass(frozen=True)
class Subject:
    """A model and the rule that it is run with."""

    what: str
    model: AdaptiveClassifier
    rule: ExitRule


def measured(subject: Subject, full: AdaptiveClassifier, rows: Rows) -> Iterator[dict[str, Any]]:
    """A row for each batch size: accuracy and FLOPs on the test rows, which do not depend on it, and time."""
    model, rule, n = subject.model, subject.rule, len(rows.test)
    outcomes = model.run(rows.encoded, rule)
    right = int((outcomes.predictions == rows.test.classes).sum())
    low, high = accuracy_interval(right, n)
    spent = model.spent(rows.encoded, outcomes.kept, rule)[np.arange(n), outcomes.rungs]
    fixed = {
        "what": subject.what, "accuracy": right / n, "accuracy_low": low, "accuracy_high": high, "n_accuracy": n,
        "flops_gain": float(full.whole(rows.encoded).sum() / max(1, spent.sum())),
        "escalated": escalated(model, outcomes),
    }  # fmt: skip
    for batch, count in TIMED.items():
        timed = rows.encoded.take(sample(n, count))
        calls = {
            "it": partial(model.run, timed, rule, batch),
            FULL: partial(full.run, timed, rules.never(len(full.rungs)), batch),
        }
        timings = interleave(calls)
        gain = paired_ratio(timings[FULL], timings["it"])
        yield fixed | {
            "batch": batch, "n_texts": len(timed), **lengths_summary(timed),
            "texts_per_second_p50": len(timed) / timings["it"].p50,
            "texts_per_second_p95": len(timed) / timings["it"].p95,
            "full_texts_per_second_p50": len(timed) / timings[FULL].p50,
            "time_gain": gain.median, "time_gain_low": gain.low, "time_gain_high": gain.high,
        }  # fmt: skip


def escalated(model: AdaptiveClassifier, outcomes: Outcomes) -> float:
    """Share of inputs that the first tiers did not answer; of a model alone 1."""
    first = sum(tier.n_rungs for tier in model.tiers[:-1])
    return float((outcomes.rungs >= first).mean())


def routers(
    small: AdaptiveClassifier,
    full: AdaptiveClassifier,
    rows: Rows,
    right: tuple[np.ndarray, np.ndarray],
    base: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """What a random and an oracle router would save: tier 1 on all, tier 2 on what they escalate (Tango's accounting).

    From the tiers' own times. They are set on the test rows, and so flattered: they are bounds, and no methods. `right`
    (n) each: which test rows the tiers answer right.
    """
    (first, last), share, batch = right, base["share"], base["batch"]
    timed = rows.encoded.take(sample(len(rows.test), TIMED[batch]))
    timings = interleave(
        {
            "small": lambda: small.run(timed, rules.never(1), batch),
            FULL: lambda: full.run(timed, rules.never(len(full.rungs)), batch),
        }
    )
    ratio = 1 / paired_ratio(timings[FULL], timings["small"]).median  # of tier 1's time to tier 2's
    missing, n = max(0.0, share * last.mean() - first.mean()), len(rows.test)
    speed = len(timed) / timings[FULL].p50
    whole, cheap = (model.whole(rows.encoded).sum() for model in (full, small))
    for what, rate in (("random", missing / max(1e-12, last.mean() - first.mean())), ("oracle", missing)):
        accuracy = float(first.mean()) + missing
        low, high = accuracy_interval(round(accuracy * n), n)
        gain = float(1 / (ratio + rate))
        yield base | {
            "what": what, "accuracy": accuracy, "accuracy_low": min(low, accuracy),
            "accuracy_high": max(high, accuracy), "n_accuracy": n, "escalated": float(rate), "n_texts": len(timed),
            **lengths_summary(timed), "time_gain": gain, "texts_per_second_p50": speed * gain,
            "texts_per_second_p95": speed * gain, "full_texts_per_second_p50": speed,
            "flops_gain": float(whole / (cheap + rate * whole)), "computed": True,
        }  # fmt: skip


def right_of(model: AdaptiveClassifier, rows: Rows) -> np.ndarray:
    """Which test rows a model alone answers right at full depth, (n) bool."""
    found: np.ndarray = model.run(rows.encoded, rules.never(len(model.rungs))).predictions == rows.test.classes
    return found
