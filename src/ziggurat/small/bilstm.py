"""TangoBERT's first tier: a BiLSTM of two layers on the token ids of any tokenizer, answering without torch.

Its own vocabulary is a table from the tokenizer's ids to the rows of a small embedding, so that it needs no tokenizer
of its own: the texts have been read for the large model anyway.

A bidirectional LSTM layer over texts of any lengths, in numpy. No torch.

Sixteen texts of like length are a block and stand side by side in the columns of every product. All products have
these sixteen columns, however many texts there are, so that BLAS takes one path: where that gives each column of it
the same bits (OpenBLAS on x86-64 does), what is said of a text does not depend on the others, not in its last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ziggurat.encoder.weights import TensorFile, read_tensors, save_tier, tier_of
from ziggurat.small.static import check_texts
from ziggurat.system import cached_property

WIDE = 16  # texts side by side; of 8 … 64 columns, OpenBLAS's AVX2 kernels treat these and fewer alike


@dataclass(frozen=True, eq=False)
class Blocks:
    """Where the tokens of some texts stand: a slot is one step of one block, the slots of a step behind one another.

    The forward direction reads a text from its first token, the backward direction from its last. A text that has
    ended, and a column without a text, go on with tokens that mean nothing until the block ends.
    """

    live: np.ndarray  # (steps) int64: blocks that still read; the longest blocks come first
    edges: np.ndarray  # (steps) int64: the first slot of each step
    tokens: np.ndarray  # (2, slots, WIDE) int64: which token the forward and the backward direction read
    mirror: np.ndarray  # (slots, WIDE) int64: the slot where the other direction reads the token of this slot
    last: np.ndarray  # (n_texts) int64: the slot where each text ends

    @property
    def n_slots(self) -> int:
        """Steps of blocks in all."""
        return len(self.mirror)


def blocks_of(starts: np.ndarray, lengths: np.ndarray) -> Blocks:
    """Blocks of n ≥ 1 texts: first token and length (≥ 1) of each, (n) int64, from the longest to the shortest."""
    n_blocks = -(-len(starts) // WIDE)
    room = n_blocks * WIDE - len(starts)
    starts, padded = np.pad(starts, (0, room), mode="edge"), np.pad(lengths, (0, room), mode="edge")
    longest = padded[::WIDE]
    live = np.searchsorted(-longest, -np.arange(longest[0]), side="left").astype(np.int64)
    edges = np.concatenate([[0], np.cumsum(live)])
    step = np.repeat(np.arange(len(live)), live)
    block = np.arange(edges[-1]) - edges[step]
    place = block[:, None] * WIDE + np.arange(WIDE)
    forward = np.minimum(step[:, None], padded[place] - 1)
    backward = padded[place] - 1 - forward
    mirror = edges[backward] + block[:, None]
    text = np.arange(len(lengths))
    return Blocks(
        live, edges[:-1], starts[place] + np.stack([forward, backward]), mirror, edges[lengths - 1] + text // WIDE
    )


def columns(n_slots: int, width: int, state: int) -> np.ndarray:
    """Room for what a layer's weights multiply: (n_slots, 2, width + state + 1, WIDE) float32.

    In each direction's rows come first the layer's inputs, for the caller to fill in, then what the layer said a step
    before, which the layer fills in, and at last ones, for the bias.
    """
    made = np.empty((n_slots, 2, width + state + 1, WIDE), dtype=np.float32)
    made[:, :, -1] = 1
    return made


def scaled(weights: np.ndarray) -> np.ndarray:
    """Weights (2, 4 state, any) for `run_layer` from rows in torch's order: input, forget, cell, output gate.

    σ(x) = ½ + ½ tanh(x / 2), so one tanh serves all gates if those with a σ are halved, which loses no bit; the cell's
    rows go behind the others.
    """
    gate_in, gate_forget, cell, gate_out = np.split(weights, 4, axis=1)
    return np.concatenate([gate_in * 0.5, gate_forget * 0.5, gate_out * 0.5, cell], axis=1, dtype=np.float32)


def run_layer(weights: np.ndarray, filled: np.ndarray, blocks: Blocks) -> np.ndarray:
    """What both directions say at each step: (slots, 2, state, WIDE) float32. Starts from states of 0.

    `weights` (2, 4 state, width + state + 1) float32 from `scaled`, `filled` from `columns`, which is written to.
    i, f, o = σ(…), g = tanh(…), c ← f c + i g, h = o tanh(c), as in torch's `nn.LSTM`.
    """
    state, n = weights.shape[1] // 4, int(blocks.live[0])
    said = np.empty((blocks.n_slots, 2, state, WIDE), dtype=np.float32)
    cells, before = (np.zeros((n, 2, state, WIDE), dtype=np.float32) for _ in range(2))
    gates = np.empty((n, 2, 4 * state, WIDE), dtype=np.float32)
    for live, first in zip(blocks.live.tolist(), blocks.edges.tolist(), strict=True):
        here, now, cell = slice(first, first + live), gates[:live], cells[:live]
        filled[here, :, -1 - state : -1] = before[:live]
        np.matmul(weights, filled[here], out=now)
        np.tanh(now, out=now)
        sigmoids = now[:, :, : 3 * state]
        sigmoids *= 0.5
        sigmoids += 0.5
        cell *= now[:, :, state : 2 * state]
        now[:, :, :state] *= now[:, :, 3 * state :]
        cell += now[:, :, :state]
        before = said[here]
        np.tanh(cell, out=before)
        before *= now[:, :, 2 * state : 3 * state]
    return said


def joined(said: np.ndarray, blocks: Blocks, n_next: int) -> np.ndarray:
    """`columns` of the next layer, whose state is `n_next`: for each token what both directions said of it.

    `said` (slots, 2, state, WIDE) of the layer before. Each direction reads the forward half first.
    """
    state = said.shape[2]
    filled = columns(blocks.n_slots, 2 * state, n_next)
    place = np.arange(WIDE)
    for mine in range(2):
        other = 1 - mine
        filled[:, mine, mine * state : (mine + 1) * state] = said[:, mine]
        theirs = said[blocks.mirror, other, :, place]  # (slots, WIDE, state)
        filled[:, mine, other * state : (other + 1) * state] = theirs.transpose(0, 2, 1)
    return filled


def product(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Weights (n_out, n_in + 1), bias last, of inputs (n, n_in): (n, n_out) float32, also sixteen columns at a time."""
    n, n_in = inputs.shape
    n_blocks = -(-n // WIDE)
    padded = np.ones((n_blocks * WIDE, n_in + 1), dtype=np.float32)
    padded[:n, :-1] = inputs
    blocks = np.ascontiguousarray(padded.reshape(n_blocks, WIDE, n_in + 1).transpose(0, 2, 1))
    return np.matmul(weights, blocks).transpose(0, 2, 1).reshape(n_blocks * WIDE, len(weights))[:n]


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
        _demand(state >= 1 and len(self.output) >= 1, "output: a row for each class")
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
