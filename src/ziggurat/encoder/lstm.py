"""A bidirectional LSTM layer over texts of any lengths, in numpy. No torch.

Sixteen texts of like length are a block and stand side by side in the columns of every product. All products have
these sixteen columns, however many texts there are, so that BLAS takes one path: where that gives each column of it
the same bits (OpenBLAS on x86-64 does), what is said of a text does not depend on the others, not in its last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    said: np.ndarray = np.matmul(weights, blocks).transpose(0, 2, 1).reshape(n_blocks * WIDE, len(weights))[:n]
    return said
