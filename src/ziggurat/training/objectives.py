"""Training objectives: modules that turn a collated batch into a loss and logits, one for each kind of stage."""

from __future__ import annotations

from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ziggurat.data.packing import PackedBatch, pack
from ziggurat.encoder.torch.model import EncoderModel
from ziggurat.encoder.torch.pruning import per_sequence_mean_one
from ziggurat.encoder.torch.soft import received_by_layer, soft_logits
from ziggurat.recipe import StageConfig
from ziggurat.training.batches import Examples, packed, spread
from ziggurat.training.losses import criterion_of, distillation_loss, exits_loss, joint_loss

Output = dict[str, Tensor]
Logits = TypeVar("Logits", Tensor, np.ndarray)


class Objective(nn.Module):
    """A model with a training loss. The loop sets `progress` (0 … 1 of the stage) and `step`.

    `teacher` is only needed to compare more than logits: teacher logits come with the rows (`train.precomputed`).
    """

    def __init__(self, model: EncoderModel, stage: StageConfig, teacher: EncoderModel | None = None) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion_of(model.problem)
        self.stage = stage
        self.progress = 0.0
        self.step = 0
        # In a tuple, so that torch does not treat it as a sub-module, which would be trained and saved.
        self.teacher: tuple[EncoderModel, ...] = () if teacher is None else (teacher.eval().requires_grad_(False),)

    def loss(self, logits: Tensor, labels: Tensor, teacher_logits: Tensor | None) -> Tensor:
        """Loss of a rung's logits (n, n_outputs) on labels, blended with the distance to teacher logits, if any."""
        label_loss = self.criterion.loss(logits.float(), labels)
        if not (share := self.stage.distillation):
            return label_loss
        return (1 - share) * label_loss + share * self.criterion.distance(
            required_logits(teacher_logits), logits.float(), False
        )


class Regular(Objective):
    """The loss of the last rung without pruning: cross-entropy for classes, see `train.losses`."""

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor) -> Output:
        """Labels (n), lengths (n) and packed token ids (n_tokens, 2) → loss, logits."""
        logits = self.model.full_logits(packed(states, lengths)).float()
        return {"loss": self.criterion.loss(logits, labels), "logits": logits}


class Soft(Objective):
    """The loss of the soft forward pass + λ x the mean share of remaining tokens. Evaluation uses the hard mask."""

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor, teacher_logits: Tensor | None = None) -> Output:
        """Labels (n), lengths (n), packed token ids (n_tokens, 2), the teacher's logits (n, …) → loss, logits."""
        batch = packed(states, lengths)
        if not self.training:
            logits = self.model.full_logits(batch, self.model.token_rule).float()
            return {"loss": self.criterion.loss(logits, labels), "logits": logits}
        logits, masks = soft_logits(self.model, batch, self.temperature, self.stage.fade_attention)
        remaining = torch.stack([mask.float().mean() for mask in masks]).mean()
        return {"loss": self.loss(logits, labels, teacher_logits) + self.stage.regularisation * remaining}

    @property
    def temperature(self) -> float:
        """The present T: it falls by the same factor at every step."""
        first = self.stage.temperature
        last = first if self.stage.final_temperature is None else self.stage.final_temperature
        return first * (last / first) ** self.progress


class Hard(Objective):
    """The loss of the last rung with real (hard) pruning."""

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor, teacher_logits: Tensor | None = None) -> Output:
        """Labels (n), lengths (n), packed token ids (n_tokens, 2), the teacher's logits (n, …) → loss, logits."""
        batch = packed(states, lengths)
        logits = self.model.full_logits(batch, self.model.token_rule).float()
        return {"loss": self.loss(logits, labels, teacher_logits), "logits": logits}


class Int8(Objective):
    """The labels' loss under INT8 (and pruning, if any), blended with the teacher's logits and embeddings (LTP 4.6)."""

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor, teacher_logits: Tensor | None = None) -> Output:
        """Labels (n), lengths (n), packed token ids (n_tokens, 2), the teacher's logits (n, …) → loss, logits."""
        batch, rule = packed(states, lengths), self.model.token_rule
        embedded = self.model.embed(batch, rule)
        logits = self.model.logits_of(embedded, rule).float()
        loss = self.criterion.loss(logits, labels)
        if share := self.stage.distillation:
            [teacher] = self.teacher
            with torch.no_grad():
                read = teacher.to(logits.device).embed(batch, rule)
            pairs = required_logits(teacher_logits), embedded.states, read.states
            loss = (1 - share) * loss + share * distillation_loss(logits, *pairs, criterion=self.criterion)
        return {"loss": loss, "logits": logits}


class HeadsAlone(Objective):
    """Only the exit heads learn."""

    def train(self, mode: bool = True) -> Self:
        """The frozen parts stay in evaluation mode, so the last rung has no dropout."""
        super().train(mode)
        self.model.encoder.eval()
        self.model.classifier.eval()
        return self


class Heads(HeadsAlone):
    """Exit heads learn the logits of the frozen last rung; with pruning, if the model prunes.

    With any `distillation` they learn the logits of the unpruned teacher instead.
    """

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor, teacher_logits: Tensor | None = None) -> Output:
        """Labels (n), lengths (n), packed token ids (n_tokens, 2), the teacher's logits (n, …) → loss, logits."""
        batch = packed(states, lengths)
        all_logits = self.model(batch, self.model.token_rule)
        wanted = required_logits(teacher_logits) if self.stage.distillation else all_logits[-1]
        rungs = [*all_logits[:-1], wanted]
        loss = exits_loss(rungs, labels, self.stage.label_weight, self.stage.reverse_kl, self.criterion)
        return {"loss": loss, "logits": torch.stack(all_logits, dim=1).float()}


