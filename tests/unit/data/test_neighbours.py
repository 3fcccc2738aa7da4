from __future__ import annotations

import numpy as np
import pytest

from ziggurat.data import CONTINUES, SPECIAL, STARTS
from ziggurat.data.augment import neighbours

SIZE = 900  # more than are looked at together


def vocabulary() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    kinds = rng.choice([STARTS, CONTINUES, SPECIAL], SIZE, p=[0.8, 0.15, 0.05]).astype(np.uint8)
    embeddings = rng.standard_normal((SIZE, 8)).astype(np.float32) * rng.uniform(0.1, 9, (SIZE, 1)).astype(np.float32)
    return embeddings, kinds, rng.random(SIZE) < 0.1


@pytest.mark.parametrize("count", [1, 7, 40])
def test_neighbours_are_the_nearest_by_cosine_of_the_same_kind(count):
    embeddings, kinds, fixed = vocabulary()
    table = neighbours(embeddings, kinds, count, fixed)
    assert table.shape == (SIZE, count) and table.dtype == np.int32
    directions = embeddings.astype(np.float64) / np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    for entry in range(SIZE):
        if fixed[entry] or kinds[entry] == SPECIAL:
            assert (table[entry] == entry).all()
            continue
        others = np.flatnonzero((kinds == kinds[entry]) & ~fixed & (np.arange(SIZE) != entry))
        similar = directions[others] @ directions[entry]
        assert len(set(table[entry].tolist())) == count and set(table[entry].tolist()) <= set(others.tolist())
        # Float32 may swap two that are equally near but for its rounding.
        assert np.allclose(directions[table[entry]] @ directions[entry], np.sort(similar)[::-1][:count], atol=1e-6)


def test_a_rare_kind_fills_up_with_the_entry_itself():
    kinds = np.array([STARTS, STARTS, STARTS, CONTINUES, SPECIAL], dtype=np.uint8)
    embeddings = np.array([[1, 0], [1, 0.1], [0, 1], [1, 0], [1, 0]], dtype=np.float32)
    assert neighbours(embeddings, kinds, 4).tolist() == [
        [1, 2, 0, 0],
        [0, 2, 1, 1],
        [1, 0, 2, 2],
        [3, 3, 3, 3],
        [4, 4, 4, 4],
    ]


def test_an_entry_without_a_direction_breaks_nothing():
    kinds = np.zeros(3, dtype=np.uint8)
    table = neighbours(np.array([[0, 0], [1, 0], [1, 1]], dtype=np.float32), kinds, 2)
    assert table[1].tolist() == [2, 0] and sorted(table[0].tolist()) == [1, 2]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"count": 0}, "count 0: must be at least 1"),
        ({"embeddings": np.zeros((4, 2), np.float32)}, r"embeddings: must be \(3, d\), as there are 3 kinds"),
        ({"embeddings": np.zeros(3, np.float32)}, r"embeddings: must be \(3, d\)"),
        ({"embeddings": np.full((3, 2), np.nan, np.float32)}, "embeddings: must be finite"),
        ({"fixed": np.zeros(2, bool)}, r"fixed: must be \(3,\), not \(2,\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, says):
    arguments = {"embeddings": np.ones((3, 2), np.float32), "kinds": np.zeros(3, np.uint8), "count": 1} | changes
    with pytest.raises(ValueError, match=says):
        neighbours(**arguments)
