"""Along a fixed path the first failure ends the promise, and no correction is needed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from ziggurat.calibrate import fixed_sequence


def test_certified_are_those_before_the_first_failure():
    assert fixed_sequence([0.01, 0.05, 0.051, 0.0], level=0.05) == 2
    assert fixed_sequence([0.06, 0.0], level=0.05) == 0
    assert fixed_sequence([0.0, 1e-300], level=0.05) == 2
    assert fixed_sequence([], level=0.05) == 0


def test_nothing_is_computed_after_the_first_failure():
    asked = []

    def p_values():
        for p in (0.01, 0.5, 0.02):
            asked.append(p)
            yield p

    assert fixed_sequence(p_values(), 0.05) == 1
    assert asked == [0.01, 0.5]


@pytest.mark.parametrize("level", [0, 1, -0.1, 5, np.nan])
def test_a_level_outside_of_zero_and_one_is_refused(level):
    with pytest.raises(ValueError, match="level"):
        fixed_sequence([0.01], level)


@pytest.mark.parametrize("p", [np.nan, -0.1, 1.5])
def test_what_is_no_p_value_is_refused(p):
    with pytest.raises(ValueError, match="p-value"):
        fixed_sequence([0.01, p], 0.05)


def test_the_family_wise_error_rate_is_kept_with_bad_settings():
    """Three good settings, then thirty whose hypothesis is true: independent uniform p-values, the worst case."""
    rng, runs, level = np.random.default_rng(0), 4000, 0.05
    paths = np.concatenate([rng.random((runs, 3)) * 1e-3, rng.random((runs, 30))], axis=1)
    wrong = sum(fixed_sequence(path, level) > 3 for path in paths)
    allowed = binom.ppf(0.999, runs, level)
    assert binom.ppf(0.001, runs, level) <= wrong <= allowed  # neither broken nor timid
    assert (paths <= level)[:, 3:].any(axis=1).sum() > 10 * allowed  # what picking any that passes would do


def test_it_certifies_what_mapie_certifies():
    fwer = pytest.importorskip("mapie.risk_control.fwer_control")
    rng = np.random.default_rng(1)
    for _ in range(200):
        p_values = rng.random(rng.integers(1, 12)) ** 4
        ours = fixed_sequence(p_values, 0.1)
        assert list(fwer.control_fwer(p_values, 0.1, "fixed_sequence")) == list(range(ours))
