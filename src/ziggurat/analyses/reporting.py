"""Common parts of all analyses: models with their rows, settings, and the files of a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.analyses.measured import Measured
from ziggurat.analyses.settings import Exits, Passes, settings_of
from ziggurat.data.dataset import Dataset
from ziggurat.data.sources import DEFAULT_COLUMNS, Columns
from ziggurat.data.tokenizer import Encoded
from ziggurat.engine.backend import AllRungs
from ziggurat.engine.opened import OpenedModel
from ziggurat.engine.replay import replay
from ziggurat.errors import UserError
from ziggurat.files import require_target, whole_file
from ziggurat.measure.subject import ModelOptions, check_classifies, data_and_split, rows_to_measure, seen_in_training
from ziggurat.measure.targets import folder_of
from ziggurat.policies.rules import ExitRule
from ziggurat.report.columns import COLUMNS, PART_COLUMNS, filled
from ziggurat.report.plots import Panel, accuracy_figure, require_matplotlib
from ziggurat.report.tables import csv_text, markdown
from ziggurat.system import cached_property, json_values, legible, utf8

SUFFIXES = (".md", ".csv", ".png", ".svg")  # of a report's files


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and the rows that it is measured on."""

    name: str  # in tables and figures
    model: str  # folder or hub name
    classifier: OpenedModel
    rows: Dataset
    encoded: Encoded
    batch_size: int
    progress: bool

    @property
    def n_rungs(self) -> int:
        """Number of rungs."""
        return len(self.classifier.rungs)

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row in tokens, (n)."""
        return self.classifier.problem.lengths(self.encoded)

    @property
    def lengths_are(self) -> str:
        """A sentence that explains `lengths`."""
        return self.classifier.problem.lengths_are

    @property
    def cut(self) -> np.ndarray:
        """Rows that are cut to the maximum length, (n) bool."""
        return self.encoded.truncated

    @property
    def most(self) -> int:
        """Maximum length of a row in tokens."""
        return self.classifier.problem.longest(self.classifier.manifest.max_length)

    @cached_property
    def every_rung(self) -> Passes[AllRungs]:
        """Answers of all rungs, with the model's pruning at any strength, or without."""
        return Passes(partial(self.classifier.every_rung, self.encoded, self.batch_size, self.progress))

    @cached_property
    def full(self) -> Measured:
        """Results at full depth without pruning."""
        return self.measured(ExitRule.full_depth(self.n_rungs))

    def measured(self, rule: ExitRule) -> Measured:
        """Results of a rule, with the model's pruning at any strength, or without."""
        return exits_replayed(self, self.every_rung(rule.tokens), rule)

    def settings(self, exits: Exits) -> Mapping[str, ExitRule]:
        """`settings_of` this model."""
        return settings_of(self.classifier, exits)

    def run(self, rows: np.ndarray, rule: ExitRule) -> Callable[[], object]:
        """A function to time: runs a rule on these rows, (m) indices."""
        return partial(self.classifier.run, self.encoded.take(rows), rule, self.batch_size)


def exits_replayed(subject: Subject, runs: AllRungs, rule: ExitRule) -> Measured:
    """Results of `rule` for each row, replayed from a run of all rungs with the rule's pruning."""
    classifier, encoded, rows = subject.classifier, subject.encoded, np.arange(len(subject.rows))
    rungs = replay(runs.readings, rule)
    remaining = encoded.summed(classifier.ran(encoded, runs.token_counts, rungs, rule))
    problem, truth = classifier.problem, subject.rows.truth
    predictions = problem.predictions(runs.readings[rows, rungs], encoded, rungs)
    return Measured(
        predictions,
        problem.right(predictions, truth),
        (remaining[:, classifier.layer_columns] > 0).sum(axis=1),
        remaining,
        classifier.flops(encoded, runs.token_counts, rule)[rows, rungs],
        partial(problem.figures, predictions, truth),
    )


