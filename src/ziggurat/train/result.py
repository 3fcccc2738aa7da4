"""What a training returns: where the model is, from how many rows it learned, what was tried and chosen on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ziggurat.data.dataset import Role
from ziggurat.encoder.folder import CUT, PRUNED, REFERENCE, TRIALS, Manifest
from ziggurat.train.lengths.search import LengthSearch
from ziggurat.types import Label, OperatingPoint


@dataclass(frozen=True)
class Copies:
    """Changed copies of the rows, which a small model learned from too."""

    copies: int  # that were made and kept
    dropped: int  # that were made twice
    per_second: int  # made


@dataclass(frozen=True)
class VocabularyTrial:
    """Whether the vocabulary may leave words out, tried on select rows before training with it."""

    share: float  # of the tokens that would be read, 0 … 1
    plain: float  # metric of the problem with all tokens
    read: float  # the same with that share
    accepted: bool  # whether words may be left out


@dataclass(frozen=True)
class Settled:
    """How much of the learned pruning was kept, tried on select rows after the soft stage."""

    factor: float  # on the thresholds: 1 = all of it, 0 = nothing is pruned
    vocabulary: bool  # whether words may still be left out
    plain: float  # metric of the problem with nothing pruned
    learned: float  # the same as it was learned
    settled: float  # the same with what was kept


@dataclass(frozen=True)
class PruningTrials:
    """What of a recipe's pruning was tried; None = that trial was not made."""

    vocabulary: VocabularyTrial | None = None
    settled: Settled | None = None


@dataclass(frozen=True)
class Training:
    """A finished training. What is None did not happen, or nothing is known of it."""

    out: Path  # the model folder
    recipe: str  # its name
    labels: tuple[Label, ...]
    max_length: int  # tokens that are read of an input
    unit: str  # of losses: "points" of a hundred, or the label's
    rows: Mapping[str, int]  # how many, by role
    operating_points: tuple[OperatingPoint, ...]
    notes: Mapping[str, Any]  # JSON values of the fields below that are there, as the model folder keeps them
    search: LengthSearch | None = None  # of shares of tokens
    copies: Copies | None = None
    regular_accuracy: float | None = None  # of the plain model, on the select rows: its problem's metric, 0 … 1
    pruned_accuracy: float | None = None  # the same of the last rung while it prunes as it was trained to
    trials: PruningTrials | None = None
    cut: int = 0  # rows that trained or chose and are longer than `max_length`

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(self.notes) | {
            "out": str(self.out),
            "recipe": self.recipe,
            "labels": list(self.labels),
            "max_length": self.max_length,
            "unit": self.unit,
            "rows": dict(self.rows),
            "operating_points": [point.to_dict() for point in self.operating_points],
        }


def training_of(manifest: Manifest, rows: Mapping[Role, int], out: Path) -> Training:
    """The result of the training that made a model with this manifest."""
    keys = ("search", "copies", REFERENCE, PRUNED, TRIALS, CUT)
    notes = {key: manifest.training[key] for key in keys if manifest.training.get(key)}
    return Training(
        out=out,
        recipe=manifest.training["recipe"]["name"],
        labels=manifest.labels,
        max_length=manifest.max_length,
        unit=manifest.problem.unit,
        rows={str(role): n for role, n in rows.items()},
        operating_points=manifest.operating_points,
        notes=notes,
        search=LengthSearch.from_dict(notes["search"]) if "search" in notes else None,
        copies=Copies(**notes["copies"]) if "copies" in notes else None,
        regular_accuracy=notes.get(REFERENCE),
        pruned_accuracy=notes.get(PRUNED),
        trials=_trials_of(notes[TRIALS]) if TRIALS in notes else None,
        cut=notes.get(CUT, 0),
    )


def _trials_of(notes: Mapping[str, Any]) -> PruningTrials:
    words, strength = notes.get("vocabulary"), notes.get("settled")
    return PruningTrials(
        None if words is None else VocabularyTrial(words["share"], words["plain"], words["read"], words["kept"]),
        None if strength is None else Settled(**strength),
    )
