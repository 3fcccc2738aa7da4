"""Searches the shares of tokens that a length-adaptive model keeps: candidates are run on select rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.data.dataset import Dataset, Role
from ziggurat.encoder.folder import MANIFEST, with_pruning_values
from ziggurat.engine.opened import OpenedModel
from ziggurat.errors import UserError
from ziggurat.policies.prune import top_share, without_repeats
from ziggurat.recipe import Recipe, SearchConfig
from ziggurat.system import bar
from ziggurat.training.lengths.evolution import Candidate, Shares, cheapest, evolve
from ziggurat.training.lengths.trials import Trials


@dataclass(frozen=True)
class LengthSearch:
    """Result of a search."""

    front: tuple[Candidate, ...]  # from cheap to expensive: no other is both cheaper and at least as accurate
    chosen: Candidate  # the cheapest within the target
    full_accuracy: float  # of the model that keeps every token, on the same rows
    rows: int  # number of rows that candidates answered

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "rows": self.rows,
            "full_accuracy": self.full_accuracy,
            "chosen": asdict(self.chosen),
            "front": [asdict(candidate) for candidate in self.front],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LengthSearch:
        """Inverse of `to_dict`."""
        front = tuple(map(_candidate, values["front"]))
        return cls(front, _candidate(values["chosen"]), values["full_accuracy"], values["rows"])


def _candidate(values: Mapping[str, Any]) -> Candidate:
    return Candidate(tuple(values["shares"]), values["flops"], values["accuracy"])


def search_lengths(
    classifier: OpenedModel,
    select: Dataset,
    config: SearchConfig,
    seed: int = 0,
    progress: bool = False,
    memory: Path | None = None,
) -> LengthSearch:
    """Searches shares with few FLOPs that lose at most `config.max_drop` accuracy at the last rung.

    Without labels, accuracy is agreement with the full model. The reported accuracy is measured on the rows of the
    search, so it is optimistic. `memory` is a file to resume a stopped search. UserError for rows of another role, or a
    model without shares.
    """
    select.require(Role.SELECT)
    token_rule = classifier.token_rule
    if token_rule is None or token_rule.keep is not top_share:
        raise UserError('search: the model\'s pruning has no shares; train it with kind = "share" in [pruning]')
    rows = sample(select, config.rows)
    trials = Trials(classifier, token_rule, rows, memory)
    most = config.population + config.iterations * (config.mutations + config.crossovers)
    with bar("search", most, "candidates", progress) as shown:

        def accuracy(shares: Shares, beaten: float) -> float:
            found = trials.accuracy(shares, beaten)
            shown.update()
            return found

        front = evolve(trials.flops, accuracy, classifier.spec.layers, config, seed)
    least = trials.full_accuracy - config.max_drop
    return LengthSearch(front, cheapest(front, least), trials.full_accuracy, len(rows))


def searched_folder(
    folder: Path, out: Path, select: Dataset, recipe: Recipe, device: str, progress: bool = False
) -> Path:
    """Returns `folder` if the recipe has no search, else writes and returns `out`: a copy with the chosen shares.

    The manifest of `out` has the result of the search. An existing `out` is left unchanged.
    """
    if recipe.search is None:
        return folder
    if not (out / MANIFEST).exists():
        classifier = OpenedModel.from_pretrained(folder, device)
        memory = out.with_suffix(".json")
        found = search_lengths(classifier, select, recipe.search, recipe.seed, progress, memory)
        values = without_repeats(np.array(found.chosen.shares))
        with_pruning_values(folder, out, values, {"search": found.to_dict()})
    return out


def sample(rows: Dataset, most: int) -> Dataset:
    """At most `most` rows, in order: those with the smallest content hashes, independent of the order of rows."""
    if len(rows) <= most:
        return rows
    return rows.take(np.sort(np.argsort(rows.hashes, kind="stable")[:most]))
