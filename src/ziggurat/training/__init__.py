"""Training: rows and an encoder in, a model folder out. Stages run on `transformers.Trainer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ziggurat.lazy import lazily

if TYPE_CHECKING:
    from ziggurat.training.batches import Examples, collate, in_batches, packed
    from ziggurat.training.cascade import make_cascade
    from ziggurat.training.checks import refuse_misfits
    from ziggurat.training.fit import TrainOptions, read_roles
    from ziggurat.training.lengths.evolution import on_grid
    from ziggurat.training.loop import Run
    from ziggurat.training.losses import accuracy, answers_loss, exits_loss, kl_divergence
    from ziggurat.training.objectives import FrozenHeads, Soft, initialise_vocabulary
    from ziggurat.training.pipeline import run_recipe
    from ziggurat.training.precomputed import with_teacher_logits
    from ziggurat.training.stages import full_accuracy, hard, heads, joint, regular, soft
    from ziggurat.training.students import student_spec
    from ziggurat.training.train import adapt_model, train_model

_HOMES = {
    "Examples": "ziggurat.training.batches",
    "FrozenHeads": "ziggurat.training.objectives",
    "Run": "ziggurat.training.loop",
    "Soft": "ziggurat.training.objectives",
    "TrainOptions": "ziggurat.training.fit",
    "accuracy": "ziggurat.training.losses",
    "adapt_model": "ziggurat.training.train",
    "answers_loss": "ziggurat.training.losses",
    "collate": "ziggurat.training.batches",
    "exits_loss": "ziggurat.training.losses",
    "full_accuracy": "ziggurat.training.stages",
    "hard": "ziggurat.training.stages",
    "heads": "ziggurat.training.stages",
    "in_batches": "ziggurat.training.batches",
    "initialise_vocabulary": "ziggurat.training.objectives",
    "joint": "ziggurat.training.stages",
    "kl_divergence": "ziggurat.training.losses",
    "make_cascade": "ziggurat.training.cascade",
    "on_grid": "ziggurat.training.lengths.evolution",
    "packed": "ziggurat.training.batches",
    "read_roles": "ziggurat.training.fit",
    "refuse_misfits": "ziggurat.training.checks",
    "regular": "ziggurat.training.stages",
    "run_recipe": "ziggurat.training.pipeline",
    "soft": "ziggurat.training.stages",
    "student_spec": "ziggurat.training.students",
    "train_model": "ziggurat.training.train",
    "with_teacher_logits": "ziggurat.training.precomputed",
}
__all__ = [
    "Examples",
    "FrozenHeads",
    "Run",
    "Soft",
    "TrainOptions",
    "accuracy",
    "adapt_model",
    "answers_loss",
    "collate",
    "exits_loss",
    "full_accuracy",
    "hard",
    "heads",
    "in_batches",
    "initialise_vocabulary",
    "joint",
    "kl_divergence",
    "make_cascade",
    "on_grid",
    "packed",
    "read_roles",
    "refuse_misfits",
    "regular",
    "run_recipe",
    "soft",
    "student_spec",
    "train_model",
    "with_teacher_logits",
]

__getattr__ = lazily(__name__, _HOMES)
