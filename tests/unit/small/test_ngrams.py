"""What the static tier reads of a text: the vectorised features against a reading of their definition, one by one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.data import CONTINUES, SPECIAL, STARTS, cumulate
from ziggurat.small import features

CLS, SEP, THE, RIVER, STONE, ER, S = range(7)
KINDS = np.array([SPECIAL, SPECIAL, STARTS, STARTS, STARTS, CONTINUES, CONTINUES], dtype=np.uint8)
repeatable = settings(derandomize=True, deadline=None, max_examples=150)
pieces = st.tuples(st.integers(0, len(KINDS) - 1), st.integers(0, 1))
ragged = st.lists(st.lists(pieces, max_size=12), min_size=1, max_size=6)

WRAP = 2**64


def mixed(number: int) -> int:
    spread = number * 0x9E3779B97F4A7C15 % WRAP
    return (spread ^ spread >> 32) * 0x243F6A8885A308D3 % WRAP


def runs(text):
    """Pieces between which nothing stands: of one segment, special tokens out."""
    run, segment = [], None
    for token, side in text:
        if KINDS[token] == SPECIAL or (run and side != segment):
            yield run
            run = []
        if KINDS[token] != SPECIAL:
            run, segment = [*run, (token, side)], side
    yield run


def words_of(run):
    words = []
    for token, side in run:
        if words and KINDS[token] == CONTINUES:
            words[-1].append((token, side))
        else:
            words.append([(token, side)])
    return words


def read_one_by_one(text, bits):
    """The buckets of one text, in order of size."""
    hashes = []
    for run in runs(text):
        numbers = [(side << 32) + token for token, side in run]
        hashes += [mixed(number) for number in numbers]
        hashes += [mixed((mixed(a) + b) % WRAP) for a, b in pairwise(numbers)]
        words = words_of(run)
        codes = []
        for word in words:
            code = ((word[0][1] << 32) + word[0][0] + 0xB7E151628AED2A6B) % WRAP
            for token, side in word[1:]:
                code = (mixed(code) + (side << 32) + token) % WRAP
            codes.append(code)
        hashes += [mixed(code) for code, word in zip(codes, words, strict=True) if len(word) > 1]
        for i in range(1, len(words)):
            if len(words[i - 1]) > 1 or len(words[i]) > 1:
                hashes.append(mixed((mixed(codes[i - 1]) + codes[i]) % WRAP))
    return sorted(value >> 64 - bits for value in hashes)


def table_of(texts) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.array([piece for text in texts for piece in text], dtype=np.int64).reshape(-1, 2)
    return tokens, cumulate(np.array([len(text) for text in texts]))


def counts_of(*tokens: int, side: int = 0) -> int:
    return int(features(*table_of([[(token, side) for token in tokens]]), KINDS, 2**20)[1][0])


@repeatable
@given(ragged, st.integers(1, 30))
def test_features_are_those_of_the_definition(texts, bits):
    buckets, counts = features(*table_of(texts), KINDS, 2**bits)
    assert len(counts) == len(texts) and counts.sum() == len(buckets)
    edges = cumulate(counts)
    for i, text in enumerate(texts):
        assert sorted(buckets[edges[i] : edges[i + 1]].tolist()) == read_one_by_one(text, bits)


def test_hashes_never_change():
    # A tier that was trained yesterday is read today: another number here needs another FORMAT_VERSION.
    text = [(CLS, 0), (THE, 0), (RIVER, 0), (S, 0), (SEP, 0), (STONE, 1), (ER, 1), (SEP, 1)]
    buckets, counts = features(*table_of([text, [(THE, 0)]]), KINDS, 2**18)
    assert sorted(buckets[: counts[0]].tolist()) == [
        21928,
        49779,
        55130,
        65485,
        128752,
        141319,
        144987,
        154177,
        169156,
        196813,
        237496,
    ]
    assert buckets[counts[0] :].tolist() == [49779]


def test_a_word_of_one_piece_is_said_once():
    assert counts_of(THE, RIVER, STONE) == 3 + 2
    assert counts_of(RIVER, S) == 2 + 1 + 1  # pieces, their pair, the word
    assert counts_of(THE, RIVER, S, STONE) == 4 + 3 + 1 + 2


def test_special_tokens_are_skipped_and_separate():
    assert counts_of(CLS, SEP) == 0
    assert counts_of(CLS, RIVER, SEP) == 1
    assert counts_of(RIVER, SEP, S) == 2  # the second is a word of its own, and no neighbour


def test_the_two_texts_of_a_pair_have_features_of_their_own():
    sides = [[(RIVER, side), (S, side), (STONE, side)] for side in (0, 1)]
    buckets, counts = features(*table_of(sides), KINDS, 2**30)
    assert counts.tolist() == [7, 7]
    assert not set(buckets[:7].tolist()) & set(buckets[7:].tolist())
    both, n = features(*table_of([sides[0] + sides[1]]), KINDS, 2**30)
    assert sorted(both.tolist()) == sorted(buckets.tolist()) and n == 14


def test_nothing_gives_nothing():
    buckets, counts = features(*table_of([[], [(CLS, 0)], []]), KINDS, 4)
    assert len(buckets) == 0 and counts.tolist() == [0, 0, 0]
    buckets, counts = features(np.zeros((0, 2), dtype=np.int64), np.zeros(1, dtype=np.int64), KINDS, 4)
    assert len(buckets) == len(counts) == 0


@pytest.mark.parametrize(
    ("tokens", "edges"),
    [
        ([[7, 0]], [0, 1]),
        ([[-1, 0]], [0, 1]),
        ([[2, -1]], [0, 1]),
        ([[2, 2**31]], [0, 1]),
        ([[2, 0]], [0, 2]),
        ([[2, 0]], [1, 1]),
        ([[2, 0]], [0, 2, 1]),
        ([[2, 0]], []),
        ([[2, 0, 0]], [0, 1]),
    ],
)
def test_what_does_not_fit_is_refused(tokens, edges):
    with pytest.raises(ValueError):
        features(np.array(tokens, dtype=np.int64), np.array(edges, dtype=np.int64), KINDS, 16)
    with pytest.raises(ValueError, match="int64"):
        features(np.array([[2, 0]], dtype=np.int32), np.array([0, 1]), KINDS, 16)
