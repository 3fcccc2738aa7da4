"""Changed copies of texts, as token ids: a teacher labels them, and a small model learns from them.

Tang et al. (2019, distilling BERT into a BiLSTM): a word becomes the mask token (p_mask), or else another word (p_pos);
then, with p_ng, of the text only a run of 1 … 5 words is left. Where the paper takes another word of the same part of
speech we have no tagger, and take one of the nearest in a model's word-piece embeddings (`data.neighbours`) instead;
a word of several pieces has no embedding there and is masked only.

TinyBERT (Jiao et al. 2020, algorithm 1): a word becomes, with p, one of M candidates: those of a masked language model
for a word of one piece, and the nearest by GloVe for other words. A fine-tuned checkpoint has no such head: here the
neighbours serve both, unless the caller brings `candidates`. A word of several pieces has each of them replaced by a
neighbour of its own, which seldom makes a word that exists; GloVe's would.

All pieces of a word are masked or replaced together; their number does not change, nor do special tokens and segments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ziggurat.data.packing import cumulate, place_in_sequence
from ziggurat.data.tokenizer import SPECIAL, Encoded
from ziggurat.data.words import Words, below, draws, keys_of, mixed, words_of
from ziggurat.recipe import AugmentConfig
from ziggurat.system import bar

Candidates = Callable[
    [np.ndarray], np.ndarray
]  # a text's token ids (length) → ids that may replace each of them, (length, any)

_WORD, _PIECE, _SAMPLED, _LENGTH, _START, _PURPOSES = range(6)  # purposes of random numbers


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes copies; arrays of a copy's tokens are (copies, n_tokens), and tokens are removed only at the end."""

    config: AugmentConfig
    kinds: np.ndarray
    neighbours: np.ndarray
    mask_id: int
    candidates: Candidates | None

    def copies(self, tokens: list[np.ndarray], rows: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Copies of these texts without duplicates, and the index in `tokens` of each copy's text."""
        words = words_of(tokens, self.kinds)
        keys = keys_of(self.config.seed, rows, self.config.copies)
        table, edges = self._packed(words, self._changed(words, keys), self._keep_mask(words, keys))
        originals = _fingerprints(np.stack([words.ids, words.segments], axis=1), words.cu_seqlens)
        new = _new(originals, _fingerprints(table, edges).reshape(keys.shape))
        starts, stops = (side.reshape(keys.shape).T[new].tolist() for side in (edges[:-1], edges[1:]))
        return [table[start:stop] for start, stop in zip(starts, stops, strict=True)], np.nonzero(new)[0]

    def _changed(self, words: Words, keys: np.ndarray) -> np.ndarray:
        """Token ids after masking and replacement, (copies, n_tokens)."""
        numbers = draws(keys[:, words.text[words.heads]], words.places[words.heads], _WORD, _PURPOSES)
        tang = self.config.kind == "tang"
        mask = self.config.mask if tang else 0.0
        masked = below(numbers, mask)
        replaced = below(numbers, mask + self.config.replaced) & ~masked
        if tang:
            replaced &= words.pieces == 1
        if self.config.cycle_sides:
            turn = self._turns(words)[:, words.side]
            masked, replaced = masked & turn, replaced & turn
        ids = np.repeat(words.ids[None], len(keys), axis=0)
        copy, place = _places(words, masked)
        ids[copy, place] = self.mask_id
        copy, place = _places(words, replaced)
        picks = draws(keys[copy, words.text[place]], words.places[place], _PIECE, _PURPOSES)
        ids[copy, place] = self._options(words, place, picks)
        return ids

    def _options(self, words: Words, place: np.ndarray, picks: np.ndarray) -> np.ndarray:
        """Replacements of the tokens at these places, (any number) ids; `picks` are random uint64."""
        chosen = self.neighbours[words.ids[place], (picks % np.uint64(self.config.neighbours)).astype(np.int64)]
        if self.candidates is None or not len(place):
            return chosen
        texts = (words.ids[start:stop].copy() for start, stop in pairwise(words.cu_seqlens.tolist()))
        offers = [_offer(self.candidates, ids, len(self.kinds)) for ids in texts]
        widths = np.array([offer.shape[1] for offer in offers])[words.text]
        starts = cumulate(widths)[:-1]
        offered = np.concatenate([offer.ravel() for offer in offers])
        picked = offered[starts[place] + (picks % widths[place].astype(np.uint64)).astype(np.int64)]
        single = np.zeros(len(words.ids), dtype=bool)
        single[words.heads[words.pieces == 1]] = True
        return np.where(single[place], picked, chosen)

    def _keep_mask(self, words: Words, keys: np.ndarray) -> np.ndarray:
        """Which tokens a copy keeps, (copies, n_tokens) bool: a run of words in sampled sides, all in other sides."""
        mask = np.ones((len(keys), len(words.ids)), dtype=bool)
        if self.config.kind != "tang" or not self.config.ngram:
            return mask
        of_side, places = keys[:, words.text[words.side_heads]], words.places[words.side_heads]
        sampled = below(draws(of_side, places, _SAMPLED, _PURPOSES), self.config.ngram)
        if self.config.cycle_sides:
            sampled &= self._turns(words)
        lengths = 1 + draws(of_side, places, _LENGTH, _PURPOSES) % np.uint64(self.config.longest)
        lengths = np.minimum(lengths.astype(np.int64), words.side_words)
        later = draws(of_side, places, _START, _PURPOSES) % (words.side_words - lengths + 1).astype(np.uint64)
        begins = words.first_word + np.where(sampled, later.astype(np.int64), 0)
        ends = begins + np.where(sampled, lengths, words.side_words)
        numbers = np.arange(len(words.heads))
        stay = (numbers >= begins[:, words.side]) & (numbers < ends[:, words.side])
        mask[:, words.text_tokens] = stay[:, words.word]
        return mask

    def _turns(self, words: Words) -> np.ndarray:
        """Which sides may change in which copy, (copies, n_sides) bool: in turn the first, the others, all."""
        turn = np.arange(self.config.copies)[:, None] % 3
        alone = np.bincount(words.text[words.side_heads])[words.text[words.side_heads]] == 1
        return alone | (turn == 2) | ((words.rank == 0) == (turn == 0))

    def _packed(self, words: Words, ids: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The kept tokens of all copies concatenated, (any number, 2), and the copies' edges: copy 0 first."""
        table = np.empty((np.count_nonzero(keep), 2), dtype=np.int64)
        table[:, 0] = ids[keep]
        table[:, 1] = np.broadcast_to(words.segments, ids.shape)[keep]
        return table, cumulate(np.add.reduceat(keep, words.cu_seqlens[:-1], axis=1, dtype=np.int64).ravel())


def _offer(candidates: Candidates, ids: np.ndarray, size: int) -> np.ndarray:
    """Replacements that a caller's function offers for the tokens of one text, validated."""
    offer = np.asarray(candidates(ids))
    if offer.ndim != 2 or len(offer) != len(ids) or not offer.shape[1]:
        raise ValueError(f"candidates: must be ({len(ids)}, at least 1), not {offer.shape}")
    if not (offer.min() >= 0 and offer.max() < size):
        raise ValueError(f"candidates: must be ids, at least 0 and below {size}")
    return offer


def _places(words: Words, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The copy and the token of each piece of the chosen words, (copies, n_words) bool."""
    copy, piece = np.divmod(np.flatnonzero(chosen[:, words.word]), max(len(words.word), 1))
    return copy, words.text_tokens[piece]


def _fingerprints(table: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """A hash of each text, (n) uint64, from concatenated texts (length_i ≥ 1, 2)."""
    places = place_in_sequence(np.diff(edges)).astype(np.uint64)
    tokens = table.astype(np.uint64)
    hashes = mixed(mixed(tokens[:, 0] + (tokens[:, 1] << np.uint64(32))) + places)
    return np.add.reduceat(hashes, edges[:-1])


def _new(originals: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Which copies equal neither their text nor an earlier copy, (n, copies) bool, from hashes (n) and (copies, n)."""
    hashes = np.concatenate([originals[None], copies]).T
    order = np.argsort(hashes, axis=1, kind="stable")
    hashes = np.take_along_axis(hashes, order, axis=1)
    new = np.ones(hashes.shape, dtype=bool)
    np.put_along_axis(new, order[:, 1:], hashes[:, 1:] != hashes[:, :-1], axis=1)
    return new[:, 1:]


CHUNK = 2**17  # tokens of copies made at a time: larger arrays leave the processor's caches


@dataclass(frozen=True)
class Rate:
    """How fast copies were made."""

    texts: int = 0  # copies, those that were dropped included
    seconds: float = 0.0

    def __add__(self, other: Rate) -> Rate:
        return Rate(self.texts + other.texts, self.seconds + other.seconds)

    @property
    def per_second(self) -> float:
        """Copies per second, 0 before any."""
        return self.texts / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, eq=False)
class Copies:
    """The copies of some texts, text by text."""

    encoded: Encoded  # m copies; `truncated` is their text's
    rows: np.ndarray  # (m) int64: which text each is a copy of
    dropped: int  # copies equal to their text or to an earlier copy of it
    rate: Rate


def augmented(
    encoded: Encoded,
    config: AugmentConfig,
    kinds: np.ndarray,
    neighbours: np.ndarray,
    mask_id: int,
    *,
    candidates: Candidates | None = None,
    first_row: int = 0,
    chunk: int = CHUNK,
    progress: bool = False,
) -> Iterator[Copies]:
    """Copies of n texts, some texts at a time, in their order; a copy like its text or an earlier copy is dropped.

    What a copy becomes depends on the text, the number of its row, the number of the copy, the settings and the seed,
    on no other text and not on `chunk`: fewer copies are the first ones of more. Texts are alike if their 64-bit hashes
    are, so that a copy is dropped by mistake with a chance of 2^-64 for each copy before it.

    Args:
        encoded: the texts, or pairs, whose sides change independently.
        config: how they are changed.
        kinds: (V) uint8, as `TextTokenizer.piece_kinds`.
        neighbours: (V, at least `config.neighbours`) int, as `data.neighbours.neighbours`; further columns are unused.
        mask_id: what a masked word's pieces become, as `TextTokenizer.mask_id`.
        candidates: gives for one text's token ids, (length) int64 with the special ones, the ids that may replace each,
            (length, any number ≥ 1); words of one piece use them, other words use `neighbours`.
        first_row: the number of the first text, for a caller who has more texts than one call takes.
        chunk: tokens of copies in memory at a time; the copies of one text are never divided.
        progress: show a bar of how many copies are made and how fast.

    Raises:
        ValueError: the arguments do not fit together; of token ids and candidates it comes with the chunk.
    """
    _check(encoded, config, kinds, neighbours, mask_id, chunk)
    spans = _spans(encoded.lengths * config.copies, chunk)
    maker = Maker(config, kinds, neighbours, mask_id, candidates)
    return _chunks(encoded, spans, maker, first_row, progress)


def _chunks(
    encoded: Encoded, spans: Iterator[tuple[int, int]], maker: Maker, first_row: int, progress: bool
) -> Iterator[Copies]:
    total = len(encoded.tokens) * maker.config.copies
    with bar("augment", total, "texts", progress) as shown:
        for start, stop in spans:
            began = time.perf_counter()
            rows = np.arange(start, stop)
            tokens, source = maker.copies(encoded.tokens[start:stop], rows + first_row)
            made = (stop - start) * maker.config.copies
            copies = Encoded(tokens, encoded.truncated[rows[source]])
            rate = Rate(made, time.perf_counter() - began)
            shown.update(made)
            yield Copies(copies, rows[source] + first_row, made - len(tokens), rate)


def _spans(sizes: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Start and stop of neighbours whose sizes sum to `most` or less, at least one each."""
    edges = cumulate(sizes)
    start = 0
    while start < len(sizes):
        stop = max(start + 1, int(np.searchsorted(edges, edges[start] + most, side="right")) - 1)
        yield start, stop
        start = stop


def _check(
    encoded: Encoded, config: AugmentConfig, kinds: np.ndarray, neighbours: np.ndarray, mask_id: int, chunk: int
) -> None:
    size = len(kinds)
    if neighbours.ndim != 2 or len(neighbours) != size or neighbours.shape[1] < config.neighbours:
        raise ValueError(f"neighbours: must be ({size}, at least {config.neighbours}), not {neighbours.shape}")
    if size and not (neighbours.min() >= 0 and neighbours.max() < size):
        raise ValueError(f"neighbours: must be ids, at least 0 and below {size}")
    if not 0 <= mask_id < size:
        raise ValueError(f"mask_id {mask_id}: must be at least 0 and below {size}")
    if chunk < 1:
        raise ValueError(f"chunk {chunk}: must be at least 1")
    if len(encoded.tokens) and not encoded.lengths.min():
        raise ValueError("a text has at least one token, special ones included")


_ROWS = 512  # whose similarities are in memory at a time: with 30,000 others 60 MB
_GROUP = 64  # similarities of which the largest is found before the others are looked at


def neighbours(embeddings: np.ndarray, kinds: np.ndarray, count: int, fixed: np.ndarray | None = None) -> np.ndarray:
    """For each entry of a vocabulary the `count` others with the largest cosine, nearest first, (V, count) int32.

    `embeddings` (V, d) are a model's word-piece embeddings, `kinds` (V) uint8 as `TextTokenizer.piece_kinds` gives
    them, `fixed` (V) bool the entries that are never replaced, as `TextTokenizer.no_words` (punctuation). Neighbours
    are of the same kind: pieces that start a word, or pieces that continue one. A special or fixed entry is its own
    neighbour, and no neighbour of others. An entry with fewer than `count` others of its kind fills the rest itself.

    Raises:
        ValueError: the arguments do not fit together, or an embedding that is needed is not finite.
    """
    size = len(kinds)
    if count < 1:
        raise ValueError(f"count {count}: must be at least 1")
    if embeddings.ndim != 2 or len(embeddings) != size:
        raise ValueError(f"embeddings: must be ({size}, d), as there are {size} kinds, not {embeddings.shape}")
    if fixed is not None and fixed.shape != (size,):
        raise ValueError(f"fixed: must be ({size},), not {fixed.shape}")
    free = kinds != SPECIAL if fixed is None else (kinds != SPECIAL) & ~fixed
    table = np.repeat(np.arange(size, dtype=np.int32)[:, None], count, axis=1)
    for kind in np.unique(kinds[free]):
        members = np.flatnonzero(free & (kinds == kind))
        most = min(count, len(members) - 1)
        if most:
            table[members, :most] = members[_nearest(_unit(embeddings[members]), most)]
    return table


def _unit(vectors: np.ndarray) -> np.ndarray:
    """The same directions with length 1, float32; what has none stays 0."""
    vectors = vectors.astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    if not np.isfinite(lengths).all():
        raise ValueError("embeddings: must be finite")
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]


def _nearest(vectors: np.ndarray, count: int) -> np.ndarray:
    """The `count` < m others with the largest inner product with each of m vectors, falling, (m, count) int64.

    The largest `count` numbers lie in the `count` groups with the largest maxima. Maxima of groups take one pass over
    the similarities; partitioning all of them would take longer than the product that makes them.
    """
    size = len(vectors)
    n_groups = -(-size // _GROUP)
    wide = np.zeros((n_groups * _GROUP, vectors.shape[1]), dtype=np.float32)
    wide[:size] = vectors
    found = np.empty((size, count), dtype=np.int64)
    for start in range(0, size, _ROWS):
        rows = np.arange(start, min(start + _ROWS, size))
        similar = vectors[rows] @ wide.T
        similar[:, size:] = -np.inf
        similar[rows - start, rows] = -np.inf
        maxima = similar.reshape(len(rows), _GROUP, n_groups).max(axis=1)  # group g: columns g, g + n_groups, …
        groups = _largest(maxima, min(count, n_groups))
        columns = (groups[:, :, None] + np.arange(_GROUP) * n_groups).reshape(len(rows), -1)
        among = np.take_along_axis(similar, columns, axis=1)
        best = _largest(among, count)
        values = np.take_along_axis(among, best, axis=1)
        best = np.take_along_axis(best, np.argsort(-values, axis=1, kind="stable"), axis=1)
        found[rows] = np.take_along_axis(columns, best, axis=1)
    return found


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Where the `count` largest of each row are, in no order, (rows, count)."""
    return np.argpartition(values, values.shape[1] - count, axis=1)[:, values.shape[1] - count :]
