"""What settings are predicted to take on some rows, from what each tier's parts were measured to cost."""

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

_TIMED_ROWS = 4096  # at most, that predicted times are of
_PRICED_ROWS = 64  # inputs of several sequences, by which a FLOP is priced
_ROUNDS = 5
_SIZED_TEXTS, _SIZES = 128, (1, 8, 32, 128)


class Cost(Protocol):
    """Of one tier."""

    @property
    def key(self) -> str:
        """Under which a profile is kept; "" = it was measured just now."""
        ...

    def seconds(self, kept: np.ndarray, rungs: np.ndarray, asked: Sequence[bool], batch_of: np.ndarray) -> float:
        """Of texts that leave at `rungs` (n), counted from the tier's own first; arguments as `predicted_seconds`."""
        ...


@dataclass(frozen=True)
class ProfiledCost:
    """Of an encoder."""

    profile: Profile

    @property
    def key(self) -> str:
        """Short name of the profile's conditions."""
        return self.profile.key

    def seconds(self, kept: np.ndarray, rungs: np.ndarray, asked: Sequence[bool], batch_of: np.ndarray) -> float:
        """As its profile predicts."""
        return predicted_seconds(self.profile, kept, rungs, asked, batch_of)


@dataclass(frozen=True)
class SmallCost:
    """Of a small model: so much for each token."""

    per_token: float  # seconds
    key: str = ""

    def seconds(self, kept: np.ndarray, rungs: np.ndarray, asked: Sequence[bool], batch_of: np.ndarray) -> float:
        """In proportion to the tokens."""
        return self.per_token * float(kept.sum())


@dataclass(frozen=True)
class PricedCost:
    """Of a model whose inputs are several sequences, which no profile knows: so much for each FLOP."""

    tier: Tier
    per_flop: float  # seconds
    key: str = ""

    def seconds(self, kept: np.ndarray, rungs: np.ndarray, asked: Sequence[bool], batch_of: np.ndarray) -> float:
        """In proportion to the FLOPs."""
        spent = self.tier.flops(kept, kept[:, 0], asked, self.tier.backend.token_rule)
        return self.per_flop * float(spent[np.arange(len(rungs)), rungs].sum())


def costs_of(classifier: OpenedModel, encoded: Encoded, batch_size: int, tick: Progress = None) -> list[Cost]:
    """Of each tier: an encoder's stored profile, measured where there is none; small models are timed right here.

    Encoders whose inputs are several sequences are timed here as well.
    """
    if encoded.owners is not None:
        few = encoded.take(sample(len(encoded), _PRICED_ROWS))
        return [_priced(tier, few, batch_size) for tier in classifier.tiers]
    some = sample(len(encoded), _TIMED_ROWS)
    return [
        ProfiledCost(stored_profile(OpenedModel([tier]), tick))
        if isinstance(tier, EncoderTier)
        else _timed(tier, classifier.ladder.inputs_of(tier, encoded.take(some)), batch_size)
        for tier in classifier.tiers
    ]


def _priced(tier: Tier, encoded: Encoded, batch_size: int) -> PricedCost:
    alone, full = OpenedModel([tier]), ExitRule.full_depth(tier.n_rungs)
    timing = interleave({"full": lambda: alone.run(encoded, full, batch_size)}, 3)
    return PricedCost(tier, timing["full"].p50 / max(1, int(alone.whole(encoded).sum())))


def _timed(tier: Tier, encoded: Encoded, batch_size: int) -> SmallCost:
    alone, seconds = OpenedModel([tier]), []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        alone.run(encoded, ExitRule.full_depth(1), batch_size)  # one text at a time costs it many times as much
        seconds.append(time.perf_counter() - start)
    return SmallCost(float(np.median(seconds)) / max(1, int(encoded.lengths.sum())))


def best_batch_sizes(classifier: OpenedModel, encoded: Encoded, tick: Progress = None) -> tuple[int, ...]:
    """For each tier the smallest batch that is hardly slower than the fastest, on some of these texts (Tango 6.2).

    Of a small model, whatever its batches, `SMALL_BATCH`.
    """
    some = encoded.take(sample(len(encoded), _SIZED_TEXTS))
    found = []
    for tier in classifier.tiers:
        if isinstance(tier, SmallTier):
            found.append(SMALL_BATCH)
            continue
        alone = OpenedModel([tier])
        mine = classifier.ladder.inputs_of(tier, some)
        calls = {str(size): partial(alone.run, mine, ExitRule.full_depth(tier.n_rungs), size) for size in _SIZES}
        times = {int(size): timing.p50 for size, timing in interleave(calls, 3, progress=tick).items()}
        found.append(min(size for size in _SIZES if times[size] <= 1.02 * min(times.values())))
    return tuple(found)


class PredictedTime:
    """Predicted seconds per text of settings on some rows, in batches of like lengths."""

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
        self._inputs = rows if encoded.owners is None else encoded.owners[sequences]  # of which each sequence is
        self._kept = {strength: run.kept[sequences] for strength, run in runs.items()}

    @property
    def key(self) -> str:
        """Of the profiles that the times come from."""
        return "+".join(cost.key for cost in self._costs if cost.key)

    def __call__(self, candidate: Candidate) -> float:
        """Of the rows that `candidate.rungs` is about."""
        return self.of(candidate.rungs, candidate.asked, candidate.pruning)

    def of_full_depth(self, n_rungs: int) -> float:
        """Of rows that go all the way, without pruning, no exit asked."""
        return self.of(np.full(self._n, n_rungs - 1), ExitRule.full_depth(n_rungs).active, self._unpruned)

    def of(self, rungs: np.ndarray, asked: Sequence[bool], pruning: float) -> float:
        """Of rows that leave at `rungs` (n, all of them)."""
        here, kept = rungs[self._inputs], self._kept[pruning]
        total = 0.0
        for place, cost in zip(self._places, self._costs, strict=True):
            first, last = place.rungs.start, place.last_active(asked)
            if last is not None:
                # Like lengths come behind one another, and those that go on share batches anew.
                came = slice(None) if first == 0 else np.flatnonzero(here >= first)
                local = np.minimum(here[came] - first, last)
                batch_of = np.arange(len(local)) // self._batch_size
                total += cost.seconds(kept[came, place.columns], local, tuple(asked[place.rungs]), batch_of)
        return total / max(1, self._n_timed)

    @cached_property
    def saved(self) -> np.ndarray:
        """What leaving at each rung saves of the time of full depth, (n_rungs): all that would come after it."""
        parts = []
        for place, cost in zip(self._places, self._costs, strict=True):
            kept, tier = self._kept[self._unpruned][:, place.columns], place.tier
            last, asked = np.full(len(kept), tier.n_rungs - 1), ExitRule.full_depth(tier.n_rungs).active
            whole = cost.seconds(kept, last, asked, np.arange(len(kept)) // self._batch_size)
            parts.append((whole, tier.depths))
        after = np.append(np.cumsum([whole for whole, _ in parts[:0:-1]])[::-1], 0.0)  # each tier's: all later ones
        left = [whole * (1 - depths) + later for (whole, depths), later in zip(parts, after, strict=True)]
        return np.concatenate(left) / max(parts[-1][0], 1e-12)

    @property
    def _unpruned(self) -> float:
        return 0.0 if 0.0 in self._kept else next(iter(self._kept))
