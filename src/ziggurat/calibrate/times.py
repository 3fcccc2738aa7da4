"""Predicts the time of settings on given rows from the measured costs of each tier's parts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from ziggurat.calibrate.candidates import Candidate, StoredRun
from ziggurat.data.packing import by_length
from ziggurat.data.tokenizer import Encoded
from ziggurat.engine.opened import OpenedModel
from ziggurat.engine.tiers import SMALL_BATCH, EncoderTier, SmallTier, Tier
from ziggurat.measure.clock import interleave
from ziggurat.measure.predicted_time import Profile, predicted_seconds
from ziggurat.measure.profile import stored_profile
from ziggurat.measure.subject import sample
from ziggurat.policies.rules import ExitRule
from ziggurat.system import Progress, cached_property

_TIMED_ROWS = 4096  # largest number of rows of a prediction
_PRICED_ROWS = 64  # inputs of several sequences on which the time per FLOP is measured
_ROUNDS = 5
_SIZED_TEXTS, _SIZES = 128, (1, 8, 32, 128)


class Cost(Protocol):
    """The cost of one tier."""

    @property
    def key(self) -> str:
        """Key of the stored profile; "" = measured in this process."""
        ...

    def seconds(
        self, token_counts: np.ndarray, rungs: np.ndarray, active: Sequence[bool], batch_of: np.ndarray
    ) -> float:
        """Seconds of texts that exit at `rungs` (n), 0 = the tier's first; arguments as `predicted_seconds`."""
        ...


@dataclass(frozen=True)
class ProfiledCost:
    """The cost of an encoder."""

    profile: Profile

    @property
    def key(self) -> str:
        """Short name of the profile's conditions."""
        return self.profile.key

    def seconds(
        self, token_counts: np.ndarray, rungs: np.ndarray, active: Sequence[bool], batch_of: np.ndarray
    ) -> float:
        """The profile's prediction."""
        return predicted_seconds(self.profile, token_counts, rungs, active, batch_of)


@dataclass(frozen=True)
class SmallCost:
    """The cost of a small model: proportional to tokens."""

    per_token: float  # seconds
    key: str = ""

    def seconds(
        self, token_counts: np.ndarray, rungs: np.ndarray, active: Sequence[bool], batch_of: np.ndarray
    ) -> float:
        """Proportional to the tokens."""
        return self.per_token * float(token_counts.sum())


@dataclass(frozen=True)
class PricedCost:
    """The cost of a model whose inputs are several sequences: proportional to FLOPs, since profiles do not cover it."""

    tier: Tier
    per_flop: float  # seconds
    key: str = ""

    def seconds(
        self, token_counts: np.ndarray, rungs: np.ndarray, active: Sequence[bool], batch_of: np.ndarray
    ) -> float:
        """Proportional to the FLOPs."""
        flops = self.tier.flops(token_counts, token_counts[:, 0], active, self.tier.backend.token_rule)
        return self.per_flop * float(flops[np.arange(len(rungs)), rungs].sum())


def costs_of(classifier: OpenedModel, encoded: Encoded, batch_size: int, tick: Progress = None) -> list[Cost]:
    """The cost of each tier. An encoder's comes from its stored profile, which is measured if it is missing.

    Small models, and encoders whose inputs are several sequences, are timed in this call.
    """
    if encoded.owners is not None:
        few = encoded.take(sample(len(encoded), _PRICED_ROWS))
        return [_priced(tier, few, batch_size) for tier in classifier.tiers]
    sampled = sample(len(encoded), _TIMED_ROWS)
    return [
        ProfiledCost(stored_profile(OpenedModel([tier]), tick))
        if isinstance(tier, EncoderTier)
        else _timed(tier, classifier.ladder.inputs_of(tier, encoded.take(sampled)), batch_size)
        for tier in classifier.tiers
    ]


def _priced(tier: Tier, encoded: Encoded, batch_size: int) -> PricedCost:
    alone, full = OpenedModel([tier]), ExitRule.full_depth(tier.n_rungs)
    timing = interleave({"full": lambda: alone.run(encoded, full, batch_size)}, 3)
    return PricedCost(tier, timing["full"].p50 / max(1, int(alone.full_flops(encoded).sum())))


def _timed(tier: Tier, encoded: Encoded, batch_size: int) -> SmallCost:
    alone, seconds = OpenedModel([tier]), []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        alone.run(
            encoded, ExitRule.full_depth(1), batch_size
        )  # in batches; one text at a time costs many times as much
        seconds.append(time.perf_counter() - start)
    return SmallCost(float(np.median(seconds)) / max(1, int(encoded.lengths.sum())))


