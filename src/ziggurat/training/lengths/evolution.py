"""Evolutionary search for the shares of tokens that each layer keeps (Length-Adaptive Transformer, section 3.3).

Only the algorithm: the caller provides cost and accuracy of a candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ziggurat.recipe import SearchConfig

_GRID = 1024  # shares are multiples of 1 / 1024: exact in float32, and duplicates are recognised
_RESAMPLED = 0.5  # share of layers that a mutation draws again

Shares = tuple[float, ...]  # of a text's tokens that each layer 1 … L keeps; they never rise
Cost = Callable[[Shares], float]  # shares → FLOPs as a share of the full model's
# (shares, beaten) → accuracy; if it cannot exceed `beaten`, any lower bound of it is allowed.
Accuracy = Callable[[Shares, float], float]


@dataclass(frozen=True)
class Candidate:
    """Shares with their cost and accuracy on the search's rows."""

    shares: Shares
    flops: float  # as a share of the full model's
    accuracy: float  # a lower bound for candidates outside the front


def evolve(cost: Cost, accuracy: Accuracy, n_layers: int, config: SearchConfig, seed: int) -> tuple[Candidate, ...]:
    """The Pareto front of all evaluated shares, from cheap to expensive; the full model is always evaluated.

    The search starts with constant ratios. Each iteration adds mutations and crossovers of the front; the new front is
    that of old and new candidates. The same seed, costs and accuracies give the same front. No shares are evaluated
    twice.
    """
    draws = np.random.default_rng(seed)
    known: dict[Shares, Candidate] = {}

    def measured(proposals: Iterable[np.ndarray]) -> list[Candidate]:
        genes = [on_grid(gene) for gene in proposals]
        for gene in genes:
            if gene not in known:
                flops = cost(gene)
                # A candidate no better than a cheaper one is dominated; its exact accuracy does not matter.
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
        children = [(parents[first] + parents[second]) / 2 for first, second in pairs]
        front = pareto_front([*front, *measured([*mutants, *children])])
    return front


def mutate(parent: np.ndarray, floor: float, draws: np.random.Generator) -> np.ndarray:
    """Redraws about half of the shares (L), each between the parent's next share and the mutant's previous one.

    For the last share the lower end is `floor`, or the parent's share if that is less.
    """
    ends = np.append(parent[1:], min(floor, parent[-1]))
    mutant, previous = parent.copy(), 1.0
    for layer, end in enumerate(ends):
        if draws.random() < _RESAMPLED:
            mutant[layer] = draws.uniform(end, previous)
        previous = mutant[layer]
    return mutant


def pareto_front(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Candidates that no other beats in both FLOPs and accuracy, by rising FLOPs; of equal ones the first."""
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda candidate: (candidate.flops, -candidate.accuracy, candidate.shares)):
        if not front or candidate.accuracy > front[-1].accuracy:
            front.append(candidate)
    return tuple(front)


def cheapest(front: Iterable[Candidate], accuracy: float) -> Candidate:
    """The cheapest candidate with at least this accuracy; ValueError if there is none."""
    admissible = [candidate for candidate in front if candidate.accuracy >= accuracy - 1e-12]
    if not admissible:
        raise ValueError(f"no candidate reaches accuracy {accuracy:g}")
    return min(admissible, key=lambda candidate: candidate.flops)


def on_grid(shares: np.ndarray) -> Shares:
    """Rounds shares (L) to multiples of 1 / 1024, at least 1 / 1024."""
    return tuple((np.rint(shares * _GRID).clip(1, _GRID) / _GRID).tolist())
