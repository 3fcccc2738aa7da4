from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.data import Dataset, Fractions, Role, Rows, as_dataset, load, split_roles
from ziggurat.data import dataset as tasks
from ziggurat.errors import UserError

repeatable = settings(derandomize=True, deadline=None, max_examples=60)


def numbered(n: int, **changes) -> Rows:
    """n different rows of two classes."""
    fields = {"texts": [f"text {i}" for i in range(n)], "pairs": None, "labels": [i % 2 for i in range(n)]}
    return Rows(**(fields | {"source": "numbered"} | changes))


def dataset(texts: list[str], labels: list[int] | None = None, pairs: list[str] | None = None) -> Dataset:
    classes = None if labels is None else np.array(labels)
    return Dataset(texts, pairs, classes, ("no", "yes"), Role.TRAIN, "here")


def role_of(sets: dict[Role, Dataset]) -> dict[str, Role]:
    return {text: role for role, part in sets.items() for text in part.texts}


# --- roles ---------------------------------------------------------------------------------------------------------


def test_every_row_gets_one_role_and_the_fractions_are_met():
    rows = numbered(4000)
    sets = split_roles(rows, Fractions(0.4, 0.3, 0.2, 0.1))
    assert list(sets) == list(Role)
    assert sorted(text for part in sets.values() for text in part.texts) == sorted(rows.texts)
    shares = [len(part) / 4000 for part in sets.values()]
    assert shares == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=0.025)
    assert all(part.role is role for role, part in sets.items())


def test_labels_stay_with_their_texts():
    for part in split_roles(numbered(500)).values():
        assert [part.label_names[label] for label in part.labels] == [int(text.split()[1]) % 2 for text in part.texts]


@pytest.mark.slow
@repeatable
@given(st.permutations(range(300)), st.integers(100, 300))
def test_a_role_depends_neither_on_order_nor_on_the_other_rows(order, n):
    everything = role_of(split_roles(numbered(300)))
    some = numbered(300)
    texts, labels = [some.texts[i] for i in order[:n]], [some.labels[i] for i in order[:n]]
    assert role_of(split_roles(numbered(0, texts=texts, labels=labels))).items() <= everything.items()


def test_trivial_duplicates_share_a_role():
    rows = numbered(300)
    loud = [f"  {text.upper()}\n".replace(" ", "\t ") for text in rows.texts]
    both = numbered(0, texts=rows.texts + loud, labels=rows.labels * 2)
    roles = role_of(split_roles(both))
    assert [roles[text] for text in rows.texts] == [roles[text] for text in loud]
    assert len(set(roles.values())) == 3


def test_a_role_of_fraction_zero_gets_no_rows():
    for fractions in (Fractions(), Fractions(0.7, 0.1, 0.2, 0.0), Fractions(0.0, 0.5, 0.5, 0.0)):
        sets = split_roles(numbered(1000), fractions)
        assert {str(role) for role in sets} == {name for name, value in vars(fractions).items() if value > 0}


def test_rounding_opens_no_role_for_the_highest_hashes(monkeypatch):
    thirds = (0, 3 * 2**62, 2**64 - 1)
    monkeypatch.setattr(tasks, "_hash", lambda text, purpose: thirds[int(text.split()[1]) % 3])
    sets = split_roles(numbered(30), Fractions(0.7, 0.1, 0.2, 0.0))
    assert {role: len(part) for role, part in sets.items()} == {Role.TRAIN: 10, Role.SELECT: 10, Role.CERTIFY: 10}


def test_roles_do_not_follow_the_row_hashes():
    certify = split_roles(numbered(4000))[Role.CERTIFY]
    assert np.mean(certify.hashes / 2.0**64) == pytest.approx(0.5, abs=0.05)


def test_a_pair_is_hashed_as_a_whole():
    one = dataset(["a", "a", "a b"], pairs=["b", "c", ""])
    assert len(set(one.hashes.tolist())) == 3
    assert dataset(["a"]).hashes != dataset(["a"], pairs=[""]).hashes


def test_text_that_is_not_unicode_can_be_hashed():
    assert len(dataset(["\ud800", "\x00", "ok"]).hashes) == 3


def test_a_role_without_rows_says_how_many_are_needed():
    with pytest.raises(UserError, match=r"no (select|certify) rows: 4 rows are too few .* 50 "):
        split_roles(numbered(4))


@pytest.mark.parametrize("values", [(0.5, 0.1, 0.1, 0.1), (1.2, -0.2, 0.0, 0.0), (float("nan"), 0.5, 0.5, 0.0)])
def test_fractions_must_be_a_division(values):
    with pytest.raises(UserError, match="fractions"):
        Fractions(*values)


# --- labels --------------------------------------------------------------------------------------------------------


def test_label_names_are_sorted_by_value_or_alphabet():
    labels = [10, 9, -1] * 100
    assert split_roles(numbered(300, labels=labels))[Role.TRAIN].label_names == (-1, 9, 10)
    labels = ["10", "9", "b"] * 100
    assert split_roles(numbered(300, labels=labels))[Role.TRAIN].label_names == ("10", "9", "b")


