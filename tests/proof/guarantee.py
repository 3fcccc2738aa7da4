"""Proof by trial that a certified point keeps its promise. `make guarantee` calls it.

A pool of rows stands for the population, so each setting's true risk is known. Rows are drawn from it many times, a
path of settings is learned on some, tested on others, and the cheapest certified setting is taken. The share of runs in
which its true risk exceeds the target must be no more than the promise allows, and with a deliberately wrong bound it
must be more: else the trial proves nothing. Once more where the rows that certify are drawn in groups of rows much
alike: counted by group they must keep the promise, and counted as if each were drawn alone break it. The same for the
monitor's false alarms (`alarms.py`). The exit code is 1 where any of it fails.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tests.proof import alarms
from ziggurat.calibrate import RISKS, Risk, Setting, fixed_sequence, groups_of, p_values, path_of, per_draw, sequences
from ziggurat.calibrate.grouping import Groups
from ziggurat.engine.replay import replay
from ziggurat.measure import append_record, provenance
from ziggurat.policies import ExitRule

ROWS, RUNGS, CLASSES = 50_000, 6, 4
HEAD = 0.03  # cost of an exit head, in layers
THRESHOLDS = 24
ASKED = ((0, 1, 2, 3, 4), (1, 3))  # sets of rungs whose heads are asked
TARGET, LEVEL = 0.01, 0.05
SIZES = (500, 1500, 5000)  # rows to certify with; as many again to learn the path
GROUP, ALIKE = 5, 0.8  # rows of a group, mean; share of them that are one and the same
TESTED_AT_ONCE = 16
Test = Callable[[Risk, np.ndarray, float, float], np.ndarray]  # risk, losses (n, m), target, level → p-values (m)
# Rows (n) of the pool, drawn one by one → those that certify, (n), and how they are counted.
Draw = Callable[[np.random.Generator, np.ndarray, int], tuple[np.ndarray, Groups | None]]


@dataclass(frozen=True)
class Pool:
    """All rows under all settings: the population that the trial draws from."""

    losses: Mapping[str, np.ndarray]  # by risk, (n_rows, n_settings) int8
    costs: np.ndarray  # (n_rows, n_settings) float32, the full model's is 1
    risks: Mapping[str, np.ndarray]  # true risk, (n_settings)
    cost: np.ndarray  # true mean cost, (n_settings)


@dataclass(frozen=True)
class Outcome:
    """What one test did in all runs of one risk and size."""

    risk: str
    n: int
    test: str
    drawn: str  # how the rows that certify were, and how they are counted
    runs: int
    broken: float  # share of runs in which the true risk exceeds the target
    allowed: float  # share that chance makes exceed 5 % once in a thousand trials
    target: float
    none: float  # share of runs in which nothing was certified and the full model stays
    speed: float  # mean over runs of the chosen setting's speed-up over the oracle's; 1 / oracle's for none

    @property
    def kept(self) -> bool:
        """Whether the promise was."""
        return self.broken <= self.allowed


def make_pool(seed: int = 0, n: int = ROWS) -> Pool:
    """Logits of rungs that are better with depth, overconfident early, and now and then right where later ones err."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    skill = rng.gamma(3, 3, n)[:, None, None] * np.linspace(0.5, 1, RUNGS)[:, None]  # some rows are harder than others
    noise = rng.normal(size=(n, 1, CLASSES)) + rng.normal(size=(n, RUNGS, CLASSES))
    confidence = np.linspace(3, 1, RUNGS)[:, None]
    logits = (confidence * (noise + skill * np.eye(CLASSES)[labels][:, None])).astype(np.float32)
    labels = np.where(rng.random(n) < 0.02, rng.integers(0, CLASSES, n), labels)
    answers, rows = logits.argmax(axis=2), np.arange(n)
    rules = list(settings())
    losses = {name: np.empty((n, len(rules)), dtype=np.int8) for name in RISKS}
    costs = np.empty((n, len(rules)), dtype=np.float32)
    for column, rule in enumerate(rules):
        rungs = replay(logits, rule)
        for name, risk in RISKS.items():
            losses[name][:, column] = risk.of(answers[rows, rungs], answers[:, -1], labels)
        heads = np.cumsum((*rule.active[:-1], False)) * HEAD
        costs[:, column] = ((np.arange(RUNGS) + 1 + heads) / RUNGS)[rungs]
    risks = {name: values.mean(axis=0, dtype=np.float64) for name, values in losses.items()}
    return Pool(losses, costs, risks, costs.mean(axis=0, dtype=np.float64))


