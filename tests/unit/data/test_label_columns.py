"""Labels in files as people have them: the same classes in every format, lists, columns of 0 and 1."""

from __future__ import annotations

import pytest

from ziggurat.data import Columns, label_array, names_of, problem_of, read_rows
from ziggurat.errors import UserError
from ziggurat.types import ProblemType


def found(source, *columns, **options):
    rows = read_rows(str(source), Columns(*columns, **options))
    return rows.texts, rows.labels


def refusal(source, *columns, **options) -> str:
    with pytest.raises(UserError) as caught:
        read_rows(str(source), Columns(*columns, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- labels ---------------------------------------------------------------------------------------------------------


def classes(source, columns, problem=None):
    """Names of the classes, and each row's."""
    rows = read_rows(source, columns)
    problem = problem_of(rows, problem)
    names = rows.label_names or names_of(rows, problem)
    return names, label_array(rows, names, problem).tolist()


def written_alike(write, labels):
    """The same labels in JSON and in CSV."""
    return [
        write("a.jsonl", [{"text": "a", "label": label} for label in labels]),
        write("a.csv", "text,label\n" + "".join(f"a,{label}\n" for label in labels)),
    ]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([True, False, True], (0, 1)),
        ([1.0, 5.0, 1.0], (1, 5)),
        ([1.5, 4.0, 1.5], ("1.5", "4.0")),
        ([3, 1, 3], (1, 3)),
        (["b", "a", "b"], ("a", "b")),
    ],
)
def test_the_same_labels_are_the_same_classes_in_every_format(write, labels, names):
    sources = written_alike(write, labels)
    for source in sources:
        known, indices = classes(source, Columns(), ProblemType.SINGLE_LABEL)
        assert known == names and indices[0] == indices[2] != indices[1]
    first, second = (read_rows(source) for source in sources)
    for known in (names, tuple(map(str, labels[:2]))):  # those that a checkpoint may have
        assert (
            label_array(first, known, ProblemType.SINGLE_LABEL).tolist()
            == label_array(second, known, ProblemType.SINGLE_LABEL).tolist()
        )


def test_whole_decimals_are_the_same_labels_in_every_format(write):
    for source in written_alike(write, [1.0, 5.0]):
        with pytest.raises(UserError, match=r"--problem regression, for classes --problem single_label"):
            problem_of(read_rows(source))


@pytest.mark.parametrize("absent", ["nan", "NaN", "<NA>", "None", "N/A"])
@pytest.mark.parametrize("numbers", [("0", "1"), ("0.5", "1.5"), ("True", "False")])
def test_missing_values_of_pandas_are_no_class_among_numbers(write, absent, numbers):
    table = "text,label\n" + "".join(f"text {n},{label}\n" for n, label in enumerate([*numbers, absent]))
    assert "line 4: no 'label'" in refusal(write("a.csv", table))
    texts, labels = found(write("a.csv", table), on_error="skip")
    assert len(texts) == 2 and not any(isinstance(label, str) for label in labels)
    words = table.replace(numbers[0], "none of them")
    assert found(write("words.csv", words))[1] == ["none of them", numbers[1], absent]


@pytest.mark.parametrize(("one", "both"), [("['x']", "['x', 'it, too']"), ('["x"]', '["x", "it, too"]')])
def test_lists_in_csv_cells_are_labels_that_may_all_apply(write, one, both):
    cells = [cell.replace('"', '""') for cell in (one, both, "[]")]
    source = write("a.csv", "text,label\n" + "".join(f'text {n},"{cell}"\n' for n, cell in enumerate(cells)))
    rows = read_rows(str(source))
    assert rows.labels == [("x",), ("x", "it, too"), ()]
    assert problem_of(rows) is ProblemType.MULTI_LABEL


def test_a_broken_list_is_refused_and_bracketed_names_stay(write):
    table = "text,label\nrain,{}\nsnow,[{}]\n"
    for broken in ("[1 0 1]", "['a' 'b']", "['a]"):
        assert "line 2: " in refusal(write("a.csv", table.format(broken, "1 0")))
    assert found(write("names.csv", table.format("[Sport]", "World news")))[1] == ["[Sport]", "[World news]"]


def test_columns_of_zeros_and_ones_are_labels_that_may_all_apply(write):
    columns = Columns(label="rude,late")
    sources = [
        write("a.jsonl", [{"text": "a", "late": 1, "rude": 0}, {"text": "b", "late": True, "rude": 1.0}]),
        write("a.csv", "text,late,rude\na,1,0\nb,1.0,True\n"),
    ]
    for source in sources:
        assert classes(source, columns) == (("rude", "late"), [[0, 1], [1, 1]])
    assert "line 1: 'rude' is -1" in refusal(write("b.jsonl", [{"text": "a", "late": 1, "rude": -1}]), *AS_LABELS)
    assert "no column 'kind'" in refusal(sources[0], "text", None, "late,kind")


AS_LABELS = ("text", None, "rude,late")


def test_a_label_column_that_is_missing_or_the_text_is_refused(write):
    source = write("a.jsonl", [{"text": "a", "label": 1}])
    assert "no column 'labels'" in refusal(source, "text", None, "labels")
    assert "is the column of the texts" in refusal(source, "text", None, "text")


def test_a_label_may_differ_in_case_from_one_class(write):
    rows = read_rows(write("a.jsonl", [{"text": "a", "label": "Food "}]))
    assert label_array(rows, ("sport", "food"), ProblemType.SINGLE_LABEL).tolist() == [1]
    with pytest.raises(UserError, match="line 1: unknown label 'Food '"):
        label_array(rows, ("food", "FOOD"), ProblemType.SINGLE_LABEL)
