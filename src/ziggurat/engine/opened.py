"""A model folder, open: its tiers, its rungs, and the rules under which it may be run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from ziggurat.data.batching import limit_threads
from ziggurat.data.packing import cumulate
from ziggurat.encoder.folder import Manifest, read_manifest, read_point
from ziggurat.encoder.hub import local_folder
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.engine import rules
from ziggurat.engine.rules import ExitRule
from ziggurat.engine.tiers import Tier, open_tiers
from ziggurat.errors import UserError
from ziggurat.policies.prune import TokenRule, scaled
from ziggurat.problems.problem import Problem
from ziggurat.system import cached_property
from ziggurat.types import FULL, OperatingPoint, Rung

BATCH = 32  # texts, where nobody says otherwise


class _Source(NamedTuple):
    """What a model was opened with: the arguments of `OpenedModel.from_pretrained`."""

    folder: Path
    device: str
    dtype: str
    threads: int | None
    engine: str


class OpenedModel:
    """What classifiers and models of spans share."""

    _source: _Source | None = None  # None = not opened from a folder

    def __init__(self, tiers: Sequence[Tier]) -> None:
        """Models from cheap to dear, of a cascade several, else one. The last is "the model" in all that follows."""
        self.tiers = tuple(tiers)
        self.backend = tiers[-1].backend
        self.manifest = tiers[-1].manifest
        self.tokenizer = tiers[-1].tokenizer

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        device: str = "auto",
        dtype: str = "float32",
        threads: int | None = None,
        engine: str = "auto",
    ) -> Self:
        """Loads a folder made by `ziggurat train`, `adapt` or `cascade`, or a hub name; UserError says what is wrong.

        `device` is auto, cpu or cuda; `dtype` float32, bfloat16 or (compiled engine) int8; `threads` of the CPU, None =
        `OMP_NUM_THREADS`, else all cores; `engine` native (compiled, CPUs), torch, or auto: native on CPUs where it is
        installed.

        Pickling keeps the folder and these options, and opens it again.
        """
        folder = local_folder(str(model))
        manifest = read_manifest(folder)
        opened = cls(open_tiers(folder, manifest, device, dtype, threads, engine))
        limit_threads(opened.backend.threads)
        opened._source = _Source(folder.absolute(), device, dtype, threads, engine)
        return opened

    def __reduce__(self) -> tuple[Callable[..., OpenedModel], tuple[object, ...]]:
        """Where it was opened, how, and what was there; UserError for a model that no folder holds."""
        if self._source is None:
            raise UserError("only a model that from_pretrained opened can be pickled; pickle its folder's name")
        return _opened_again, (type(self), self._source, _identity(self.manifest))

    def __copy__(self) -> Self:
        """Another model of the same parts, which nothing changes."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """As `copy.copy`: weights need no second copy, for nothing changes them."""
        return copy(self)

    @property
    def spec(self) -> EncoderSpec:
        """Of the last tier's layers; UserError for a small model, which has none."""
        if self.tiers[-1].spec is None:
            raise UserError(f"a {self.manifest.kind} model has no layers to look into; give an encoder or a cascade")
        return self.tiers[-1].spec

    @cached_property
    def problem(self) -> Problem:
        """What it answers."""
        return self.manifest.problem

    @cached_property
    def rungs(self) -> tuple[Rung, ...]:
        """Where it can answer, from cheap to dear; the last is the full model."""
        before = (tier.rungs(place) for place, tier in enumerate(self.tiers[:-1]))
        return tuple(chain(*before, self.tiers[-1].rungs()))

    @cached_property
    def depths(self) -> np.ndarray:
        """How many layers of all tiers have run at each rung, if every tier before was run to its end: (n_rungs)."""
        before = cumulate(np.array([tier.backend.n_layers for tier in self.tiers]))[:-1]
        return np.concatenate(
            [start + np.array(tier.backend.rung_layers) for start, tier in zip(before, self.tiers, strict=True)]
        )

    @cached_property
    def layer_columns(self) -> np.ndarray:
        """Which columns of `kept` are tokens that a layer left, not those that a tier read: bool."""
        return np.concatenate([np.arange(tier.columns) > 0 for tier in self.tiers])

    def batch_sizes(self, operating_point: str | OperatingPoint | ExitRule) -> tuple[int, ...]:
        """Texts per batch of each tier: those that the point was measured to be fastest with, else 32."""
        point = operating_point
        if isinstance(point, str) and point != FULL:
            point = self.point(point)
        measured = point.batch_sizes if isinstance(point, OperatingPoint) else None
        return measured or (BATCH,) * len(self.tiers)

    @property
    def deferral(self) -> np.ndarray | None:
        """Weights of the learned exit score, (n_rungs - 1, 4 + n_classes), None if it was not fitted."""
        return self.tiers[-1].deferral

    @property
    def token_rule(self) -> TokenRule | None:
        """The pruning that the model was trained for, None if it does not prune."""
        return self.backend.token_rule

    def rule(self, score: str, threshold: float | Sequence[float], prune: bool = True) -> ExitRule:
        """A rule for one call: the same threshold at every rung, one number or one for each input.

        The model's own pruning, if it has any, stays on unless `prune` is false.
        """
        rule = rules.shared(score, threshold, len(self.rungs))
        return replace(rule, tokens=self.token_rule if prune else None, deferral=self.deferral)

    def rule_of(self, operating_point: str | OperatingPoint | ExitRule) -> ExitRule:
        """The exit rule that an argument of `predict` stands for; UserError if it is not this model's."""
        if isinstance(operating_point, ExitRule):
            rule = operating_point
        elif operating_point == FULL:
            rule = rules.never(len(self.rungs), self.problem.scores[0])
        else:
            point = operating_point
            if isinstance(point, str):
                point = self.point(point)
            if point.fingerprint != self.manifest.fingerprint:
                raise UserError(f"operating point {point.name!r} was chosen for other weights; choose it again")
            tokens = scaled(self.token_rule, point.pruning)
            rule = replace(rules.of_point(point), tokens=tokens, deferral=self.deferral)
        if rule.thresholds.shape[-1] != len(self.rungs) - 1:
            raise UserError(f"exit rule: {rule.thresholds.shape[-1]} thresholds, the model needs {len(self.rungs) - 1}")
        if any(rule.asked[:-1]):
            self.problem.check_score(rule.score)
        rules.refuse_unreachable(rule)
        return rule

    def refuse_other_inputs(self, rule: ExitRule, n: int) -> None:
        """UserError for a rule with thresholds of its own for each of so many inputs, but not for these n."""
        if rule.thresholds.ndim == 2 and len(rule.thresholds) != n:
            raise UserError(f"exit rule: thresholds for {len(rule.thresholds)} inputs, but there are {n}")

    def point(self, name: str) -> OperatingPoint:
        """The model's operating point of this name, or one from a file (`….json`); UserError where there is none."""
        return read_point(Path(name)) if name.endswith(".json") else self.manifest.operating_point(name)


def _identity(manifest: Manifest) -> tuple[object, ...]:
    """What another model differs in. Operating points may be chosen anew."""
    return manifest.fingerprint, manifest.labels


def _opened_again(kind: type[OpenedModel], source: _Source, identity: tuple[object, ...]) -> OpenedModel:
    """A pickled model; UserError where its folder is gone, or holds another one by now."""
    if not source.folder.is_dir():
        raise UserError(f"{source.folder}: no such folder any more; put the pickled model back there")
    opened = kind.from_pretrained(*source)
    if _identity(opened.manifest) != identity:
        raise UserError(f"{source.folder}: no longer the model that was pickled; open it and pickle it again")
    return opened


def refuse_no_numbers(broken: np.ndarray) -> None:
    """UserError if anything that a model said is no number, (…) bool: finite weights can be so large that sums are not.

    A look at what a call answers, which costs next to nothing, and not at each layer.
    """
    if broken.any():
        raise UserError(
            "the model's weights are broken: they give answers that are no numbers; copy its folder again, or train it "
            "again"
        )