def settings() -> Iterator[ExitRule]:
    """THRESHOLDS entropies for each set of asked rungs, from strict to lenient."""
    for asked in ASKED:
        for entropy in np.geomspace(1e-5, 0.3, THRESHOLDS):
            thresholds = np.full(RUNGS - 1, np.nan)
            thresholds[list(asked)] = entropy
            yield ExitRule("entropy", thresholds)


def hardest_target(pool: Pool, risk: Risk) -> float:
    """Just below the true risk nearest to TARGET: to certify that setting is wrong, and hard to detect."""
    risks = pool.risks[risk.name]
    return float(risks[np.abs(risks - TARGET).argmin()]) - 1e-9


def learned_paths(losses: np.ndarray, costs: np.ndarray) -> list[tuple[Setting, ...]]:
    """As `calibrate` makes them, from losses and costs (n, n_settings): a family for each set of asked rungs."""
    rows = zip(costs.mean(axis=0), losses.mean(axis=0), losses.std(axis=0), np.abs(losses).mean(axis=0), strict=True)
    # A setting's index in the pool stands for its thresholds: nothing here is replayed.
    tried = [Setting("entropy", np.array([index]), 0.0, *map(float, row)) for index, row in enumerate(rows)]
    families = (tried[start : start + THRESHOLDS] for start in range(0, len(tried), THRESHOLDS))
    return [path_of(family, slowest=1.0) for family in families]


def empirical_mean(_: Risk, losses: np.ndarray, target: float, level: float) -> np.ndarray:
    """The wrong test: p-value 0 where the mean of the rows keeps the target, as if they were the population."""
    return np.where(losses.mean(axis=0) <= target, 0.0, 1.0)


def one_by_one(_: np.random.Generator, rows: np.ndarray, size: int) -> tuple[np.ndarray, Groups | None]:
    """Independent rows."""
    return rows, None


def in_groups(draws: np.random.Generator, rows: np.ndarray, size: int) -> tuple[np.ndarray, Groups | None]:
    """As many rows, in groups of GROUP on average in which most rows are equal; one loss counts for each group."""
    n = len(rows)
    keys = np.repeat(draws.integers(0, 2**63, n).astype(np.uint64), draws.geometric(1 / GROUP, n))[:n]
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    alike = np.where(draws.random(n) < ALIKE, rows[first[group]], draws.integers(0, size, n))
    order = draws.permutation(n)
    return alike[order], groups_of(keys[order])


def groups_unseen(draws: np.random.Generator, rows: np.ndarray, size: int) -> tuple[np.ndarray, Groups | None]:
    """The wrong count: rows drawn in groups, counted as if each were drawn independently."""
    return in_groups(draws, rows, size)[0], None


def certified_setting(
    risk: Risk, path: Sequence[Setting], losses: np.ndarray, test: Test, target: float, level: float
) -> int | None:
    """The last certified setting of the path, on losses (n, n_settings); None where the first already fails."""
    settings = [int(tried.thresholds[0]) for tried in path]
    chunks = (settings[start : start + TESTED_AT_ONCE] for start in range(0, len(settings), TESTED_AT_ONCE))
    p_values = (p for chunk in chunks for p in test(risk, losses[:, chunk], target, level))
    certified = fixed_sequence(p_values, level)
    return settings[certified - 1] if certified else None


