"""Heads learn what a converged linear map of the same states can say, also where all texts look alike to them."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.kit.training import SPEC
from ziggurat.data.tokenizer import Encoded
from ziggurat.encoder import EncoderModel
from ziggurat.encoder.torch.parts import ReadingLinear
from ziggurat.recipe import StageConfig
from ziggurat.small import minimise
from ziggurat.small.standardise import fold, standardise
from ziggurat.training import Examples, FrozenHeads, heads, in_batches, stages

FAINT = 1e-2  # what a layer adds to a state, in the size of the state
STAGE = StageConfig(kind="heads", epochs=12, learning_rate=5e-2, batch_size=32, label_weight=1.0, patience=8)


def rows_of(n, seed):
    """Texts that begin alike; the class is which of two tokens is among the others more often."""
    draws = np.random.default_rng(seed)
    classes = draws.integers(0, 2, n)
    tokens = []
    for label in classes:
        ids = draws.integers(3, 40, 12)
        ids[0], ids[draws.permutation(11)[:6] + 1] = 0, 1 + label
        tokens.append(np.stack([ids, np.zeros(12, int)], axis=1))
    return Examples(Encoded(tokens, np.zeros(n, bool)), classes)


def faint_model(kind, **spec):
    """An encoder whose layers add little to a state, so that first tokens hardly differ between texts."""
    torch.manual_seed(0)
    model = EncoderModel(dataclasses.replace(SPEC, dropout=0.0, **spec), 2, kind, [1, 2]).eval()
    with torch.no_grad():
        for layer in model.encoder.layers:
            layer.out.weight *= FAINT
            layer.down.weight *= FAINT
    return model


@torch.no_grad()
def first_states(model, rows):
    """What the first tokens are behind layers 1 and 2: (2, n, d)."""
    states = [[read.states[read.cu_seqlens[:-1]] for _, read in model.climb(batch)] for batch in batches(rows)]
    return torch.cat([torch.stack(layers[:2]) for layers in states], dim=1).numpy()


def batches(rows):
    return in_batches(rows.encoded.tokens)


def logistic(train, labels, select):
    """The classes (n) that a converged logistic regression of standardised states (n, d) says."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    ones = np.ones((len(train), 1), np.float32)
    known = np.concatenate([(train - mean) / deviation, ones], axis=1).astype(np.float32)
    asked = np.concatenate([(select - mean) / deviation, ones[:1].repeat(len(select), 0)], axis=1)
    signs = (2 * labels - 1).astype(np.float32)

    def loss(weights):
        margins = signs * (known @ weights)
        slopes = -signs / (1 + np.exp(margins))
        value = float(np.logaddexp(0, -margins).mean() + 5e-4 * weights @ weights)
        return value, (known.T @ slopes / len(known) + 1e-3 * weights).astype(np.float32)

    weights = minimise(loss, np.zeros(known.shape[1], np.float32), np.ones(known.shape[1], np.float32), 500, 1e-7)
    return asked @ weights > 0


@torch.no_grad()
def accuracies(model, rows):
    """Of every exit."""
    said = [torch.stack(model(batch)[:-1]).argmax(-1) for batch in batches(rows)]
    return (torch.cat(said, dim=1).numpy() == rows.labels).mean(axis=1)


@pytest.mark.parametrize("precise", [True, False])
@pytest.mark.parametrize("kind", ["linear", "pooler"])
def test_a_head_learns_as_much_as_logistic_regression(kind, precise, run):
    model, train, select = faint_model(kind), rows_of(300, 1), rows_of(200, 2)
    run = dataclasses.replace(run, mixed_precision=not precise)
    read, asked = first_states(model, train), first_states(model, select)
    assert (read.std(axis=1).mean(axis=1) < 0.02 * np.abs(read).mean(axis=(1, 2))).all()
    reachable = [
        (logistic(*pair) == select.labels).mean() for pair in zip(read, [train.labels] * 2, asked, strict=True)
    ]
    assert min(reachable) > 0.9
    heads(model, train, select, STAGE, run)
    assert (accuracies(model.eval(), select) > np.array(reachable) - 0.03).all()


