"""TangoBERT's first tier: a two-layer BiLSTM on token ids, in numpy. No torch.

It works with any tokenizer: a table maps the tokenizer's ids to the rows of a small embedding. So texts that were
tokenised for the large model need not be tokenised again.

Sixteen texts of similar length form a block: they are the columns of every matrix product. All products have sixteen
columns, also for fewer texts, so BLAS always takes the same path. Where BLAS computes all columns with the same bits
(OpenBLAS on x86-64 does), the result of a text does not depend on its batch, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ziggurat.encoder.weights import TensorFile, read_tensors, save_tier, tier_of
from ziggurat.small.static import check_texts
from ziggurat.system import cached_property

WIDE = 16  # texts in a block; OpenBLAS's AVX2 kernels treat up to 16 columns alike (tried 8 … 64)


@dataclass(frozen=True, eq=False)
class Blocks:
    """The layout of texts in blocks. A slot is one step of one block; slots of the same step are contiguous.

    The forward direction reads a text from its first token, the backward direction from its last. Texts that have
    ended, and columns without a text, read arbitrary tokens until the block ends.
    """

    live: np.ndarray  # (steps) int64: number of blocks that have not ended; the longest blocks come first
    edges: np.ndarray  # (steps) int64: first slot of each step
    tokens: np.ndarray  # (2, slots, WIDE) int64: index of the token that the forward and backward direction read
    mirror: np.ndarray  # (slots, WIDE) int64: slot at which the other direction reads the same token
    last: np.ndarray  # (n_texts) int64: the slot where each text ends

    @property
    def n_slots(self) -> int:
        """Total number of slots."""
        return len(self.mirror)


def blocks_of(starts: np.ndarray, lengths: np.ndarray) -> Blocks:
    """Blocks of n ≥ 1 texts: first token and length (≥ 1) of each, (n) int64, from the longest to the shortest."""
    n_blocks = -(-len(starts) // WIDE)
    padding = (0, n_blocks * WIDE - len(starts))
    starts, padded = np.pad(starts, padding, mode="edge"), np.pad(lengths, padding, mode="edge")
    longest = padded[::WIDE]
    live = np.searchsorted(-longest, -np.arange(longest[0]), side="left").astype(np.int64)
    edges = np.concatenate([[0], np.cumsum(live)])
    step = np.repeat(np.arange(len(live)), live)
    block = np.arange(edges[-1]) - edges[step]
    column = block[:, None] * WIDE + np.arange(WIDE)
    forward = np.minimum(step[:, None], padded[column] - 1)
    backward = padded[column] - 1 - forward
    mirror = edges[backward] + block[:, None]
    text = np.arange(len(lengths))
    return Blocks(
        live, edges[:-1], starts[column] + np.stack([forward, backward]), mirror, edges[lengths - 1] + text // WIDE
    )


def columns(n_slots: int, width: int, state: int) -> np.ndarray:
    """Allocates the input of a layer's matrix products: (n_slots, 2, width + state + 1, WIDE) float32.

    For each direction: first rows for the layer's inputs (filled by the caller), then rows for its output one step
    before (filled by the layer), then a row of ones for the bias.
    """
    made = np.empty((n_slots, 2, width + state + 1, WIDE), dtype=np.float32)
    made[:, :, -1] = 1
    return made


def scaled(weights: np.ndarray) -> np.ndarray:
    """Weights (2, 4 state, any) for `run_layer`, from rows in torch's order: input, forget, cell, output gate.

    σ(x) = ½ + ½ tanh(x / 2). So one tanh serves all gates, if the weights of the σ gates are halved, which is exact.
    The cell's rows are moved to the end.
    """
    gate_in, gate_forget, cell, gate_out = np.split(weights, 4, axis=1)
    return np.concatenate([gate_in * 0.5, gate_forget * 0.5, gate_out * 0.5, cell], axis=1, dtype=np.float32)


def run_layer(weights: np.ndarray, filled: np.ndarray, blocks: Blocks) -> np.ndarray:
    """Outputs of both directions at each step: (slots, 2, state, WIDE) float32. Initial states are 0.

    `weights` (2, 4 state, width + state + 1) float32 from `scaled`, `filled` from `columns`; it is overwritten.
    i, f, o = σ(…), g = tanh(…), c ← f c + i g, h = o tanh(c), as in torch's `nn.LSTM`.
    """
    state, n = weights.shape[1] // 4, int(blocks.live[0])
    outputs = np.empty((blocks.n_slots, 2, state, WIDE), dtype=np.float32)
    cells, before = (np.zeros((n, 2, state, WIDE), dtype=np.float32) for _ in range(2))
    gates = np.empty((n, 2, 4 * state, WIDE), dtype=np.float32)
    for live, first in zip(blocks.live.tolist(), blocks.edges.tolist(), strict=True):
        slots, gate, cell = slice(first, first + live), gates[:live], cells[:live]
        filled[slots, :, -1 - state : -1] = before[:live]
        np.matmul(weights, filled[slots], out=gate)
        np.tanh(gate, out=gate)
        sigmoids = gate[:, :, : 3 * state]
        sigmoids *= 0.5
        sigmoids += 0.5
        cell *= gate[:, :, state : 2 * state]
        gate[:, :, :state] *= gate[:, :, 3 * state :]
        cell += gate[:, :, :state]
        before = outputs[slots]
        np.tanh(cell, out=before)
        before *= gate[:, :, 2 * state : 3 * state]
    return outputs


def joined(outputs: np.ndarray, blocks: Blocks, n_next: int) -> np.ndarray:
    """`columns` of the next layer, with state size `n_next`: for each token the outputs of both directions.

    `outputs` (slots, 2, state, WIDE) are those of the layer before. The forward direction's rows come first.
    """
    state = outputs.shape[2]
    filled = columns(blocks.n_slots, 2 * state, n_next)
    column = np.arange(WIDE)
    for direction in range(2):
        other = 1 - direction
        filled[:, direction, direction * state : (direction + 1) * state] = outputs[:, direction]
        mirrored = outputs[blocks.mirror, other, :, column]  # (slots, WIDE, state)
        filled[:, direction, other * state : (other + 1) * state] = mirrored.transpose(0, 2, 1)
    return filled


def product(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Linear map of inputs (n, n_in) by weights (n_out, n_in + 1), bias last: (n, n_out) float32, in blocks of 16."""
    n, n_in = inputs.shape
    n_blocks = -(-n // WIDE)
    padded = np.ones((n_blocks * WIDE, n_in + 1), dtype=np.float32)
    padded[:n, :-1] = inputs
    blocks = np.ascontiguousarray(padded.reshape(n_blocks, WIDE, n_in + 1).transpose(0, 2, 1))
    return np.matmul(weights, blocks).transpose(0, 2, 1).reshape(n_blocks * WIDE, len(weights))[:n]


FORMAT_VERSION = 1  # of the file
UNKNOWN = 0  # embedding row that all rare ids share
MOST_ROWS = 2**15  # of the embedding: the range of int16
_TOGETHER = 128  # texts at a time; more do not fit into the processor's cache


@dataclass(frozen=True)
class BilstmShape:
    """Sizes of a tier; they determine its cost."""

    width: int  # of the embedding
    state: int  # state size of each layer and direction
    hidden: int  # width of the feed-forward network on the last states
    n_classes: int


@dataclass(frozen=True, eq=False)
class BilstmTier:
    """The weights of a BiLSTM tier; ValueError if their shapes or types do not fit together.

    TangoBERT (Mamou et al. 2022, 5.2.1 and 5.3, after Wasserblat et al. 2020): an embedding of width 50 for 10,000
    words, two stacked BiLSTM layers, the last states of both directions of the second, a feed-forward network; about
    685 thousand parameters. The paper prints neither the state size nor the network's width: 64 (in the Keras example
    that it names) and 200 give 684 thousand with two classes. Modifications: an embedding of the two segments is added,
    which distinguishes the two texts of a pair. Weights start at random instead of from GloVe. The network's activation
    is a ReLU.

    The last column of all weights is the bias. LSTM weights have columns (inputs, previous states, bias) and rows
    (input, forget, cell, output gate); the directions are forward, backward.
    """

    vocabulary: np.ndarray  # (tokenizer ids) int16: row of the embedding for each id, 0 = unknown
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
        """Number of token ids."""
        return len(self.vocabulary)

    @property
    def n_classes(self) -> int:
        """Number of outputs."""
        return len(self.output)

    @property
    def shape(self) -> BilstmShape:
        """The tier's sizes."""
        return BilstmShape(self.embedding.shape[1], self.first.shape[1] // 4, len(self.hidden), self.n_classes)

    def logits(self, tokens: np.ndarray, cu_seqlens: np.ndarray) -> np.ndarray:
        """Logits of n texts: (n_tokens, 2) int64 token and segment ids, (n + 1) int64 edges → (n, n_classes) float32.

        Within 1e-5 of torch's. A text's logits do not depend on its batch: bit for bit where BLAS allows it (see the
        top of this file), elsewhere to 1e-5. A text without tokens has last states of 0. Thread-safe. ValueError for
        invalid ids or edges, and for segments other than 0 and 1.
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
        """Last states of both directions, for texts sorted from longest to shortest: (n, 2 state)."""
        blocks, sizes = blocks_of(starts, lengths), self.shape
        filled = columns(blocks.n_slots, sizes.width, sizes.state)
        for direction, read in enumerate(blocks.tokens):
            rows = self.embedding[self.vocabulary[tokens[read, 0]]] + self.segments[tokens[read, 1]]
            filled[:, direction, : sizes.width] = rows.transpose(0, 2, 1)
        first, second = self._scaled
        outputs = run_layer(first, filled, blocks)
        outputs = run_layer(second, joined(outputs, blocks, sizes.state), blocks)
        column = np.arange(len(lengths)) % outputs.shape[3]
        return outputs[blocks.last, :, :, column].reshape(len(lengths), -1)

    @cached_property
    def _scaled(self) -> tuple[np.ndarray, np.ndarray]:
        return scaled(self.first), scaled(self.second)

    def flops(self, lengths: np.ndarray) -> np.ndarray:
        """FLOPs of texts of these lengths: (n) → (n) int64."""
        return bilstm_flops(self.shape, lengths)

    def save(self, path: Path) -> None:
        """Writes the tier as one safetensors file."""
        names = ("vocabulary", "embedding", "segments", "first", "second", "hidden", "output")
        tensors = {name: getattr(self, name) for name in names}
        save_tier(path, "bilstm", FORMAT_VERSION, tensors)


def load_bilstm_tier(path: Path) -> BilstmTier:
    """Loads a tier; UserError if the file is missing, broken, or of a newer format."""
    return bilstm_tier_of(read_tensors(path), path)


def bilstm_tier_of(file: TensorFile, path: Path) -> BilstmTier:
    """A tier from the tensors of the file at `path`; UserError if they are invalid, or of a newer format."""
    return tier_of(file, path, "bilstm", FORMAT_VERSION, BilstmTier)


def bilstm_flops(shape: BilstmShape, lengths: np.ndarray) -> np.ndarray:
    """FLOPs for texts of these lengths in tokens, any shape → int64: 2 x multiply-adds, as in `encoder.flops`.

    Multiply-adds per token and direction are 4 s (width + s) in the first layer and 4 s · 3 s in the second, with s =
    state size; per text, the feed-forward network. Embeddings, gates and biases are free.
    """
    token = 2 * 4 * shape.state * (shape.width + shape.state + 3 * shape.state)
    text = 2 * shape.state * shape.hidden + shape.hidden * shape.n_classes
    return 2 * (token * np.asarray(lengths, dtype=np.int64) + text)


def _demand(holds: bool, wanted: str) -> None:
    if not holds:
        raise ValueError(f"bilstm tier: {wanted}")
