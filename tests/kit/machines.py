"""A machine whose speed is known, for tests that predict times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ziggurat.calibrate import SmallCost
from ziggurat.engine import OpenedModel
from ziggurat.measure import Costs, Profile, Timing, conditions_of


def made_up_profile(classifier: OpenedModel, tick=None) -> Profile:
    """A machine on which a layer costs 10 µs a token, a head 1 µs."""
    tokens, lengths = (1, 1000), (1, 2, 4, 64)

    def linear(per_token: float) -> tuple[tuple[float, ...], ...]:
        return tuple((per_token * n,) * len(lengths) for n in tokens)

    costs = Costs(linear(1e-6), linear(1e-5), linear(1e-5), linear(1e-6), linear(4e-6), linear(6e-6))
    return Profile(conditions_of(classifier), "2026-11-21", tokens, lengths, costs)


def made_up_timings(
    calls: Mapping[str, Callable[[], object]], repeats: int = 5, *_: object, **__: object
) -> dict[str, Timing]:
    """In place of `interleave`: every call is made once; the first took two seconds, each other one second."""
    for call in calls.values():
        call()
    return {name: Timing((1.0 if index else 2.0,) * repeats) for index, name in enumerate(calls)}


def made_up_small_cost(*_: object) -> SmallCost:
    """A small model costs 0.1 µs a token."""
    return SmallCost(1e-7)


def made_up_profile_beside(
    classifier: OpenedModel, groups: Sequence[Mapping[str, Callable[[], object]]], *_: object
) -> tuple[Profile, dict[str, Timing]]:
    """In place of `profile_beside`: the made-up profile, and a second for each call."""
    return made_up_profile(classifier), {name: Timing((1.0,)) for group in groups for name in group}
