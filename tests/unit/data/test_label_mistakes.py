"""What in labels is likely a slip: one line that names it, and none for rows in which all is well."""

from __future__ import annotations

import pytest

from ziggurat.data import Fractions, Role, Rows, split_roles
from ziggurat.data.slips import slips


def found(labels, texts=None, fractions=Fractions()):
    rows = Rows(texts or [f"text number {i}" for i in range(len(labels))], None, labels, "rows.csv")
    said = slips(rows, split_roles(rows, fractions))
    assert all(line.startswith("rows.csv: ") and "\n" not in line for line in said)
    return [line.removeprefix("rows.csv: ") for line in said]


CALM = ["a", "b", "c", "a"] * 60


@pytest.mark.parametrize("labels", [CALM, [1, 0] * 90, [("a", "b"), (), ("b",)] * 60, [0.5, 2.5] * 90])
def test_of_plain_labels_nothing_is_said(labels):
    assert found(labels) == []


def test_a_class_without_training_rows_is_named_with_the_reason():
    texts = [f"text number {i}" for i in range(len(CALM))]
    roles = split_roles(Rows(texts, None, CALM, "rows.csv"), Fractions())
    kept_out = next(i for i, text in enumerate(texts) if text in roles[Role.CERTIFY].texts)
    trained = next(i for i, text in enumerate(texts) if text in roles[Role.TRAIN].texts)
    said = found([{kept_out: "rare", trained: "few"}.get(i, label) for i, label in enumerate(CALM)])
    assert len(said) == 2
    assert "no training row has label 'rare'" in said[0] and "1 rows of it are kept out" in said[0]
    assert "fewer than 5 training rows have label 'few' (1)" in said[1]


def test_a_label_that_applies_to_no_training_row_is_named():
    texts = [f"text number {i}" for i in range(120)]
    places = Rows(texts, None, ["a", "b"] * 60, "rows.csv")
    kept_out = split_roles(places, Fractions())[Role.SELECT].texts[0]
    said = found([("a", "rare") if text == kept_out else ("a",) for text in texts])
    assert len(said) == 1 and "no training row has label 'rare'" in said[0]


@pytest.mark.parametrize("pair", [("food", "Food"), ("food", "food "), ("a  b", "a b")])
def test_labels_that_differ_in_case_or_white_space_are_named(pair):
    (said,) = found([*pair, "x"] * 60)
    assert f"labels {', '.join(map(repr, sorted(pair)))} differ in case or white space" in said


def test_a_column_of_numbers_of_rows_is_no_column_of_labels():
    (said,) = found([f"id-{i}" for i in range(200)])
    assert "200 classes in 200 rows" in said and "--label-column" in said
    (said,) = found([f"text number {i}" for i in range(200)])
    assert "each label is the text itself" in said


def test_one_label_for_nearly_all_rows_is_said_with_its_share():
    said = found(["yes"] * 1990 + ["no"] * 10)
    assert len(said) == 1 and "99.5 % of the rows have label 'yes'" in said[0]


def test_one_text_under_two_labels_is_named_with_both_places():
    texts = [f"text number {i}" for i in range(len(CALM))]
    texts[7] = texts[4].upper() + " "
    (said,) = found([{4: "a", 7: "c"}.get(i, label) for i, label in enumerate(CALM)], texts)
    assert said.startswith("a text has different labels") and "row 5 ('a') and rows.csv: row 8 ('c')" in said


@pytest.mark.parametrize("absent", ["nan", "N/A", "None", "<NA>", "-", "?"])
def test_a_class_that_others_write_for_no_label_is_named(absent):
    (said,) = found(["a", "b", absent] * 60)
    assert f"label {absent!r} is a class like any other" in said and "leave the cell empty" in said


@pytest.mark.parametrize("separator", [",", "; ", "|"])
def test_labels_with_a_separator_between_them_are_named(separator):
    joined = f"a{separator}b"
    (said,) = found(["a", "b", joined] * 60)
    assert f"label {joined!r} is one label" in said and "write a|b" in said
    assert found(["a", "c", joined] * 60) == []  # "b" is no label
