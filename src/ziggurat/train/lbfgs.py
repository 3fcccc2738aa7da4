"""Minimising a smooth convex function of very many numbers. No torch, no scipy.

scipy's L-BFGS-B keeps bounds, works in float64, and for half a million numbers takes longer than the function itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Function = Callable[[np.ndarray], tuple[float, np.ndarray]]  # a point (n) float32 → value, gradient (n) float32

_MEMORY = 10  # steps that the curvature is estimated from
_DECREASE = 1e-4  # share of the decrease that the slope promises; Armijo's constant
_HALVINGS = 30


def minimise(
    function: Function, start: np.ndarray, curvature: np.ndarray, iterations: int, tolerance: float = 1e-5
) -> np.ndarray:
    """Where a strictly convex function is least, (n) float32, by L-BFGS from `start` (n) float32.

    `curvature` (n) float32, above 0, guesses the Hessian's diagonal; where numbers differ much in how far they go,
    it saves nine steps of ten. Stops after `iterations` steps, or when one lowers the value by less than `tolerance` of
    itself. The same arguments give the same answer. Source: Nocedal and Wright, Numerical Optimization, algorithms 7.4
    and 3.1.
    """
    point = start
    value, gradient = function(point)
    moves: list[np.ndarray] = []
    changes: list[np.ndarray] = []
    for _ in range(iterations):
        direction = -_newton(gradient, curvature, moves, changes)
        slope, step = float(direction @ gradient), 1.0
        for _ in range(_HALVINGS):
            there = point + np.float32(step) * direction
            next_value, next_gradient = function(there)
            if next_value <= value + _DECREASE * step * slope:
                break
            step /= 2
        else:
            break  # float32 can tell no lower value along a direction that goes down
        move, change = there - point, next_gradient - gradient
        if float(move @ change) > 0:
            moves, changes = [*moves, move][-_MEMORY:], [*changes, change][-_MEMORY:]
        gain, point, value, gradient = value - next_value, there, next_value, next_gradient
        if gain <= tolerance * abs(value):
            break
    return point


def _newton(
    gradient: np.ndarray, curvature: np.ndarray, moves: list[np.ndarray], changes: list[np.ndarray]
) -> np.ndarray:
    """The gradient times an estimate of the inverse Hessian, from the last steps and how they changed the gradient."""
    vector, shares = gradient.copy(), []
    products = [float(move @ change) for move, change in zip(moves, changes, strict=True)]
    for move, change, product in zip(reversed(moves), reversed(changes), reversed(products), strict=True):
        shares.append(np.float32(float(move @ vector) / product))
        vector -= shares[-1] * change
    vector /= curvature
    if moves:
        vector *= np.float32(products[-1] / float(changes[-1] @ (changes[-1] / curvature)))
    for move, change, product, share in zip(moves, changes, products, reversed(shares), strict=True):
        vector += (share - np.float32(float(change @ vector) / product)) * move
    return vector
