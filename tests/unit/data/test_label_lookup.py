"""A row's label is found under every spelling of its class's name, and under nothing else."""

import numpy as np
import pytest

from ziggurat.data import Rows, label_array
from ziggurat.data.labels import Called, is_unnamed
from ziggurat.errors import UserError
from ziggurat.types import ProblemType


@pytest.mark.parametrize("names", [(0, 1, 2), ("0", "1", "2"), ("LABEL_0", "LABEL_1", "LABEL_2")])
def test_unnamed_classes_answer_to_numbers_and_label_n(names):
    found = [Called(names).find(label) for label in (2, "2", "LABEL_2", "label_2", 3, "LABEL_3", "two")]
    assert found == [2, 2, 2, 2, None, None, None]


def test_case_does_not_count_unless_names_differ_by_it_alone():
    called = Called(("Sport", "us", "US"))
    assert [called.find(label) for label in ("sport", "SPORT", "us", "US", "Us")] == [0, 0, 1, 2, None]
    assert Called(("False", "True")).find(True) == Called(("False", "True")).find("true") == 1


def test_a_number_is_no_place_among_names():
    assert [Called(("sport", "food")).find(label) for label in (0, "1", "LABEL_1")] == [None] * 3
    # Names that are numbers, counted from 1 or in another order, are names.
    assert [Called((1, 2, 3)).find(label) for label in (1, "3", "LABEL_1", 0)] == [0, 2, None, None]
    assert [Called(("1", "0")).find(label) for label in (1, 0)] == [0, 1]
    assert [Called(("LABEL_1", "LABEL_0")).find(label) for label in ("LABEL_1", 1)] == [0, None]
    rows = Rows(["a", "b"], None, ["food", 1], "rows.csv")
    with pytest.raises(UserError, match=r"unknown label 1; .* 'food'; a number is not taken for a place among names"):
        label_array(rows, ("sport", "food"), ProblemType.SINGLE_LABEL)


def test_two_classes_of_one_name_are_refused():
    rows = Rows(["a", "b"], None, ["other", "food"], "rows.csv")
    for problem in (ProblemType.SINGLE_LABEL, ProblemType.MULTI_LABEL):
        with pytest.raises(UserError, match="classes 0, 2 have one name, 'other'; give each a name of its own"):
            label_array(rows, ("other", "food", "other"), problem)


def test_spellings_become_the_same_indices():
    rows = Rows(["a", "b", "c", "d"], None, ["LABEL_1", 1, "0", None], "rows.csv")
    assert label_array(rows, (0, 1), ProblemType.SINGLE_LABEL).tolist() == [1, 1, 0, -1]
    rows = Rows(["a", "b"], None, [("label_0", 2), ()], "rows.csv")
    assert np.array_equal(label_array(rows, (0, 1, 2), ProblemType.MULTI_LABEL), [[1, 0, 1], [0, 0, 0]])


def test_what_is_named_is_told_from_what_is_not():
    assert is_unnamed((None, "LABEL_1", 2)) and is_unnamed(("0", 1))
    assert not is_unnamed((False, True)) and not is_unnamed((1, 2)) and not is_unnamed(("LABEL_0", "spam"))
