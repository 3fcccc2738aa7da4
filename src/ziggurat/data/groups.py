"""Rows that share text: phrases of one sentence, one story under two headlines, texts that are parts of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ziggurat.data.packing import cumulate

LEAST = 3  # words: shorter runs are shared by texts that have nothing to do with each other


def overlapping(texts: Sequence[str], references: Sequence[str], least: int = LEAST) -> np.ndarray:
    """Which texts are a run of words of a reference text, or contain a reference text as a run: (n) bool.

    Runs of fewer than `least` words do not count. Case does not count; words are separated by white space.
    """
    vocabulary: dict[str, int] = {}
    text_runs, reference_runs = (_WordRuns(side, vocabulary) for side in (texts, references))
    found = np.zeros(len(texts), dtype=bool)
    for length in np.unique(text_runs.lengths[text_runs.lengths >= least]):
        rows = np.flatnonzero(text_runs.lengths == length)
        found[rows] |= np.isin(text_runs.full_texts(rows), reference_runs.runs(int(length))[0])
    for length in np.unique(reference_runs.lengths[reference_runs.lengths >= least]):
        runs, owners = text_runs.runs(int(length))
        rows = np.flatnonzero(reference_runs.lengths == length)
        found[owners[np.isin(runs, reference_runs.full_texts(rows))]] = True
    return found


class _WordRuns:
    """Texts as concatenated word numbers, with a hash of all words before each word."""

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
        self._remaining = np.repeat(self._edges[1:], self.lengths) - np.arange(len(words))  # words to the text's end

    def runs(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of all runs of `length` words, and the indices of their texts."""
        starts = np.flatnonzero(self._remaining >= length)
        return self._hashes(starts, length), self._owners[starts]

    def full_texts(self, rows: np.ndarray) -> np.ndarray:
        """Hashes of these texts (m), which must have equal lengths."""
        return self._hashes(self._edges[rows], int(self.lengths[rows[0]]) if len(rows) else 0)

    def _hashes(self, starts: np.ndarray, length: int) -> np.ndarray:
        sums = self._before[starts + length] - self._before[starts]
        return sums * _inverse_powers(starts)


def _inverse_powers(exponents: np.ndarray) -> np.ndarray:
    """The base's inverse modulo 2^64 to the power of each exponent + 1, (n) uint64."""
    most = int(exponents.max(initial=0)) + 1
    inverse = np.uint64(pow(int(_BASE), -1, 2**64))
    return np.cumprod(np.full(most, inverse), dtype=np.uint64)[exponents]


_LONG = 8  # words: from here on, run lengths double
_MOST = 0.02  # of the rows: the largest group; runs that more rows share are ignored
_FEW = 100  # rows: a group of this size is always allowed
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no word is lost among the high powers
_BITS = 26  # of a run's hash, looked up before the whole hash is: 64 MiB


def stand_ins(texts: Sequence[str], pairs: Sequence[str] | None, hashes: np.ndarray) -> np.ndarray:
    """The representative of each row's group, (n) int64: its longest row; a row that shares no text represents itself.

    Two rows are in one group if a text of one is a run of words of a text of the other, or has more than half of its
    words in such a run. Runs have 3 to 8 words, 16, 32 and so on. A text of fewer words joins a single longer row that
    contains it (not where rows are pairs). Case does not count; words are separated by white space. Runs that too many
    rows share are ignored. No group is larger than 2 % of the rows (or 100): longer runs join first, and later joins
    that would exceed the limit are skipped. `hashes` (n) uint64 are those of the rows' contents: with them, the result
    does not depend on the order of rows.
    """
    _, first, back, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    sides = [texts] if pairs is None else [texts, pairs]
    words = _Words([side[i] for i in first for side in sides], len(sides))
    groups = _Groups(counts, max(_FEW, int(_MOST * len(hashes))))
    found = [*_sharing(words, counts, groups.most)]
    short = _short(words, counts, groups.most) if pairs is None else []
    for joined in (*reversed(found), *short):
        groups.join(joined)
    return first[_longest(groups.roots(), words.per_row(len(first)))[back]]


