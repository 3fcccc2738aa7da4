"""TangoBERT's first tier: a BiLSTM of two layers on the token ids of any tokenizer, answering without torch.

Its own vocabulary is a table from the tokenizer's ids to the rows of a small embedding, so that it needs no tokenizer
of its own: the texts have been read for the large model anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ziggurat.cached import cached_property
from ziggurat.encoder.lstm import blocks_of, columns, joined, product, run_layer, scaled
from ziggurat.encoder.mapped import TensorFile, read_tensors
from ziggurat.encoder.ngrams import check_texts
from ziggurat.encoder.tier_file import save_tier, tier_of

FORMAT_VERSION = 1  # of the file
UNKNOWN = 0  # the row that all ids without a row of their own share
MOST_ROWS = 2**15  # of the vocabulary: the numbers of an int16
_TOGETHER = 128  # texts that are read at a time: more would leave the processor's cache


@dataclass(frozen=True)
class BilstmShape:
    """Sizes of a tier, which its cost depends on."""

    width: int  # of the embedding
    state: int  # of each layer and direction
    hidden: int  # width of the feed-forward network on the last states
    n_classes: int


@dataclass(frozen=True, eq=False)
class BilstmTier:
    """What a BiLSTM tier has learned; ValueError where its parts do not fit together.

    TangoBERT (Mamou et al. 2022, 5.2.1 and 5.3, after Wasserblat et al. 2020): an embedding of width 50 for 10,000
    words, two BiLSTM layers on one another, the last states of the second one's two directions, a feed-forward
    network; about 685 thousand parameters. Neither the states' size nor the network's width is printed: 64 (of the
    Keras example that the paper names) and 200 make 684 thousand with two classes. Ours also has a row for each of the
    two segments, added to the embedding of a token, by which the two texts of a pair are told apart; it starts from
    random numbers, not from GloVe, and the network's activation is a ReLU.

    In all weights the last column is the bias; the LSTM's come as (inputs, states before, bias), their rows are the
    input, forget, cell and output gate, and the directions are forward and backward.
    """

    vocabulary: np.ndarray  # (ids of the tokenizer) int16: the embedding's row of each, 0 = unknown
    embedding: np.ndarray  # (rows, width) float32
    segments: np.ndarray  # (2, width) float32
    first: np.ndarray  # (2, 4 state, width + state + 1) float32
    second: np.ndarray  # (2, 4 state, 3 state + 1) float32
    hidden: np.ndarray  # (hidden, 2 state + 1) float32
    output: np.ndarray  # (n_classes, hidden + 1) float32

    def __post_init__(self) -> None:
        _demand(self.vocabulary.dtype == np.int16 and self.vocabulary.ndim == 1, "vocabulary: int16, one axis")
        axes = {"embedding": 2, "segments": 2, "first": 3, "second": 3, "hidden": 2, "output": 2}
        for name, n_axes in axes.items():
            values = getattr(self, name)
            _demand(values.dtype == np.float32 and values.ndim == n_axes, f"{name}: float32, {n_axes} axes")
            _demand(bool(np.isfinite(values).all()), f"{name}: finite")
        (rows, width), state = self.embedding.shape, self.first.shape[1] // 4
        _demand(bool(len(self.vocabulary)) and 1 <= rows <= MOST_ROWS and width >= 1, "embedding: 1 … 2^15 rows")
        inside = int(self.vocabulary.min()) >= 0 and int(self.vocabulary.max()) < rows
        _demand(inside, "vocabulary: rows of the embedding")
        _demand(state >= 1 and len(self.output) >= 2, "output: a row for each of ≥ 2 classes")
        expected = {
            "segments": (2, width),
            "first": (2, 4 * state, width + state + 1),
            "second": (2, 4 * state, 3 * state + 1),
            "hidden": (len(self.hidden), 2 * state + 1),
            "output": (len(self.output), len(self.hidden) + 1),
        }
        for name, shape in expected.items():
            _demand(getattr(self, name).shape == shape, f"{name}: must be {shape}")

    @property
    def n_ids(self) -> int:
        """Token ids that it knows."""
        return len(self.vocabulary)

    @property
    def n_classes(self) -> int:
        """Classes that it tells apart."""
        return len(self.output)

    @property
    def shape(self) -> BilstmShape:
        """Its sizes."""
        return BilstmShape(self.embedding.shape[1], self.first.shape[1] // 4, len(self.hidden), self.n_classes)

    def logits(self, tokens: np.ndarray, cu_seqlens: np.ndarray) -> np.ndarray:
        """What it says of n texts: (n_tokens, 2) int64, token and segment ids, and (n + 1) int64 → (n, n_classes).

        float32, within 1e-5 of what torch says. The same whatever else is in the batch: bit for bit where
        `encoder.lstm` is, elsewhere to 1e-5. A text without tokens has last states of 0. Several threads may call it at
        once. ValueError for ids or edges that do not fit, and for segments other than 0 and 1.
        """
        check_texts(tokens, cu_seqlens, len(self.vocabulary))
        if len(tokens) and tokens[:, 1].max() > 1:
            raise ValueError("segment id: must be 0 or 1")
        lengths = np.diff(cu_seqlens)
        order = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
        states = np.zeros((len(lengths), self.hidden.shape[1] - 1), dtype=np.float32)
        for start in range(0, len(order), _TOGETHER):
            texts = order[start : start + _TOGETHER]
            states[texts] = self._last_states(tokens, cu_seqlens[texts], lengths[texts])
        return product(self.output, np.maximum(product(self.hidden, states), 0))

    def _last_states(self, tokens: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The last states of both directions of texts from the longest to the shortest: (n, 2 state)."""
        blocks, sizes = blocks_of(starts, lengths), self.shape
        filled = columns(blocks.n_slots, sizes.width, sizes.state)
        for direction, read in enumerate(blocks.tokens):
            rows = self.embedding[self.vocabulary[tokens[read, 0]]] + self.segments[tokens[read, 1]]
            filled[:, direction, : sizes.width] = rows.transpose(0, 2, 1)
        first, second = self._scaled
        said = run_layer(first, filled, blocks)
        said = run_layer(second, joined(said, blocks, sizes.state), blocks)
        place = np.arange(len(lengths)) % said.shape[3]
        return said[blocks.last, :, :, place].reshape(len(lengths), -1)

    @cached_property
    def _scaled(self) -> tuple[np.ndarray, np.ndarray]:
        return scaled(self.first), scaled(self.second)

    def flops(self, lengths: np.ndarray) -> np.ndarray:
        """Of texts of these lengths: (n) → (n) int64."""
        return bilstm_flops(self.shape, lengths)

    def save(self, path: Path) -> None:
        """Writes the tier as one safetensors file."""
        names = ("vocabulary", "embedding", "segments", "first", "second", "hidden", "output")
        tensors = {name: getattr(self, name) for name in names}
        save_tier(path, "bilstm", FORMAT_VERSION, tensors)


def load_bilstm_tier(path: Path) -> BilstmTier:
    """A tier from its file; UserError if it is missing, broken, or newer."""
    return bilstm_tier_of(read_tensors(path), path)


def bilstm_tier_of(file: TensorFile, path: Path) -> BilstmTier:
    """A tier from the tensors of the file that was at `path`; UserError if they are no tier's, or newer."""
    return tier_of(file, path, "bilstm", FORMAT_VERSION, BilstmTier)


def bilstm_flops(shape: BilstmShape, lengths: np.ndarray) -> np.ndarray:
    """FLOPs of an answer to texts of these lengths in tokens, any shape → int64: 2 x multiply-adds, as `encoder.flops`.

    Of each token and direction 4 s (width + s) in the first layer and 4 s · 3 s in the second, s = the states' size;
    of each text the feed-forward network. Embeddings, gates and biases are free.
    """
    token = 2 * 4 * shape.state * (shape.width + shape.state + 3 * shape.state)
    text = 2 * shape.state * shape.hidden + shape.hidden * shape.n_classes
    return 2 * (token * np.asarray(lengths, dtype=np.int64) + text)


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"bilstm tier: {what}")
