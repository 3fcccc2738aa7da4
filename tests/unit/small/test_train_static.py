from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from ziggurat.data import CONTINUES, SPECIAL, pack
from ziggurat.data.tokenizer import Encoded
from ziggurat.errors import UserError
from ziggurat.problems import Classes
from ziggurat.small import StaticTier
from ziggurat.small.train_static import StaticSettings, train_static

CLASSES, VOCABULARY = 3, 60
KINDS = np.zeros(VOCABULARY, dtype=np.uint8)
KINDS[:2], KINDS[50:] = SPECIAL, CONTINUES
SMALL = StaticSettings(buckets=2**12)

teacher_targets = Classes().taught_targets


def one_hot(labels, n_classes):
    return np.eye(n_classes)[labels]


def rows(n: int, seed: int) -> tuple[Encoded, np.ndarray]:
    """Texts whose class is that of the 16 pieces of which they have one; the others say nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    tokens = []
    for label in labels:
        ids = rng.integers(48, VOCABULARY, rng.integers(1, 12))
        ids = np.insert(ids, rng.integers(0, len(ids) + 1), 2 + label + CLASSES * rng.integers(0, 15))
        tokens.append(np.stack([np.r_[0, ids, 1], np.zeros(len(ids) + 2)], axis=1).astype(np.int64))
    return Encoded(tokens, np.zeros(n, dtype=bool)), labels


@pytest.fixture(scope="module")
def data():
    return rows(400, 0), rows(150, 1)


def trained(data, targets: np.ndarray, settings: StaticSettings = SMALL) -> StaticTier:
    (texts, _), (select, select_labels) = data
    return train_static(texts, targets, select, select_labels, KINDS, settings)


def said(tier: StaticTier, texts: Encoded) -> np.ndarray:
    batch = pack(texts.tokens)
    return tier.logits(batch.states, batch.cu_seqlens)


def test_it_learns_what_can_be_learned(data):
    tier = trained(data, one_hot(data[0][1], CLASSES))
    held_out, labels = rows(200, 2)
    assert (said(tier, held_out).argmax(axis=1) == labels).mean() > 0.9
    assert tier.weights.shape == (2**12, CLASSES) and np.array_equal(tier.kinds, KINDS)


def test_it_learns_labels_that_may_all_apply(data):
    (texts, classes), (select, select_classes) = data
    sets, select_sets = (np.array([[1, 0], [1, 1], [0, 0]])[some] for some in (classes, select_classes))
    tier = train_static(texts, sets.astype(np.float64), select, select_sets, KINDS, SMALL, "binary-cross-entropy")
    held_out, labels = rows(200, 2)
    right = (said(tier, held_out) > 0) == (np.array([[1, 0], [1, 1], [0, 0]])[labels] == 1)
    assert right.mean() > 0.9
    with pytest.raises(ValueError, match="0 and 1, for every label"):
        train_static(texts, sets * 2.0, select, select_sets, KINDS, SMALL, "binary-cross-entropy")


def test_it_learns_numbers_wherever_they_lie(data):
    (texts, classes), (select, select_classes) = data
    numbers, select_numbers = (1000 + 5.0 * some for some in (classes, select_classes))
    tier = train_static(texts, numbers[:, None], select, select_numbers, KINDS, SMALL, "mean-square")
    held_out, labels = rows(200, 2)
    errors = said(tier, held_out)[:, 0] - (1000 + 5.0 * labels)
    assert (errors**2).mean() < 0.5 * (5.0 * labels).var()
    with pytest.raises(ValueError, match="must be finite numbers, one of each row"):
        train_static(texts, numbers[:, None], select, select_numbers * np.nan, KINDS, SMALL, "mean-square")


def test_it_learns_the_same_twice(data):
    first, second = (trained(data, one_hot(data[0][1], CLASSES)) for _ in range(2))
    for field in dataclasses.fields(StaticTier):
        assert np.array_equal(getattr(first, field.name), getattr(second, field.name))


def test_a_teacher_that_is_certain_teaches_what_labels_do(data):
    hard = one_hot(data[0][1], CLASSES)
    soft = teacher_targets(1e3 * hard)
    assert np.array_equal(soft, hard)
    assert np.array_equal(trained(data, soft).weights, trained(data, hard).weights)


def test_a_teacher_that_doubts_is_followed(data):
    labels = data[0][1]
    soft = teacher_targets(np.log(0.9 * one_hot(labels, CLASSES) + 0.1 / CLASSES))
    np.testing.assert_allclose(soft.max(axis=1), 0.9 + 0.1 / CLASSES)
    assert np.allclose(teacher_targets(np.log(soft), 2.0).max(axis=1), 0.727, atol=0.01)
    doubting, certain = (said(trained(data, targets), data[1][0]) for targets in (soft, one_hot(labels, CLASSES)))
    assert doubting.std() < 0.9 * certain.std()


def test_the_penalty_is_chosen_on_select_rows(data):
    hard = one_hot(data[0][1], CLASSES)
    heavy, chosen = (
        trained(data, hard, dataclasses.replace(SMALL, penalties=penalties)) for penalties in ((1e3,), (1e3, 1e-5))
    )
    only = trained(data, hard, dataclasses.replace(SMALL, penalties=(1e-5,)))
    assert np.abs(said(heavy, data[1][0])).max() < 0.5
    assert np.abs(said(chosen, data[1][0]) - said(only, data[1][0])).max() < 0.5


def test_what_occurs_too_rarely_has_no_weight(data):
    hard = one_hot(data[0][1], CLASSES)
    some, all_of_them = (
        (trained(data, hard, dataclasses.replace(SMALL, least_texts=least)).weights != 0).any(axis=1).sum()
        for least in (5, 1)
    )
    assert 0 < some < all_of_them
    with pytest.raises(UserError, match="no n-gram occurs in 401 texts"):
        trained(data, hard, dataclasses.replace(SMALL, least_texts=401))


@pytest.mark.parametrize(
    "targets",
    [np.zeros((400, 3)), np.full((400, 1), 1.0), np.full((399, 2), 0.5), np.array([[2.0, -1.0]] * 400), np.ones(400)],
)
def test_targets_that_are_no_probabilities_are_refused(data, targets):
    with pytest.raises(ValueError, match="targets"):
        trained(data, targets)


def test_labels_and_rows_must_be_there(data):
    (texts, labels), (select, select_labels) = data
    hard, none = one_hot(labels, CLASSES), Encoded([], np.zeros(0, dtype=bool))
    for wrong in (select_labels[1:], select_labels + CLASSES, select_labels - CLASSES):
        with pytest.raises(ValueError, match="labels"):
            train_static(texts, hard, select, wrong, KINDS, SMALL)
    with pytest.raises(UserError, match="needs train rows and select rows"):
        train_static(texts, hard, none, select_labels[:0], KINDS, SMALL)


@pytest.mark.parametrize(
    "wrong", [{"buckets": 100}, {"buckets": 1}, {"penalties": ()}, {"penalties": (0.0,)}, {"iterations": 0}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StaticSettings(**wrong)


def test_scipy_is_asked_for_when_it_is_missing():
    code = (
        "import sys; sys.modules['scipy'] = None; sys.modules['scipy.sparse'] = None\n"
        "from ziggurat.small.train_static import _table\n"
        "try: _table(None, None, 2)\nexcept Exception as error: sys.exit(str(error))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install '.[calibrate]'" in result.stderr
