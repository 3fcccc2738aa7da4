"""The torch backend on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.kit.all_rungs import run_every_rung
from ziggurat.data import pack
from ziggurat.encoder.torch.heads import HEADS
from ziggurat.engine import TorchBackend


def every_rung(backend, sequences) -> np.ndarray:
    return run_every_rung(backend, [pack(sequences)], len(sequences)).readings


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("kind", HEADS)
def test_a_gpu_answers_like_the_cpu(make_model, ragged_tokens, kind):
    on_gpu = TorchBackend(make_model(kind), "cuda")
    assert on_gpu.device == torch.cuda.get_device_name()
    on_cpu = TorchBackend(make_model(kind), "cpu")
    assert np.abs(every_rung(on_gpu, ragged_tokens) - every_rung(on_cpu, ragged_tokens)).max() < 1e-3
