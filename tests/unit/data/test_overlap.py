from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.data import overlapping

words = st.sampled_from(["a", "b", "c", "D"])
texts = st.lists(st.lists(words, min_size=0, max_size=7).map(" ".join), max_size=6)


def is_run(short: list[str], long: list[str]) -> bool:
    return any(long[i : i + len(short)] == short for i in range(len(long) - len(short) + 1))


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=300)
@given(texts, texts, st.integers(1, 4))
def test_it_is_what_comparing_all_pairs_says(mine, others, least):
    split = [text.lower().split() for text in others]
    expected = [
        any(min(len(own), len(other)) >= least and (is_run(own, other) or is_run(other, own)) for other in split)
        for own in (text.lower().split() for text in mine)
    ]
    assert overlapping(mine, others, least).tolist() == expected


def test_parts_wholes_and_strangers_are_told_apart():
    others = ["The film is a charming and funny story .", "nothing here"]
    mine = [
        "a charming and funny story",
        "Say the film is a charming and funny story . Twice",
        "charming story",
        "here",
    ]
    assert overlapping(mine, others).tolist() == [True, True, False, False]
    assert overlapping([], others).tolist() == [] and overlapping(mine, []).tolist() == [False] * 4


def test_long_texts_do_not_wear_the_hash_out():
    rng = np.random.default_rng(0)
    others = [" ".join(map(str, rng.integers(0, 9, 400))) for _ in range(40)]
    cut = [" ".join(text.split()[150:390]) for text in others[:20]]
    strangers = [" ".join(map(str, rng.integers(0, 9, 60))) for _ in range(20)]
    assert overlapping(cut + strangers, others, 20).tolist() == [True] * 20 + [False] * 20
