"""Evolutionary search for the shares of tokens that each layer keeps (Length-Adaptive Transformer, section 3.3).

The algorithm alone: what a candidate costs and how often it is right, the caller says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ziggurat.recipe import SearchConfig

_GRID = 1024  # shares are multiples of 1 / 1024: float32 weights files hold them exactly, and duplicates are seen
_RESAMPLED = 0.5  # share of the layers that a mutation draws anew

Shares = tuple[float, ...]  # of a text's tokens that each layer 1 … L leaves; they never rise
Cost = Callable[[Shares], float]  # shares → FLOPs as a share of the full model's
# (shares, beaten) → accuracy; where it cannot exceed `beaten`, anything from 0 up to the accuracy will do.
Accuracy = Callable[[Shares, float], float]


@dataclass(frozen=True)
class Candidate:
    """Shares, and what they cost and achieved on the rows that the search looked at."""

    shares: Shares
    flops: float  # as a share of the full model's
    accuracy: float  # or less, of one outside the front


def evolve(cost: Cost, accuracy: Accuracy, n_layers: int, config: SearchConfig, seed: int) -> tuple[Candidate, ...]:
    """The Pareto front of all shares that were tried, from cheap to expensive; the full model was tried too.

    First come constant ratios; each iteration adds mutations and crossovers of the front, and the front of old and new
    survives. The same seed, costs and accuracies give the same front; no shares are asked about twice.
    """
    draws = np.random.default_rng(seed)
    known: dict[Shares, Candidate] = {}

    def measured(every: Iterable[np.ndarray]) -> list[Candidate]:
        genes = [on_grid(gene) for gene in every]
        for gene in genes:
            if gene not in known:
                flops = cost(gene)
                # Who is no better than a cheaper one is dominated, by how much does not matter.
                beaten = max((other.accuracy for other in known.values() if other.flops <= flops), default=-1.0)
                known[gene] = Candidate(gene, flops, accuracy(gene, beaten))
        return [known[gene] for gene in genes]

    ratios = np.linspace(1 - config.length_drop, 1, config.population)
    front = pareto_front(measured(ratio ** np.arange(1, n_layers + 1) for ratio in ratios))
    floor = (1 - config.length_drop) ** n_layers
    for _ in range(config.iterations):
        parents = [np.array(candidate.shares) for candidate in front]
        mutants = [mutate(parents[draws.integers(len(parents))], floor, draws) for _ in range(config.mutations)]
        pairs = [draws.integers(len(parents), size=2) for _ in range(config.crossovers)]
        children = [(parents[one] + parents[other]) / 2 for one, other in pairs]
        front = pareto_front([*front, *measured([*mutants, *children])])
    return front


def mutate(parent: np.ndarray, floor: float, draws: np.random.Generator) -> np.ndarray:
    """Shares (L) of which about half are drawn anew, between the parent's next share and the mutant's previous one.

    The last share's lower end is `floor`, or the parent's own if that is less.
    """
    ends = np.append(parent[1:], min(floor, parent[-1]))
    mutant, previous = parent.copy(), 1.0
    for layer, end in enumerate(ends):
        if draws.random() < _RESAMPLED:
            mutant[layer] = draws.uniform(end, previous)
        previous = mutant[layer]
    return mutant


def pareto_front(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Those that none beats in FLOPs or accuracy without losing in the other, by rising FLOPs; of equals the first."""
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: (one.flops, -one.accuracy, one.shares)):
        if not front or candidate.accuracy > front[-1].accuracy:
            front.append(candidate)
    return tuple(front)


def cheapest(front: Iterable[Candidate], accuracy: float) -> Candidate:
    """The cheapest with at least this accuracy; ValueError if there is none."""
    admissible = [candidate for candidate in front if candidate.accuracy >= accuracy - 1e-12]
    if not admissible:
        raise ValueError(f"no candidate reaches accuracy {accuracy:g}")
    return min(admissible, key=lambda candidate: candidate.flops)


def on_grid(shares: np.ndarray) -> Shares:
    """Shares (L) as multiples of 1 / 1024, at least one of it."""
    return tuple((np.rint(shares * _GRID).clip(1, _GRID) / _GRID).tolist())
