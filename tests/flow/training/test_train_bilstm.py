from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ziggurat.data import SPECIAL, pack
from ziggurat.data.tokenizer import Encoded
from ziggurat.errors import UserError
from ziggurat.problems import Classes
from ziggurat.small import UNKNOWN, BilstmTier
from ziggurat.small.train_bilstm import (
    Bilstm,
    BilstmSettings,
    _batch,
    _logits,
    _read,
    _shuffled,
    frequent,
    train_bilstm,
)

CLASSES, VOCABULARY = 2, 30
KINDS = np.zeros(VOCABULARY, dtype=np.uint8)
KINDS[:2] = SPECIAL
FIRST, SECOND = 2, 3  # the pieces whose order decides
SMALL = BilstmSettings(width=16, state=12, hidden=32, epochs=10, batch_size=32, learning_rate=1e-2, dropout=0.0)

teacher_targets = Classes().taught_targets


def one_hot(labels, n_classes):
    return np.eye(n_classes)[labels]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def as_text(ids: np.ndarray, segments: np.ndarray | int = 0) -> np.ndarray:
    """Ids between special tokens; (length, 2)."""
    table = np.zeros((len(ids) + 2, 2), dtype=np.int64)
    table[1:-1, 0], table[-1, 0], table[1:-1, 1] = ids, 1, segments
    return table


def by_order(n: int, seed: int) -> tuple[Encoded, np.ndarray]:
    """Texts with two pieces, of class 0 or 1 by which comes first; a bag of words knows nothing."""
    rng = np.random.default_rng(seed)
    labels, texts = rng.integers(0, CLASSES, n), []
    for label in labels:
        ids = rng.integers(4, VOCABULARY, rng.integers(2, 8))
        ids[np.sort(rng.choice(len(ids), 2, replace=False))] = (SECOND, FIRST) if label else (FIRST, SECOND)
        texts.append(as_text(ids))
    return Encoded(texts, np.zeros(n, dtype=bool)), labels


def by_segment(n: int, seed: int) -> tuple[Encoded, np.ndarray]:
    """Pairs without a separator; the class is the segment of a piece that stands anywhere."""
    rng = np.random.default_rng(seed)
    labels, texts = rng.integers(0, CLASSES, n), []
    for label in labels:
        ids, cut = rng.integers(4, VOCABULARY, 6), rng.integers(2, 5)
        ids[rng.integers(cut, 6) if label else rng.integers(0, cut)] = FIRST
        texts.append(as_text(ids, np.arange(6) >= cut))
    return Encoded(texts, np.zeros(n, dtype=bool)), labels


@pytest.fixture(scope="module")
def data():
    return by_order(400, 0), by_order(100, 1)


def trained(data, settings: BilstmSettings = SMALL, targets: np.ndarray | None = None, **options) -> BilstmTier:
    (texts, labels), (select, select_labels) = data
    targets = one_hot(labels, CLASSES) if targets is None else targets
    return train_bilstm(texts, targets, select, select_labels, KINDS, settings, **options)


def said(tier: BilstmTier, texts: Encoded) -> np.ndarray:
    batch = pack(texts.tokens)
    return tier.logits(batch.states, batch.cu_seqlens)


def accuracy(tier: BilstmTier, rows: tuple[Encoded, np.ndarray]) -> float:
    texts, labels = rows
    return float((said(tier, texts).argmax(axis=1) == labels).mean())


def parts(tier: BilstmTier) -> dict[str, np.ndarray]:
    return {field.name: getattr(tier, field.name) for field in dataclasses.fields(tier)}


def same(one: BilstmTier, other: BilstmTier) -> bool:
    return all(np.array_equal(values, parts(other)[name]) for name, values in parts(one).items())


@pytest.fixture(scope="module")
def certain(data):
    """A tier that has learned the order of the two pieces from labels."""
    return trained(data)


def test_it_learns_from_the_order_of_words(certain):
    assert accuracy(certain, by_order(200, 2)) > 0.95


@pytest.mark.parametrize("loss", ["mean-square", "binary-cross-entropy"])
def test_it_learns_numbers_and_sets_from_the_order_of_words(data, loss):
    (texts, labels), (select, select_labels) = data
    held_out, truth = by_order(200, 2)
    if loss == "mean-square":
        targets, select_targets = (100.0 * labels + 7)[:, None], 100.0 * select_labels + 7
    else:
        targets, select_targets = (np.stack([some, 1 - some], axis=1) for some in (labels, select_labels))
    tier = train_bilstm(texts, targets.astype(float), select, select_targets, KINDS, SMALL, loss=loss)
    outputs = said(tier, held_out)
    right = abs(outputs[:, 0] - 100 * truth - 7) < 50 if loss == "mean-square" else (outputs[:, 0] > 0) == truth
    assert right.mean() > 0.95


def test_it_learns_from_the_side_of_a_pair():
    tier = trained((by_segment(400, 0), by_segment(100, 1)))
    pairs, labels = by_segment(200, 2)
    assert accuracy(tier, (pairs, labels)) > 0.95
    one_sided = Encoded([tokens * [1, 0] for tokens in pairs.tokens], pairs.truncated)
    assert accuracy(tier, (one_sided, labels)) < 0.8


