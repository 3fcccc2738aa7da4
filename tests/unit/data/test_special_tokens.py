"""Special tokens around texts: one pass for all of them says what going text by text says."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.data.frames import Frame

ids = st.lists(st.integers(0, 99), max_size=9)


def block(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (size, 2))


@settings(derandomize=True, deadline=None)
@given(
    st.lists(st.tuples(ids, ids), max_size=6),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
    st.lists(st.integers(0, 2), min_size=2, max_size=2),
    st.integers(1, 2),
    st.integers(0, 99),
)
def test_every_text_stands_between_its_special_tokens(rows, sizes, segments, n_sides, seed):
    blocks = [block(seed + place, size) for place, size in enumerate(sizes[: n_sides + 1])]
    frame = Frame(blocks, segments[:n_sides])
    made = frame.around([[row[side] for row in rows] for side in range(n_sides)])
    assert len(made) == len(rows)
    for row, table in zip(rows, made, strict=True):
        expected = blocks[0].tolist()
        for side in range(n_sides):
            expected += [[one, segments[side]] for one in row[side]] + blocks[side + 1].tolist()
        assert table.shape == (len(expected), 2) and table.dtype == np.int64
        assert table.tolist() == expected
