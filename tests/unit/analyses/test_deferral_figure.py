"""Routers on arrays small enough to try every order, and what must hold of any."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.analyses.deferral_figure import errors_by_decile, oracle_route, random_route, route, share_of_oracle
from ziggurat.calibrate import deciles

repeatable = settings(derandomize=True, deadline=None, max_examples=60)
rows, seeds = st.integers(1, 40), st.integers(0, 10_000)
RIGHT = np.array([[0, 1], [1, 1], [1, 0], [0, 1], [0, 0]], dtype=bool)
FLOPS = np.array([[1, 11], [2, 22], [3, 33], [4, 44], [5, 55]])


def ladder(seed, n, values=1000):
    rng = np.random.default_rng(seed)
    flops = np.cumsum(rng.integers(1, 50, (n, 2)), axis=1)
    return rng.random((n, 2)) < (0.5, 0.8), flops, rng.integers(0, values, n).astype(float)


def sent_in_order(order, right, flops):
    """Accuracy and mean FLOPs with the first k of an order sent on, k = 0 … n."""
    n, found = len(order), []
    for sent in range(n + 1):
        place = np.isin(np.arange(n), order[:sent]).astype(int)
        found.append((right[np.arange(n), place].mean(), flops[np.arange(n), place].mean()))
    return np.array(found).T


def test_the_random_router_is_the_mean_over_all_orders():
    every = [sent_in_order(order, RIGHT, FLOPS) for order in permutations(range(5))]
    found = random_route(RIGHT, FLOPS)
    assert np.stack([found.accuracy, found.flops]) == pytest.approx(np.mean(every, axis=0))
    assert found.at(0.5) == pytest.approx((0.5, (15 + 165) / 10))


def test_among_equal_scores_lots_are_drawn():
    doubt = np.array([2.0, 1.0, 2.0, 1.0, 1.0])
    orders = [(*first, *then) for first in permutations((0, 2)) for then in permutations((1, 3, 4))]
    found = route(RIGHT, FLOPS, doubt)
    mean = np.mean([sent_in_order(order, RIGHT, FLOPS) for order in orders], axis=0)
    assert np.stack([found.accuracy, found.flops]) == pytest.approx(mean)


@repeatable
@given(n=rows, seed=seeds)
def test_without_equal_scores_a_route_equals_sending_the_rows(n, seed):
    right, flops, _ = ladder(seed, n)
    doubt = np.random.default_rng(seed).permutation(n).astype(float)
    found = route(right, flops, doubt)
    assert np.stack([found.accuracy, found.flops]) == pytest.approx(sent_in_order(np.argsort(-doubt), right, flops))


@repeatable
@given(n=rows, seed=seeds, values=st.sampled_from([2, 1000]))
def test_routes_go_from_first_to_last_model_below_the_oracle(n, seed, values):
    right, flops, doubt = ladder(seed, n, values)
    oracle, random = oracle_route(right, flops), random_route(right, flops)
    for one in (route(right, flops, doubt), random, oracle):
        assert one.at(0.0) == pytest.approx((right[:, 0].mean(), flops[:, 0].mean()))
        assert one.at(1.0) == pytest.approx((right[:, 1].mean(), flops[:, 1].mean()))
        assert (one.accuracy <= oracle.accuracy + 1e-9).all()
        share = share_of_oracle(one, random, oracle)
        assert share is None or share <= 1 + 1e-9
    assert share_of_oracle(random, random, oracle) in (None, pytest.approx(0.0))
    assert share_of_oracle(oracle, random, oracle) in (None, pytest.approx(1.0))


def test_claim_29_confidence_beats_random_if_it_tells_errors():
    """Claim 29 on a scripted ladder: the first model is wrong half as often in each further quarter of its margins."""
    margin = np.linspace(0, 1, 400)
    chance = np.repeat([0.8, 0.4, 0.2, 0.1], 100)
    right = np.stack([np.tile(np.arange(10), 40) >= 10 * chance, np.ones(400, dtype=bool)], axis=1)
    flops = np.tile([1, 10], (400, 1))
    confidence, random, oracle = route(right, flops, -margin), random_route(right, flops), oracle_route(right, flops)
    for rate in np.linspace(0.05, 0.95, 19):
        assert random.at(rate)[0] < confidence.at(rate)[0] <= oracle.at(rate)[0]
        assert random.at(rate)[1] == pytest.approx(confidence.at(rate)[1])
    assert 0.3 < share_of_oracle(confidence, random, oracle) < 1
    assert route(right, flops, margin).at(0.5)[0] < random.at(0.5)[0]


def test_the_least_share_sent_reaches_the_accuracy_first():
    found = oracle_route(RIGHT, FLOPS)
    assert found.accuracy == pytest.approx([0.4, 0.6, 0.8, 0.8, 0.8, 0.6])
    assert [found.least_sent(share) for share in (0.4, 0.6, 0.7, 0.8, 0.9)] == pytest.approx([0, 0.2, 0.4, 0.4, 1])


@repeatable
@given(n=rows, seed=seeds)
def test_errors_by_tenth_add_up_to_those_of_the_page(n, seed):
    right, _, confidence = ladder(seed, n)
    found = list(errors_by_decile(confidence, right))
    assert [row["decile"] for row in found] == list(range(1, 11))
    assert sum(row["n"] for row in found) == n
    first, last = right.T.astype(int)
    page = deciles(-confidence, np.zeros(n, dtype=bool), first != last, last - first)
    assert [row["corrected"] for row in found] == pytest.approx(page.corrected)
    assert [row["introduced"] for row in found] == pytest.approx(page.added)
    assert sum(row["both_wrong"] for row in found) == pytest.approx((~right).all(axis=1).mean())
    filled = [row for row in found if row["n"]]
    for place, key in enumerate(("accuracy", "last_accuracy")):
        assert sum(row[key] * row["n"] for row in filled) == pytest.approx(right[:, place].sum())
    ends = [edge for row in filled for edge in (row["confidence_low"], row["confidence_high"])]
    assert ends == sorted(ends)
    assert all(row["accuracy"] is None for row in found if not row["n"])
