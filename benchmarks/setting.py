"""What the races of `engine.py` share: the model, the texts, how often to measure, and one timed call."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ziggurat.data import in_order
from ziggurat.data.tokenizer import Encoded, pack_rows
from ziggurat.engine import Backend, OpenedModel, Outcomes, run_batches
from ziggurat.engine.tiers import DTYPES
from ziggurat.measure import ModelOptions, Ratio, rows_to_measure, sample
from ziggurat.policies import ExitRule


@dataclass(frozen=True)
class Setting:
    """What is measured, and how often."""

    model: str
    source: str
    threads: int
    texts: int
    rounds: int
    dtypes: tuple[str, ...] = DTYPES["native"]

    def opened(self, dtype: str) -> OpenedModel:
        """The model in the compiled engine."""
        return ModelOptions("cpu", dtype, self.threads, backend="native").open(self.model)

    @cached_property
    def encoded(self) -> Encoded:
        """The texts that are timed, spread over the data."""
        classifier = self.opened("float32")
        rows = rows_to_measure(classifier, self.source)
        rows = rows.take(sample(len(rows), self.texts))
        return classifier.tokenizer.encode(rows.texts, rows.pairs)


def answers(backend: Backend, encoded: Encoded, rule: ExitRule, batch: int) -> Outcomes:
    """Outcomes of all texts in their order, in batches; packing is on the clock."""
    batches = (pack_rows(encoded, rows) for rows in in_order(np.arange(len(encoded)), batch))
    return run_batches(backend, batches, rule, len(encoded))


def median_and_range(ratio: Ratio) -> list[float]:
    """Median, least and most of the rounds, as rows hold them."""
    return [ratio.median, ratio.low, ratio.high]
