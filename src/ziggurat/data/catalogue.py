"""Data sets with a name: GLUE, SQuAD, and the topics and reviews of Zhang et al. 2015.

Data sets by name: a source `task:NAME@SPLIT` is one on the hub, `task:NAME@SPLIT:FOLDER` one in a local folder.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ziggurat.errors import UserError
from ziggurat.types import ProblemType


@dataclass(frozen=True)
class Shape:
    """Columns of texts and labels."""

    texts: tuple[str, ...]  # joined by a space to the text, or the first text of a pair
    pair: str | None = None  # the second text
    label: str = "label"
    first: int = 0  # number of the first class, where classes are numbers


@dataclass(frozen=True)
class Release:
    """Format of the files of the original release, one for each split."""

    folder: str  # the folder into which they are unpacked
    shape: Shape
    suffix: str  # .tsv: cells without quoting; .csv: RFC 4180; .json: SQuAD's
    header: tuple[str, ...] | None = None  # names of columns, if the files lack a header
    version: str = ""  # at the end of the files' names


@dataclass(frozen=True)
class Task:
    """A data set and its question."""

    name: str
    hub: str
    config: str | None
    shape: Shape  # on the hub
    names: tuple[str, ...]  # of class 0, 1, …; () = no classes
    metrics: tuple[str, ...]  # its usual metrics
    release: Release
    splits: tuple[str, ...]  # on the hub
    problem: ProblemType = ProblemType.SINGLE_LABEL
    escaped: bool = False  # line ends and quotes in texts are written \n and \"

    @property
    def evaluation(self) -> str:
        """The split for comparing models: the first one with public labels that is not for training."""
        return next((split for split in self.splits if split.startswith("validation")), "test")


_GLUE = "nyu-mll/glue"
_SPLITS = ("train", "validation", "test")


def _glue(
    config: str,
    folder: str,
    shape: Shape,
    names: tuple[str, ...],
    *metrics: str,
    release: Shape | None = None,
    header: tuple[str, ...] | None = None,
    splits: tuple[str, ...] = _SPLITS,
    problem: ProblemType = ProblemType.SINGLE_LABEL,
) -> Task:
    files = Release(folder, shape if release is None else release, ".tsv", header)
    return Task(f"glue/{config}", _GLUE, config, shape, names, metrics, files, splits, problem)


def _squad(name: str, version: str) -> Task:
    shape = Shape(("question",), "context", "answers")
    release = Release(name, shape, ".json", version=version)
    return Task(
        name, f"rajpurkar/{name}", None, shape, (), (), release, ("train", "validation"), ProblemType.QUESTION_ANSWERING
    )


def _zhang(
    name: str,
    hub: str,
    folder: str,
    shape: Shape,
    columns: tuple[str, ...],
    names: tuple[str, ...],
    escaped: bool = False,
) -> Task:
    """A set of Zhang et al. 2015: files without a header, the class from 1 first, then the texts."""
    release = Release(folder, Shape(columns, label="class", first=1), ".csv", ("class", *columns))
    return Task(name, hub, None, shape, names, ("accuracy",), release, ("train", "test"), escaped=escaped)


_PAIR = Shape(("sentence1",), "sentence2")
_ENTAILED = ("entailment", "not_entailment")
_STARS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")
# Classes in the hub's order, which for GLUE is the official one: F1 is about the second class.
_ALL = (
    _glue(
        "cola",
        "CoLA",
        Shape(("sentence",)),
        ("unacceptable", "acceptable"),
        "mcc",
        header=("source", "label", "mark", "sentence"),
    ),
    _glue("sst2", "SST-2", Shape(("sentence",)), ("negative", "positive"), "accuracy"),
    _glue(
        "mrpc",
        "MRPC",
        _PAIR,
        ("not_equivalent", "equivalent"),
        "accuracy",
        "f1",
        release=Shape(("#1 String",), "#2 String", "Quality"),
    ),
    _glue(
        "qqp",
        "QQP",
        Shape(("question1",), "question2"),
        ("not_duplicate", "duplicate"),
        "accuracy",
        "f1",
        release=Shape(("question1",), "question2", "is_duplicate"),
    ),
    _glue(
        "stsb",
        "STS-B",
        _PAIR,
        (),
        "pearson",
        "spearman",
        release=Shape(("sentence1",), "sentence2", "score"),
        problem=ProblemType.REGRESSION,
    ),
    _glue(
        "mnli",
        "MNLI",
        Shape(("premise",), "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        "accuracy",
        release=Shape(("sentence1",), "sentence2", "gold_label"),
        splits=("train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched"),
    ),
    _glue("qnli", "QNLI", Shape(("question",), "sentence"), _ENTAILED, "accuracy"),
    _glue("rte", "RTE", _PAIR, _ENTAILED, "accuracy"),
    _glue("wnli", "WNLI", _PAIR, ("not_entailment", "entailment"), "accuracy"),
    _squad("squad", "v1.1"),
    _squad("squad_v2", "v2.0"),
    _zhang(
        "ag_news",
        "fancyzhx/ag_news",
        "ag_news_csv",
        Shape(("text",)),
        ("title", "description"),
        ("World", "Sports", "Business", "Sci/Tech"),
    ),
    _zhang(
        "yelp_polarity",
        "fancyzhx/yelp_polarity",
        "yelp_review_polarity_csv",
        Shape(("text",)),
        ("text",),
        ("negative", "positive"),
        escaped=True,
    ),
    _zhang(
        "yelp_review_full",
        "Yelp/yelp_review_full",
        "yelp_review_full_csv",
        Shape(("text",)),
        ("text",),
        _STARS,
        escaped=True,
    ),
    _zhang(
        "dbpedia_14",
        "fancyzhx/dbpedia_14",
        "dbpedia_csv",
        Shape(("title", "content")),
        ("title", "content"),
        (
            "Company",
            "EducationalInstitution",
            "Artist",
            "Athlete",
            "OfficeHolder",
            "MeanOfTransportation",
            "Building",
            "NaturalPlace",
            "Village",
            "Animal",
            "Plant",
            "Album",
            "Film",
            "WrittenWork",
        ),
    ),
    _zhang(
        "yahoo_answers_topics",
        "community-datasets/yahoo_answers_topics",
        "yahoo_answers_csv",
        Shape(("question_title", "question_content", "best_answer"), label="topic"),
        ("question_title", "question_content", "best_answer"),
        (
            "Society & Culture",
            "Science & Mathematics",
            "Health",
            "Education & Reference",
            "Computers & Internet",
            "Sports",
            "Business & Finance",
            "Entertainment & Music",
            "Family & Relationships",
            "Politics & Government",
        ),
        escaped=True,
    ),
    _zhang(
        "amazon_review_full",
        "yassiracharki/Amazon_Reviews_for_Sentiment_Analysis_fine_grained_5_classes",  # no official copy exists
        "amazon_review_full_csv",
        Shape(("review_title", "review_text"), label="class_index", first=1),
        ("title", "text"),
        _STARS,
        escaped=True,
    ),
)
TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _ALL})


PREFIX = "task:"
TRAIN = "train"


@dataclass(frozen=True)
class Named:
    """One split of a task, from the hub or a folder."""

    task: Task
    split: str
    folder: Path | None  # None = from the hub

    @property
    def source(self) -> str:
        """Its source string, as users write it."""
        return f"{PREFIX}{self.task.name}@{self.split}" + ("" if self.folder is None else f":{self.folder}")


def task_by_name(name: str) -> Task:
    """A task of `TASKS`; UserError names the nearest, or all."""
    if name in TASKS:
        return TASKS[name]
    nearest = difflib.get_close_matches(name, TASKS, 1) or [known for known in TASKS if known.endswith(f"/{name}")]
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(TASKS)}"
    raise UserError(f"task {name!r} is not known; {hint}")


def task_source(name: str, training: bool, folder: str | None = None) -> str:
    """The source of NAME or NAME@SPLIT; the split defaults to the training or the evaluation split."""
    plain, _, split = name.partition("@")
    task = task_by_name(plain)
    place = None if folder is None else Path(folder)
    return _checked(Named(task, split or (TRAIN if training else task.evaluation), place)).source


def parse_source(source: object) -> Named | None:
    """The task, split and folder of a source; None for other sources, UserError for an unknown task or split."""
    if not isinstance(source, str) or not source.startswith(PREFIX):
        return None
    name, _, rest = source.removeprefix(PREFIX).partition("@")
    split, _, folder = rest.partition(":")
    return _checked(Named(task_by_name(name), split, Path(folder) if folder else None))


def task_of(source: object) -> Task | None:
    """The task of a source; None if it has none, also for unknown sources that an older version wrote."""
    try:
        found = parse_source(source)
    except UserError:
        return None
    return None if found is None else found.task


def _checked(named: Named) -> Named:
    if named.split not in named.task.splits:
        splits = ", ".join(named.task.splits)
        missing = f"no split {named.split!r}; it has" if named.split else "no split named; write @ and one of"
        raise UserError(f"task {named.task.name!r}: {missing} {splits}")
    return named
