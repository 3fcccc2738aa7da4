"""Rows that a tiny model can learn."""

import numpy as np

from ziggurat.data.tokenizer import Encoded
from ziggurat.train.batches import Examples


def make_examples(n, seed, labelled=True):
    """Random tokens but for the first, 1 or 2, which is the class plus one."""
    draws = np.random.default_rng(seed)
    tokens = [np.stack([draws.integers(0, 40, k), np.zeros(k, int)], axis=1) for k in draws.integers(2, 12, n)]
    classes = draws.integers(0, 2, n)
    for row, label in zip(tokens, classes, strict=True):
        row[0, 0] = label + 1
    labels = classes if labelled else np.full(n, -1)
    return Examples(Encoded(tokens, np.zeros(n, bool)), labels)
