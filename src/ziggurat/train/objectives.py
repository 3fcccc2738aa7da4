"""What a Trainer sees: modules that turn a collated batch into a loss and logits, one for each kind of stage."""

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
from ziggurat.train.batches import Examples, packed, spread
from ziggurat.train.losses import CRITERIA, distillation_loss, exits_loss, joint_loss

Output = dict[str, Tensor]
Logits = TypeVar("Logits", Tensor, np.ndarray)


class Objective(nn.Module):
    """A model and how it is trained. `progress` and `step` say how far the stage is, set by the loop.

    `teacher` is for those that compare more than logits, which come with the rows (`train.teaching`).
    """

    def __init__(self, model: EncoderModel, stage: StageConfig, teacher: EncoderModel | None = None) -> None:
        super().__init__()
        self.model = model
        self.criterion = CRITERIA[model.problem]
        self.stage = stage
        self.progress = 0.0
        self.step = 0
        # In a tuple: not trained, not moved to training mode, not saved with the student.
        self.teacher: tuple[EncoderModel, ...] = () if teacher is None else (teacher.eval().requires_grad_(False),)

    def loss(self, logits: Tensor, labels: Tensor, taught: Tensor | None) -> Tensor:
        """The labels' loss of a rung's logits (n, n_outputs), blended with the distance to the teacher's, if any."""
        own = self.criterion.loss(logits.float(), labels)
        if not (share := self.stage.distillation):
            return own
        return (1 - share) * own + share * self.criterion.distance(known(taught), logits.float(), False)


class Regular(Objective):
    """The loss of the last rung, nothing pruned: of classes cross-entropy, see `train.criteria`."""

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor) -> Output:
        """Labels (n), lengths (n) and packed token ids (n_tokens, 2) → loss, logits."""
        logits = self.model.full_logits(packed(states, lengths)).float()
        return {"loss": self.criterion.loss(logits, labels), "logits": logits}


class Soft(Objective):
    """The loss of the soft forward + λ x the mean share of tokens that are left. Evaluated under the hard mask."""

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor, taught: Tensor | None = None) -> Output:
        """Labels (n), lengths (n), packed token ids (n_tokens, 2), the teacher's logits (n, …) → loss, logits."""
        batch = packed(states, lengths)
        if not self.training:
            logits = self.model.full_logits(batch, self.model.token_rule).float()
            return {"loss": self.criterion.loss(logits, labels), "logits": logits}
        logits, masks = soft_logits(self.model, batch, self.temperature, self.stage.fade_attention)
        left = torch.stack([mask.float().mean() for mask in masks]).mean()
        return {"loss": self.loss(logits, labels, taught) + self.stage.regularisation * left}

    @property
    def temperature(self) -> float:
        """T now: falls by the same factor at every step."""
        first = self.stage.temperature
        last = first if self.stage.final_temperature is None else self.stage.final_temperature
        return first * (last / first) ** self.progress


class Hard(Objective):
    """The loss of the last rung while tokens really leave."""

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor, taught: Tensor | None = None) -> Output:
        """Labels (n), lengths (n), packed token ids (n_tokens, 2), the teacher's logits (n, …) → loss, logits."""
        batch = packed(states, lengths)
        logits = self.model.full_logits(batch, self.model.token_rule).float()
        return {"loss": self.loss(logits, labels, taught), "logits": logits}


class Int8(Objective):
    """The labels' loss under INT8 (and pruning, if any), blended with the teacher's logits and embeddings (LTP 4.6)."""

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor, taught: Tensor | None = None) -> Output:
        """Labels (n), lengths (n), packed token ids (n_tokens, 2), the teacher's logits (n, …) → loss, logits."""
        batch, rule = packed(states, lengths), self.model.token_rule
        embedded = self.model.embed(batch, rule)
        logits = self.model.logits_of(embedded, rule).float()
        loss = self.criterion.loss(logits, labels)
        if share := self.stage.distillation:
            [teacher] = self.teacher
            with torch.no_grad():
                read = teacher.to(logits.device).embed(batch, rule)
            pairs = known(taught), embedded.states, read.states
            loss = (1 - share) * loss + share * distillation_loss(logits, *pairs, criterion=self.criterion)
        return {"loss": loss, "logits": logits}


class HeadsAlone(Objective):
    """Only the exit heads learn."""

    def train(self, mode: bool = True) -> Self:
        """The frozen parts stay in evaluation mode: a teacher without dropout."""
        super().train(mode)
        self.model.encoder.eval()
        self.model.classifier.eval()
        return self


class Heads(HeadsAlone):
    """Exit heads learn what the frozen last rung says; tokens leave if the model prunes.

    With any `distillation` they learn what the unpruned teacher says, instead.
    """

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor, taught: Tensor | None = None) -> Output:
        """Labels (n), lengths (n), packed token ids (n_tokens, 2), the teacher's logits (n, …) → loss, logits."""
        batch = packed(states, lengths)
        every = self.model(batch, self.model.token_rule)
        wanted = known(taught) if self.stage.distillation else every[-1]
        rungs = [*every[:-1], wanted]
        loss = exits_loss(rungs, labels, self.stage.label_weight, self.stage.reverse_kl, self.criterion)
        return {"loss": loss, "logits": torch.stack(every, dim=1).float()}


