"""Which texts are parts of other texts, word for word: rows that look new and are not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from ziggurat.data.packing import cumulate

LEAST = 3  # words: shorter runs are shared by texts that have nothing to do with each other
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no word is lost among the high powers


def overlapping(texts: Sequence[str], others: Sequence[str], least: int = LEAST) -> np.ndarray:
    """Which texts are a run of words of another text, or have one of `others` as a run of theirs: (n) bool.

    Runs of fewer than `least` words do not count. Case does not count, words are what stands between spaces.
    """
    vocabulary: dict[str, int] = {}
    mine, theirs = (_Words(some, vocabulary) for some in (texts, others))
    found = np.zeros(len(texts), dtype=bool)
    for length in np.unique(mine.lengths[mine.lengths >= least]):
        whole = np.flatnonzero(mine.lengths == length)
        found[whole] |= np.isin(mine.whole(whole), theirs.runs(int(length))[0])
    for length in np.unique(theirs.lengths[theirs.lengths >= least]):
        runs, owners = mine.runs(int(length))
        found[owners[np.isin(runs, theirs.whole(np.flatnonzero(theirs.lengths == length)))]] = True
    return found


class _Words:
    """Texts as numbers of words behind one another, with hashes of all that stands before each word."""

    def __init__(self, texts: Sequence[str], vocabulary: dict[str, int]) -> None:
        split = [text.lower().split() for text in texts]
        self.lengths = np.array([len(words) for words in split], dtype=np.int64)
        self._edges = cumulate(self.lengths)
        numbers = (vocabulary.setdefault(word, len(vocabulary) + 1) for word in chain.from_iterable(split))
        words = np.fromiter(numbers, dtype=np.uint64, count=int(self._edges[-1]))
        # Σ word_i · base^i: a run's hash is a difference of two of these, brought to one power by multiplying.
        self._powers = np.cumprod(np.full(len(words) + 1, _BASE), dtype=np.uint64)
        self._before = np.append(np.uint64(0), np.cumsum(words * self._powers[: len(words)], dtype=np.uint64))
        self._owners = np.repeat(np.arange(len(texts)), self.lengths)
        self._left = np.repeat(self._edges[1:], self.lengths) - np.arange(len(words))  # words to the text's end

    def runs(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of all runs of so many words, and the texts that they are of."""
        starts = np.flatnonzero(self._left >= length)
        return self._hashes(starts, length), self._owners[starts]

    def whole(self, rows: np.ndarray) -> np.ndarray:
        """Hashes of these texts (m), which are equally long."""
        return self._hashes(self._edges[rows], int(self.lengths[rows[0]]) if len(rows) else 0)

    def _hashes(self, starts: np.ndarray, length: int) -> np.ndarray:
        sums = self._before[starts + length] - self._before[starts]
        return sums * _inverse_powers(starts)


def _inverse_powers(exponents: np.ndarray) -> np.ndarray:
    """The base's inverse modulo 2^64 to the power of each exponent + 1, (n) uint64."""
    most = int(exponents.max(initial=0)) + 1
    inverse = np.uint64(pow(int(_BASE), -1, 2**64))
    return np.cumprod(np.full(most, inverse), dtype=np.uint64)[exponents]
