"""Positions of words in texts, from token ids alone, and random numbers tied to these positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ziggurat.data.packing import cumulate, place_in_sequence
from ziggurat.data.tokenizer import CONTINUES, SPECIAL

_STEP = 0x9E3779B97F4A7C15
_ALL = 2**64 - 1


@dataclass(frozen=True, eq=False)
class Words:
    """n concatenated texts, and the words in them.

    A word is a starting piece with the pieces after it that continue the word. A side is a run of words in one
    segment without a special token between them: a text, or one of the two of a pair.
    """

    ids: np.ndarray  # (n_tokens) int64
    segments: np.ndarray  # (n_tokens) int64
    cu_seqlens: np.ndarray  # (n + 1) int64, of the texts
    text: np.ndarray  # (n_tokens): which text each token is of
    places: np.ndarray  # (n_tokens): where each token stands in its text
    text_tokens: np.ndarray  # (m): tokens that are not special
    word: np.ndarray  # (m): which word each of these is of
    heads: np.ndarray  # (n_words): the token that each word starts with
    pieces: np.ndarray  # (n_words): how many tokens it has
    side: np.ndarray  # (n_words): which side it is on
    side_heads: np.ndarray  # (n_sides): the token that each side starts with
    side_words: np.ndarray  # (n_sides): how many words it has
    first_word: np.ndarray  # (n_sides): the word that each side starts with
    rank: np.ndarray  # (n_sides): how many sides its text has before it


def words_of(tokens: list[np.ndarray], kinds: np.ndarray) -> Words:
    """The words of n ≥ 1 texts, (length_i ≥ 1, 2) as in `Encoded`; `kinds` as `TextTokenizer.piece_kinds`.

    ValueError for a token that has no kind.
    """
    lengths = np.array([len(table) for table in tokens], dtype=np.int64)
    table = np.concatenate(tokens)
    if table[:, 0].min() < 0 or table[:, 0].max() >= len(kinds):
        raise ValueError(f"token id: must be at least 0 and below {len(kinds)}")
    text = np.repeat(np.arange(len(tokens)), lengths)
    kind = kinds[table[:, 0]]
    fresh = np.ones(len(table), dtype=bool)  # has no left neighbour
    fresh[1:] = (kind[:-1] == SPECIAL) | (np.diff(text) != 0) | (np.diff(table[:, 1]) != 0)
    read = kind != SPECIAL
    opens_word, opens_side = read & (fresh | (kind != CONTINUES)), read & fresh
    text_tokens, heads, side_heads = (np.flatnonzero(mask) for mask in (read, opens_word, opens_side))
    word = np.cumsum(opens_word)[text_tokens] - 1
    side = np.cumsum(opens_side)[heads] - 1
    side_words = np.bincount(side, minlength=len(side_heads))
    return Words(
        ids=table[:, 0],
        segments=table[:, 1],
        cu_seqlens=cumulate(lengths),
        text=text,
        places=place_in_sequence(lengths),
        text_tokens=text_tokens,
        word=word,
        heads=heads,
        pieces=np.bincount(word, minlength=len(heads)),
        side=side,
        side_heads=side_heads,
        side_words=side_words,
        first_word=cumulate(side_words)[:-1],
        rank=place_in_sequence(np.bincount(text[side_heads], minlength=len(tokens))),
    )


def keys_of(seed: int, rows: np.ndarray, copies: int) -> np.ndarray:
    """A random number for each copy of each row, (copies, rows) uint64: it depends only on seed, row and copy."""
    numbers = np.arange(1, copies + 1, dtype=np.uint64)[:, None]
    of_seed = mixed(np.array([seed], dtype=np.uint64))
    return mixed(mixed(of_seed + (rows.astype(np.uint64) + np.uint64(1)) * _step(1)) + numbers * _step(1))


def draws(keys: np.ndarray, places: np.ndarray, purpose: int, purposes: int) -> np.ndarray:
    """Uniform uint64, one for each key (…, n) and place (n); each of the `purposes` has numbers of its own."""
    return mixed(keys + places.astype(np.uint64) * _step(purposes) + _step(purpose + 1))


def below(numbers: np.ndarray, probability: float) -> np.ndarray:
    """Whether each of these uniform uint64 is among the smallest `probability` of all; 0 is never, 1 always."""
    return (numbers >> np.uint64(11)) < np.uint64(round(probability * 2**53))


def mixed(numbers: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): of numbers that count up it makes random ones."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _step(times: int) -> np.uint64:
    return np.uint64(_STEP * times & _ALL)
