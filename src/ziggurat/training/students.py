"""Students: smaller models that are initialised from a trained teacher and learn from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor, nn

from ziggurat.data.packing import PackedBatch
from ziggurat.encoder.hub import checkpoint_folder
from ziggurat.encoder.spec import EncoderSpec, read_spec
from ziggurat.encoder.torch.attention import score_gap
from ziggurat.encoder.torch.checkpoint import head_places, load_hf, read_config
from ziggurat.encoder.torch.layers import first_tokens
from ziggurat.encoder.torch.model import EncoderModel
from ziggurat.encoder.torch.parts import RowLinear
from ziggurat.errors import UserError
from ziggurat.recipe import Recipe, StageConfig, StudentConfig
from ziggurat.training.batches import packed
from ziggurat.training.losses import answers_loss, cosine_loss, patience_loss, states_loss
from ziggurat.training.objectives import Objective, Output
from ziggurat.types import ProblemType

_EMBEDDINGS, _LAYERS, _CLASSIFIER = "encoder.embeddings.", "encoder.layers.", "classifier."


def make_student(teacher: EncoderModel, recipe: Recipe) -> EncoderModel:
    """The recipe's student, initialised with the teacher's weights, cut to its sizes; exit heads and pruning are new.

    If the recipe names a checkpoint, weights come from there instead. The teacher is unchanged. Seed torch beforehand.
    UserError if this teacher does not allow such a student.
    """
    if recipe.student is None:
        raise ValueError(f"recipe {recipe.name!r} has no student")
    spec = student_spec(recipe.student, teacher.spec)
    head_layers = head_places(spec, recipe.head_layers)
    if recipe.student.checkpoint is not None:
        folder = checkpoint_folder(recipe.student.checkpoint)
        start = float(teacher.classifier.classes.bias.detach()[0]) if teacher.problem is ProblemType.REGRESSION else 0.0
        shape = teacher.n_classes, recipe.head_kind, head_layers, recipe.dropout, recipe.pruning, teacher.problem
        # Its classifier is dropped, since its classes may differ from the teacher's.
        return load_hf(folder, *shape, start, keep_classifier=teacher.problem is ProblemType.QUESTION_ANSWERING)
    student = EncoderModel(spec, teacher.n_classes, recipe.head_kind, head_layers, recipe.pruning, teacher.problem)
    layers = starting_layers(recipe.student.start, spec.layers, teacher.spec.layers)
    student.load_state_dict(starting_weights(teacher, spec, layers), strict=False)
    student.start_heads_from_pooler()
    return student


def student_spec(config: StudentConfig, teacher: EncoderSpec) -> EncoderSpec:
    """The student's architecture; UserError, with the fix, if it is larger than the teacher or splits a head."""
    hidden = teacher.hidden if config.hidden is None else config.hidden
    intermediate = teacher.intermediate if config.intermediate is None else config.intermediate
    if teacher.rotary and config.checkpoint is None and (hidden != teacher.hidden or config.start != "first"):
        raise UserError(
            f"student: of a {teacher.model_type} only the first layers can be kept, at full width (layers differ "
            'in their windows, heads have rotary positions); set start = "first" without hidden, or name a checkpoint'
        )
    wanted = {"layers": config.layers, "hidden": hidden, "intermediate": intermediate}
    for name, size in wanted.items():
        most = getattr(teacher, name)
        if size > most:
            raise UserError(
                f"student: {name} {size}, but the teacher has {most}; set {name} to at most {most}, "
                "or start from a larger --model"
            )
    if hidden % teacher.heads:
        below = max(teacher.heads, hidden // teacher.heads * teacher.heads)
        raise UserError(
            f"student: hidden {hidden} is no multiple of the teacher's {teacher.heads} attention heads; "
            f"set hidden = {below}"
        )
    if hidden == teacher.embedding_width:
        raise UserError(
            f"student: hidden {hidden} is the width of the embeddings, which would need no projection; "
            f"set hidden = {hidden + teacher.heads}"
        )
    k = config.layers
    rotary, windows = teacher.rotary[:k], teacher.windows[:k]
    spec = replace(teacher, layers=k, hidden=hidden, intermediate=intermediate, rotary=rotary, windows=windows)
    if config.checkpoint is not None:
        _refuse_other_sizes(config.checkpoint, spec)
    return spec


def _refuse_other_sizes(checkpoint: str, wanted: EncoderSpec) -> None:
    """UserError if a checkpoint's sizes differ from the student's, or its vocabulary or heads from the teacher's.

    The student uses the teacher's tokenizer, and attention is compared head by head.
    """
    found = read_spec(read_config(checkpoint_folder(checkpoint)))
    for name in ("layers", "hidden", "intermediate"):
        if getattr(found, name) != getattr(wanted, name):
            raise UserError(
                f"student: {checkpoint} has {name} {getattr(found, name)}, the recipe's student "
                f"{getattr(wanted, name)}; set {name} = {getattr(found, name)} in its [student] table"
            )
    same = replace(found, dropout=wanted.dropout, attention_dropout=wanted.attention_dropout)
    for name, value in asdict(replace(same, initializer_range=wanted.initializer_range)).items():
        if value != getattr(wanted, name):
            raise UserError(
                f"student: {checkpoint} has {name} {value}, the teacher {getattr(wanted, name)}; "
                "take a checkpoint that agrees, or leave `checkpoint` out to start from the teacher's layers"
            )


def spread_layers(layers: int, teacher_layers: int) -> tuple[int, ...]:
    """The teacher's layer (1 … L) for each of the student's k layers: every L/k-th (PKD-skip, TinyBERT's g).

    If k does not divide L, m L / k is rounded, halves up; the last is always L.
    """
    return tuple((2 * m * teacher_layers + layers) // (2 * layers) for m in range(1, layers + 1))


def starting_layers(start: str, layers: int, teacher_layers: int) -> tuple[int, ...]:
    """The teacher's layers (1 … L) that initialise the student's k layers; `start` is one of STUDENT_STARTS."""
    if start == "skip":
        return spread_layers(layers, teacher_layers)
    first = 1 if start == "first" else teacher_layers - layers + 1
    return tuple(range(first, first + layers))


def patient_layers(kind: str, layers: int, teacher_layers: int) -> tuple[int, ...]:
    """The teacher's layers (1 … L) whose first tokens the student's layers 1 … k - 1 imitate; `kind`: skip, last (PKD).

    The last layer of both is excluded: its states give the logits, which are compared too.
    """
    if kind == "skip":
        return spread_layers(layers, teacher_layers)[:-1]
    return tuple(range(teacher_layers - layers + 1, teacher_layers))


def starting_weights(teacher: EncoderModel, spec: EncoderSpec, layers: tuple[int, ...]) -> dict[str, Tensor]:
    """The student's embeddings, layers (copies of the teacher's `layers`, 1 … L) and classifier.

    A narrower student gets the first `hidden` numbers of every state, the first `head_width` of every head's queries,
    keys and values, and the first `intermediate` of feed-forward layers. This is only an initialisation: LayerNorms see
    other means, so the student must first learn from hidden states, as in TinyBERT.
    """
    slices = _slices(teacher.spec, spec)
    made = {}
    for name, tensor in teacher.state_dict().items():
        if name.startswith((_EMBEDDINGS, _CLASSIFIER)):
            made[name] = _narrowed(name, tensor, slices)
        elif name.startswith(_LAYERS):
            number, rest = name.removeprefix(_LAYERS).split(".", 1)
            for index, layer in enumerate(layers):
                if int(number) == layer - 1:
                    made[f"{_LAYERS}{index}.{rest}"] = _narrowed(name, tensor, slices)
    return made


# Module → indices of the rows and columns that a narrower student gets; None = all.
_Slices = Mapping[str, tuple[Tensor | None, Tensor | None]]


def _slices(wide: EncoderSpec, narrow: EncoderSpec) -> _Slices:
    states, inner = torch.arange(narrow.hidden), torch.arange(narrow.intermediate)
    heads = (torch.arange(wide.heads)[:, None] * wide.head_width + torch.arange(narrow.head_width)).flatten()
    joined = torch.cat([part * wide.hidden + heads for part in range(3)])  # rows of queries, keys, values
    gated = torch.cat([part * wide.intermediate + inner for part in range(2 if wide.gated else 1)])
    embedded = (
        None if wide.embedding_width else states
    )  # with a linear map that widens them, embeddings keep their width
    tables = dict.fromkeys(("word", "position", "segment", "task"), (None, embedded))
    norms = dict.fromkeys(("attention_norm", "output_norm", "dense_norm"), (states, None))
    return {
        **tables,
        **norms,
        "norm": (embedded, None),
        "project": (states, None),
        "classes": (None, states),
        "qkv": (joined, states),
        "out": (states, heads),
        "up": (gated, states),
        "down": (states, inner),
        "dense": (states, states),
    }


def _narrowed(name: str, tensor: Tensor, slices: _Slices) -> Tensor:
    rows, columns = slices[name.split(".")[-2]]
    part = tensor.detach().cpu()
    part = part if rows is None else part[rows]
    return (part if columns is None or part.ndim == 1 else part[:, columns]).clone()


class Distil(Objective):
    """The weighted sum of the stage's losses: answers, hidden states, attention scores, cosine, patience.

    The student's layer m of k is compared with the teacher's layer m L / k (TinyBERT's g; attention: (i + 1) L / k - 1,
    counted from 0), embeddings with embeddings. If widths differ, a learned linear map first widens the student's
    states. There is one map for all layers, which is not part of the student (as in TinyBERT's code; in its paper,
    embeddings have their own map).
    """

    def __init__(self, model: EncoderModel, stage: StageConfig, teacher: EncoderModel) -> None:
        super().__init__(model, stage, teacher)
        spec, wide = model.spec, teacher.spec
        self.spread = (0, *spread_layers(spec.layers, wide.layers))
        self.patient = patient_layers(stage.patient_layers, spec.layers, wide.layers)
        compares = stage.hidden_weight or stage.cosine_weight or (stage.patient_weight and self.patient)
        # An unused map would have no gradient, which is an error with several processes.
        self.widen = _widening(spec.hidden, wide.hidden) if compares and spec.hidden != wide.hidden else nn.Identity()

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor) -> Output:
        """Labels (n) with -1 = unlabelled, lengths (n) and packed token ids (n_tokens, 2) → loss, logits."""
        batch = packed(states, lengths)
        [teacher] = self.teacher
        found = _states(self.model, batch)
        with torch.no_grad():
            taught = _states(teacher.to(states.device), batch)
            wanted = teacher.classifier(taught[-1])
        logits = self.model.classifier(found[-1]).float()
        losses = self._of_states(found, taught)
        if weight := self.stage.answer_weight:
            t, share = self.stage.logit_temperature, self.stage.label_weight
            losses.append(weight * answers_loss(wanted, logits, labels, t, share, self.criterion))
        return {"loss": torch.stack(losses).sum(), "logits": logits}

    def _of_states(self, found: list[PackedBatch], taught: list[PackedBatch]) -> list[Tensor]:
        """The weighted losses on states of student and teacher: after the embeddings and after each layer."""
        stage, losses = self.stage, []
        if stage.hidden_weight:
            pairs = [taught[layer].states for layer in self.spread], [self.widen(batch.states) for batch in found]
            losses.append(stage.hidden_weight * states_loss(*pairs))
        if stage.cosine_weight:
            losses.append(stage.cosine_weight * cosine_loss(taught[-1].states, self.widen(found[-1].states)))
        if stage.patient_weight and self.patient:  # none for a student of one layer
            first = [first_tokens(taught[layer]) for layer in self.patient]
            losses.append(
                stage.patient_weight * patience_loss(first, [self.widen(first_tokens(batch)) for batch in found[1:-1]])
            )
        if stage.attention_weight:
            losses.append(stage.attention_weight * self._of_attention(found, taught))
        return losses

    def _of_attention(self, found: list[PackedBatch], taught: list[PackedBatch]) -> Tensor:
        """Mean over the student's layers of `score_gap` to the teacher's layer."""
        [teacher] = self.teacher
        gaps = []
        for index, layer in enumerate(self.spread[1:]):
            compared = self.model.encoder.layers[index].project(found[index])
            with torch.no_grad():
                wanted = teacher.encoder.layers[layer - 1].project(taught[layer - 1])
            gaps.append(score_gap(compared, wanted, found[index].lengths, self.model.spec.heads))
        return torch.stack(gaps).mean()


def _states(model: EncoderModel, batch: PackedBatch) -> list[PackedBatch]:
    """Token ids (n_tokens, 2) → states (n_tokens, d) after the embeddings and after every layer, without pruning."""
    states = [model.embed(batch)]
    for layer in range(1, model.spec.layers + 1):
        states.append(model.layer(layer, states[-1]))
    return states


def _widening(width: int, wide: int) -> RowLinear:
    """A linear map that is initialised like the student: its states are the first numbers of the teacher's."""
    made = RowLinear(width, wide)
    nn.init.eye_(made.weight)
    nn.init.zeros_(made.bias)
    return made


class Theseus(Objective):
    """Cross-entropy of a chain of modules; each is the teacher's layers, or with some probability the student's.

    A module is one layer of the student, or the L/k layers of the teacher that it replaces. There is one draw per
    module and training step, for the whole batch (paper, eq. 3 to 5). Only the student's layers are trained; its
    embeddings and classifier are the teacher's. Unlike in the authors' code, the teacher's layers have no dropout and
    do not contribute to the clipping norm. Evaluation uses the student only.
    """

    def __init__(self, model: EncoderModel, stage: StageConfig, seed: int, teacher: EncoderModel) -> None:
        super().__init__(model, stage, teacher)
        self.seed = seed
        self.edges = (0, *spread_layers(model.spec.layers, teacher.spec.layers))

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor) -> Output:
        """Labels (n), lengths (n) and packed token ids (n_tokens, 2) → loss, logits."""
        replaced = self.drawn() if self.training else np.ones(self.model.spec.layers, dtype=bool)
        logits = self.chain(packed(states, lengths), replaced).float()
        loss = self.criterion.loss(logits, labels)
        if self.training:
            # Layers that were not drawn get a gradient of zero, since every parameter needs one.
            out = [self.model.encoder.layers[module] for module in np.flatnonzero(~replaced)]
            loss = loss + sum(0.0 * parameter.sum() for layer in out for parameter in layer.parameters())
        return {"loss": loss, "logits": logits}

    def chain(self, batch: PackedBatch, replaced: np.ndarray) -> Tensor:
        """Logits (n, n_classes) with the student's layer where `replaced` (k) is True, else the teacher's layers."""
        [teacher] = self.teacher
        live = self.model.embed(batch)
        teacher.to(live.states.device)
        for module, uses_student in enumerate(replaced):
            if uses_student:
                live = self.model.layer(module + 1, live)
            else:
                for layer in range(self.edges[module] + 1, self.edges[module + 1] + 1):
                    live = teacher.layer(layer, live)
        return self.model.classifier(live)

    def drawn(self) -> np.ndarray:
        """Modules that use the student's layer at this step, (k) bool.

        It depends only on the stage's seed and the step: the same in every process and after a resume.
        """
        draws = np.random.default_rng((self.seed, self.step))
        return draws.random(self.model.spec.layers) < self.rate

    @property
    def rate(self) -> float:
        """The present probability: min(1, b + k t), with t = progress of the stage (0 … 1)."""
        return min(1.0, self.stage.replacing + self.stage.replacing_growth * self.progress)