@dataclass(frozen=True)
class Request:
    """Arguments of all analyses: models, rows, output folder."""

    models: Sequence[str]
    source: str
    out: Path  # folder
    names: Sequence[str] = ()  # of the models, in tables and figures; default: names of their folders
    columns: Columns = DEFAULT_COLUMNS
    options: ModelOptions = ModelOptions()
    progress: bool = False

    def subjects(self, *checks: Callable[[str], None]) -> Iterator[Subject]:
        """`of_any_problem` for analyses of classes only; UserError for other models."""
        yield from self.of_any_problem(partial(check_classifies, command="report"), *checks)

    def of_any_problem(self, *checks: Callable[[str], None]) -> Iterator[Subject]:
        """Opens the models one by one; UserError for duplicate names.

        `checks` are called with every model before the first is opened; they raise a UserError for unsuitable ones.
        """
        names = list(self.names) or [Path(model).name for model in self.models]
        if len(names) != len(self.models):
            raise UserError(f"--name: {len(names)} names for {len(self.models)} models; give one for each")
        if doubled := [name for name in names if names.count(name) > 1]:
            raise UserError(f"two models are called {doubled[0]!r}; tell them apart with --name, one for each")
        require_matplotlib()
        self._check_targets()
        for check in checks:
            for model in self.models:
                check(model)
        for model in self.models[1:]:  # checked before the first is measured
            rows_to_measure(self.options.open(model), self.source, self.columns)
        for model, name in zip(self.models, names, strict=True):
            classifier = self.options.open(model)
            rows = rows_to_measure(classifier, self.source, self.columns)
            encoded = classifier.encode_rows(rows)
            yield Subject(name, model, classifier, rows, encoded, self.options.batch_size, self.progress)

    def _check_targets(self) -> None:
        """UserError if a file of the report cannot be written, or would overwrite an input."""
        for kind in (*COLUMNS, *PART_COLUMNS):
            for suffix in SUFFIXES:
                require_target(self.out / f"{kind}{suffix}", folder_of(self.source))

    @property
    def data(self) -> str:
        """Name of the rows in titles."""
        return " ".join(data_and_split(self.source))


def caveats(subject: Subject) -> list[str]:
    """Warnings about the subject's figures: rows that trained it, texts that were cut."""
    notes, n = [], len(subject.rows)
    if trained := seen_in_training(subject.model, subject.rows):
        notes.append(
            f"Warning: {trained:,} of the {n:,} rows trained {subject.name} or chose something for it; "
            "its accuracy flatters."
        )
    if cut := int(subject.cut.sum()):
        notes.append(f"{cut:,} of the {n:,} texts are longer than the {subject.most} tokens that {subject.name} reads.")
    return notes


@dataclass(frozen=True)
class Part:
    """A further table of a report."""

    name: str  # suffix of its file name and of its key in `PART_COLUMNS`
    heading: str
    rows: Sequence[dict[str, Any]]

    def kind(self, report: str) -> str:
        """Name of its file and columns in a report of this kind."""
        return f"{report}-{self.name}"


@dataclass(frozen=True)
class Report:
    """A report that was written."""

    kind: str  # which analysis
    title: str
    rows: Sequence[Mapping[str, Any]]  # of its table; `report.columns` has the columns with their units
    notes: tuple[str, ...]
    files: tuple[Path, ...]  # tables, then figures
    parts: tuple[Part, ...] = ()  # further tables

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values = dict(json_values(self))
        return values if self.parts else {key: value for key, value in values.items() if key != "parts"}


def write_report(
    out: Path,
    kind: str,
    title: str,
    rows: Sequence[dict[str, Any]],
    notes: Sequence[str],
    panels: Sequence[Panel] = (),
    parts: Sequence[Part] = (),
) -> Report:
    """Writes `out`/`kind`.md and .csv, with panels also .png and .svg.

    Further tables are in the same .md, and each in a separate .csv. An earlier report of this kind is replaced.
    """
    columns, base = filled(kind, rows), out / kind
    text = f"# {legible(title)}\n\n{markdown(rows, columns)}\n"
    contents = {base.with_suffix(".csv"): csv_text(rows, columns)}
    for part in parts:
        columns = filled(part.kind(kind), part.rows)
        text += f"## {legible(part.heading)}\n\n{markdown(part.rows, columns)}\n"
        contents[out / f"{part.kind(kind)}.csv"] = csv_text(part.rows, columns)
    text += "".join(f"- {legible(note)}\n" for note in notes)
    contents = {base.with_suffix(".md"): text} | contents
    for path, content in contents.items():
        with whole_file(path) as temporary:
            temporary.write_bytes(utf8(content))
    files = list(contents)
    if panels:
        files += accuracy_figure(panels, title, base)
    return Report(kind, title, rows, tuple(notes), tuple(files), tuple(parts))