class _Words:
    """Texts as concatenated word numbers; each row has the same number of texts."""

    def __init__(self, texts: Sequence[str], sides: int) -> None:
        vocabulary: dict[str, int] = {}
        counted: list[int] = []
        numbers = (vocabulary.setdefault(word, len(vocabulary) + 1) for word in _words(texts, counted))
        self.numbers = np.fromiter(numbers, dtype=np.uint64)
        lengths = np.array(counted, dtype=np.int32)
        self.rows = np.repeat(np.arange(len(texts), dtype=np.int32) // sides, lengths)
        self.lengths = np.repeat(lengths, lengths)  # of the text that each word is of
        ends = np.repeat(np.cumsum(lengths, dtype=np.int64), lengths)
        self.remaining = (ends - np.arange(len(ends))).astype(np.int32)  # words to the text's end
        self.longest = int(lengths.max(initial=0))

    def runs(self) -> Iterator[tuple[int, np.ndarray]]:
        """Run lengths 1, 2, …, 8, 16, 32, … with the hashes of the runs that start at each word, across texts, too."""
        hashes, length, power = self.numbers, 1, _BASE
        while length <= self.longest:
            yield length, hashes
            if length < _LONG:
                hashes, length = hashes[:-1] * _BASE + self.numbers[length:], length + 1
            else:
                power = np.uint64(pow(int(_BASE), length, 2**64))
                hashes, length = hashes[:-length] * power + hashes[length:], 2 * length

    def per_row(self, n_rows: int) -> np.ndarray:
        """The number of words of each row, (n_rows) int64."""
        return np.bincount(self.rows, minlength=n_rows)


def _words(texts: Sequence[str], counted: list[int]) -> Iterator[str]:
    """The words of all texts, one at a time, to save memory; appends the number of words of each text to `counted`."""
    for text in texts:
        words = text.casefold().split()
        counted.append(len(words))
        yield from words


@dataclass(frozen=True)
class _Owners:
    """Rows that have a run, run by run."""

    runs: np.ndarray  # (m) int64, ascending
    rows: np.ndarray  # (m) int64
    is_most: np.ndarray  # (m) bool, the run is most of a text of the row


def _sharing(words: _Words, counts: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Pairs of rows (m, 2) that share a run that is most of a text of one of them; longer runs come later."""
    for length, hashes in words.runs():
        if length >= LEAST:
            owners = _owners(words, length, hashes, counts, most)
            same = owners.runs[1:] == owners.runs[:-1]
            joined = np.stack([owners.rows[:-1][same], owners.rows[1:][same]], axis=1)
            yield np.unique(joined, axis=0)


def _short(words: _Words, counts: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """For texts of fewer than `LEAST` words: pairs of a row with a longer text that contains the text, and its row."""
    for length, hashes in words.runs():
        if length >= LEAST:
            return
        owners = _owners(words, length, hashes, counts, most)
        longer = np.flatnonzero(~owners.is_most)
        runs, place = np.unique(owners.runs[longer], return_index=True)
        found = np.flatnonzero(owners.is_most & np.isin(owners.runs, runs))
        hosts = owners.rows[longer[place[np.searchsorted(runs, owners.runs[found])]]]
        yield np.stack([hosts, owners.rows[found]], axis=1)


def _owners(words: _Words, length: int, hashes: np.ndarray, counts: np.ndarray, most: int) -> _Owners:
    """Rows with the runs of `length` words that are most of a text, without runs that too many rows share."""
    starts = np.flatnonzero(words.remaining[: len(hashes)] >= length)
    below = length + 1 if length < _LONG else 2 * length
    is_most = words.lengths[starts] < below
    known = np.unique(hashes[starts[is_most]])
    shift = np.uint64(64 - _BITS)
    likely = np.zeros(2**_BITS, dtype=bool)
    likely[known >> shift] = True
    perhaps = likely[hashes[starts] >> shift]
    starts, is_most = starts[perhaps], is_most[perhaps]
    run = np.minimum(np.searchsorted(known, hashes[starts]), max(len(known) - 1, 0))
    hit = np.flatnonzero(known[run] == hashes[starts])
    n = len(counts)
    rows, where = np.unique(run[hit] * n + words.rows[starts[hit]], return_index=True)
    run, rows, is_most = rows // n, rows % n, is_most[hit[where]]
    few = np.bincount(run, weights=counts[rows], minlength=len(known))[run] <= most
    return _Owners(run[few], rows[few], is_most[few])


class _Groups:
    """Disjoint sets of rows that are joined pair by pair, none of them larger than `most`."""

    def __init__(self, counts: np.ndarray, most: int) -> None:
        self.most = most
        self._sizes = counts.tolist()
        self._parents = list(range(len(counts)))

    def join(self, pairs: np.ndarray) -> None:
        """Joins pairs (m, 2) in order; skips pairs whose groups would be too large together."""
        sizes, parents = self._sizes, self._parents
        for first, second in pairs.tolist():
            a, b = self._root(first), self._root(second)
            if a != b and sizes[a] + sizes[b] <= self.most:
                a, b = (a, b) if sizes[a] >= sizes[b] else (b, a)
                parents[b] = a
                sizes[a] += sizes[b]

    def roots(self) -> np.ndarray:
        """A number for each row, (n) int64, the same for those of one group."""
        return np.array([self._root(row) for row in range(len(self._parents))], dtype=np.int64)

    def _root(self, row: int) -> int:
        parents = self._parents
        while parents[row] != row:
            parents[row] = row = parents[parents[row]]
        return row


def _longest(groups: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """For each row the longest of its group, the first of those that are equally long, (n) int64."""
    order = np.lexsort((-lengths, groups))
    _, first, back = np.unique(groups[order], return_index=True, return_inverse=True)
    found = np.empty_like(order)
    found[order] = order[first[back]]
    return found
