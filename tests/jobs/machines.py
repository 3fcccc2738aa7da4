"""A machine whose speed is known, for tests that predict times."""

from __future__ import annotations

from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.measure.predicted_time import Costs, Profile
from ziggurat.measure.profile import conditions_of


def made_up_profile(classifier: AdaptiveClassifier, tick=None) -> Profile:
    """A machine on which a layer costs 10 µs a token, a head 1 µs."""
    tokens, lengths = (1, 1000), (1, 2, 4, 64)

    def linear(per_token: float) -> tuple[tuple[float, ...], ...]:
        return tuple((per_token * n,) * len(lengths) for n in tokens)

    costs = Costs(linear(1e-6), linear(1e-5), linear(1e-5), linear(1e-6), linear(4e-6), linear(6e-6))
    return Profile(conditions_of(classifier), "2026-11-21", tokens, lengths, costs)
