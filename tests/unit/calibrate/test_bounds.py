"""P-values are right where a closed form says so, valid where the promise is false, and strong where it is true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from ziggurat.calibrate import RISKS, Risk, difference_risk, p_value, p_values
from ziggurat.calibrate.bounds import (
    betting_p_value,
    binomial_p_value,
    hoeffding_bentkus_p_value,
    rows_needed,
    upper_bound,
)

repeatable = settings(derandomize=True, deadline=None, max_examples=60)
ACCURACY, AGREEMENT, HARM = RISKS["accuracy"], RISKS["agreement"], RISKS["harm"]
SHARE = Risk("share", 0, 1, binary=False, needs_labels=False, loss=lambda predictions, full, labels: predictions)
RUNS = 2000
ALLOWED = binom.ppf(0.9999, RUNS, 0.05) / RUNS  # what a test of exactly 5 % exceeds once in 10,000 times


def ones(k: int, n: int) -> np.ndarray:
    return np.repeat([1.0, 0.0], [k, n - k])


def signed(n: int, differing: float, mean: float, seed: int, runs: int = RUNS) -> np.ndarray:
    """Losses (n, runs) in {-1, 0, 1}: a share `differing` is not 0, their mean is `mean`."""
    shares = [(differing - mean) / 2, 1 - differing, (differing + mean) / 2]
    return np.random.default_rng(seed).choice([-1.0, 0.0, 1.0], p=shares, size=(n, runs))


def certified(risk: Risk, losses: np.ndarray, target: float, level: float = 0.05) -> float:
    """Share of the columns (n, runs) that are certified."""
    return float((p_values(risk, losses, target, level) <= level).mean())


@repeatable
@given(st.integers(1, 3000), st.floats(0, 0.999), st.data())
def test_the_binomial_p_value_is_exact(n, target, data):
    k = data.draw(st.integers(0, n))
    assert binomial_p_value(ones(k, n), target) == pytest.approx(binom.cdf(k, n, target), rel=1e-9, abs=1e-300)
    assert binomial_p_value(ones(0, n), target) == pytest.approx((1 - target) ** n, rel=1e-9, abs=1e-300)


def test_numbers_of_mistakes_allowed_are_the_published_ones():
    """`n`, the target, the confidence: the most disagreements that still certify (exact binomial tables)."""
    table = {(277, 0.01, 0.9): 0, (408, 0.01, 0.9): 1, (872, 0.01, 0.9): 4, (872, 0.01, 0.95): 3, (872, 0.02, 0.95): 10}
    table |= {(7600, 0.01, 0.95): 61, (7600, 0.01, 0.9): 64, (40430, 0.02, 0.9): 772, (230, 0.01, 0.9): 0}
    for (n, target, confidence), most in table.items():
        assert binomial_p_value(ones(most, n), target) <= 1 - confidence
        assert binomial_p_value(ones(most + 1, n), target) > 1 - confidence
    assert binomial_p_value(ones(0, 277), 0.01) > 0.05  # "impossible"


@pytest.mark.slow
def test_hoeffding_bentkus_equals_mapies():
    methods = pytest.importorskip("mapie.risk_control.methods")
    rng = np.random.default_rng(0)
    for target in (0.003, 0.01, 0.1, 0.4):
        for n in (50, 500, 5000):
            losses = rng.random(n) ** 8 * (rng.random(n) < 3 * target)
            [[theirs]] = methods.compute_hoeffding_bentkus_p_value(losses.mean(keepdims=True), n, target)
            assert hoeffding_bentkus_p_value(losses, target) == pytest.approx(min(theirs, 1), rel=1e-7)
            errors = ones(rng.binomial(n, target / 2), n)
            [[theirs]] = methods.compute_hoeffding_bentkus_p_value(errors.mean(keepdims=True), n, target, binary=True)
            assert binomial_p_value(errors, target) == pytest.approx(theirs, rel=1e-7)


# Losses whose mean is exactly the target, so that certifying it is wrong: nearly all of them 0 and one in a hundred a
# whole mistake; as many put right as wrong; large and wild; slightly below the target but for one in a thousand.
NULLS = {
    "rare mistakes": (AGREEMENT, [0, 1], [0.99, 0.01], 0.01),
    "rare mistakes, few rows can tell": (SHARE, [0, 1], [0.99, 0.01], 0.01),
    "signed": (ACCURACY, [-1, 0, 1], [0.01, 0.97, 0.02], 0.01),
    "signed, nothing put right": (ACCURACY, [-1, 0, 1], [0, 0.99, 0.01], 0.01),
    "signed, wild": (ACCURACY, [-1, 1], [0.495, 0.505], 0.01),
    "signed, none lost on average": (ACCURACY, [-1, 0, 1], [0.02, 0.96, 0.02], 0.0),
    "one in a thousand": (SHARE, [0.009, 1], [1 - 0.001 / 0.991, 0.001 / 0.991], 0.01),
    "one in a thousand, signed": (ACCURACY, [0.0089, 1], [1 - 0.0011 / 0.9911, 0.0011 / 0.9911], 0.01),
    "constant": (SHARE, [0.01], [1.0], 0.01),
}


@pytest.mark.parametrize("n", [40, 400, 1500])
@pytest.mark.parametrize("name", NULLS)
def test_a_risk_at_the_target_passes_in_at_most_5_of_100_samples(name, n):
    risk, values, shares, target = NULLS[name]
    assert np.dot(values, shares) == pytest.approx(target, abs=1e-12)
    losses = np.random.default_rng(n).choice(values, p=shares, size=(n, RUNS))
    assert certified(risk, losses, target) <= ALLOWED
    assert certified(risk, losses, target, 0.2) <= binom.ppf(0.9999, RUNS, 0.2) / RUNS
    if risk.low == 0:
        some = losses[:, :500].T
        assert np.mean([hoeffding_bentkus_p_value(one, target) <= 0.05 for one in some]) <= ALLOWED


def test_the_simulation_would_notice_a_wrong_bound():
    """The mean itself as if it were the bound: half of the samples."""
    _, values, shares, target = NULLS["signed"]
    losses = np.random.default_rng(0).choice(values, p=shares, size=(1500, RUNS))
    assert (losses.mean(axis=0) <= target).mean() > 5 * ALLOWED


def test_upper_bounds_cover_the_mean_and_follow_it():
    losses = signed(1500, 0.02, 0.004, seed=1, runs=150)
    bounds = np.array([upper_bound(ACCURACY, one, 0.95) for one in losses.T])
    assert (bounds < 0.004).mean() <= binom.ppf(0.9999, 150, 0.05) / 150
    assert (bounds > losses.mean(axis=0)).all()
    assert np.median(bounds) < 0.004 + 1.35 * 2 * 1.645 * np.sqrt(0.02 / 1500)  # twice as wide would be a poor bound


@pytest.mark.parametrize(("k", "n"), [(0, 300), (3, 872), (61, 7600), (7, 7), (1, 1)])
def test_the_binary_bound_is_clopper_and_pearsons(k, n):
    expected = 1.0 if k == n else beta.ppf(0.95, k + 1, n - k)
    assert upper_bound(AGREEMENT, ones(k, n), 0.95) == pytest.approx(expected, rel=1e-9)
    if k < n:
        assert binomial_p_value(ones(k, n), expected) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("risk", [ACCURACY, AGREEMENT, SHARE], ids=lambda risk: risk.name)
def test_a_bound_rises_with_confidence_and_falls_with_rows(risk):
    draws = np.random.default_rng(2)
    losses = (draws.random(6000) < 0.004).astype(float) - (risk.low < 0) * (draws.random(6000) < 0.002)
    bounds = [upper_bound(risk, losses.clip(-1, 1), confidence) for confidence in (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)]
    assert bounds == sorted(bounds)
    assert upper_bound(risk, np.tile(losses[:600], 10), 0.95) < upper_bound(risk, losses[:600], 0.95)
    bound = upper_bound(risk, losses, 0.95)
    for target in (bound, bound + 0.001, 2 * bound, 0.5, 0.9):
        assert p_value(risk, losses, target) <= 0.05 + 1e-9


def test_a_bound_stays_in_the_range_and_may_be_below_zero():
    assert upper_bound(ACCURACY, np.ones(50), 0.95) == 1
    assert upper_bound(SHARE, np.ones(1), 0.95) == 1
    assert -1 < upper_bound(ACCURACY, -np.ones(50), 0.95) < -0.8  # the exits are better than the full model
    assert upper_bound(SHARE, np.zeros(100_000), 0.95) < 0.0002


def test_lucky_first_rows_do_not_certify_what_all_contradict():
    losses = ones(30, 1000)[::-1]  # 970 rows without a loss, then 30 of them
    assert p_value(SHARE, losses[:970], 0.01) <= 0.05
    assert p_value(SHARE, losses, 0.01) == 1
    assert upper_bound(SHARE, losses, 0.95) > 0.03


def test_betting_sees_small_losses_that_hoeffding_bentkus_misses():
    losses = 0.008 + np.random.default_rng(3).uniform(-0.004, 0.004, 3000)
    assert betting_p_value(losses, 0.01, 0, 1) <= 0.05 < hoeffding_bentkus_p_value(losses, 0.01)


@pytest.mark.parametrize(("n", "mean", "part"), [(1500, 0.005, 0.6), (5000, 0.0068, 0.8), (20_000, 0.0083, 0.8)])
def test_betting_on_rare_mistakes_comes_near_the_exact_test(n, mean, part):
    losses = (np.random.default_rng(4).random((n, 300)) < mean).astype(float)
    exact = certified(AGREEMENT, losses, 0.01)
    assert 0.5 < exact < 0.95
    assert part * exact < certified(SHARE, losses, 0.01) < 1.05 * exact


def test_what_was_put_right_counts_against_what_was_put_wrong():
    """Power on the signed loss against the bounds that cannot see its sign."""
    losses = signed(1500, 0.02, 0.0, seed=5, runs=400)
    assert certified(ACCURACY, losses, 0.01) > 0.65
    assert certified(HARM, (losses > 0).astype(float), 0.01) < 0.1


def test_the_bets_have_the_power_of_the_modules_table():
    table = {(500, 0.005, 0.0): 0.61, (1500, 0.02, 0.0): 0.76, (5000, 0.02, 0.005): 0.74, (20000, 0.05, 0.007): 0.54}
    for (n, differing, mean), power in table.items():
        assert certified(ACCURACY, signed(n, differing, mean, 6, 300), 0.01) == pytest.approx(power, abs=0.09)


def test_signed_losses_are_rescaled_and_not_clipped():
    losses = signed(2000, 0.03, -0.01, seed=7, runs=1)[:, 0]
    same = betting_p_value((losses + 1) / 2, (0.002 + 1) / 2, 0, 1)
    assert p_value(ACCURACY, losses, 0.002) == pytest.approx(same, rel=1e-9)
    assert p_value(ACCURACY, losses, 0.002) < 0.06 < p_value(ACCURACY, losses.clip(0), 0.002)
    with pytest.raises(ValueError, match="not clipped"):
        p_value(SHARE, losses, 0.01)


def test_many_settings_at_once_are_each_alone():
    losses = signed(700, 0.03, 0.0, seed=8, runs=9)
    for risk, values in ((ACCURACY, losses), (AGREEMENT, np.abs(losses)), (SHARE, np.abs(losses) * 0.3)):
        alone = [p_value(risk, column, 0.02, 0.1) for column in values.T]
        assert p_values(risk, values, 0.02, 0.1) == pytest.approx(alone, rel=1e-9)


@pytest.mark.parametrize("risk", [ACCURACY, HARM, SHARE, difference_risk(np.subtract)], ids=lambda risk: risk.name)
@pytest.mark.parametrize("losses", [[], [0, np.nan], [0, np.inf], [1.5, 0], [-1.5, 0], [[0, 1]]])
def test_losses_that_no_bound_holds_for_are_refused(risk, losses):
    for attempt in (lambda: p_value(risk, np.array(losses), 0.1), lambda: upper_bound(risk, np.array(losses), 0.9)):
        with pytest.raises(ValueError, match="losses"):
            attempt()


def test_fractions_are_refused_by_the_exact_test():
    for attempt in (lambda x: binomial_p_value(x, 0.1), lambda x: upper_bound(HARM, x, 0.9)):
        with pytest.raises(ValueError, match="0 or 1"):
            attempt(np.array([0.0, 0.5]))


@pytest.mark.parametrize("share", [0, 1, -0.5, 95, np.nan])
def test_a_confidence_or_level_outside_0_to_1_is_refused(share):
    for attempt in (
        lambda: upper_bound(ACCURACY, np.zeros(9), share),
        lambda: rows_needed(HARM, 0, 0, 0.01, share),
        lambda: p_value(ACCURACY, np.zeros(9), 0.01, share),
    ):
        with pytest.raises(ValueError, match="between 0 and 1"):
            attempt()


def test_a_target_outside_the_range_is_refused():
    for risk in (ACCURACY, HARM, SHARE):
        for target in (1, 1.5, risk.low - 0.1, np.nan):
            with pytest.raises(ValueError, match="target"):
                p_value(risk, np.zeros(9), target)
        assert p_value(risk, np.full(9, risk.low), risk.low) == 1


def test_rows_needed_is_what_four_samples_of_five_certify():
    assert rows_needed(AGREEMENT, 0, 0, 0.01, 0.9) == 230
    assert rows_needed(AGREEMENT, 0, 0, 0.01, 0.95) == 299
    for mean, target, confidence in ((0.005, 0.01, 0.95), (0.008, 0.01, 0.9), (0.001, 0.02, 0.99)):
        n = rows_needed(HARM, mean, 0, target, confidence)
        for rows, least, most in ((n, 0.78, 1), (int(0.8 * n), 0, 0.8)):
            draws = np.random.default_rng(9).binomial(rows, mean, 4000)
            assert least < np.mean(binom.cdf(draws, rows, target) <= 1 - confidence) < most


LIKE = [(0, 0, 0.01, 0.05), (0.01, 0, 0.01, 0.05), (0.02, 0.004, 0.01, 0.05), (0.02, 0.002, 0.01, 0.1)]


@pytest.mark.parametrize(("differing", "mean", "target", "level"), [*LIKE, (0.02, -0.005, 0, 0.01)])
def test_rows_needed_is_about_right_for_a_signed_loss(differing, mean, target, level):
    n = rows_needed(ACCURACY, mean, differing - mean**2, target, 1 - level)
    fewer, more = (signed(int(n * part), differing, mean, 10, 300) for part in (0.75, 1.2))
    assert certified(ACCURACY, fewer, target, level) < 0.8 < certified(ACCURACY, more, target, level)


def test_rows_needed_is_none_where_no_number_helps():
    for risk in (ACCURACY, HARM):
        assert rows_needed(risk, 0.01, 0.01, 0.01, 0.95) is None
        assert rows_needed(risk, 0.02, 0.01, 0.01, 0.95) is None
        for mean, variance in ((-2, 0), (1.5, 0), (0, -1), (np.nan, 0), (0, np.nan)):
            with pytest.raises(ValueError, match="no losses"):
                rows_needed(risk, mean, variance, 0.01, 0.95)
