"""A small vocabulary, texts of it, and how copies of them are made, literally."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from ziggurat.data import CONTINUES, SPECIAL, STARTS, augmented
from ziggurat.data.augment import Copies
from ziggurat.data.tokenizer import Encoded
from ziggurat.data.words import draws, keys_of
from ziggurat.recipe import AugmentConfig

CLS, SEP, MASK, COMMA, FIRST, SUFFIX, SIZE = 0, 1, 2, 3, 4, 30, 50
KINDS = np.repeat([SPECIAL, STARTS, CONTINUES], [3, SUFFIX - 3, SIZE - SUFFIX]).astype(np.uint8)
M = 4
# Of the words 4 … 29 and of the suffixes 30 … 49 each has the M behind it, in a ring; the rest keeps itself.
NEIGHBOURS = np.repeat(np.arange(SIZE)[:, None], M, axis=1)
NEIGHBOURS[FIRST:SUFFIX] = FIRST + (np.arange(SUFFIX - FIRST)[:, None] + np.arange(1, M + 1)) % (SUFFIX - FIRST)
NEIGHBOURS[SUFFIX:] = SUFFIX + (np.arange(SIZE - SUFFIX)[:, None] + np.arange(1, M + 1)) % (SIZE - SUFFIX)

# Sides of any length, none included, that may begin with a suffix, as a text of byte-level BPE does.
sides = st.lists(st.integers(COMMA, SIZE - 1), max_size=12)
singles = st.tuples(sides)
pairs = st.tuples(sides, sides)
texts = st.lists(singles | pairs, min_size=1, max_size=6)
kinds_of_copies = st.builds(
    AugmentConfig,
    kind=st.sampled_from(["tang", "tinybert"]),
    copies=st.integers(1, 7),
    mask=st.sampled_from([0.0, 0.1, 0.5]),
    replace=st.sampled_from([None, 0.0, 0.3, 0.5]),
    ngram=st.sampled_from([0.0, 0.25, 1.0]),
    longest=st.integers(1, 6),
    neighbours=st.integers(1, M),
    cycle_sides=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
)


def encoded(rows: list, two_segments: bool = True) -> Encoded:
    """[CLS] side [SEP] (side [SEP])."""
    tokens = []
    for row in rows:
        pieces = [(CLS, 0)]
        for number, side in enumerate(row):
            segment = number if two_segments else 0
            pieces += [(piece, segment) for piece in [*side, SEP]]
        tokens.append(np.array(pieces, dtype=np.int64))
    return Encoded(tokens, np.arange(len(rows)) % 2 == 1)


def made(source: Encoded, config: AugmentConfig, **more) -> list[Copies]:
    config = dataclasses.replace(config, neighbours=min(config.neighbours, M))
    return list(augmented(source, config, KINDS, NEIGHBOURS, MASK, **more))


def flat(chunks: list[Copies]) -> list[tuple[int, list]]:
    return [
        (int(row), tokens.tolist())
        for chunk in chunks
        for row, tokens in zip(chunk.rows, chunk.encoded.tokens, strict=True)
    ]


def sides_of(tokens: np.ndarray) -> list[list[int]]:
    """The ids between the special tokens; MASK is text here, for no source has it."""
    ends = np.flatnonzero((tokens[:, 0] == CLS) | (tokens[:, 0] == SEP)).tolist()
    return [tokens[left + 1 : right, 0].tolist() for left, right in pairwise(ends)]


def words_in(side: list[int]) -> list[list[int]]:
    words: list[list[int]] = []
    for piece in side:
        if words and KINDS[piece] == CONTINUES:
            words[-1].append(piece)
        else:
            words.append([piece])
    return words


def one_text_each(n: int, words: int, pair: bool = False) -> Encoded:
    rng = np.random.default_rng(0)
    drawn = rng.integers(FIRST, SUFFIX, (n, 2, words)).tolist()
    return encoded([tuple(row) if pair else (row[0],) for row in drawn])


def literal(tokens: np.ndarray, row: int, config: AugmentConfig) -> list[list]:
    """The specification: a text's copies, one after another, a word at a time, doubles dropped."""
    tang, copies = config.kind == "tang", []
    for copy, key in enumerate(keys_of(config.seed, np.array([row]), config.copies)[:, 0]):

        def number(place: int, purpose: int, key: np.uint64 = key) -> int:
            return int(draws(np.array([key]), np.array([place]), purpose, 5)[0])

        def share(place: int, purpose: int) -> float:
            return (number(place, purpose) >> 11) / 2**53

        out, place, segments = [tokens[0].tolist()], 1, tokens[:, 1]
        count = len(sides_of(tokens))
        filled = sum(map(bool, sides_of(tokens)))
        rank = 0
        for side in sides_of(tokens):
            still = config.cycle_sides and filled > 1 and copy % 3 != 2 and (rank > 0) != (copy % 3 == 1)
            rank += bool(side)
            start, words, changed = place, words_in(side), []
            for word in words:
                x, new = share(place, 0), word
                mask = config.mask if tang else 0.0
                if not still and x < mask:
                    new = [MASK] * len(word)
                elif not still and x < mask + config.replaced and (len(word) == 1 or not tang):
                    new = [
                        NEIGHBOURS[piece, number(place + i, 1) % config.neighbours].item()
                        for i, piece in enumerate(word)
                    ]
                changed.append(new)
                place += len(word)
            if words and tang and not still and share(start, 2) < config.ngram:
                length = min(1 + number(start, 3) % config.longest, len(words))
                begin = number(start, 4) % (len(words) - length + 1)
                changed = changed[begin : begin + length]
            out += [[piece, int(segments[start])] for word in changed for piece in word]
            out.append(tokens[place].tolist())
            place += 1
        assert place == len(tokens) and count
        if out != tokens.tolist() and out not in copies:
            copies.append(out)
    return copies
