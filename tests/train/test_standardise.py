"""Heads learn what a converged linear map of the same states can say, also where all texts look alike to them."""

import dataclasses

import numpy as np
import pytest
import torch

from conftest import SPEC
from ziggurat.data.tokenize import Encoded
from ziggurat.encoder.model import AdaptiveModel
from ziggurat.stage import StageConfig
from ziggurat.train.batches import Examples, in_batches
from ziggurat.train.lbfgs import minimise
from ziggurat.train.stages import heads

FAINT = 1e-2  # what a layer adds to a state, in the size of the state
STAGE = StageConfig(kind="heads", epochs=40, learning_rate=1e-2, batch_size=16, label_weight=1.0, patience=8)


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
    model = AdaptiveModel(dataclasses.replace(SPEC, dropout=0.0, **spec), 2, kind, [1, 2]).eval()
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
def test_a_head_learns_as_much_as_a_converged_logistic_regression(kind, precise, run):
    model, train, select = faint_model(kind), rows_of(400, 1), rows_of(200, 2)
    run = dataclasses.replace(run, mixed_precision=not precise)
    read, asked = first_states(model, train), first_states(model, select)
    assert (read.std(axis=1).mean(axis=1) < 0.02 * np.abs(read).mean(axis=(1, 2))).all()
    reachable = [
        (logistic(*pair) == select.labels).mean() for pair in zip(read, [train.labels] * 2, asked, strict=True)
    ]
    assert min(reachable) > 0.9
    heads(model, train, select, STAGE, run)
    assert (accuracies(model.eval(), select) > np.array(reachable) - 0.03).all()
