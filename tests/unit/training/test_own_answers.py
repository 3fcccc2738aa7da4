"""Labels that do not fit a checkpoint's answers are noticed, and weak answers are not taken for that."""

import numpy as np

from ziggurat.training.own_answers import exchanged


def answers(table):
    """Pairs of answer and label, as often as the table (n_classes, n_classes) says: answers by rows."""
    said, true = np.nonzero(np.array(table) >= 0)
    counts = np.array(table).ravel()
    return np.repeat(said, counts), np.repeat(true, counts), len(table)


def test_classes_that_have_each_others_names_are_found():
    assert exchanged(*answers([[3, 30], [25, 4]])) == [0, 1]
    assert exchanged(*answers([[40, 2, 3], [1, 5, 20], [2, 31, 4]])) == [1, 2]
    assert exchanged(*answers([[0, 20, 0], [1, 2, 20], [20, 3, 0]])) == [0, 1, 2]


def test_right_answers_weak_ones_and_few_rows_are_no_exchange():
    assert exchanged(*answers([[30, 3], [4, 25]])) == []
    # Nine of ten rows have class 0, and most of those that are called 1 are 0 as well.
    assert exchanged(*answers([[900, 60], [30, 10]])) == []
    # Class 2 is never answered, 1 is mostly 0.
    assert exchanged(*answers([[40, 9, 9], [12, 3, 0], [0, 0, 0]])) == []
    assert exchanged(*answers([[0, 4], [4, 0]])) == []
    assert exchanged(np.zeros(0, dtype=int), np.zeros(0, dtype=int), 3) == []