def best_batch_sizes(classifier: OpenedModel, encoded: Encoded, tick: Progress = None) -> tuple[int, ...]:
    """For each tier the smallest batch size within 2 % of the fastest, on a sample of these texts (Tango 6.2).

    For a small model it is always `SMALL_BATCH`.
    """
    sampled = encoded.take(sample(len(encoded), _SIZED_TEXTS))
    found = []
    for tier in classifier.tiers:
        if isinstance(tier, SmallTier):
            found.append(SMALL_BATCH)
            continue
        alone = OpenedModel([tier])
        inputs = classifier.ladder.inputs_of(tier, sampled)
        calls = {str(size): partial(alone.run, inputs, ExitRule.full_depth(tier.n_rungs), size) for size in _SIZES}
        times = {int(size): timing.p50 for size, timing in interleave(calls, 3, progress=tick).items()}
        found.append(min(size for size in _SIZES if times[size] <= 1.02 * min(times.values())))
    return tuple(found)


class PredictedTime:
    """Predicted seconds per text of settings on given rows, in batches of similar lengths."""

    def __init__(
        self,
        classifier: OpenedModel,
        costs: Sequence[Cost],
        encoded: Encoded,
        runs: Mapping[float, StoredRun],
        batch_size: int,
    ) -> None:
        self._places, self._costs, self._batch_size = classifier.ladder.slices, costs, batch_size
        self._n = len(encoded)
        rows = sample(len(encoded), _TIMED_ROWS)
        rows = rows[np.concatenate([*by_length(encoded.longest[rows], batch_size), np.zeros(0, dtype=np.int64)])]
        sequences = encoded.sequences_of(rows)
        self._n_timed = len(rows)
        self._inputs = rows if encoded.owners is None else encoded.owners[sequences]  # (s) input of each sequence
        self._token_counts = {strength: run.token_counts[sequences] for strength, run in runs.items()}

    @property
    def key(self) -> str:
        """Keys of the profiles that the times come from, joined by "+"."""
        return "+".join(cost.key for cost in self._costs if cost.key)

    def __call__(self, candidate: Candidate) -> float:
        """Predicted time of a candidate on the rows of its `rungs`."""
        return self.of(candidate.rungs, candidate.active, candidate.pruning)

    def of_full_depth(self, n_rungs: int) -> float:
        """Predicted time at full depth, without pruning and without exits."""
        return self.of(np.full(self._n, n_rungs - 1), ExitRule.full_depth(n_rungs).active, self._unpruned)

    def of(self, rungs: np.ndarray, active: Sequence[bool], pruning: float) -> float:
        """Predicted time if the rows exit at `rungs` (n)."""
        exit_rungs, token_counts = rungs[self._inputs], self._token_counts[pruning]
        total = 0.0
        for place, cost in zip(self._places, self._costs, strict=True):
            first, last = place.rungs.start, place.last_active(active)
            if last is not None:
                # Rows are sorted by length; those that reach the tier are divided into new batches.
                came = slice(None) if first == 0 else np.flatnonzero(exit_rungs >= first)
                local = np.minimum(exit_rungs[came] - first, last)
                batch_of = np.arange(len(local)) // self._batch_size
                total += cost.seconds(token_counts[came, place.columns], local, tuple(active[place.rungs]), batch_of)
        return total / max(1, self._n_timed)

    @cached_property
    def saved(self) -> np.ndarray:
        """Share of full depth's time that an exit at each rung saves, (n_rungs): all later layers and tiers."""
        parts = []
        for place, cost in zip(self._places, self._costs, strict=True):
            token_counts, tier = self._token_counts[self._unpruned][:, place.columns], place.tier
            last, active = np.full(len(token_counts), tier.n_rungs - 1), ExitRule.full_depth(tier.n_rungs).active
            full_seconds = cost.seconds(token_counts, last, active, np.arange(len(token_counts)) // self._batch_size)
            parts.append((full_seconds, tier.depths))
        after = np.append(
            np.cumsum([full_seconds for full_seconds, _ in parts[:0:-1]])[::-1], 0.0
        )  # of each tier: the time of all later ones
        saved_seconds = [
            full_seconds * (1 - depths) + later for (full_seconds, depths), later in zip(parts, after, strict=True)
        ]
        return np.concatenate(saved_seconds) / max(parts[-1][0], 1e-12)

    @property
    def _unpruned(self) -> float:
        return 0.0 if 0.0 in self._token_counts else next(iter(self._token_counts))
