"""The torch backend computes what the model computes, and says what it cannot do."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from tests.kit.all_rungs import run_every_rung
from ziggurat.data import pack
from ziggurat.encoder import Int8Linear, simulate_int8
from ziggurat.encoder.torch.heads import HEADS
from ziggurat.engine import TorchBackend
from ziggurat.engine.backends.torch import DTYPES, _PrepackedLinear, load_backend
from ziggurat.errors import UserError
from ziggurat.system import n_cores

prepacking = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    reason="this build of torch cannot lay weights out beforehand",
)


def every_rung(backend, sequences) -> np.ndarray:
    return run_every_rung(backend, [pack(sequences)], len(sequences)).readings


@pytest.mark.parametrize("kind", HEADS)
def test_logits_are_the_models_at_every_rung(make_model, ragged_tokens, kind):
    model = make_model(kind, (1, 3))
    with torch.no_grad():
        expected = torch.stack(model(pack(ragged_tokens)), dim=1).numpy()
    backend = TorchBackend(copy.deepcopy(model), "cpu")
    logits = every_rung(backend, ragged_tokens)
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() < 1e-5
    assert backend.rung_layers == (1, 3, 4)
    assert (backend.n_layers, backend.n_classes, backend.device, backend.dtype) == (4, 3, "cpu", "float32")


@prepacking
@pytest.mark.parametrize(("d_in", "d_out"), [(32, 64), (32, 3), (128, 256), (5, 7)])
def test_a_linear_layer_laid_out_beforehand_equals_a_plain_one(d_in, d_out):
    torch.manual_seed(0)
    plain = nn.Linear(d_in, d_out)
    laid_out = _PrepackedLinear(plain)
    with torch.no_grad():
        for rows in (1, 2, 31, 256, 257, 1000):
            states = torch.randn(rows, d_in)
            assert torch.allclose(laid_out(states), plain(states), atol=1e-5, rtol=1e-5)


@prepacking
def test_linear_layers_are_repacked_on_the_cpu_in_float32_only(make_model):
    def kinds(dtype):
        modules = list(TorchBackend(make_model(), "cpu", dtype).model.modules())
        return [sum(isinstance(module, kind) for module in modules) for kind in (nn.Linear, _PrepackedLinear)]

    linears = 4 * 4 + 2 + 3 * 6  # layers, the last classifier, three FastBERT heads
    assert kinds("float32") == [0, linears]
    assert kinds("bfloat16") == [linears, 0]


def test_a_model_that_simulates_int8_still_does_so_here(make_model, ragged_tokens):
    model = make_model()
    floats = every_rung(TorchBackend(model, "cpu"), ragged_tokens)
    simulated = simulate_int8(model)
    backend = TorchBackend(model, "cpu")
    assert sum(isinstance(part, Int8Linear) for part in backend.model.modules()) == len(simulated) == 16 + 3 * 2
    with torch.no_grad():
        expected = torch.stack(model(pack(ragged_tokens)), dim=1).numpy()
    logits = every_rung(backend, ragged_tokens)
    assert np.abs(logits - expected).max() < 1e-5
    assert np.abs(logits - floats).max() > 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_in_training_runs_without_dropout_or_gradients(make_model, ragged_tokens, dtype):
    backend = TorchBackend(make_model().train().requires_grad_(True), "cpu", dtype)
    states = backend.layer(1, backend.embed(pack(ragged_tokens))).states
    assert not states.requires_grad
    assert states.dtype == DTYPES[dtype]
    assert np.array_equal(every_rung(backend, ragged_tokens), every_rung(backend, ragged_tokens))


def test_bfloat16_gives_float32_logits_near_the_full_ones(make_model, ragged_tokens):
    full = every_rung(TorchBackend(make_model(), "cpu"), ragged_tokens)
    half = every_rung(TorchBackend(make_model(), "cpu", "bfloat16"), ragged_tokens)
    assert half.dtype == np.float32
    assert not np.array_equal(half, full)
    assert np.abs(half - full).mean() < 0.1 * full.std()
    assert (half.argmax(axis=2) == full.argmax(axis=2)).mean() > 0.9


def test_auto_is_the_cpu_where_there_is_no_gpu(make_model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert TorchBackend(make_model()).device == "cpu"


def test_a_gpu_that_is_not_there_is_refused_with_the_fix(make_model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="torch sees no GPU; use --device cpu"):
        TorchBackend(make_model(), "cuda")


def test_an_unknown_device_or_dtype_is_refused(make_model):
    with pytest.raises(UserError, match="device 'tpu' is not known; known: auto, cpu, cuda"):
        TorchBackend(make_model(), "tpu")
    with pytest.raises(UserError, match="dtype 'int4' is not known; known: float32, bfloat16"):
        TorchBackend(make_model(), "cpu", "int4")


def test_threads_are_as_many_as_were_asked_for(model_folder):
    before = torch.get_num_threads()
    try:
        assert load_backend(model_folder, "cpu", "float32", 1).threads == 1
        assert load_backend(model_folder, "cpu", "float32", 2).threads == torch.get_num_threads() == 2
        assert load_backend(model_folder, "cpu", "float32", None).threads == min(2, n_cores())
    finally:
        torch.set_num_threads(before)


DAEMONS = """
import sys, threading, time
import ziggurat

model = ziggurat.AdaptiveModel.from_pretrained(sys.argv[1], "cpu", threads=1, backend="torch")

def work():
    while True:
        model.answer(["bat kish lor"] * 20, "full")

for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.5)
print(len(model.answer(["bat"], "full")))
"""


FORKS = """
import os, sys, threading
import ziggurat

model = ziggurat.AdaptiveModel.from_pretrained(sys.argv[1], "cpu", threads=2, backend="torch")
texts = ["bat kish lor"] * 200

def ask():
    return [a.label for a in model.answer(texts, "full")]

before, going = ask(), [True]

def work():
    while going:
        ask()

worker = threading.Thread(target=work)
worker.start()
for _ in range(3):
    child = os.fork()
    if child == 0:
        os._exit(0 if ask() == before and model.backend.threads == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
going.clear()
worker.join()
assert model.backend.threads == 2
"""


@pytest.mark.slow
def test_children_forked_during_a_computation_answer(model_folder):
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "true"}
    command = [sys.executable, "-W", "ignore", "-c", FORKS, str(model_folder)]
    done = subprocess.run(command, timeout=120, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_interpreter_ends_while_daemon_threads_compute(model_folder):
    command = [sys.executable, "-c", DAEMONS, str(model_folder)]
    done = subprocess.run(command, timeout=120, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
