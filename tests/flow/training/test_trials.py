"""Pruning is tried on select rows, and what costs more than it gives is taken back: words, thresholds, or both."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.kit.training import SPEC
from ziggurat.data.tokenizer import Encoded
from ziggurat.encoder import EncoderModel
from ziggurat.recipe import PruningConfig, StageConfig
from ziggurat.training import Examples, collate, full_accuracy, initialise_vocabulary, packed, soft, trials
from ziggurat.training.stages import only_train
from ziggurat.training.trials import choose_strength, trials_in, try_vocabulary

SOFT = StageConfig(kind="soft", epochs=1, learning_rate=1e-4, batch_size=60, warmup=0.0)


def rows_of(kind, n, seed):
    """[CLS] and 9 words. Where order decides, the class is which of the first and the last has the smaller number.

    Where the topic decides, two words are of one half of 3 … 14, and the class is of which.
    """
    draws = np.random.default_rng(seed)
    tokens, classes = [], draws.integers(0, 2, n)
    for label in classes:
        if kind == "order":
            ids = draws.integers(3, 15, 10)
            ids[[1, 9]] = np.sort(draws.choice(np.arange(3, 15), 2, replace=False))[:: 1 if label else -1]
        else:
            ids = draws.integers(15, 40, 10)
            ids[draws.choice(np.arange(1, 10), 2, replace=False)] = draws.integers(3, 9, 2) + 6 * label
        ids[0] = 0
        tokens.append(np.stack([ids, np.zeros(10, int)], axis=1))
    return Examples(Encoded(tokens, np.zeros(n, bool)), classes)


def trained(kind, **pruning):
    """A model that answers such rows, nothing pruned."""
    torch.manual_seed(0)
    spec = dataclasses.replace(SPEC, dropout=0.0, attention_dropout=0.0)
    model = EncoderModel(spec, 2, "linear", [1, 2], PruningConfig(**pruning))
    only_train(model, (model.encoder, model.classifier))
    model.train()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=5e-3)
    rows, draws = rows_of(kind, 1000, 1), np.random.default_rng(0)
    for _ in range(150):
        batch = collate([rows[int(row)] for row in draws.integers(0, len(rows), 64)])
        logits = model.full_logits(packed(batch["states"], batch["lengths"]))
        optimizer.zero_grad()
        cross_entropy(logits, batch["labels"]).backward()
        optimizer.step()
    assert full_accuracy(model, rows_of(kind, 200, 2)) > 0.95
    return model


@pytest.fixture(scope="module")
def models():
    return {kind: trained(kind, vocabulary=0.7) for kind in ("order", "topic")}


@pytest.fixture
def on(models, run):
    """(a copy of the kind's model, what a stage is given beside its configuration)"""
    return lambda kind: (copy.deepcopy(models[kind]), rows_of(kind, 600, 1), rows_of(kind, 200, 2), run)


def test_where_word_order_decides_no_word_is_left_out(on):
    model, train, select, run = on("order")
    soft(model, train, select, SOFT, run)
    tried = trials_in(run.folder)["vocabulary"]
    assert (tried["share"], tried["kept"]) == (0.7, False)
    assert tried["read"] < tried["plain"] - 0.1
    assert model.pruning.config == PruningConfig() and model.token_rule.vocabulary is None
    assert "pruning.vocabulary" not in model.state_dict()


def test_uninformative_words_are_left_out(on):
    model, train, select, run = on("topic")
    soft(model, train, select, SOFT, run)
    assert trials_in(run.folder)["vocabulary"]["kept"] and trials_in(run.folder)["settled"]["vocabulary"]
    read = model.token_rule.vocabulary
    assert read[3:15].mean() > read[15:].mean()
    assert full_accuracy(model, select) > 0.9


@pytest.mark.parametrize("kind", ["order", "topic"])
def test_a_resumed_run_asks_nothing_and_ends_the_same(on, kind, monkeypatch):
    model, *given = on(kind)
    again = copy.deepcopy(model), copy.deepcopy(model)
    soft(model, *given[:2], SOFT, given[2])
    monkeypatch.setattr(trials, "_outcomes", None)
    soft(again[0], *given[:2], SOFT, given[2])  # finished before
    (given[2].folder / "finished.safetensors").unlink()
    soft(again[1], *given[:2], SOFT, given[2])  # stopped before it was finished
    for other in again:
        assert other.pruning.config == model.pruning.config
        assert all(torch.equal(mine, other.state_dict()[name]) for name, mine in model.state_dict().items())


def test_a_vocabulary_stays_where_no_trial_is_possible(on):
    model, *given = on("order")
    alone, untried = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        alone.pruning.values.zero_()
    initialise_vocabulary(alone, given[0], given[2].device)
    try_vocabulary(alone, *given[1:])
    assert not trials_in(given[2].folder)["vocabulary"]["read"] > 0.9
    assert alone.token_rule.vocabulary is not None
    run = dataclasses.replace(given[2], folder=given[2].folder / "untried")
    soft(untried, *given[:2], dataclasses.replace(SOFT, trial=False), run)
    assert not trials_in(run.folder) and untried.token_rule.vocabulary is not None


def settled(model, select, run, values, reads_nothing=False):
    with torch.no_grad():
        model.pruning.values.copy_(torch.tensor(values))
        model.pruning.vocabulary.fill_(-1.0 if reads_nothing else 1.0)
    choose_strength(model, select, run)
    return model.pruning


def test_thresholds_that_leave_too_little_are_taken_back(on):
    model, _, select, run = on("order")
    other = copy.deepcopy(model)
    assert settled(model, select, run, [50.0, 50.0, 50.0]).values.tolist() == [0, 0, 0]
    outcome = trials_in(run.folder)["settled"]
    assert outcome["learned"] < 0.8 < 0.9 < outcome["settled"]
    run = dataclasses.replace(run, folder=run.folder / "other")
    kept = settled(other, select, run, [0.4, 0.7, 1.0])
    assert kept.values.tolist() == pytest.approx([0.4, 0.7, 1.0]) and kept.config.vocabulary == 0.7


def test_a_vocabulary_that_reads_nothing_is_taken_back(on):
    model, _, select, run = on("topic")
    pruning = settled(model, select, run, [0.4, 0.7, 1.0], reads_nothing=True)
    assert pruning.config.vocabulary is None and pruning.values.tolist() == pytest.approx([0.4, 0.7, 1.0])


def test_a_model_that_knows_nothing_has_nothing_to_lose(on):
    model, _, select, run = on("topic")
    select = Examples(select.encoded, 1 - select.labels)  # worse than chance
    assert settled(model, select, run, [0.4, 0.7, 1.0]).values.tolist() == pytest.approx([0.4, 0.7, 1.0])