def test_the_seed_fixes_the_tier_and_no_other_generator(data):
    short = dataclasses.replace(SMALL, epochs=1, dropout=0.3)
    state = torch.random.get_rng_state()
    first, again, other = (trained(data, short, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same(first, again) and not same(first, other)


def test_the_tier_says_what_the_trained_model_said(data):
    texts = data[0][0]
    vocabulary = frequent(texts, VOCABULARY, 20, 2)
    torch.manual_seed(0)
    model = Bilstm(20, SMALL.shape(3), dropout=0.5)
    rows = _read(texts, vocabulary)
    expected = _logits(model, rows)
    np.testing.assert_allclose(said(model.tier(vocabulary), texts), expected, rtol=1e-5, atol=1e-5)
    model.train()  # and it does not learn without dropout
    assert not np.allclose(model(_batch(rows, torch.arange(9), torch.device("cpu"))[0]).detach(), expected[:9])


def test_it_starts_with_a_memory_as_long_as_the_texts():
    torch.manual_seed(0)
    model = Bilstm(4, BilstmSettings().shape(2))
    model.initialise_gates(50.0)
    tier = model.tier(np.zeros(3, dtype=np.int16))
    for layer in (tier.first, tier.second):
        gate_in, forget = layer[:, :64, -1], layer[:, 64:128, -1]
        assert np.array_equal(gate_in, -forget)
        assert (forget >= 0).all() and 30 < np.exp(forget).max() <= 49 and 18 < np.exp(forget).mean() < 32


def test_a_teacher_that_doubts_is_followed(data, certain):
    labels = data[0][1]
    soft = teacher_targets(np.log(0.7 * one_hot(labels, CLASSES) + 0.3 / CLASSES))
    doubting = trained(data, targets=soft)
    most = [np.median(teacher_targets(said(tier, data[1][0])).max(axis=1)) for tier in (doubting, certain)]
    assert abs(most[0] - 0.85) < 0.05 < 0.1 < most[1] - most[0]


def test_the_epoch_that_does_best_on_select_rows_is_kept(data, certain):
    (texts, labels), (select, select_labels) = data
    # What select rows call wrong is learned ever better, so an early epoch is their best.
    misled = trained(((texts, labels), (select, 1 - select_labels)))
    assert accuracy(misled, data[1]) < 0.8 < accuracy(certain, data[1])


def test_frequent_ids_have_rows_and_all_others_share_one():
    texts = Encoded([as_text(np.array(ids)) for ids in ([5, 5, 5, 6], [6, 7], [6, 7, 8], [7, 9])], np.zeros(4, bool))
    rows = frequent(texts, VOCABULARY, rows=4, least_texts=2)
    assert rows.dtype == np.int16 and rows.shape == (VOCABULARY,)
    assert {int(index): int(rows[index]) for index in np.flatnonzero(rows)} == {0: 1, 1: 2, 6: 3}
    rows = frequent(texts, VOCABULARY, rows=100, least_texts=2)
    assert np.flatnonzero(rows).tolist() == [0, 1, 6, 7]  # 5 is often in one text
    assert len(np.flatnonzero(frequent(texts, VOCABULARY, rows=100, least_texts=1))) == 7
    with pytest.raises(ValueError, match="token id"):
        frequent(texts, 8, rows=4, least_texts=1)


def test_an_epoch_reads_every_text_once_in_even_batches(data):
    texts = _read(data[0][0], np.arange(1, VOCABULARY + 1, dtype=np.int16))
    torch.manual_seed(0)
    epochs = [_shuffled(texts, 16) for _ in range(2)]
    for batches in epochs:
        assert sorted(torch.cat(batches).tolist()) == list(range(400)) and max(map(len, batches)) == 16
        spans = [max(lengths) - min(lengths) for rows in batches if (lengths := [len(texts[row]) for row in rows])]
        assert np.mean(spans) < 1.5  # of all texts it is 5
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))


def test_a_share_of_the_tokens_is_read_as_unknown_in_training(data):
    rows = _read(data[0][0], np.arange(1, VOCABULARY + 1, dtype=np.int16))
    torch.manual_seed(0)
    unknown = (_batch(rows, torch.arange(400), torch.device("cpu"), 0.25)[0].data[:, 0] == UNKNOWN).float().mean()
    assert 0.2 < unknown < 0.3
    assert not any((row == UNKNOWN)[:, 0].any() for row in rows)  # the texts themselves stay


def test_progress_is_shown_when_asked_for(data, capfd):
    short = dataclasses.replace(SMALL, epochs=1)
    trained(data, short)
    assert capfd.readouterr() == ("", "")
    trained(data, short, progress=True)
    out, err = capfd.readouterr()
    assert not out and "bilstm" in err and "13/13" in err and "loss on select rows" in err


def test_rows_that_do_not_fit_are_refused(data):
    (texts, labels), (select, select_labels) = data
    hard, none = one_hot(labels, CLASSES), Encoded([], np.zeros(0, dtype=bool))
    with pytest.raises(ValueError, match="targets"):
        train_bilstm(texts, hard[1:], select, select_labels, KINDS, SMALL)
    with pytest.raises(ValueError, match="labels"):
        train_bilstm(texts, hard, select, select_labels + CLASSES, KINDS, SMALL)
    with pytest.raises(UserError, match="needs train rows and select rows"):
        train_bilstm(texts, hard, none, select_labels[:0], KINDS, SMALL)
    empty = Encoded([*select.tokens[1:], select.tokens[0][:0]], select.truncated)
    with pytest.raises(ValueError, match="a token"):
        train_bilstm(texts, hard, empty, select_labels, KINDS, SMALL)
    third = Encoded([np.column_stack([tokens[:, 0], tokens[:, 1] + 2]) for tokens in select.tokens], select.truncated)
    with pytest.raises(ValueError, match="segment"):
        train_bilstm(texts, hard, third, select_labels, KINDS, SMALL)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": 1},
        {"rows": 2**15 + 1},
        {"width": 0},
        {"state": 0},
        {"hidden": 0},
        {"least_texts": 0},
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"dropout": 1.0},
        {"unknown": -0.1},
        {"max_gradient": float("inf")},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BilstmSettings(**wrong)
