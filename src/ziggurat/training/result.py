"""Records that a training returns: the model folder, numbers of rows, results of trials and searches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ziggurat.data.dataset import Role
from ziggurat.encoder.folder import CUT, PRUNED, REFERENCE, TRIALS, Manifest
from ziggurat.training.lengths.search import LengthSearch
from ziggurat.types import Label, OperatingPoint


@dataclass(frozen=True)
class Copies:
    """Augmented copies of the rows, for a small model."""

    copies: int  # number used
    dropped: int  # number of duplicates
    per_second: int  # speed of augmentation


@dataclass(frozen=True)
class VocabularyTrial:
    """Trial on select rows before training: whether vocabulary scores may drop words."""

    share: float  # of tokens that are read, 0 … 1
    plain: float  # metric of the problem with all tokens
    read: float  # the same with that share
    accepted: bool  # whether words may be dropped


@dataclass(frozen=True)
class Settled:
    """Strength of pruning, chosen on select rows after the soft stage."""

    factor: float  # on the thresholds: 1 = as learned, 0 = no pruning
    vocabulary: bool  # whether words may still be dropped
    plain: float  # metric of the problem without pruning
    learned: float  # metric with pruning as learned
    settled: float  # metric with the chosen strength


@dataclass(frozen=True)
class PruningTrials:
    """Trials of a recipe's pruning; None = no such trial."""

    vocabulary: VocabularyTrial | None = None
    settled: Settled | None = None


@dataclass(frozen=True)
class Training:
    """A finished training. None = did not happen, or unknown."""

    out: Path  # the model folder
    recipe: str  # its name
    labels: tuple[Label, ...]
    max_length: int  # inputs are cut to this many tokens
    unit: str  # of losses: "points" (percent), or the label's unit
    rows: Mapping[str, int]  # number of rows by role
    operating_points: tuple[OperatingPoint, ...]
    notes: Mapping[str, Any]  # the fields below as JSON values, as stored in the model folder
    search: LengthSearch | None = None  # for shares of tokens
    copies: Copies | None = None
    regular_accuracy: float | None = None  # of the plain model, on the select rows: its problem's metric, 0 … 1
    pruned_accuracy: float | None = None  # the same for the last rung with pruning as trained
    trials: PruningTrials | None = None
    cut: int = 0  # train and select rows that are longer than `max_length`

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