def test_a_killed_stage_resumes_and_saves_no_standardisation(run, monkeypatch):
    stage, parts = dataclasses.replace(STAGE, epochs=3), (rows_of(200, 1), rows_of(60, 2))
    unbroken = heads(faint_model("pooler"), *parts, stage, dataclasses.replace(run, folder=run.folder / "whole"))
    steps, forward = [], FrozenHeads.forward

    def watched(self, labels, wanted, states, lengths):
        steps.append(self.training)
        if sum(steps) == 11:
            raise KeyboardInterrupt
        return forward(self, labels, wanted, states, lengths)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FrozenHeads, "forward", watched)
        heads(faint_model("pooler"), *parts, stage, run)
    assert list(run.folder.glob("checkpoint-*"))
    resumed = heads(faint_model("pooler"), *parts, stage, run).state_dict()
    assert resumed.keys() == faint_model("pooler").state_dict().keys()
    assert all(torch.equal(mine, resumed[name]) for name, mine in unbroken.state_dict().items())


@pytest.mark.parametrize("kept", [True, False])
def test_a_map_answers_the_same_with_standardised_states(kept, run, monkeypatch):
    monkeypatch.setattr(stages, "inputs_fit_memory", lambda *_: kept)
    model, rows, said = faint_model("linear"), rows_of(100, 1), []
    with monkeypatch.context() as patch:
        patch.setattr(stages, "fit", lambda module, *_, **__: said.extend([exits(model, rows), fold(module)]))
        before = exits(model, rows)
        heads(model, rows, rows, STAGE, run)
    assert all(torch.allclose(before, other, atol=1e-4) for other in (said[0], exits(model, rows)))


@torch.no_grad()
def exits(model, rows):
    return torch.stack(model(next(batches(rows)))[:-1])


def test_standardised_states_have_mean_0_and_deviation_1():
    draws = torch.Generator().manual_seed(0)
    read = torch.randn(500, 16, generator=draws) * 0.003 + 0.2
    read[:, 3] = 20 + 1e-5 * torch.randn(500, generator=draws)  # the same in all texts, as far as float32 can tell
    read[:, 5] = 0
    part = ReadingLinear(16, 16)
    standardise([part], lambda: part(read))
    part.weight.data, part.bias.data = torch.eye(16), torch.zeros(16)
    seen = part(read).detach()
    others = [place for place in range(16) if place not in (3, 5)]
    assert seen[:, others].mean(0).abs().max() < 0.01 and (seen[:, others].std(0) - 1).abs().max() < 0.01
    assert seen[:, [3, 5]].abs().max() < 0.01


def test_norms_stay_and_a_pooler_without_bias_is_left_alone(run):
    """As ModernBERT has them."""
    rows, maps = rows_of(100, 1), {}
    for kind in ("linear", "pooler"):
        model = faint_model(kind, norm_first=True, head_bias=False)
        before = exits(model, rows)
        standardise(model.exits.values(), lambda model=model: exits(model, rows))
        maps[kind] = [part.mean is not None for part in model.exits.modules() if isinstance(part, ReadingLinear)]
        assert torch.allclose(exits(model, rows), before, atol=1e-4)
        fold(model)
        assert torch.allclose(exits(model, rows), before, atol=1e-4)
    assert maps == {"linear": [True, True], "pooler": [False, False]}


def test_patience_ends_a_stage_and_keeps_the_lowest_loss(run):
    looks, model, rows = [], faint_model("linear"), (rows_of(100, 1), rows_of(60, 2))
    stage = dataclasses.replace(STAGE, epochs=50, patience=3, evaluations=1, learning_rate=0.3, label_weight=0.0)
    evaluate = stages.FrozenHeads.train

    def watched(self, mode=True):
        looks.extend([] if mode else [1])
        return evaluate(self, mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrozenHeads, "train", watched)
        heads(model, *rows, stage, run)
    assert 3 < len(looks) < 40
