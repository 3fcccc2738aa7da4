"""The data of a calibration's page, computed from arrays: exits, losses and costs."""

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
    low: np.ndarray | None = None  # (k) lower bound of the mean, with the calibration's confidence
    high: np.ndarray | None = None  # (k) upper bound of the mean, with the same confidence


@dataclass(frozen=True, eq=False)
class TokensLeft:
    """Tokens after each layer, as shares of all input tokens, (L) each."""

    pruned: np.ndarray  # without early exits
    computed: np.ndarray  # only of texts that have not exited before the layer


@dataclass(frozen=True, eq=False)
class Deciles:
    """Rows in ten groups of equal size, from the least to the most confident; entries are shares of all rows, (10)."""

    early: np.ndarray  # answered before full depth
    differs: np.ndarray  # answered differently from full depth
    corrected: np.ndarray | None  # wrong (or by how much), while full depth is right; None = no labels
    added: np.ndarray | None  # right, while full depth is wrong; None = no labels


@dataclass(frozen=True, eq=False)
class Spot:
    """One operating point that is faster than full depth, on the certifying rows."""

    name: str
    predicted_ms: float  # per text
    measured_ms: float
    gain: float  # measured: full depth's time over this one's
    loss: float  # mean, as a share
    low: float  # as in `Curve`
    high: float
    accuracy: float | None  # None = no labels
    exits: np.ndarray  # (n_rungs) share of rows that exit there
    tokens: TokensLeft
    deciles: Deciles
    sorted_by: str  # the uncertainty of the deciles: "entropy after layer 2"


@dataclass(frozen=True)
class Costly:
    """One of the most expensive inputs."""

    text: str
    read: int  # input tokens
    remaining: int  # tokens after the last layer that ran
    rung: str  # that answered
    gflops: float
    answer: str
    label: str | None
    wrong: bool = False


@dataclass(frozen=True)
class Mechanism:
    """The fastest setting of one kind that is expected to keep a target."""

    name: str
    ms: float | None  # predicted, per text; None = no setting
    why: str | None = None  # reason why there is no setting
    exits: tuple[str, ...] = ()  # rungs where texts may exit early
    pruning: float | None = None  # factor on the model's pruning thresholds; None = nothing is pruned


@dataclass(frozen=True, eq=False)
class Picture:
    """All data of the page."""

    rungs: tuple[str, ...]  # display names
    full_ms: float  # full depth's time per text; measured if there is a point, else predicted
    full_predicted_ms: float  # predicted, as all times of curves
    full_loss: float  # 0, or the loss of full depth against another model
    full_accuracy: float | None  # on the certifying rows; None = no labels
    accuracy_scale: float | None  # accuracy at loss 0; None = the loss is not a drop in accuracy
    frontier: Curve  # loss on the certifying rows
    estimate: np.ndarray  # (k) loss of the frontier's settings on the search rows
    random: Curve  # as many rows exit at each rung as on the frontier, but random ones
    oracle: Curve  # each row exits at the first rung without a loss
    spots: tuple[Spot, ...]
    mechanisms: tuple[Mechanism, ...]
    costly_at: str  # operating point of `costly`
    mean_gflops: float  # at that point
    costly: tuple[Costly, ...]

    @property
    def pace(self) -> float:
        """Measured over predicted time of full depth: the slowdown of a shared machine since it was profiled."""
        return self.full_ms / self.full_predicted_ms


def exit_shares(rungs: np.ndarray, n_rungs: int) -> np.ndarray:
    """Share of rows that exit at each rung: rungs (n) → (n_rungs)."""
    return np.bincount(rungs, minlength=n_rungs) / len(rungs)


def tokens_left(token_counts: np.ndarray, layers: np.ndarray) -> TokensLeft:
    """From token counts (n, L + 1) without exits, and the layer after which each row exits, (n)."""
    steps = np.arange(1, token_counts.shape[1])
    read = token_counts[:, 0].sum()
    running = steps <= layers[:, None]
    return TokensLeft(token_counts[:, 1:].sum(axis=0) / read, (token_counts[:, 1:] * running).sum(axis=0) / read)


def deciles(uncertainty: np.ndarray, early: np.ndarray, differs: np.ndarray, lost: np.ndarray | None) -> Deciles:
    """Differences from full depth by the model's uncertainty: TangoBERT's Figure 4 for any rung.

    `uncertainty` (n): larger is less confident, equal values keep their order. `early` (n, bool): answered before full
    depth. `differs` (n): distance from full depth's answer; 0 or 1 for classes. `lost` (n) in [-1, 1]: loss minus full
    depth's loss; None = no labels. The groups' sizes differ by at most one row.
    """
    group = decile_of(uncertainty)
    return Deciles(
        early=per_decile(early, group),
        differs=per_decile(differs, group),
        corrected=None if lost is None else per_decile(np.maximum(lost, 0), group),
        added=None if lost is None else per_decile(np.maximum(-lost, 0), group),
    )


def decile_of(uncertainty: np.ndarray) -> np.ndarray:
    """Decile of each row, 0 = the least confident: uncertainty (n) → (n) int64; equal values keep their order."""
    group = np.empty(len(uncertainty), dtype=np.int64)
    group[np.argsort(-uncertainty, kind="stable")] = np.arange(len(uncertainty)) * DECILES // len(uncertainty)
    return group


def per_decile(flags: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sums of `flags` (n, bool or shares) in each decile, divided by n: (10)."""
    return np.bincount(group, weights=flags, minlength=DECILES) / len(group)


def random_loss(losses: np.ndarray, rungs: np.ndarray) -> float:
    """Expected mean loss, losses (n, n_rungs), if the rungs (n) were assigned to rows at random; exact."""
    return float(losses.mean(axis=0) @ exit_shares(rungs, losses.shape[1]))


def oracle_rungs(losses: np.ndarray) -> np.ndarray:
    """The first rung without a loss, or else with the least: losses (n, n_rungs) → (n)."""
    free = losses <= 0
    return np.where(free.any(axis=1), free.argmax(axis=1), losses.argmin(axis=1))


def undominated(ms: Sequence[float], loss: Sequence[float]) -> np.ndarray:
    """Indices of the Pareto front of time and loss, from slow to fast."""
    order = sorted(range(len(ms)), key=lambda point: (loss[point], ms[point]))
    front: list[int] = []
    for point in order:
        if not front or ms[point] < ms[front[-1]]:
            front.append(point)
    return np.array(front, dtype=np.int64)


def costliest(flops: np.ndarray, count: int) -> np.ndarray:
    """The most expensive rows, in falling order: flops (n) → at most `count` indices; equal rows keep their order."""
    return np.argsort(-flops, kind="stable")[:count]
