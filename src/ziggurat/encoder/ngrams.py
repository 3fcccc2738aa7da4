"""Hashed n-grams of word pieces and of words, from token ids alone: what the static tier reads. No torch.

Of a text's pieces (special tokens aside) the features are

- every piece, and every two neighbours;
- every word of several pieces, and every two neighbouring words of which one at least has several: of other words the
  pieces have said it already.

A word is a piece that starts one, with the pieces behind it that continue it. Neighbours stand in one segment with no
special token between them. Segments have features of their own, so that the two texts of a pair are told apart.
"""

from __future__ import annotations

import numpy as np

from ziggurat.data.pieces import CONTINUES, SPECIAL

_GOLDEN, _PI, _E = (np.uint64(digits) for digits in (0x9E3779B97F4A7C15, 0x243F6A8885A308D3, 0xB7E151628AED2A6B))
_HALF = np.uint64(32)


def features(
    tokens: np.ndarray, cu_seqlens: np.ndarray, kinds: np.ndarray, n_buckets: int
) -> tuple[np.ndarray, np.ndarray]:
    """The bucket of each feature of n texts, (n_features) int64 below `n_buckets`, and how many each text has, (n).

    `tokens` (n_tokens, 2) int64 are token and segment ids, `cu_seqlens` (n + 1) int64 the texts' edges, `kinds`
    (vocabulary) uint8 as `piece_kinds` gives them, `n_buckets` a power of two. The features of a text are behind one
    another, in no order that means anything. ValueError for ids out of range or edges that do not fit.
    """
    check_texts(tokens, cu_seqlens, len(kinds))
    text = np.repeat(np.arange(len(cu_seqlens) - 1), np.diff(cu_seqlens))
    kind = kinds[tokens[:, 0]]
    fresh = np.ones(len(tokens), dtype=bool)  # has no left neighbour
    fresh[1:] = (kind[:-1] == SPECIAL) | (np.diff(text) != 0) | (np.diff(tokens[:, 1]) != 0)
    read = kind != SPECIAL
    text, kind, fresh, tokens = text[read], kind[read], fresh[read], tokens[read]
    pieces = (tokens[:, 1].astype(np.uint64) << _HALF) + tokens[:, 0].astype(np.uint64)
    starts = np.flatnonzero((kind != CONTINUES) | fresh)
    lengths = np.diff(np.append(starts, len(pieces)))
    words = _words(pieces, starts, lengths)
    several = lengths > 1
    joined = ~fresh[starts]  # to the word before
    joined[1:] &= several[1:] | several[:-1]
    seconds, joined_words = np.flatnonzero(~fresh), np.flatnonzero(joined)
    hashes = [
        _mixed(pieces),
        _mixed(_mixed(pieces[seconds - 1]) + pieces[seconds]),
        _mixed(words[several]),
        _mixed(_mixed(words[joined_words - 1]) + words[joined_words]),
    ]
    owners = np.concatenate([text, text[seconds], text[starts[several]], text[starts[joined_words]]])
    order = np.argsort(owners, kind="stable")
    buckets = (np.concatenate(hashes)[order] >> np.uint64(65 - int(n_buckets).bit_length())).astype(np.int64)
    return buckets, np.bincount(owners, minlength=len(cu_seqlens) - 1)


def _words(pieces: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """A number for each word from those of its pieces, in their order."""
    words = pieces[starts] + _E  # so that a word is not taken for its piece
    longer = np.arange(len(starts))
    for place in range(1, int(lengths.max(initial=0))):
        longer = longer[lengths[longer] > place]
        words[longer] = _mixed(words[longer]) + pieces[starts[longer] + place]
    return words


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """A hash of each number, uint64, whose upper bits are the good ones."""
    spread = numbers * _GOLDEN
    return (spread ^ (spread >> _HALF)) * _PI


def check_texts(tokens: np.ndarray, cu_seqlens: np.ndarray, vocabulary: int) -> None:
    """ValueError unless these are texts of this vocabulary, as `features` takes them."""
    if tokens.dtype != np.int64 or tokens.ndim != 2 or tokens.shape[1] != 2:
        raise ValueError("tokens: must be int64 with two columns")
    if cu_seqlens.dtype != np.int64 or cu_seqlens.ndim != 1 or not len(cu_seqlens):
        raise ValueError("cu_seqlens: must be int64 with one axis of at least 1")
    if cu_seqlens[0] != 0 or cu_seqlens[-1] != len(tokens) or (np.diff(cu_seqlens) < 0).any():
        raise ValueError("cu_seqlens: must rise from 0 to the number of tokens")
    if len(tokens) and not (tokens[:, 0].min() >= 0 and tokens[:, 0].max() < vocabulary):
        raise ValueError(f"token id: must be at least 0 and below {vocabulary}")
    if len(tokens) and not (tokens[:, 1].min() >= 0 and tokens[:, 1].max() < 2**31):
        raise ValueError("segment id: must be at least 0 and below 2^31")
