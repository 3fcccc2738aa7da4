"""Labels and problem of a fine-tuned classifier, from its configuration, checked against its weights. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ziggurat.data.labels import SPAN_ENDS, VALUE, Called, is_unnamed, refuse_repeated
from ziggurat.encoder.containers import tensors_of, told_of
from ziggurat.encoder.folder import CONFIG, MANIFEST, read_json, read_manifest
from ziggurat.encoder.spec import read_spec
from ziggurat.encoder.weights import CLASSES, canonical_names, missing_classifier, table_of
from ziggurat.errors import UserError
from ziggurat.problems.registry import problem_named
from ziggurat.types import Label, ProblemType

SPANS = "ForQuestionAnswering"  # how the names of transformers' classes end whose outputs are spans
_NO_CONFIG = f"no {CONFIG}; give a folder made by save_pretrained"
# Models whose tensors have the same names as a sequence classifier's, but another meaning.
_OTHER_TASKS = {
    "ForTokenClassification": "labels each token",
    "ForMultipleChoice": "chooses between texts",
    "ForQuestionAnswering": "answers questions with spans of a text, and needs rows with questions",
}
_MOST_CLASSES = 1_000_000
_NUMBER = re.compile(r"[0-9]{1,9}")
_SKLEARN = "model_head.pkl"  # SetFit's classifier


def answers_of(folder: Path, problem: ProblemType | None = None) -> tuple[tuple[Label, ...], ProblemType]:
    """Labels of a checkpoint's outputs, in order, and the problem that they answer.

    `problem` is the user's choice; None = stated by the checkpoint, or by the manifest of a Ziggurat folder. UserError
    for a checkpoint without a classifier, or if the numbers of outputs and labels differ.
    """
    if problem is not None and problem_named(problem).head == SPANS:
        require_spans(folder)
        return SPAN_ENDS, problem
    require_classifier(folder)
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        names, known = manifest.labels, ProblemType(manifest.problem_type)
        problem = known if problem is None else problem
    else:
        problem = checkpoint_problem(folder) if problem is None else problem
        names = checkpoint_labels(folder, problem)
    if (outputs := _n_outputs(folder)) != len(names):
        raise UserError(
            f"{folder}: {CONFIG} names {len(names)} classes (id2label), its classifier has {outputs}; name each of them"
        )
    if problem is ProblemType.REGRESSION and len(names) > 1:
        raise UserError(f"{folder}: has {len(names)} outputs, and a regression has one; give another --problem")
    return names, problem


def known_names(folder: Path) -> tuple[Label, ...] | None:
    """Labels of a checkpoint's outputs; None = it has no classifier, or the labels are unknown."""
    try:
        return answers_of(folder)[0]
    except UserError:
        return None


def names_same(names: Sequence[Label], other_names: Sequence[Label]) -> bool:
    """Whether two classifiers have the same outputs in the same order; always, if both have one output (a number)."""
    return len(names) == len(other_names) == 1 or list(map(str, names)) == list(map(str, other_names))


def same_classes(names: Sequence[Label], other_names: Sequence[Label]) -> bool:
    """Whether `other_names` are other spellings of the same classes, in any order."""
    called = Called(names)
    return len(other_names) == len(names) and set(map(called.find, other_names)) == set(range(len(names)))


def checkpoint_labels(folder: Path, problem: ProblemType | None = None) -> tuple[Label, ...]:
    """Labels of a fine-tuned checkpoint's outputs: its names for them, or 0, 1, … if it has none.

    UserError if the configuration contradicts itself: swapped classes would be worse than no answer.
    """
    problem = checkpoint_problem(folder) if problem is None else problem
    names = _output_names(folder)
    refuse_repeated(names, str(folder / CONFIG))
    if len(names) < 2 and problem is ProblemType.SINGLE_LABEL:
        raise UserError(
            f"{folder}: has one output, and {problem} needs one for each class; for its score say --problem "
            f"{ProblemType.REGRESSION}, for a yes or no --problem {ProblemType.MULTI_LABEL}"
        )
    if is_unnamed(names):
        return (VALUE,) if problem is ProblemType.REGRESSION else tuple(range(len(names)))
    numbers = [name for name in names if type(name) is int]
    return tuple(numbers) if len(numbers) == len(names) else tuple(map(str, names))


def checkpoint_problem(folder: Path) -> ProblemType:
    """The problem of a fine-tuned checkpoint, by transformers' rule: its `problem_type`; without one, regression for
    one output, else classes.
    """
    stated = _config(folder).get("problem_type")
    if stated is None:
        return ProblemType.REGRESSION if len(_output_names(folder)) == 1 else ProblemType.SINGLE_LABEL
    if stated not in list(ProblemType):
        raise UserError(f"{folder}: {CONFIG} has problem_type {stated!r}; known: {', '.join(ProblemType)}")
    return ProblemType(stated)


