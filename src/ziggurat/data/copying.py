"""The changes that make a copy of a text, for many texts and copies at once: see `data.augment`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ziggurat.data.packing import cumulate, place_in_sequence
from ziggurat.data.words import Words, below, draws, keys_of, mixed, words_of
from ziggurat.recipe import AugmentConfig

Candidates = Callable[
    [np.ndarray], np.ndarray
]  # a text's token ids (length) → ids that may replace each, (length, any)

_WORD, _PIECE, _SAMPLED, _LENGTH, _START, _PURPOSES = range(6)  # what a random number is for


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes copies; arrays of a copy's tokens are (copies, n_tokens), and nothing is removed before the end."""

    config: AugmentConfig
    kinds: np.ndarray
    neighbours: np.ndarray
    mask_id: int
    candidates: Candidates | None

    def copies(self, tokens: list[np.ndarray], rows: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Copies of these texts without doubles, and which text each is of, by its place in `tokens`."""
        words = words_of(tokens, self.kinds)
        keys = keys_of(self.config.seed, rows, self.config.copies)
        table, edges = self._packed(words, self._changed(words, keys), self._kept(words, keys))
        own = _fingerprints(np.stack([words.ids, words.segments], axis=1), words.cu_seqlens)
        new = _new(own, _fingerprints(table, edges).reshape(keys.shape))
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
        """What replaces the tokens at these places, (any number) ids; `picks` are random uint64."""
        chosen = self.neighbours[words.ids[place], (picks % np.uint64(self.config.neighbours)).astype(np.int64)]
        if self.candidates is None or not len(place):
            return chosen
        texts = (words.ids[start:stop].copy() for start, stop in pairwise(words.cu_seqlens.tolist()))
        offers = [_offer(self.candidates, ids, len(self.kinds)) for ids in texts]
        widths = np.array([offer.shape[1] for offer in offers])[words.text]
        starts = cumulate(widths)[:-1]
        offered = np.concatenate([offer.ravel() for offer in offers])
        ours = offered[starts[place] + (picks % widths[place].astype(np.uint64)).astype(np.int64)]
        single = np.zeros(len(words.ids), dtype=bool)
        single[words.heads[words.pieces == 1]] = True
        return np.where(single[place], ours, chosen)

    def _kept(self, words: Words, keys: np.ndarray) -> np.ndarray:
        """Which tokens a copy keeps, (copies, n_tokens) bool: of some sides a run of words, of all others all."""
        kept = np.ones((len(keys), len(words.ids)), dtype=bool)
        if self.config.kind != "tang" or not self.config.ngram:
            return kept
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
        kept[:, words.own] = stay[:, words.word]
        return kept

    def _turns(self, words: Words) -> np.ndarray:
        """Which sides may change in which copy: the first, the others, all, and again, (copies, n_sides) bool."""
        turn = np.arange(self.config.copies)[:, None] % 3
        alone = np.bincount(words.text[words.side_heads])[words.text[words.side_heads]] == 1
        return alone | (turn == 2) | ((words.rank == 0) == (turn == 0))

    def _packed(self, words: Words, ids: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The kept tokens of all copies behind one another, (any number, 2), and the copies' edges: copy 0 first."""
        table = np.empty((np.count_nonzero(kept), 2), dtype=np.int64)
        table[:, 0] = ids[kept]
        table[:, 1] = np.broadcast_to(words.segments, ids.shape)[kept]
        return table, cumulate(np.add.reduceat(kept, words.cu_seqlens[:-1], axis=1, dtype=np.int64).ravel())


def _offer(candidates: Candidates, ids: np.ndarray, size: int) -> np.ndarray:
    """What a caller's function offers for the tokens of one text, looked at before it is used."""
    offer = np.asarray(candidates(ids))
    if offer.ndim != 2 or len(offer) != len(ids) or not offer.shape[1]:
        raise ValueError(f"candidates: must be ({len(ids)}, at least 1), not {offer.shape}")
    if not (offer.min() >= 0 and offer.max() < size):
        raise ValueError(f"candidates: must be ids, at least 0 and below {size}")
    return offer


def _places(words: Words, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The copy and the token of each piece of the chosen words, (copies, n_words) bool."""
    copy, piece = np.divmod(np.flatnonzero(chosen[:, words.word]), max(len(words.word), 1))
    return copy, words.own[piece]


def _fingerprints(table: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """A hash of each text, (n) uint64, of texts (length_i ≥ 1, 2) behind one another."""
    places = place_in_sequence(np.diff(edges)).astype(np.uint64)
    tokens = table.astype(np.uint64)
    hashes = mixed(mixed(tokens[:, 0] + (tokens[:, 1] << np.uint64(32))) + places)
    return np.add.reduceat(hashes, edges[:-1])


def _new(own: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Which copies are neither their text nor an earlier copy, (n, copies) bool, from hashes (n) and (copies, n)."""
    hashes = np.concatenate([own[None], copies]).T
    order = np.argsort(hashes, axis=1, kind="stable")
    hashes = np.take_along_axis(hashes, order, axis=1)
    new = np.ones(hashes.shape, dtype=bool)
    np.put_along_axis(new, order[:, 1:], hashes[:, 1:] != hashes[:, :-1], axis=1)
    return new[:, 1:]
