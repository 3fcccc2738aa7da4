"""The stages on a model of spans: what they learn, and what they leave alone."""

import dataclasses

import numpy as np
import pytest
import torch

from ziggurat.data import pack
from ziggurat.data.tokenizer import Encoded
from ziggurat.encoder import SpanModel
from ziggurat.recipe import PruningConfig
from ziggurat.training import Examples, collate, hard, heads, initialise_vocabulary, joint, packed, regular, soft
from ziggurat.training.objectives import importance

START, END = 7, 8


def make_windows(n, seed, labelled=True):
    """Random tokens; the answer runs from the token 7 to the next 8, where there is none to the first token."""
    draws = np.random.default_rng(seed)
    tokens, labels = [], []
    for length in draws.integers(6, 16, n):
        ids = draws.integers(9, 40, length)
        marks = np.ones(length, dtype=int)
        marks[1:3] = 0  # the question, where no answer may be
        start = int(draws.integers(3, length - 1))
        end = int(draws.integers(start, length))
        if draws.random() < 0.7:
            ids[start], ids[end] = START, END
            labels.append((start if start < end else end, end))
            ids[start] = START if start < end else END
        else:
            labels.append((0, 0))
        tokens.append(np.stack([ids, np.zeros(length, int), marks], axis=1))
    keep = np.array([start != end or start == 0 for start, end in labels])
    chosen = [row for row, good in enumerate(keep) if good]
    spans = np.array([labels[row] for row in chosen]) if labelled else np.full((len(chosen), 2), -1)
    return Examples(Encoded([tokens[row] for row in chosen], np.zeros(len(chosen), bool)), spans)


@pytest.fixture
def model(model):
    torch.manual_seed(0)
    return SpanModel(model.spec, [1, 2], PruningConfig(final=0.9))


@pytest.fixture
def train_rows():
    return make_windows(300, 1)


@pytest.fixture
def select_rows():
    return make_windows(60, 2)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before, model):
    return {name.split(".")[0] for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}


@torch.no_grad()
def right_ends(model, rows, tokens=None):
    """Share of starts and ends that each rung finds."""
    batch = collate([rows[i] for i in range(len(rows))])
    every = model.eval()(packed(batch["states"], batch["lengths"]), tokens)
    return [(logits.argmax(-1) == batch["labels"]).float().mean().item() for logits in every]


def test_a_batch_has_two_labels_for_each_window(train_rows):
    batch = collate([train_rows[i] for i in range(3)])
    assert batch["labels"].tolist() == train_rows.labels[:3].tolist()
    assert batch["states"].shape[1] == 3 and len(batch["lengths"]) == 3


def test_regular_then_heads_find_spans_and_train_their_parts(model, train_rows, select_rows, stage, run):
    before = weights(model)
    regular(model, train_rows, select_rows, dataclasses.replace(stage, epochs=8), run)
    assert changed(before, model) == {"encoder", "classifier"}
    assert right_ends(model, select_rows)[-1] > 0.9
    before, first = weights(model), right_ends(model, select_rows)
    unlabelled = make_windows(300, 1, labelled=False)
    where = dataclasses.replace(run, folder=run.folder / "heads")
    heads(model, unlabelled, make_windows(60, 2, labelled=False), dataclasses.replace(stage, kind="heads"), where)
    assert changed(before, model) == {"exits"}
    assert right_ends(model, select_rows)[1] > max(0.5, first[1])


def test_soft_and_hard_learn_what_to_prune_and_still_find_spans(model, train_rows, select_rows, stage, run):
    regular(model, train_rows, select_rows, dataclasses.replace(stage, epochs=8), run)
    before = weights(model)
    config = dataclasses.replace(stage, kind="soft", final_temperature=0.02, regularisation=0.05)
    soft(model, train_rows, select_rows, config, dataclasses.replace(run, folder=run.folder / "soft"))
    assert changed(before, model) == {"encoder", "classifier", "pruning"}
    before = weights(model)
    where = dataclasses.replace(run, folder=run.folder / "hard")
    hard(model, train_rows, select_rows, dataclasses.replace(stage, kind="hard"), where)
    assert changed(before, model) == {"encoder", "classifier"}
    batch = collate([select_rows[i] for i in range(len(select_rows))])
    with torch.no_grad():
        live = model.embed(packed(batch["states"], batch["lengths"]))
        for layer in range(1, 4):
            live = model.layer(layer, live, model.token_rule)
    assert len(live.states) < 0.8 * len(batch["states"])
    assert right_ends(model, select_rows, model.token_rule)[-1] > 0.8


def test_joint_trains_all_rungs(model, train_rows, select_rows, stage, run):
    before = weights(model)
    joint(model, train_rows, select_rows, dataclasses.replace(stage, kind="joint", epochs=1), run)
    assert changed(before, model) == {"encoder", "classifier", "exits"}


def test_a_vocabulary_starts_at_the_wanted_share(model, train_rows, run):
    reader = SpanModel(model.spec, [1, 2], PruningConfig(final=0.9, vocabulary=0.6))
    initialise_vocabulary(reader, train_rows, run.device)
    ids = np.concatenate([tokens[:, 0] for tokens in train_rows.encoded.tokens])
    read = reader.token_rule.vocabulary[ids].mean()
    assert 0.5 < read < 0.75
    assert importance(reader, pack(train_rows.encoded.tokens[:5])).min() >= 0
