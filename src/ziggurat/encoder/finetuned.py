"""What a fine-tuned classifier answers: what its configuration says, as far as its weights agree. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ziggurat.data.labels import VALUE
from ziggurat.encoder.folder import CONFIG, MANIFEST, WEIGHTS, read_json, read_manifest
from ziggurat.encoder.mapped import map_tensors
from ziggurat.encoder.spec import read_spec
from ziggurat.encoder.weights import CLASSES, canonical_names, missing_classifier, table_of
from ziggurat.errors import UserError
from ziggurat.types import Label, Problem

_NO_CONFIG = f"no {CONFIG}; give a folder made by save_pretrained"


def answers_of(folder: Path, problem: Problem | None = None) -> tuple[tuple[Label, ...], Problem]:
    """What a checkpoint with a classifier calls its outputs, in their order, and the problem that they answer.

    `problem` is what a user says that it is, None = what the checkpoint says, or the manifest of a folder of ours.
    UserError for one without a classifier, or with a classifier of another size than the names.
    """
    require_classifier(folder)
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        names, known = manifest.labels, Problem(manifest.problem_type)
    else:
        names, known = checkpoint_labels(folder), checkpoint_problem(folder)
    if (outputs := _n_outputs(folder)) != len(names):
        raise UserError(
            f"{folder}: {CONFIG} names {len(names)} classes (id2label), its classifier has {outputs}; name each of them"
        )
    problem = known if problem is None else problem
    if problem is Problem.REGRESSION and len(names) > 1:
        raise UserError(f"{folder}: has {len(names)} outputs, and a regression has one; give another --problem")
    return names, problem


def known_names(folder: Path) -> tuple[Label, ...] | None:
    """What a checkpoint's classifier calls its outputs; None = it has none, or one that nobody knows the names of."""
    try:
        return answers_of(folder)[0]
    except UserError:
        return None


def names_same(names: Sequence[Label], others: Sequence[Label]) -> bool:
    """Whether two classifiers' outputs are the same in the same order: of one output each, a number, always."""
    return len(names) == len(others) == 1 or list(map(str, names)) == list(map(str, others))


def checkpoint_labels(folder: Path) -> tuple[Label, ...]:
    """What a fine-tuned checkpoint calls its classes: the names of `id2label`, or 0, 1, … where nobody named them."""
    config = read_json(folder / CONFIG, f"{folder}: {_NO_CONFIG}")
    # transformers leaves both out where a classifier has two classes that nobody named.
    unstated = dict.fromkeys(range(int(config.get("num_labels") or 2)))
    names = {int(index): name for index, name in (config.get("id2label") or unstated).items()}
    least = 2 if checkpoint_problem(folder) is Problem.SINGLE_LABEL else 1
    if sorted(names) != list(range(len(names))) or len(names) < least:
        raise UserError(
            f"{folder}: {CONFIG} names no classes (id2label); adapt takes a fine-tuned classifier, train a backbone"
        )
    ordered = tuple(names[index] for index in range(len(names)))
    unnamed = all(name in (None, f"LABEL_{index}", str(index)) for index, name in enumerate(ordered))
    if unnamed and checkpoint_problem(folder) is Problem.REGRESSION:
        return (VALUE,)
    return tuple(range(len(ordered))) if unnamed else tuple(map(str, ordered))


def checkpoint_problem(folder: Path) -> Problem:
    """What a fine-tuned checkpoint answers, as transformers has it: its `problem_type`, else a number if it has one
    output, else one of its classes.
    """
    config = read_json(folder / CONFIG, f"{folder}: {_NO_CONFIG}")
    stated = config.get("problem_type")
    if stated is None:
        outputs = len(config.get("id2label") or ()) or config.get("num_labels")
        return Problem.REGRESSION if outputs == 1 else Problem.SINGLE_LABEL
    if stated not in list(Problem):
        raise UserError(f"{folder}: {CONFIG} has problem_type {stated!r}; known: {', '.join(Problem)}")
    return Problem(stated)


def has_classifier(folder: Path) -> bool:
    """Whether a checkpoint has the weights of its architecture's own classifier."""
    return not _missing_classifier(folder)


def require_classifier(folder: Path) -> None:
    """UserError for a checkpoint without a classifier's weights, whose answers would be those of a random one."""
    if missing := _missing_classifier(folder):
        raise UserError(
            f"{folder}: has no {missing[0]!r}; adapt takes a fine-tuned classifier, "
            "fine-tune this encoder with `ziggurat train --model`"
        )


def _missing_classifier(folder: Path) -> list[str]:
    spec = read_spec(read_json(folder / CONFIG, f"{folder}: {_NO_CONFIG}"))
    return missing_classifier(map_tensors(folder / WEIGHTS), spec)


def _n_outputs(folder: Path) -> int:
    """How many numbers a checkpoint's classifier answers with."""
    spec = read_spec(read_json(folder / CONFIG, f"{folder}: {_NO_CONFIG}"))
    (name,) = table_of(spec, Problem.SINGLE_LABEL)[f"{CLASSES}weight"]
    return len(canonical_names(map_tensors(folder / WEIGHTS), spec)[name])