def test_given_label_names_keep_their_order():
    train = split_roles(numbered(300), label_names=(1, 0))[Role.TRAIN]
    assert train.label_names == (1, 0)
    assert train.labels.dtype == np.int64
    assert train.labels.tolist() == [1 - int(text.split()[1]) % 2 for text in train.texts]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "no labels"),
        ([None] * 60, "no labels"),
        (["spam"] * 60, "'spam'"),
        ([1, "1"] * 30, "mix"),
        (["a", 2.5] * 30, "row 1: label 'a' is not a number"),
        ([1.0, 2.0] * 30, "whole numbers written as decimals .* --problem regression"),
        ([(1, "a")] * 60, "mix"),
        ([(0.0, 1.0)] * 60, "row 1: .* is no list of labels"),
        ([(0, 1, 0)] * 60, "row 1: .* is no list of labels; write the names"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        split_roles(numbered(60, labels=labels))


def test_unlabelled_rows_train_unless_their_text_is_held_out():
    labelled = numbered(300)
    roles = role_of(split_roles(labelled))
    fresh = [f"fresh {i}" for i in range(50)]
    again = [text.upper() for text in labelled.texts]
    texts = labelled.texts + fresh + again
    sets = split_roles(numbered(0, texts=texts, labels=labelled.labels + [None] * 350))
    unlabelled = sets[Role.TRAIN].take(np.flatnonzero(sets[Role.TRAIN].labels == -1))
    assert set(unlabelled.texts) == set(fresh) | {t.upper() for t, role in roles.items() if role is Role.TRAIN}
    assert all((part.labels >= 0).all() for role, part in sets.items() if role is not Role.TRAIN)


def test_as_dataset_matches_labels_by_how_they_are_written():
    rows = numbered(2, labels=[1, 0])
    assert as_dataset(rows, Role.TEST, ("0", "1")).labels.tolist() == [1, 0]
    assert as_dataset(numbered(2, labels=["1", "0"]), Role.TEST, (0, 1)).labels.tolist() == [1, 0]
    assert as_dataset(numbered(2, labels=None), Role.TEST, (0, 1)).labels is None


def test_an_unknown_label_is_refused_with_its_row():
    with pytest.raises(UserError, match=r"numbered: row 2: unknown label 'maybe'.* 'no', 'yes'"):
        as_dataset(numbered(2, labels=["no", "maybe"]), Role.TEST, ("no", "yes"))


def test_rows_that_measure_are_labelled():
    rows = numbered(3, labels=[0, None, 1])
    assert as_dataset(rows, Role.TRAIN, (0, 1)).labels.tolist() == [0, -1, 1]
    with pytest.raises(UserError, match="row 2 has no label"):
        as_dataset(rows, Role.CERTIFY, (0, 1))


# --- the record ----------------------------------------------------------------------------------------------------


def test_a_wrong_role_is_refused_with_the_reason():
    train, certify = (as_dataset(numbered(4), role, (0, 1)) for role in (Role.TRAIN, Role.CERTIFY))
    assert train.require(Role.SELECT, Role.TRAIN) is train
    with pytest.raises(UserError, match=r"certify rows of numbered may not train or choose: .* takes train or select"):
        certify.require(Role.TRAIN, Role.SELECT)


def test_a_dataset_cannot_change_its_role():
    with pytest.raises(FrozenInstanceError):
        dataset(["a"]).role = Role.TEST


def test_take_keeps_rows_together():
    part = dataset(["a", "b", "c"], [0, 1, -1], ["x", "y", "z"]).take(np.array([2, 0]))
    assert (part.texts, part.pairs, part.labels.tolist()) == (["c", "a"], ["z", "x"], [-1, 0])
    assert dataset(["a", "b"]).take(np.array([], dtype=np.int64)).labels is None


@pytest.mark.slow
@repeatable
@given(st.lists(st.tuples(st.text(), st.integers(-1, 1)), min_size=1), st.randoms(use_true_random=False))
def test_the_digest_does_not_depend_on_the_order(rows, random):
    shuffled = random.sample(rows, len(rows))
    assert (
        dataset(*map(list, zip(*rows, strict=True))).digest == dataset(*map(list, zip(*shuffled, strict=True))).digest
    )


def test_the_digest_sees_every_change():
    digests = [
        dataset(["a", "b"], [0, 1]).digest,
        dataset(["a", "b"], [1, 0]).digest,
        dataset(["a", "b"]).digest,
        dataset(["a", "c"], [0, 1]).digest,
        dataset(["a", "b", "b"], [0, 1, 1]).digest,
        dataset(["a", "b"], [0, 1], ["", ""]).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 32 for digest in digests)


def test_hashes_are_the_same_on_every_machine():
    assert dataset(["Hello  World"]).hashes.tolist() == dataset(["hello world"]).hashes.tolist() == [681889098814568210]
    assert dataset(["hello world"]).hashes.dtype == np.uint64


def test_load_reads_files_too(write):
    assert load(write("a.jsonl", [{"text": "rain", "label": 1}])).labels == [1]
