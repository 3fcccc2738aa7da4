"""Many settings, one promise: in which order to test them so that no correction for their number is needed."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile


def fixed_sequence(p_values: Iterable[float], level: float) -> int:
    """How many settings, from the start of the path, are certified: those before the first p-value above `level`.

    The path is fixed before the rows that give the p-values are looked at (learned on other rows, from what is least
    likely to lose to what saves most); each p-value tests "the setting's risk exceeds the target". Then the chance that
    any certified setting's risk exceeds the target is at most `level`: to certify a bad one, the first bad one on the
    path must have been certified by its own test (fixed-sequence testing in Learn then Test, Angelopoulos et al. 2021;
    along a learned path, Laufer-Goldshtein et al. 2023). So the cheapest certified may be picked.

    The iterable is read only as far as the first failure. 0 = nothing can be promised. ValueError for a level outside
    (0, 1), or a p-value outside [0, 1] or NaN.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level:g}")
    return sum(1 for _ in takewhile(lambda p_value: _checked(p_value) <= level, p_values))


def _checked(p_value: float) -> float:
    if not 0 <= p_value <= 1:
        raise ValueError(f"{p_value!r} is no p-value")
    return p_value
