"""Trains the BiLSTM tier on a teacher's probabilities or on labels, in torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from ziggurat.data.packing import cumulate
from ziggurat.data.tokenizer import Encoded
from ziggurat.problems.problem import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, MEAN_SQUARE
from ziggurat.small.bilstm import MOST_ROWS, UNKNOWN, BilstmShape, BilstmTier
from ziggurat.small.train_static import Scale, check_rows, select_loss
from ziggurat.system import bar

_AT_ONCE = 256  # select texts per forward pass
_POOL = 16  # batches that are filled together, from texts sorted by length


@dataclass(frozen=True)
class BilstmSettings:
    """Training and sizes of a BiLSTM tier; the default sizes are TangoBERT's, see `BilstmTier`."""

    rows: int = 10_000  # of the embedding, at most: the most frequent ids have a row, all others share the first
    width: int = 50  # of the embedding
    state: int = 64  # state size of each layer and direction
    hidden: int = 200  # width of the feed-forward network
    least_texts: int = 2  # an id has a row only if it occurs in this many train texts
    epochs: int = 10  # passes over the train texts; the best epoch on select texts is used
    batch_size: int = 32  # texts
    learning_rate: float = 4e-3  # of Adam, at the start; falls linearly to 0
    dropout: float = 0.3  # at the input of each layer and of the network, in training
    unknown: float = 0.02  # share of train tokens that are replaced by unknown, to train its row
    max_gradient: float = 1.0  # norm to which gradients are clipped

    def __post_init__(self) -> None:
        self._demand(2 <= self.rows <= MOST_ROWS, "rows", f"2 … {MOST_ROWS}")
        for key in ("width", "state", "hidden", "least_texts", "epochs", "batch_size"):
            self._demand(getattr(self, key) >= 1, key, "at least 1")
        for key in ("dropout", "unknown"):
            self._demand(0 <= getattr(self, key) < 1, key, "in [0, 1)")
        for key in ("learning_rate", "max_gradient"):
            self._demand(0 < getattr(self, key) < math.inf, key, "above 0 and finite")

    def _demand(self, holds: bool, key: str, wanted: str) -> None:
        if not holds:
            raise ValueError(f"{key} {getattr(self, key)!r}: must be {wanted}")

    def shape(self, n_classes: int) -> BilstmShape:
        """The tier's sizes, for `bilstm_flops`."""
        return BilstmShape(self.width, self.state, self.hidden, n_classes)