def trial(pool: Pool, risk: Risk, n: int, runs: int, test: Test, seed: int = 1, draw: Draw = one_by_one) -> Outcome:
    """All runs of one risk, size, test and way to draw."""
    from scipy.special import bdtrik  # not scipy.stats: that takes seconds to import

    losses, true = pool.losses[risk.name], pool.risks[risk.name]
    target = hardest_target(pool, risk)
    oracle = 1 / pool.cost[true <= target].min()
    chosen: list[int | None] = []
    for run in range(runs):
        # With replacement: the rows are then independent draws from the pool, and not a little better than that.
        draws = np.random.default_rng((seed, n, run))
        order, certify = draws.integers(0, len(losses), (2, n))
        certify, groups = draw(draws, certify, len(losses))
        lost = per_draw(losses[certify].astype(np.float64), groups, risk)
        learned = learned_paths(losses[order], pool.costs[order])
        # Beside a stricter target, as users have it.
        paths = sequences(learned, (target / 2, target), 1 - LEVEL, len(lost))[target]
        found = [certified_setting(risk, path, lost, test, target, LEVEL / len(paths)) for path in paths]
        chosen.append(min((one for one in found if one is not None), key=lambda one: pool.cost[one], default=None))
    speeds = [1.0 if one is None else 1 / pool.cost[one] for one in chosen]
    return Outcome(
        risk=risk.name,
        n=n,
        test=test.__name__,
        drawn=draw.__name__,
        runs=runs,
        broken=float(np.mean([one is not None and true[one] > target for one in chosen])),
        allowed=float(np.ceil(bdtrik(0.999, runs, LEVEL)) / runs),
        target=target,
        none=float(np.mean([one is None for one in chosen])),
        speed=float(np.mean(speeds) / oracle),
    )


def proven(outcomes: list[Outcome]) -> bool:
    """Whether the right test and count kept every promise, and each wrong one broke it for each risk at some size."""
    bad = {"test": empirical_mean.__name__, "drawn": groups_unseen.__name__}
    right = [one.kept for one in outcomes if all(getattr(one, key) != name for key, name in bad.items())]
    broken = [{one.risk for one in outcomes if getattr(one, key) == name and not one.kept} for key, name in bad.items()]
    return bool(right) and all(right) and all(one == {other.risk for other in outcomes} for one in broken)


def table(outcomes: list[Outcome]) -> str:
    """One line per trial."""
    shares = f"{'broken':>8}{'allowed':>9}{'none':>7}{'speed / oracle':>16}"
    lines = [f"{'risk':<10}{'target':>8}{'rows':>6}  {'test':<15}{'drawn':<14}{shares}"]
    for one in outcomes:
        what = f"{one.risk:<10}{one.target:>8.4f}{one.n:>6}  {one.test:<15}{one.drawn:<14}"
        shares = f"{one.broken:>8.1%}{one.allowed:>9.1%}{one.none:>7.1%}{one.speed:>16.1%}"
        lines.append(what + shares + ("" if one.kept else "   promise broken"))
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Parses the command line; 0 where the guarantee is proven."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--streams", type=int, default=300, help="that the monitor watches, of each kind")
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="the outcomes as one JSON list instead of a table")
    parser.add_argument("--out", type=Path, help="file of result rows to append the outcomes to")
    options = parser.parse_args(arguments)
    pool = make_pool()
    cases = [(p_values, one_by_one), (empirical_mean, one_by_one), (p_values, in_groups), (p_values, groups_unseen)]
    outcomes = [
        trial(pool, risk, n, options.runs, test, options.seed, draw)
        for test, draw in cases
        for risk in RISKS.values()
        for n in options.rows
    ]
    watched = alarms.all_streams(options.streams, options.seed)
    if options.out is not None:
        origin = provenance()
        for one in outcomes:
            append_record(options.out, origin | {"what": "guarantee", "seed": options.seed} | asdict(one))
        for stream in watched:
            append_record(options.out, origin | {"what": "alarms", "seed": options.seed} | asdict(stream))
    if options.json:
        sys.stdout.write(json.dumps([asdict(one) for one in (*outcomes, *watched)]) + "\n")
    else:
        sys.stdout.write(table(outcomes) + "\n" + alarms.table(watched))
    return 0 if proven(outcomes) and alarms.proven(watched) else 1


if __name__ == "__main__":
    sys.exit(main())
