"""What tests of the engine share: a clock that is moved by hand, random rules, and how an engine is emptied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from tests.kit.scripted import CLASSES, R, ScriptedBackend
from ziggurat.data.tokenizer import Encoded
from ziggurat.engine import Engine, answer_ladder
from ziggurat.engine.engine import Result
from ziggurat.policies import ExitRule
from ziggurat.policies.exits import SCORES

repeatable = settings(derandomize=True, deadline=None, max_examples=60)
NAMES = (*SCORES, "top-entropy@2", "confident-in-a-row@0.7", "learned")
WEIGHTS = np.random.default_rng(0).normal(size=(R - 1, 4 + CLASSES))  # of the learned score
SIZES = st.tuples(*[st.sampled_from([1, 3, 4, 100])] * 3)
NOBODY = 2.0  # a margin that no input reaches


@dataclass
class Clock:
    """Stands still until it is moved."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Broken(ScriptedBackend):
    """Fails while one of its inputs is there."""

    fails_at = -1

    def logits(self, rung, batch):
        if self.fails_at in batch.states[:, 0]:
            raise RuntimeError("injected")
        return super().logits(rung, batch)


@st.composite
def ladder_rules(draw, n_inputs=None) -> ExitRule:
    """A rule of the scripted ladder; with `n_inputs` at times with thresholds for each."""
    levels = st.sampled_from([np.nan, 0.0, 0.3, 0.6, 0.9, 1.0, 2.0])
    thresholds = np.array(draw(st.lists(levels, min_size=R - 1, max_size=R - 1)))
    if n_inputs and draw(st.booleans()):
        thresholds = thresholds + np.arange(n_inputs)[:, None] % 3 * 0.2
    temperatures = draw(st.sampled_from([None, np.array([0.5, 1, 3, 0.5, 1, 3])]))
    return ExitRule(draw(st.sampled_from(NAMES)), thresholds, temperatures, deferral=WEIGHTS)


def rows(*numbers) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def first_batches(tier, asked) -> list[int]:
    """Sequences in each batch that the tier has read, by the first of its rungs that is asked."""
    first = int(np.flatnonzero(asked)[0])
    return [n for rung, n in tier.backend.heads_run if rung == first]


def drained(engine: Engine) -> list[Result]:
    """Everything that is queued, to its end."""
    engine.flush()
    found = []
    while engine.wait() is not None:
        found += engine.step()
    return found


def ready(engine: Engine) -> list[Result]:
    """What has something to do now."""
    found = []
    while engine.wait() == 0:
        found += engine.step()
    return found


def check(result: Result, tiers, encoded: Encoded, row: int, rule: ExitRule, at: int) -> None:
    """A result is what the specification says of input `row` under entry `at` of its rule."""
    backends = [tier.backend for tier in tiers]
    reading, rung = answer_ladder(backends, [[encoded.tokens[row]]] * len(tiers), rule, at)
    outcomes = result.get()
    assert np.array_equal(outcomes.readings[0], reading) and outcomes.rungs.tolist() == [rung]
    assert np.isfinite(outcomes.seconds[0]) and outcomes.token_counts.shape == (1, 9)


def never_before(tier: int, score: str = "margin") -> ExitRule:
    """No input exits in the tiers before this one; all rungs are asked."""
    thresholds = np.full(R - 1, NOBODY)
    thresholds[[0, 1, 3][tier] :] = 0.0
    return ExitRule(score, thresholds)
