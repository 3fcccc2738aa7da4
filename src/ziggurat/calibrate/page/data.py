"""What a calibration's page shows, from arrays alone: where rows leave, what that loses, what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DECILES = 10


@dataclass(frozen=True, eq=False)
class Curve:
    """Settings, from slow to fast."""

    ms: np.ndarray  # (k) per text
    loss: np.ndarray  # (k) mean, as a share
    low: np.ndarray | None = None  # (k) the mean is not below, with the calibration's confidence
    high: np.ndarray | None = None  # (k) the mean is not above, likewise


@dataclass(frozen=True, eq=False)
class TokensLeft:
    """Tokens behind each layer, as shares of all that were read, (L) each."""

    pruned: np.ndarray  # if nobody left early
    computed: np.ndarray  # of texts that have no answer yet when the layer runs


@dataclass(frozen=True, eq=False)
class Deciles:
    """Rows from least sure to surest in ten groups of one size; each entry is a share of all rows, (10)."""

    early: np.ndarray  # answered before full depth
    differs: np.ndarray  # answered otherwise than full depth
    corrected: np.ndarray | None  # wrong (or by how much), and full depth is right; None = no labels
    added: np.ndarray | None  # right, and full depth is wrong


@dataclass(frozen=True, eq=False)
class Spot:
    """One operating point that is faster than full depth, on the rows that certify."""

    name: str
    predicted_ms: float  # per text
    measured_ms: float
    gain: float  # measured: full depth's time over this one's
    loss: float  # mean, as a share
    low: float  # as of `Curve`
    high: float
    accuracy: float | None  # None = no labels
    exits: np.ndarray  # (n_rungs) share of rows that leave there
    tokens: TokensLeft
    deciles: Deciles
    sorted_by: str  # what the deciles are of: "entropy after layer 2"


@dataclass(frozen=True)
class Costly:
    """One input."""

    text: str
    read: int  # tokens
    kept: int  # tokens behind the last layer that ran
    rung: str  # that answered
    gflops: float
    answer: str
    label: str | None
    wrong: bool = False


@dataclass(frozen=True)
class Mechanism:
    """The fastest setting of one kind that is expected to keep a target."""

    name: str
    ms: float | None  # predicted, per text; None = there is none
    why: str | None = None  # there is none
    asked: tuple[str, ...] = ()  # rungs where texts may leave early
    pruning: float | None = None  # factor on the model's pruning thresholds; None = nothing is pruned


@dataclass(frozen=True, eq=False)
class Picture:
    """All of it."""

    rungs: tuple[str, ...]  # what people call them
    full_ms: float  # full depth's time per text, measured if anything was
    full_predicted_ms: float  # the same as predicted, as all times of curves are
    full_loss: float  # 0, or what full depth loses against another model
    full_accuracy: float | None  # on the rows that certify; None = no labels
    accuracy_scale: float | None  # accuracy of a setting that loses nothing; None = loss and accuracy have no such tie
    frontier: Curve  # loss on the rows that certify
    estimate: np.ndarray  # (k) loss of the frontier's settings on the rows that found them
    random: Curve  # as many rows leave at each rung as on the frontier, but any
    oracle: Curve  # each row leaves at the first rung that loses nothing
    spots: tuple[Spot, ...]
    mechanisms: tuple[Mechanism, ...]
    costly_at: str  # point that `costly` is about
    mean_gflops: float  # there
    costly: tuple[Costly, ...]

    @property
    def pace(self) -> float:
        """Measured over predicted time of full depth: by this a shared machine was slower than when it was profiled."""
        return self.full_ms / self.full_predicted_ms


def exit_shares(rungs: np.ndarray, n_rungs: int) -> np.ndarray:
    """Share of rows that leave at each rung: rungs (n) → (n_rungs)."""
    return np.bincount(rungs, minlength=n_rungs) / len(rungs)


def tokens_left(kept: np.ndarray, layers: np.ndarray) -> TokensLeft:
    """From kept (n, L + 1), nobody leaving, and the layers (n) after which rows do leave."""
    steps = np.arange(1, kept.shape[1])
    read = kept[:, 0].sum()
    running = steps <= layers[:, None]
    return TokensLeft(kept[:, 1:].sum(axis=0) / read, (kept[:, 1:] * running).sum(axis=0) / read)


def deciles(doubt: np.ndarray, early: np.ndarray, differs: np.ndarray, lost: np.ndarray | None) -> Deciles:
    """Where answers and full depth's part, by how unsure the model is: TangoBERT's Figure 4 for any rung.

    `doubt` (n): larger is less sure, equal ones keep their order; `early` (n, bool): answered before full depth;
    `differs` (n): how far the answer is from full depth's, of classes 0 or 1; `lost` (n) in [-1, 1]: how much more than
    full depth's it is off the label, None = no labels. The groups' sizes differ by one row at most.
    """
    group = decile_of(doubt)
    return Deciles(
        early=per_decile(early, group),
        differs=per_decile(differs, group),
        corrected=None if lost is None else per_decile(np.maximum(lost, 0), group),
        added=None if lost is None else per_decile(np.maximum(-lost, 0), group),
    )


def decile_of(doubt: np.ndarray) -> np.ndarray:
    """Which tenth each row is in, 0 = the least sure: doubt (n), larger is less sure → (n) int64; equals keep order."""
    group = np.empty(len(doubt), dtype=np.int64)
    group[np.argsort(-doubt, kind="stable")] = np.arange(len(doubt)) * DECILES // len(doubt)
    return group


def per_decile(which: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Rows where `which` (n, bool or shares) holds in each tenth, as shares of all n rows: (10)."""
    return np.bincount(group, weights=which, minlength=DECILES) / len(group)


def random_loss(losses: np.ndarray, rungs: np.ndarray) -> float:
    """Mean loss if the rungs (n) were dealt out to the rows anew: losses (n, n_rungs), exact over all ways to deal."""
    return float(losses.mean(axis=0) @ exit_shares(rungs, losses.shape[1]))


def oracle_rungs(losses: np.ndarray) -> np.ndarray:
    """The first rung that loses nothing, or else the least: losses (n, n_rungs) → (n)."""
    free = losses <= 0
    return np.where(free.any(axis=1), free.argmax(axis=1), losses.argmin(axis=1))


def undominated(ms: Sequence[float], loss: Sequence[float]) -> np.ndarray:
    """Which points no other beats in one without losing in the other, from slow to fast: indices."""
    order = sorted(range(len(ms)), key=lambda one: (loss[one], ms[one]))
    front: list[int] = []
    for one in order:
        if not front or ms[one] < ms[front[-1]]:
            front.append(one)
    return np.array(front, dtype=np.int64)


def costliest(flops: np.ndarray, count: int) -> np.ndarray:
    """The rows that cost most, dearest first: flops (n) → at most `count` indices; the earlier row of equals first."""
    return np.argsort(-flops, kind="stable")[:count]
