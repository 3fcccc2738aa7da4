"""Students: smaller models that start from layers, or from parts of layers, of a trained teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

import torch
from torch import Tensor

from ziggurat.encoder.checkpoint import head_places, load_hf, read_config
from ziggurat.encoder.hub import checkpoint_folder
from ziggurat.encoder.model import AdaptiveModel
from ziggurat.encoder.spec import EncoderSpec, read_spec
from ziggurat.errors import UserError
from ziggurat.recipe import Recipe, StudentConfig
from ziggurat.types import Problem

_EMBEDDINGS, _LAYERS, _CLASSIFIER = "encoder.embeddings.", "encoder.layers.", "classifier."


def make_student(teacher: AdaptiveModel, recipe: Recipe) -> AdaptiveModel:
    """The recipe's student with the teacher's weights as far as it has room; exit heads and pruning start fresh.

    Where the recipe names a checkpoint that gives the weights instead. The teacher stays as it is; seed torch
    beforehand. UserError for a student that cannot be made of this teacher.
    """
    if recipe.student is None:
        raise ValueError(f"recipe {recipe.name!r} has no student")
    spec = student_spec(recipe.student, teacher.spec)
    places = head_places(spec, recipe.head_layers)
    if recipe.student.checkpoint is not None:
        folder = checkpoint_folder(recipe.student.checkpoint)
        start = float(teacher.classifier.classes.bias.detach()[0]) if teacher.problem is Problem.REGRESSION else 0.0
        shape = teacher.n_classes, recipe.head_kind, places, recipe.dropout, recipe.pruning, teacher.problem
        # Whatever it was fine-tuned to answer, its classes are not known to be the teacher's.
        return load_hf(folder, *shape, start, keep_classifier=teacher.problem is Problem.QUESTION_ANSWERING)
    student = AdaptiveModel(spec, teacher.n_classes, recipe.head_kind, places, recipe.pruning, teacher.problem)
    layers = starting_layers(recipe.student.start, spec.layers, teacher.spec.layers)
    student.load_state_dict(starting_weights(teacher, spec, layers), strict=False)
    student.start_heads_from_pooler()
    return student


def student_spec(config: StudentConfig, teacher: EncoderSpec) -> EncoderSpec:
    """The student's architecture; UserError, with the fix, where it is larger than the teacher or splits a head."""
    hidden = teacher.hidden if config.hidden is None else config.hidden
    intermediate = teacher.intermediate if config.intermediate is None else config.intermediate
    if teacher.rotary and config.checkpoint is None and (hidden != teacher.hidden or config.start != "first"):
        raise UserError(
            f"student: of a {teacher.model_type} only the first layers can be kept, as wide as they are (layers differ "
            'in what they see, heads turn with positions); set start = "first" without hidden, or name a checkpoint'
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
    per_layer = {"rotary": teacher.rotary[:k], "windows": teacher.windows[:k]}
    spec = replace(teacher, layers=k, hidden=hidden, intermediate=intermediate, **per_layer)
    if config.checkpoint is not None:
        _refuse_other_sizes(config.checkpoint, spec)
    return spec


def _refuse_other_sizes(checkpoint: str, wanted: EncoderSpec) -> None:
    """UserError for a checkpoint that does not have the student's sizes, or not the teacher's vocabulary or heads.

    The student reads with the teacher's tokenizer, and its attention is compared head by head.
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
    """The teacher's layer (1 … L) that stands for each of the student's k: every L/k-th (PKD-skip, TinyBERT's g).

    Where k does not divide L, m L / k is rounded, halves up; the last is always L.
    """
    return tuple((2 * m * teacher_layers + layers) // (2 * layers) for m in range(1, layers + 1))


def starting_layers(start: str, layers: int, teacher_layers: int) -> tuple[int, ...]:
    """The teacher's layers (1 … L) that the student's k start from; `start` is one of STUDENT_STARTS."""
    if start == "skip":
        return spread_layers(layers, teacher_layers)
    first = 1 if start == "first" else teacher_layers - layers + 1
    return tuple(range(first, first + layers))


def patient_layers(which: str, layers: int, teacher_layers: int) -> tuple[int, ...]:
    """The teacher's layers (1 … L) whose first tokens the student's layers 1 … k - 1 imitate (PKD-skip, PKD-last).

    The last layer is left out on both sides: its states make the logits, which are compared anyway.
    """
    if which == "skip":
        return spread_layers(layers, teacher_layers)[:-1]
    return tuple(range(teacher_layers - layers + 1, teacher_layers))


def starting_weights(teacher: AdaptiveModel, spec: EncoderSpec, layers: tuple[int, ...]) -> dict[str, Tensor]:
    """The student's tensors of embeddings, layers (from these of the teacher's, 1 … L) and classifier: copies.

    A narrower student keeps the first `hidden` numbers of every state, of every head's queries, keys and values the
    first `head_width`, and of the feed-forward layers the first `intermediate`. That is a start and no more: LayerNorms
    see other means, so it has to learn from hidden states first, as TinyBERT does.
    """
    kept = _kept(teacher.spec, spec)
    made = {}
    for name, tensor in teacher.state_dict().items():
        if name.startswith((_EMBEDDINGS, _CLASSIFIER)):
            made[name] = _narrowed(name, tensor, kept)
        elif name.startswith(_LAYERS):
            place, rest = name.removeprefix(_LAYERS).split(".", 1)
            for mine, theirs in enumerate(layers):
                if int(place) == theirs - 1:
                    made[f"{_LAYERS}{mine}.{rest}"] = _narrowed(name, tensor, kept)
    return made


_Kept = Mapping[str, tuple[Tensor | None, Tensor | None]]  # module → rows and columns that stay, None = all


def _kept(wide: EncoderSpec, narrow: EncoderSpec) -> _Kept:
    states, inner = torch.arange(narrow.hidden), torch.arange(narrow.intermediate)
    heads = (torch.arange(wide.heads)[:, None] * wide.head_width + torch.arange(narrow.head_width)).flatten()
    joined = torch.cat([part * wide.hidden + heads for part in range(3)])  # queries, keys and values below each other
    gated = torch.cat([part * wide.intermediate + inner for part in range(2 if wide.gated else 1)])
    embedded = None if wide.embedding_width else states  # where a linear map widens the embeddings they stay
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


def _narrowed(name: str, tensor: Tensor, kept: _Kept) -> Tensor:
    rows, columns = kept[name.split(".")[-2]]
    part = tensor.detach().cpu()
    part = part if rows is None else part[rows]
    return (part if columns is None or part.ndim == 1 else part[:, columns]).clone()
