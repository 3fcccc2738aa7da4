"""What labels ask, and what arrays they become: classes, sets of labels, numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.data import Fractions, Role, Rows, as_dataset, label_array, names_of, problem_of, read_rows, split_roles
from ziggurat.data.labels import VALUE, label_keys, labelled, unlabelled
from ziggurat.errors import UserError
from ziggurat.types import ProblemType

repeatable = settings(derandomize=True, deadline=None, max_examples=60)


def rows(labels: list) -> Rows:
    return Rows([f"text {i}" for i in range(len(labels))], None, labels, "here")


def written(folder: Path, name: str, labels: list) -> str:
    """A file with one row for each label, as it would be written there."""
    path = folder / name
    if name.endswith(".csv"):
        path.write_text("text,label\n" + "".join(f"text {i},{label}\n" for i, label in enumerate(labels)))
    else:
        lines = [json.dumps({"text": f"text {i}", "label": label}) for i, label in enumerate(labels)]
        path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("name", "labels", "problem"),
    [
        ("a.jsonl", [5.0, 3.8, 4], ProblemType.REGRESSION),
        ("a.csv", ["5", "3.8", "-0.25"], ProblemType.REGRESSION),
        ("a.jsonl", [3, 5, 4], ProblemType.SINGLE_LABEL),
        ("a.csv", ["3", "5"], ProblemType.SINGLE_LABEL),
        ("a.csv", ["3.8", "b"], ProblemType.SINGLE_LABEL),
        ("a.csv", ["True", "false"], ProblemType.SINGLE_LABEL),
        ("a.csv", ["007.5", "2.5"], ProblemType.SINGLE_LABEL),
        ("a.jsonl", [["a", "b"], [], ["b"]], ProblemType.MULTI_LABEL),
        ("a.csv", ["a|b", "b"], ProblemType.SINGLE_LABEL),
    ],
)
def test_a_column_says_what_it_asks(tmp_path, name, labels, problem):
    assert problem_of(read_rows(written(tmp_path, name, labels))) is problem


def test_what_the_user_says_goes_first():
    assert problem_of(rows([1, 2]), ProblemType.REGRESSION) is ProblemType.REGRESSION
    assert label_array(rows([1, 2]), (VALUE,), ProblemType.REGRESSION).tolist() == [1.0, 2.0]


def test_labels_in_a_csv_cell_are_split_at_bars(tmp_path):
    found = read_rows(written(tmp_path, "a.csv", ["b | a", "a", "|"]))
    names = names_of(found, ProblemType.MULTI_LABEL)
    assert names == ("a", "b")
    assert label_array(found, names, ProblemType.MULTI_LABEL).tolist() == [[1, 1], [1, 0], [0, 0]]


@repeatable
@given(st.lists(st.one_of(st.none(), st.sets(st.sampled_from("abcd"))), min_size=1))
def test_a_set_of_labels_survives_and_none_means_unlabelled(sets):
    names = tuple("abcd")
    table = label_array(rows([None if one is None else tuple(one) for one in sets]), names, ProblemType.MULTI_LABEL)
    if table is None:
        table = unlabelled(len(sets), 4, ProblemType.MULTI_LABEL)
    assert labelled(table).tolist() == [one is not None for one in sets]
    back = [{name for name, yes in zip(names, row, strict=True) if yes == 1} for row in table]
    assert back == [one or set() for one in sets]


@repeatable
@given(st.lists(st.one_of(st.none(), st.floats(-9, 9)), min_size=1))
def test_numbers_stay_as_they_are_and_negative_ones_are_labels(numbers):
    values = label_array(rows(numbers), (VALUE,), ProblemType.REGRESSION)
    values = unlabelled(len(numbers), 1, ProblemType.REGRESSION) if values is None else values
    assert labelled(values).tolist() == [number is not None for number in numbers]
    assert values[labelled(values)].tolist() == [number for number in numbers if number is not None]


def test_keys_tell_labels_apart():
    classes = np.array([2, 0, -1])
    assert label_keys(classes) is classes
    assert len(set(label_keys(np.array([0.5, 0.25, 0.5, np.nan])).tolist())) == 3
    assert len(set(label_keys(np.array([[0, 1], [1, 0], [0, 1]], dtype=np.int8)).tolist())) == 2


@pytest.mark.parametrize(
    ("labels", "problem", "message"),
    [
        ([3.8, "a"], None, "row 2: label 'a' is not a number"),
        ([1.0, 2.0], None, "whole numbers written as decimals.*--problem regression"),
        (["a", 3.8], ProblemType.SINGLE_LABEL, r"mix numbers \(3.8\) and strings \('a'\)"),
        (["a", ("a", "b")], ProblemType.SINGLE_LABEL, "row 2: a list of labels"),
        ([("a",), 3.8], ProblemType.MULTI_LABEL, "row 2: .*is no list of labels"),
        ([("a",), (True, False)], ProblemType.MULTI_LABEL, r"row 2: \[True, False\] is no list of labels"),
        ([(0, 1), (1, 0)], None, r"row 1: \[0, 1\] is no list of labels; write the names .* and no vector"),
        ([("a",), (0, 1, 0)], ProblemType.MULTI_LABEL, r"row 2: \[0, 1, 0\] is no list of labels; write the names"),
        ([("a", "b"), ("a", "a")], ProblemType.MULTI_LABEL, "each once"),
        ([(1,), ("a",)], ProblemType.MULTI_LABEL, "mix"),
        ([("a", "b")], ProblemType.REGRESSION, "row 1: label .* is not a number"),
    ],
)
def test_labels_of_another_problem_are_refused_with_their_row(labels, problem, message):
    given_rows = rows(labels)
    with pytest.raises(UserError, match=message) as caught:
        names_of(given_rows, problem_of(given_rows, problem))
    assert "\n" not in str(caught.value)


def test_a_model_is_measured_on_its_own_labels_alone():
    with pytest.raises(UserError, match=r"row 2: unknown label 'c'; the known ones are 'a', 'b'"):
        as_dataset(rows([("a",), ("b", "c")]), Role.TEST, ("a", "b"), ProblemType.MULTI_LABEL)
    with pytest.raises(UserError, match="row 2 has no label"):
        as_dataset(rows([0.5, None]), Role.TEST, (VALUE,), ProblemType.REGRESSION)
    numbers = as_dataset(rows([0.5, 1.5]), Role.TEST, (VALUE,), ProblemType.REGRESSION)
    with pytest.raises(UserError, match="about classes"):
        _ = numbers.classes
    assert numbers.truth.tolist() == [0.5, 1.5]


@pytest.mark.parametrize("problem", [ProblemType.REGRESSION, ProblemType.MULTI_LABEL])
def test_roles_share_out_numbers_and_sets_as_they_do_classes(problem):
    labels = [i / 4 if problem is ProblemType.REGRESSION else (str(i % 3),) for i in range(400)]
    sets = split_roles(rows([*labels, None]), Fractions(0.6, 0.2, 0.2, 0.0))
    assert {part.problem for part in sets.values()} == {problem}
    assert sum(map(len, sets.values())) == 401
    assert labelled(sets[Role.TRAIN].labels).sum() == len(sets[Role.TRAIN]) - 1
    assert sets[Role.SELECT].digest != sets[Role.SELECT].take(np.arange(5)).digest
