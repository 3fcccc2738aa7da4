"""Stored runs: what every rung said to some rows, nobody leaving. Exits are replayed, pruning was really run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ziggurat.policies.defer import learned
from ziggurat.policies.exits import LEARNED, exit_score
from ziggurat.policies.outputs import CLASSES, Output


@dataclass(frozen=True, eq=False)
class StoredRun:
    """All rungs' answers to some rows at one strength of pruning."""

    every: np.ndarray  # (n, n_rungs, n_classes) float32 logits
    kept: np.ndarray  # (n, L + 1) int64, as in `engine.runner.Outcomes`
    pruning: float = 1.0  # factor on the model's pruning thresholds; 0 = nothing is pruned
    deferral: np.ndarray | None = None  # the model's weights of the learned score, see `engine.rules.ExitRule`
    output: Output = CLASSES  # what the logits stand for
    answers: np.ndarray | None = None  # (n, n_rungs) int64: equal numbers are equal answers; None = as the output says

    @property
    def n_rungs(self) -> int:
        """Places where an answer can be given; the last is full depth."""
        return self.every.shape[1]

    def take(self, rows: np.ndarray) -> StoredRun:
        """Only these rows, (m) indices."""
        answers = None if self.answers is None else self.answers[rows]
        return replace(self, every=self.every[rows], kept=self.kept[rows], answers=answers)

    def cut(self, rungs: int) -> StoredRun:
        """Only the first `rungs` rungs."""
        answers = None if self.answers is None else self.answers[:, :rungs]
        return replace(self, every=self.every[:, :rungs], answers=answers)

    def predictions(self) -> np.ndarray:
        """Of every rung, (n, n_rungs, …): class indices, or whatever the output's answers are."""
        return self.output.predictions(self.every) if self.answers is None else self.answers


@dataclass(frozen=True, eq=False)
class Doubts:
    """How unsure each asked exit is of each row, computed once for all thresholds that are tried.

    Smaller is surer whatever the score: those that point the other way are negated, and so are their thresholds.
    """

    score: str
    exits: tuple[int, ...]  # rungs that are asked, without the last
    n_rungs: int
    values: np.ndarray  # (n, n_exits) float64; infinite where nobody can be let go
    looks_back: bool = False  # what an exit says depends on the asked exits before it

    def rungs(self, limits: np.ndarray) -> np.ndarray:
        """Where each row leaves under `limits` (n_exits), the largest doubts with which it may: (n) rung indices.

        The same as `engine.runner.replay` with `thresholds(limits)`.
        """
        # Behind the last exit everybody leaves, also where none is asked.
        leaves = np.pad(self.values <= limits, ((0, 0), (0, 1)), constant_values=True)
        places = np.append(self.exits, self.n_rungs - 1).astype(np.int64)
        rungs: np.ndarray = places[leaves.argmax(axis=1)]
        return rungs

    def thresholds(self, limits: np.ndarray) -> np.ndarray:
        """`limits` (n_exits) as an exit rule writes them: (n_rungs - 1), in the score's unit, NaN = not asked."""
        written = np.full(self.n_rungs - 1, np.nan)
        written[list(self.exits)] = -limits if exit_score(self.score).larger_is_surer else limits
        return written

    def limits(self, thresholds: np.ndarray) -> np.ndarray:
        """What `thresholds` wrote (n_rungs - 1), back as limits (n_exits); an exit that is not asked lets nobody go."""
        asked = thresholds[list(self.exits)]
        values = -asked if exit_score(self.score).larger_is_surer else asked
        return np.where(np.isnan(values), -np.inf, values)


def doubts(run: StoredRun, score: str, exits: tuple[int, ...], temperatures: np.ndarray | None = None) -> Doubts:
    """The doubts of a stored run's rows at `exits`; `temperatures` (n_rungs) divide the logits, None = 1."""
    asked = exit_score(score)
    seen = run.every if temperatures is None else run.every / temperatures[:, None]
    # Of a regression, one output, the learned score too looks at the change since the rung before.
    back = asked.looks_back or (score == LEARNED and seen.shape[2] == 1)
    values = np.empty((len(run.every), len(exits)))
    for place in range(len(exits)):
        heard = seen[:, list(exits[0 if back else place : place + 1])]  # without rungs that are not asked, or not read
        if score == LEARNED and run.deferral is not None:
            found = learned(heard, run.deferral[exits[place]])
        else:
            found = asked.of(heard)
        values[:, place] = -found if asked.larger_is_surer else found
    return Doubts(score, exits, run.n_rungs, values, back)
