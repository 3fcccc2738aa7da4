"""Rows that a tiny model can learn, the model, and what a stage is told."""

import numpy as np
import pytest
import torch

from ziggurat.data.tokenizer import Encoded
from ziggurat.encoder import EncoderModel
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.recipe import StageConfig
from ziggurat.training import Examples, Run

SPEC = EncoderSpec(
    model_type="bert",
    hidden=16,
    layers=3,
    heads=2,
    intermediate=32,
    vocabulary=40,
    positions=32,
    segments=2,
    activation="gelu",
    layer_norm_eps=1e-12,
    dropout=0.1,
    attention_dropout=0.1,
    initializer_range=0.2,
)


def make_examples(n, seed, labelled=True):
    """Random tokens but for the first, 1 or 2, which is the class plus one."""
    draws = np.random.default_rng(seed)
    tokens = [np.stack([draws.integers(0, 40, k), np.zeros(k, int)], axis=1) for k in draws.integers(2, 12, n)]
    classes = draws.integers(0, 2, n)
    for row, label in zip(tokens, classes, strict=True):
        row[0, 0] = label + 1
    labels = classes if labelled else np.full(n, -1)
    return Examples(Encoded(tokens, np.zeros(n, bool)), labels)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return EncoderModel(SPEC, 2, "fastbert", [1, 2])


@pytest.fixture
def train_rows():
    return make_examples(96, 1)


@pytest.fixture
def select_rows():
    return make_examples(40, 2)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "stage", torch.device("cpu"), seed=3, progress=False, mixed_precision=False)


@pytest.fixture
def stage():
    return StageConfig(kind="regular", epochs=2, learning_rate=5e-3, batch_size=8, warmup=0.0, evaluations=2)