def has_head(folder: Path, head: str) -> bool:
    """Whether a checkpoint has trained outputs of this kind (`Problem.head`)."""
    return has_spans(folder) if head == SPANS else has_classifier(folder)


def has_spans(folder: Path) -> bool:
    """Whether a checkpoint was fine-tuned for questions."""
    return any(str(name).endswith(SPANS) for name in _config(folder).get("architectures") or ())


def require_spans(folder: Path) -> None:
    """UserError unless a checkpoint was fine-tuned for questions."""
    if not has_spans(folder):
        raise UserError(f"{folder}: not fine-tuned for questions (no …{SPANS} in {CONFIG}); use `ziggurat train`")


def has_classifier(folder: Path) -> bool:
    """Whether a checkpoint has the weights of its architecture's own classifier."""
    return _why_no_classifier(folder) is None


def require_classifier(folder: Path) -> None:
    """UserError for a checkpoint without a classifier's weights: its answers would be random."""
    if (why := _why_no_classifier(folder)) is not None:
        raise UserError(
            f"{folder}: {why}; adapt takes a fine-tuned classifier of texts, fine-tune this encoder with "
            "`ziggurat train --model`"
        )


def _why_no_classifier(folder: Path) -> str | None:
    for name in map(str, _config(folder).get("architectures") or ()):
        for ending, description in _OTHER_TASKS.items():
            if name.endswith(ending):
                return f"a {name}, which {description}"
    with told_of(folder):
        missing = missing_classifier(tensors_of(folder), read_spec(_config(folder)))
    if not missing:
        return None
    beside = f", its classifier is {_SKLEARN}, a pickle, which is not read" if (folder / _SKLEARN).is_file() else ""
    return f"has no {missing[0]!r}{beside}"


def _output_names(folder: Path) -> list[object]:
    """Names of the outputs in the configuration, all None if it has none; UserError if they are inconsistent."""
    config = _config(folder)
    try:
        names = _names(config)
        _check_names(names, config)
    except ValueError as error:
        raise UserError(f"{folder / CONFIG}: {error}") from None
    return names


def _names(config: Mapping[str, Any]) -> list[object]:
    """`_output_names` without the checks; ValueError if the numbers are not 0, 1, … without a gap."""
    if config.get("id2label"):
        named, key = config["id2label"], "id2label"
        if not isinstance(named, Mapping):
            raise ValueError('id2label is no object; write {"0": NAME, "1": NAME, …}')
        pairs = list(named.items())
    elif config.get("label2id"):
        named, key = config["label2id"], "label2id"
        if not isinstance(named, Mapping):
            raise ValueError("label2id is no object; write {NAME: 0, NAME: 1, …}")
        pairs = [(number, name) for name, number in named.items()]
    else:
        # transformers writes none of the three keys for two classes without names.
        stated = config.get("num_labels")
        if stated is not None and (type(stated) is not int or not 1 <= stated <= _MOST_CLASSES):
            raise ValueError(f"num_labels {stated!r} is no number of classes")
        return [None] * (stated or 2)
    numbered: dict[int, object] = {}
    for number, name in pairs:
        if not (isinstance(number, str | int) and _NUMBER.fullmatch(str(number))):
            raise ValueError(f"{key} has {number!r} where the number of a class belongs; number them 0, 1, …")
        numbered[int(number)] = name
    gap = next((place for place in range(len(pairs)) if place not in numbered), None)
    if gap is not None:
        raise ValueError(
            f"{key} names {len(pairs)} classes and none is number {gap}; number them 0 to {len(pairs) - 1}"
        )
    return [numbered[place] for place in range(len(pairs))]


def _check_names(names: Sequence[object], config: Mapping[str, Any]) -> None:
    """ValueError for empty names, or names that the configuration contradicts."""
    for place, name in enumerate(names if not is_unnamed(names) else ()):
        if not isinstance(name, str | int) or not str(name).strip():
            raise ValueError(f"id2label calls class {place} {name!r}; give it a name")
    stated = config.get("num_labels")
    if stated is not None and stated != len(names):
        raise ValueError(f"num_labels is {stated!r}, and {len(names)} classes have names; make them agree")
    numbers: Any = config.get("label2id")
    for place, name in enumerate(names if isinstance(numbers, Mapping) else ()):
        other = numbers.get(name if isinstance(name, str) else str(name), place)
        if str(other) != str(place):
            raise ValueError(
                f"id2label says that {name!r} is class {place}, label2id that it is {other!r}; correct the one that is "
                "wrong, or remove label2id"
            )


def _config(folder: Path) -> dict[str, Any]:
    return read_json(folder / CONFIG, f"{folder}: {_NO_CONFIG}")


def _n_outputs(folder: Path) -> int:
    """Number of outputs of a checkpoint's classifier."""
    spec = read_spec(_config(folder))
    (name,) = table_of(spec, ProblemType.SINGLE_LABEL)[f"{CLASSES}weight"]
    return len(canonical_names(tensors_of(folder), spec)[name])
