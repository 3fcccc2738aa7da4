"""Likely mistakes in valid labelled rows: a line each, for a warning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ziggurat.data.cells import ABSENT
from ziggurat.data.dataset import Dataset, Role, as_dataset
from ziggurat.data.labels import labelled, plain
from ziggurat.data.sources import Rows
from ziggurat.types import ProblemType

_FEW = 5  # training rows: a class with fewer is hardly learned
_NEARLY_ALL = 0.99  # share of rows with one label: a model that always predicts it is as accurate
_CLASSES_PER_ROW = 0.5  # with more, the column is likely an index of rows
_LEAST = 20  # rows: with fewer, that check is skipped
_SHOWN = 5  # classes by name
_LONGEST = 60  # characters of a name


def slips(rows: Rows, roles: Mapping[Role, Dataset]) -> list[str]:
    """Slips in rows and the roles that they were given; none where labels are neither classes nor sets of them."""
    train = roles[Role.TRAIN]
    if rows.labels is None or train.labels is None or not np.issubdtype(train.labels.dtype, np.integer):
        return []
    counts = {role: _counts(part) for role, part in roles.items()}
    everywhere: np.ndarray = np.sum(list(counts.values()), axis=0)
    single = train.problem is ProblemType.SINGLE_LABEL
    n, names = int(everywhere.sum()), train.label_names
    if all(text.strip() == str(label).strip() for text, label in zip(rows.texts, rows.labels, strict=True)):
        found = ["each label is the text itself; name the column of the labels with --label-column"]
    elif single and n >= _LEAST and len(names) > _CLASSES_PER_ROW * n:
        found = [f"{len(names):,} classes in {n:,} rows: is this the column of the labels? Name it with --label-column"]
    else:
        found = [*_rare(names, counts[Role.TRAIN], everywhere)]
    found += [*_alike(names), *_absent(names), *_joined(names)]
    if single:
        found += [*_dominant(names, everywhere), *_contradictions(rows, train)]
    return [f"{rows.source}: {slip}" for slip in found]


def _counts(part: Dataset) -> np.ndarray:
    """How many rows have each label, (n_names) int64."""
    n = len(part.label_names)
    if part.labels is None:
        return np.zeros(n, dtype=np.int64)
    known = part.labels[labelled(part.labels)]
    return known.sum(axis=0, dtype=np.int64) if known.ndim == 2 else np.bincount(known, minlength=n)


def _rare(names: Sequence[int | str], train: np.ndarray, everywhere: np.ndarray) -> Iterator[str]:
    absent, few = np.flatnonzero(train == 0), np.flatnonzero((train > 0) & (train < _FEW))
    if len(absent):
        held_out = int(everywhere[absent].sum())
        why = f"; {held_out:,} rows of {_pronoun(absent)} are kept out to choose and to certify" if held_out else ""
        yield f"no training row has label {_named(names, absent)}, so the model cannot learn {_pronoun(absent)}{why}"
    if len(few):
        yield f"fewer than {_FEW} training rows have label {_named(names, few, train)}: hardly enough to learn from"


def _pronoun(places: np.ndarray) -> str:
    return "it" if len(places) == 1 else "them"


def _named(names: Sequence[int | str], places: np.ndarray, counts: np.ndarray | None = None) -> str:
    shown = [_quoted(names[i]) + ("" if counts is None else f" ({counts[i]})") for i in places[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(places) - _SHOWN:,} more" if len(places) > _SHOWN else "")


def _quoted(name: Any) -> str:
    shown = repr(name)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def _alike(names: Sequence[int | str]) -> Iterator[str]:
    """Names that differ only in case or white space."""
    by_plain: dict[str, list[int | str]] = {}
    for name in names:
        by_plain.setdefault(plain(name), []).append(name)
    groups = [found for found in by_plain.values() if len(found) > 1]
    if groups:
        more = f" (and {len(groups) - 1:,} more such groups)" if len(groups) > 1 else ""
        alike = ", ".join(map(_quoted, groups[0][:_SHOWN]))
        yield f"labels {alike} differ in case or white space alone, and are classes apart{more}"


def _absent(names: Sequence[int | str]) -> Iterator[str]:
    """Names that other programs write for a missing label."""
    found = [name for name in names if isinstance(name, str) and name.strip() in ABSENT]
    if found:
        yield f"label {_quoted(found[0])} is a class like any other; if it says there is none, leave the cell empty"


def _joined(names: Sequence[int | str]) -> Iterator[str]:
    """Labels that are several others with a comma or the like between them."""
    known = {str(name).strip() for name in names}
    for name in names:
        for separator in ",;|":
            parts = [part.strip() for part in str(name).split(separator)]
            if len(parts) > 1 and known.issuperset(parts):
                yield (
                    f"label {_quoted(name)} is one label, though {' and '.join(map(_quoted, parts[:2]))} are others; "
                    f"where several may apply write a|b and say --problem {ProblemType.MULTI_LABEL}"
                )
                return


def _dominant(names: Sequence[int | str], counts: np.ndarray) -> Iterator[str]:
    share = counts.max() / max(counts.sum(), 1)
    if share >= _NEARLY_ALL:
        label = _quoted(names[int(counts.argmax())])
        yield f"{100 * share:.4g} % of the rows have label {label}; a model that always says so is as accurate"


def _contradictions(rows: Rows, train: Dataset) -> Iterator[str]:
    """The same text, up to case and white space, under different labels."""
    dataset = as_dataset(rows, Role.TRAIN, train.label_names, train.problem)
    known = np.flatnonzero(labelled(dataset.labels_or_none))
    order = known[np.lexsort((dataset.labels_or_none[known], dataset.hashes[known]))]
    hashes, classes = dataset.hashes[order], dataset.labels_or_none[order]
    apart = np.flatnonzero((hashes[1:] == hashes[:-1]) & (classes[1:] != classes[:-1]))
    if len(apart):
        n = len(np.unique(hashes[apart]))
        labels, pair = rows.labels or [], sorted(order[[apart[0], apart[0] + 1]].tolist())
        first, second = (f"{rows.place(row)} ({_quoted(labels[row])})" for row in pair)
        texts = "a text has" if n == 1 else f"{n:,} texts have"
        yield f"{texts} different labels in different rows, as in {first} and {second}"