class Bilstm(nn.Module):
    """The tier as a torch module, for training."""

    def __init__(self, rows: int, shape: BilstmShape, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(rows, shape.width)
        self.segments = nn.Embedding(2, shape.width)
        self.lstm = nn.LSTM(shape.width, shape.state, num_layers=2, bidirectional=True, dropout=dropout)
        self.hidden = nn.Linear(2 * shape.state, shape.hidden)
        self.output = nn.Linear(shape.hidden, shape.n_classes)
        self.dropout = nn.Dropout(dropout)

    @torch.no_grad()
    def initialise_gates(self, longest: float) -> None:
        """Initialises gates so that states have memories of 2 … `longest` (> 2) tokens, each of a different length.

        Biases are log(u) for forget gates and -log(u) for input gates, with u uniform in 1 … longest - 1: "chrono
        initialization" of Tallec & Ollivier 2018, 3.2. With torch's biases near 0, a state loses half of its memory at
        each token. The last states then ignore the middle of the text for hundreds of training steps.
        """
        state = self.lstm.hidden_size
        for name, bias in self.lstm.named_parameters():
            if name.startswith("bias_ih"):
                logs = torch.empty(state).uniform_(1, longest - 1).log().to(bias.device)
                bias[:state], bias[state : 2 * state] = -logs, logs
            elif name.startswith("bias_hh"):
                bias[: 2 * state] = 0

    def forward(self, texts: PackedSequence) -> Tensor:
        """Packed texts, data (n_tokens, 2) int64 embedding rows and segments → logits (n, n_classes)."""
        states = self.embedding(texts.data[:, 0]) + self.segments(texts.data[:, 1])
        last = self.lstm(texts._replace(data=self.dropout(states)))[1][0]  # (4, n, state): layers, then directions
        hidden = functional.relu(self.hidden(self.dropout(torch.cat([last[2], last[3]], dim=1))))
        return self.output(self.dropout(hidden))

    def tier(self, vocabulary: np.ndarray) -> BilstmTier:
        """The trained tier in numpy; `vocabulary` (ids) int16 maps the tokenizer's ids to embedding rows."""
        layers = [
            np.stack([self._direction(f"l{layer}{direction}") for direction in ("", "_reverse")]) for layer in range(2)
        ]
        dense = (np.column_stack([_numpy(linear.weight), _numpy(linear.bias)]) for linear in (self.hidden, self.output))
        return BilstmTier(vocabulary, _numpy(self.embedding.weight), _numpy(self.segments.weight), *layers, *dense)

    def _direction(self, name: str) -> np.ndarray:
        """Weights of inputs and previous states, and the sum of both biases as last column: (4 state, any)."""
        inputs, states, input_bias, state_bias = (
            _numpy(getattr(self.lstm, f"{kind}_{name}")) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        return np.column_stack([inputs, states, input_bias + state_bias])


def train_bilstm(
    train: Encoded,
    targets: np.ndarray,
    select: Encoded,
    labels: np.ndarray,
    kinds: np.ndarray,
    settings: BilstmSettings = BilstmSettings(),
    *,
    loss: str = CROSS_ENTROPY,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> BilstmTier:
    """Trains a BiLSTM tier on `train` texts and `targets`; `select` texts choose the best epoch.

    Adam minimises the loss against `targets` (n, n_outputs), of labels or of a teacher; `loss`, targets and labels as
    `train_static` has them. Kept is the epoch that loses least on the `labels` (m, …) of the select texts. `kinds` as
    `TextTokenizer.piece_kinds`: its length is the number of ids. The same arguments give the same tier on one machine
    with as many threads. Its probabilities are not calibrated. `progress` shows a bar on stderr.

    Raises:
        UserError: there are no rows.
        ValueError: targets or labels do not match the texts, or a text has no tokens.
    """
    check_rows(train, targets, select, labels, loss)
    scale = Scale.of(targets, loss)
    targets, labels = scale.inside(targets), scale.inside(labels)
    if min(train.lengths.min(), select.lengths.min()) < 1:
        raise ValueError("texts: every one must have a token")
    device = torch.device(device)
    vocabulary = frequent(train, len(kinds), settings.rows, settings.least_texts)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        shape = settings.shape(targets.shape[1])
        model = Bilstm(int(vocabulary.max()) + 1, shape, settings.dropout)
        model.initialise_gates(max(3.0, float(train.lengths.mean())))
        model.to(device)
        read = _read(train, vocabulary), _read(select, vocabulary)
        _fit(model, (read[0], targets), (read[1], labels), loss, settings, progress)
    with torch.no_grad():
        model.output.weight.mul_(scale.deviation)
        model.output.bias.mul_(scale.deviation).add_(scale.mean)
    return model.cpu().tier(vocabulary)


_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    CROSS_ENTROPY: functional.cross_entropy,
    BINARY_CROSS_ENTROPY: functional.binary_cross_entropy_with_logits,
    MEAN_SQUARE: functional.mse_loss,
}


def frequent(texts: Encoded, n_ids: int, rows: int, least_texts: int) -> np.ndarray:
    """Embedding row of each tokenizer id, (n_ids) int16: 1 … rows - 1 for the ids in the most texts, else UNKNOWN.

    Ids in fewer than `least_texts` texts are UNKNOWN too. ValueError for an id out of range.
    """
    ids = np.concatenate(texts.tokens)[:, 0]
    if ids.min() < 0 or ids.max() >= n_ids:
        raise ValueError(f"token id: must be at least 0 and below {n_ids}")
    text = np.repeat(np.arange(len(texts.tokens)), texts.lengths)
    counts = np.bincount(np.unique(text * n_ids + ids) % n_ids, minlength=n_ids)
    known = np.argsort(-counts, kind="stable")[: min(rows - 1, np.count_nonzero(counts >= least_texts))]
    vocabulary = np.full(n_ids, UNKNOWN, dtype=np.int16)
    vocabulary[known] = np.arange(1, len(known) + 1)
    return vocabulary


def _fit(
    model: Bilstm,
    train: tuple[list[Tensor], np.ndarray],
    select: tuple[list[Tensor], np.ndarray],
    loss: str,
    settings: BilstmSettings,
    progress: bool,
) -> None:
    """Trains the model in place; it ends with the weights of its best epoch."""
    texts, targets = train
    device, steps = model.output.bias.device, settings.epochs * math.ceil(len(texts) / settings.batch_size)
    wanted = torch.from_numpy(np.asarray(targets, dtype=np.float32))
    adam = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, total_iters=steps)
    best, best_loss = model.state_dict(), math.inf
    with bar("bilstm", steps, "steps", progress, keep=True) as shown:
        for _ in range(settings.epochs):
            model.train()
            for rows in _shuffled(texts, settings.batch_size):
                batch, order = _batch(texts, rows, device, settings.unknown)
                lost = _LOSSES[loss](model(batch), wanted[order].to(device))
                adam.zero_grad()
                lost.backward()
                nn.utils.clip_grad_norm_(model.parameters(), settings.max_gradient)
                adam.step()
                falling.step()
                shown.update()
            loss_now = select_loss(_logits(model, select[0]), select[1], loss)
            shown.set_postfix_str(f"loss on select rows {loss_now:.4f}")
            if loss_now < best_loss:
                best, best_loss = {name: tensor.clone() for name, tensor in model.state_dict().items()}, loss_now
    model.load_state_dict(best)


def _read(encoded: Encoded, vocabulary: np.ndarray) -> list[Tensor]:
    """Texts as embedding rows and segments, (length, 2) int64 each; ValueError for a segment other than 0 and 1."""
    tokens = np.concatenate(encoded.tokens)
    if tokens[:, 1].min() < 0 or tokens[:, 1].max() > 1:
        raise ValueError("segment id: must be 0 or 1")
    table = torch.from_numpy(np.column_stack([vocabulary[tokens[:, 0]].astype(np.int64), tokens[:, 1]]))
    edges = cumulate(encoded.lengths)
    return [table[first:end] for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]


def _batch(
    texts: list[Tensor], rows: Tensor, device: torch.device, unknown: float = 0.0
) -> tuple[PackedSequence, Tensor]:
    """These rows packed from longest to shortest, and their order; a random share of tokens becomes UNKNOWN."""
    order = rows[torch.tensor([len(texts[row]) for row in rows.tolist()]).argsort(descending=True, stable=True)]
    packed = pack_sequence([texts[row] for row in order.tolist()])
    if unknown:
        packed.data[torch.rand(len(packed.data)) < unknown, 0] = UNKNOWN
    return packed.to(device), order


def _shuffled(texts: list[Tensor], batch_size: int) -> list[Tensor]:
    """Rows of the batches of an epoch: random, but with texts of similar length in a batch, which saves steps."""
    lengths, batches = torch.tensor([len(text) for text in texts]), []
    for rows in torch.randperm(len(texts)).split(_POOL * batch_size):
        batches += rows[lengths[rows].argsort(stable=True)].split(batch_size)
    return [batches[index] for index in torch.randperm(len(batches)).tolist()]


@torch.no_grad()
def _logits(model: Bilstm, texts: list[Tensor]) -> np.ndarray:
    """The model's logits of texts, (n, n_classes) float32."""
    model.eval()
    logits = np.empty((len(texts), model.output.out_features), dtype=np.float32)
    by_length = torch.tensor([len(text) for text in texts]).argsort(descending=True, stable=True)
    for rows in by_length.split(_AT_ONCE):
        batch, order = _batch(texts, rows, model.output.bias.device)
        logits[order.numpy()] = model(batch).cpu().numpy()
    return logits


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
