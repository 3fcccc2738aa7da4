"""A model of questions and the questions that it is measured on, for analyses by length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from ziggurat.analyses.measured import Measured
from ziggurat.analyses.settings import Exits, Passes, settings_of
from ziggurat.data.dataset import Role
from ziggurat.data.squad import Questions, read_questions
from ziggurat.data.windows import Windows
from ziggurat.engine.backend import AllRungs
from ziggurat.engine.questions import QuestionAnswerer
from ziggurat.engine.replay import replay
from ziggurat.measure.subject import ModelOptions
from ziggurat.policies.rules import ExitRule
from ziggurat.report.squad_metrics import grades
from ziggurat.system import cached_property


@dataclass(frozen=True, eq=False)
class QuestionSubject:
    """What `reporting.Subject` is for classifiers."""

    name: str  # in tables and figures
    model: str  # folder or hub name
    classifier: QuestionAnswerer
    rows: Questions
    encoded: Windows
    batch_size: int
    progress: bool

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each question's context, (n): what windows share counts once."""
        counts = np.array([len(places) for places in self.encoded.places], dtype=np.int64)
        shared = self.classifier.config.stride * (np.diff(self.encoded.edges) - 1)
        lengths: np.ndarray = np.add.reduceat(counts, self.encoded.edges[:-1]) - shared
        return lengths

    @property
    def cut(self) -> np.ndarray:
        """Which questions it does not read whole, (n) bool; contexts it does."""
        return self.encoded.truncated

    @property
    def most(self) -> int:
        """Tokens that it reads of a question at most."""
        return self.classifier.config.question

    @cached_property
    def full(self) -> Measured:
        """At full depth, all tokens."""
        return self.measured(ExitRule.full_depth(len(self.classifier.rungs)))

    def settings(self, exits: Exits) -> Mapping[str, ExitRule]:
        """As `settings_of`."""
        return settings_of(self.classifier, exits)

    def run(self, rows: np.ndarray, rule: ExitRule) -> Callable[[], object]:
        """What is timed: a rule on these questions, (m) indices."""
        return partial(self.classifier.run, self.encoded.take(rows), rule, self.batch_size)

    def measured(self, rule: ExitRule) -> Measured:
        """What a rule with the model's own pruning or none makes of the questions; tokens are of all windows."""
        answerer, everyone = self.classifier, np.arange(len(self.rows))
        every = self._every_rung(rule.tokens)
        rungs = replay(every.readings, rule)
        said = answerer.texts(self.encoded, every.readings[everyone, rungs], rungs)
        golds = [[text for text, _ in some] for some in self.rows.golds]
        exact, f1 = grades([text for text, _, _ in said], golds)
        layers = answerer.depths[rungs]
        ran = np.arange(every.kept.shape[1]) <= layers[self.encoded.owners][:, None]
        return Measured(
            np.array([text for text, _, _ in said]),
            exact > 0,
            layers,
            np.add.reduceat(every.kept * ran, self.encoded.edges[:-1], axis=0),
            answerer.spent(self.encoded, every.kept, rule)[everyone, rungs],
            lambda chosen: {"f1": float(f1[chosen].mean()), "exact_match": float(exact[chosen].mean())},
        )

    @cached_property
    def _every_rung(self) -> Passes[AllRungs]:
        return Passes(partial(self.classifier.every_rung, self.encoded, self.batch_size, self.progress))


def question_subject(name: str, model: str, source: str, options: ModelOptions, progress: bool) -> QuestionSubject:
    """The model opened, with a source's questions; UserError for questions without answers."""
    answerer, rows = options.open_questions(model), read_questions(source, Role.TEST)
    windows = answerer.encode(rows.texts, rows.contexts)
    return QuestionSubject(name, model, answerer, rows, windows, options.batch_size, progress)
