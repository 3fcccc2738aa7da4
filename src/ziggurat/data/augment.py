"""Changed copies of texts, as token ids: what a teacher labels for a small model to learn from.

Tang et al. (2019, distilling BERT into a BiLSTM): a word becomes the mask token (p_mask), or else another word (p_pos);
then, with p_ng, of the text only a run of 1 … 5 words is left. Where the paper takes another word of the same part of
speech we have no tagger, and take one of the nearest in a model's word-piece embeddings (`data.neighbours`) instead;
a word of several pieces has no embedding there and is masked only.

TinyBERT (Jiao et al. 2020, algorithm 1): a word becomes, with p, one of M candidates: those of a masked language model
for a word of one piece, and the nearest by GloVe for other words. A fine-tuned checkpoint has no such head: here the
neighbours serve both, unless the caller brings `candidates`. A word of several pieces has each of them replaced by a
neighbour of its own, which seldom makes a word that exists; GloVe's would.

A word is masked or replaced whole, its number of pieces stays. Special tokens and segments stay too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ziggurat.bars import bar
from ziggurat.data.copying import Candidates, Maker
from ziggurat.data.packing import cumulate
from ziggurat.data.tokenize import Encoded
from ziggurat.recipe import AugmentConfig

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
    dropped: int  # copies that were like their text or an earlier copy of it
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
            (length, any number ≥ 1); words of one piece take theirs from it and only the others from `neighbours`.
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
