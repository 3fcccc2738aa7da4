from __future__ import annotations

import numpy as np
import pytest

from ziggurat.small import minimise


def bowl(curvature: np.ndarray, bottom: np.ndarray):
    """A function that is least at `bottom`, with a Hessian of this diagonal, and how often it was asked."""
    asked = []

    def function(point):
        asked.append(point)
        away = point.astype(np.float64) - bottom
        return float((curvature * away**2).sum() / 2), (curvature * away).astype(np.float32)

    return function, asked


def test_it_finds_the_bottom():
    rng = np.random.default_rng(0)
    curvature, bottom = rng.uniform(0.1, 10, 50), rng.normal(size=50)
    function, _ = bowl(curvature, bottom)
    found = minimise(function, np.zeros(50, dtype=np.float32), np.ones(50, dtype=np.float32), 200, tolerance=0.0)
    np.testing.assert_allclose(found, bottom, atol=1e-3)
    assert found.dtype == np.float32


def test_it_agrees_with_scipy_on_logistic_regression():
    from scipy.optimize import minimize

    rng = np.random.default_rng(1)
    rows, signs = rng.normal(size=(80, 6)), rng.choice([-1.0, 1.0], 80)

    def function(point):
        lead = signs * (rows @ point)
        value = np.logaddexp(0, -lead).mean() + 0.05 * (point**2).sum()
        return float(value), -(rows.T @ (signs / (1 + np.exp(lead)))) / 80 + 0.1 * point

    expected = minimize(function, np.zeros(6), jac=True, method="L-BFGS-B", options={"gtol": 1e-9}).x
    single = lambda point: (function(point)[0], function(point)[1].astype(np.float32))  # noqa: E731
    found = minimise(single, np.zeros(6, dtype=np.float32), np.ones(6, dtype=np.float32), 100, tolerance=0.0)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_right_guess_at_the_curvature_needs_one_step():
    curvature, bottom = np.logspace(-4, 4, 30), np.ones(30)
    function, asked = bowl(curvature, bottom)
    minimise(function, np.zeros(30, dtype=np.float32), curvature.astype(np.float32), 50)
    known = len(asked)
    minimise(function, np.zeros(30, dtype=np.float32), np.ones(30, dtype=np.float32), 50, tolerance=0.0)
    assert known <= 3 < 20 < len(asked) - known


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_it_never_gets_worse_and_stops_where_it_should(iterations):
    function, _ = bowl(np.array([1.0, 100.0]), np.array([3.0, -2.0]))
    start = np.zeros(2, dtype=np.float32)
    found = minimise(function, start, np.ones(2, dtype=np.float32), iterations, tolerance=0.0)
    assert function(found)[0] < function(start)[0]
    assert np.array_equal(minimise(function, found, np.ones(2, dtype=np.float32), 0), found)