class FrozenHeads(HeadsAlone):
    """`Heads` with precomputed inputs of the heads (`train.precomputed`)."""

    def forward(self, labels: Tensor, wanted: Tensor, states: list[Tensor], lengths: list[Tensor]) -> Output:
        """Labels (n), target logits (n, n_outputs), each head's states (n_tokens, d) and lengths (n) → loss, logits."""
        heads = zip(self.model.exits.values(), states, lengths, strict=True)
        rungs = [*(head(packed(read, counts)) for head, read, counts in heads), wanted]
        loss = exits_loss(rungs, labels, self.stage.label_weight, self.stage.reverse_kl, self.criterion)
        return {"loss": loss, "logits": torch.stack(rungs, dim=1).float()}


class Joint(Objective):
    """The loss of all rungs, with larger weights for deeper rungs (PABEE) or equal ones; with pruning, if any."""

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor, teacher_logits: Tensor | None = None) -> Output:
        """Labels (n), lengths (n), packed token ids (n_tokens, 2), the teacher's logits (n, …) → loss, logits."""
        batch = packed(states, lengths)
        all_logits = self.model(batch, self.model.token_rule)
        loss = joint_loss([self.loss(logits, labels, teacher_logits) for logits in all_logits], self.stage.depth_weight)
        return {"loss": loss, "logits": torch.stack(all_logits, dim=1).float()}


class Guess(Objective):
    """Every layer predicts from its input which tokens the upper half of the frozen model attends to (after ToP)."""

    def train(self, mode: bool = True) -> Guess:
        """The model stays in evaluation mode: its attention is the target."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor) -> Output:
        """Labels (n) unused, lengths (n) and packed token ids (n_tokens, 2) → loss, guesses of layer 1 as logits."""
        entered, received = received_by_layer(self.model, packed(states, lengths))
        target = torch.stack(received[len(received) // 2 :]).float().mean(dim=0)
        pruning = self.model.require_pruning()
        guessed = [pruning.predicted(layer, batch) for layer, batch in enumerate(entered, start=1)]
        # Listwise: both sides are distributions over a text's tokens, scaled to mean 1. The square root reduces the
        # weight of attention sinks.
        wanted = per_sequence_mean_one(target.sqrt(), entered[0])
        losses = [-(wanted * guess.clamp_min(1e-9).log()).mean() for guess in guessed]
        return {"loss": torch.stack(losses).mean(), "logits": labels.float()}


def required_logits(teacher_logits: Logits | None) -> Logits:
    """The teacher's logits; ValueError if the rows have none."""
    if teacher_logits is None:
        raise ValueError("distillation: the rows have no teacher logits; see `train.precomputed.with_teacher_logits`")
    return teacher_logits


# Every vocabulary entry starts with this many occurrences of twice the mean importance, so rare words are read.
_PRIOR = 3.0
_BATCH = 64
_ROWS = 4096  # train rows that are used, at most


def initialise_vocabulary(model: EncoderModel, rows: Examples, device: torch.device) -> None:
    """Initialises the score of each entry: the logarithm of its mean `importance`, shifted to the recipe's share.

    So before training, exactly that share of tokens has a score above 0 and is read. Entries that are the first, or the
    last, token of every text are special tokens ([CLS], [SEP], RoBERTa's </s>) and always read.
    """
    pruning = model.require_pruning()
    if (share := pruning.config.vocabulary) is None:
        raise ValueError("the model's pruning reads the whole vocabulary")
    model.to(device).eval().requires_grad_(False)
    total, counts, first, last = (np.zeros(model.spec.vocabulary) for _ in range(4))
    tokens = [rows.encoded.tokens[row] for row in spread(len(rows), _ROWS)]
    for start in range(0, len(tokens), _BATCH):
        batch = pack(tokens[start : start + _BATCH])
        ids = batch.states[:, 0]
        np.add.at(total, ids, importance(model, batch))
        np.add.at(counts, ids, 1)
        np.add.at(first, ids[batch.cu_seqlens[:-1]], 1)
        np.add.at(last, ids[batch.cu_seqlens[1:] - 1], 1)
    mean = (total + 2 * _PRIOR * total.sum() / counts.sum()) / (counts + _PRIOR)
    with torch.no_grad():
        pruning.vocabulary.copy_(torch.from_numpy(np.log(mean / _border(mean, counts, share))))
    pruning.always_read(np.flatnonzero((first == len(tokens)) | (last == len(tokens))).tolist())


def importance(model: EncoderModel, batch: PackedBatch) -> np.ndarray:
    """Importance of each token for the answer, (n_tokens) float64: the squared gradient of `Criterion.lead`.

    `lead` is the largest logit minus the mean (multi-label: the sum of absolute logits; regression: the number; spans:
    largest minus mean, for start and end). The gradient is with respect to a weight on the token, as input and as key
    of every layer. Attention is a bad measure of importance: full stops and brackets receive much of it.
    """
    alive = torch.ones(len(batch.positions), device=model.classifier.classes.weight.device, requires_grad=True)
    states = model.encoder.embeddings(batch)
    states = states.with_states(states.states * alive[:, None])
    for layer in model.encoder.layers:
        context, _ = layer.scored_context(states, active=alive)
        states = layer.finish(states, context)
    logits = model.answer(states, states.states, batch)
    (gradient,) = torch.autograd.grad(criterion_of(model.problem).lead(logits).sum(), alive)
    return gradient.double().square().cpu().numpy()


def _border(score: np.ndarray, counts: np.ndarray, share: float) -> float:
    """The score that `share` of all tokens exceed; `counts` are the occurrences of each entry."""
    order = np.argsort(-score, kind="stable")
    running = np.cumsum(counts[order]) / counts.sum()
    return float(score[order][min(int(np.searchsorted(running, share)), len(order) - 1)])