class FrozenHeads(HeadsAlone):
    """The same as `Heads` from what the heads read, worked out before (`train.frozen`)."""

    def forward(self, labels: Tensor, wanted: Tensor, states: list[Tensor], lengths: list[Tensor]) -> Output:
        """Labels (n), logits to learn (n, n_outputs), of each head states (n_tokens, d), lengths (n) → loss, logits."""
        heads = zip(self.model.exits.values(), states, lengths, strict=True)
        rungs = [*(head(packed(read, counts)) for head, read, counts in heads), wanted]
        loss = exits_loss(rungs, labels, self.stage.label_weight, self.stage.reverse_kl, self.criterion)
        return {"loss": loss, "logits": torch.stack(rungs, dim=1).float()}


class Joint(Objective):
    """The loss of all rungs at once, deeper ones weighing more (PABEE) or not; tokens leave if the model prunes."""

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor, taught: Tensor | None = None) -> Output:
        """Labels (n), lengths (n), packed token ids (n_tokens, 2), the teacher's logits (n, …) → loss, logits."""
        batch = packed(states, lengths)
        every = self.model(batch, self.model.token_rule)
        loss = joint_loss([self.loss(logits, labels, taught) for logits in every], self.stage.depth_weight)
        return {"loss": loss, "logits": torch.stack(every, dim=1).float()}


class Guess(Objective):
    """Every layer guesses from its input which tokens the upper half of the frozen model attends to (after ToP)."""

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
        # Listwise: both sides are distributions over a text's tokens, n times as large (mean 1). Square roots of the
        # target spread what sinks would take for themselves.
        wanted = per_sequence_mean_one(target.sqrt(), entered[0])
        losses = [-(wanted * guess.clamp_min(1e-9).log()).mean() for guess in guessed]
        return {"loss": torch.stack(losses).mean(), "logits": labels.float()}


def known(taught: Logits | None) -> Logits:
    """The teacher's logits; ValueError where a stage distils from rows that no teacher was asked about."""
    if taught is None:
        raise ValueError("distillation: the rows say nothing of a teacher; see `train.teaching.taught_by`")
    return taught


_PRIOR = 3.0  # occurrences that every entry is taken to have had, twice as important as the mean: rare words are read
_BATCH = 64
_ROWS = 4096  # that are looked at


def start_vocabulary(model: EncoderModel, rows: Examples, device: torch.device) -> None:
    """Sets each entry's score to the logarithm of its mean `hold`, 0 where the recipe's share of the tokens is above.

    So that share is read before anything is learned. Entries at the first, or at the last, place of every text are
    special ([CLS], [SEP], RoBERTa's </s>, which stands between pairs as well): always read.
    """
    pruning = model.require_pruning()
    if (share := pruning.config.vocabulary) is None:
        raise ValueError("the model's pruning reads the whole vocabulary")
    model.to(device).eval().requires_grad_(False)
    held, seen, first, last = (np.zeros(model.spec.vocabulary) for _ in range(4))
    tokens = [rows.encoded.tokens[row] for row in spread(len(rows), _ROWS)]
    for start in range(0, len(tokens), _BATCH):
        batch = pack(tokens[start : start + _BATCH])
        ids = batch.states[:, 0]
        np.add.at(held, ids, hold(model, batch))
        np.add.at(seen, ids, 1)
        np.add.at(first, ids[batch.cu_seqlens[:-1]], 1)
        np.add.at(last, ids[batch.cu_seqlens[1:] - 1], 1)
    mean = (held + 2 * _PRIOR * held.sum() / seen.sum()) / (seen + _PRIOR)
    with torch.no_grad():
        pruning.vocabulary.copy_(torch.from_numpy(np.log(mean / _border(mean, seen, share))))
    pruning.always_read(np.flatnonzero((first == len(tokens)) | (last == len(tokens))).tolist())


def hold(model: EncoderModel, batch: PackedBatch) -> np.ndarray:
    """How much each token holds the answer, (n_tokens) float64: the squared gradient of the logits' lead.

    The gradient is that of the largest logit over the mean of all (of several labels that of all their sizes, of a
    regression that of its number, of spans both ends'), by a weight on the token as input and as key of
    every layer. Attention is no guide here: full stops and brackets receive much and say little.
    """
    alive = torch.ones(len(batch.positions), device=model.classifier.classes.weight.device, requires_grad=True)
    states = model.encoder.embeddings(batch)
    states = states.with_states(states.states * alive[:, None])
    for layer in model.encoder.layers:
        context, _ = layer.scored_context(states, active=alive)
        states = layer.finish(states, context)
    logits = model.answer(states, states.states, batch)
    (gradient,) = torch.autograd.grad(CRITERIA[model.problem].lead(logits).sum(), alive)
    return gradient.double().square().cpu().numpy()


def _border(score: np.ndarray, seen: np.ndarray, share: float) -> float:
    """The score above which `share` of all the tokens seen lie."""
    order = np.argsort(-score, kind="stable")
    running = np.cumsum(seen[order]) / seen.sum()
    return float(score[order][min(int(np.searchsorted(running, share)), len(order) - 1)])
