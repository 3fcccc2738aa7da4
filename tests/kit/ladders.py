"""Logits of all rungs of models that never existed, for tests of what is chosen from them."""

from __future__ import annotations

import numpy as np

RUNGS, CLASSES = 4, 3


def ladder(seed: int, n: int = 200, skill: float = 4.0, rungs: int = RUNGS, classes: int = CLASSES):
    """Logits (n, rungs, classes) float32 of a model that knows more with depth, and the labels (n) it half knows."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    noise = rng.normal(size=(n, rungs, classes))
    known = np.eye(classes)[labels][:, None] * np.linspace(0.3, 1, rungs)[:, None] * skill
    return ((noise + known) * np.linspace(1, 3, rungs)[:, None]).astype(np.float32), labels
