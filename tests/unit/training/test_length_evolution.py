"""The search for shares on made-up models, whose best shares are known."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.recipe import SearchConfig
from ziggurat.training import on_grid
from ziggurat.training.lengths.evolution import Candidate, cheapest, evolve, mutate, pareto_front

SMALL = SearchConfig(iterations=12, population=8, mutations=8, crossovers=8)
FULL = (1.0,) * 5


def cost(shares):
    return float(np.mean(shares))


def made_up(shares, beaten=0.0):
    """Is right as long as layer 3 still has half of the tokens, later ones do not matter."""
    return min(1.0, 0.5 + shares[2])


def given_up(shares, beaten):
    """The same, and what is least told of those that are beaten."""
    return made_up(shares) if made_up(shares) > beaten else 0.0


def points(front):
    return [(candidate.flops, candidate.accuracy) for candidate in front]


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_what_no_constant_ratio_reaches(seed):
    start = evolve(cost, made_up, 5, SearchConfig(iterations=0, population=8), seed)
    found = evolve(cost, made_up, 5, SMALL, seed)
    assert cheapest(found, 1.0).flops < cheapest(start, 1.0).flops - 0.03
    for flops, accuracy in points(start):
        assert any(better <= flops and right >= accuracy for better, right in points(found))


def test_the_front_rises_in_both_and_holds_the_best_tried():
    tried = {}

    def accuracy(shares, beaten):
        assert shares not in tried, "the same shares were run twice"
        tried[shares] = cost(shares), made_up(shares)
        return tried[shares][1]

    front = evolve(cost, accuracy, 5, SMALL, seed=3)
    assert FULL in tried and len(tried) <= 8 + 12 * 16
    assert all(a < b and p < q for (a, p), (b, q) in itertools.pairwise(points(front)))
    for flops, accuracy in tried.values():
        assert any(a <= flops and p >= accuracy for a, p in points(front))


def test_shares_never_rise_and_lie_where_float32_is_exact():
    tried = []
    evolve(sum, lambda shares, beaten: tried.append(shares) or float(np.cos(1e3 * sum(shares))), 5, SMALL, seed=0)
    every = np.array(tried)
    assert (np.diff(every, axis=1) <= 0).all() and every.max() <= 1 and every.min() >= 1 / 1024
    assert np.array_equal(every.astype(np.float32).astype(np.float64), every)


def test_the_same_seed_gives_the_same_front():
    assert evolve(cost, made_up, 5, SMALL, 1) == evolve(cost, made_up, 5, SMALL, 1)
    assert evolve(cost, made_up, 5, SMALL, 1) != evolve(cost, made_up, 5, SMALL, 2)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_told_of_the_beaten_changes_nothing(seed):
    assert evolve(cost, given_up, 5, SMALL, seed) == evolve(cost, made_up, 5, SMALL, seed)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8), st.integers(0, 99))
def test_a_mutant_stays_between_its_neighbouring_shares(shares, seed):
    parent = np.sort(np.array(shares))[::-1]
    floor = 0.05
    mutant = mutate(parent, floor, np.random.default_rng(seed))
    ends = np.append(parent[1:], min(floor, parent[-1]))
    assert (mutant >= ends).all() and (np.diff(mutant, prepend=1.0) <= 0).all()


def test_about_half_of_a_mutants_layers_are_new():
    parent, draws = 0.9 ** np.arange(1, 9), np.random.default_rng(0)
    new = np.mean([(mutate(parent, 0.1, draws) != parent).mean() for _ in range(400)])
    assert 0.45 < new < 0.55


def test_the_front_drops_the_dominated_and_one_of_two_equals():
    best, same, dear, worse = (
        Candidate((0.5,), 0.5, 0.8),
        Candidate((0.6,), 0.5, 0.8),
        Candidate((0.9,), 0.9, 0.9),
        Candidate((0.7,), 0.7, 0.8),
    )
    assert pareto_front([worse, dear, same, best]) == (best, dear)


def test_the_cheapest_within_a_target_is_chosen():
    front = (Candidate((0.3,), 0.3, 0.7), Candidate((0.5,), 0.5, 0.9 - 0.01), Candidate((1.0,), 1.0, 0.9))
    assert cheapest(front, 0.9 - 0.01) is front[1]
    assert cheapest(front, 0.9) is front[2]
    with pytest.raises(ValueError, match=r"0\.95"):
        cheapest(front, 0.95)


def test_the_grid_keeps_one_whole_and_never_reaches_nothing():
    assert on_grid(np.array([1.0, 0.8, 1e-9])) == (1.0, 819 / 1024, 1 / 1024)
