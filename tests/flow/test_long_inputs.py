"""Inputs as long as the models read: 512 tokens with embedded positions, 8,192 with rotary ones, in bounded memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.kit.families import save_adaptive
from ziggurat import native
from ziggurat.data import by_length, pack
from ziggurat.data.packing import MOST_TOKENS
from ziggurat.encoder import load_model, soft_logits
from ziggurat.encoder.torch import attention as grid
from ziggurat.engine import run_batches as run
from ziggurat.engine.backends.torch import load_backend as load_torch
from ziggurat.policies import ExitRule
from ziggurat.recipe import PruningConfig

if native.why_missing():
    pytest.skip(native.why_missing(), allow_module_level=True)

from ziggurat.engine.backends.native import load_backend

LONGEST = {"bert": 512, "modernbert": 8192}
PRUNED = PruningConfig(kind="share", per_layer=(0.9, 0.8, None))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("long")
    sizes = {"num_attention_heads": 2, "hidden_size": 16}
    return {
        name: save_adaptive(name, root / name, PRUNED, max_position_embeddings=longest, **sizes)
        for name, longest in LONGEST.items()
    }


def text(n: int) -> np.ndarray:
    return np.stack([np.random.default_rng(n).integers(4, 24, n), np.zeros(n, dtype=np.int64)], axis=1)


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that is made while it watches."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        # A view of another shape takes no memory: what counts is what is stored.
        stored = (one.untyped_storage().nbytes() // one.itemsize for one in tree_leaves(made) if torch.is_tensor(one))
        self.numbers = max(self.numbers, *stored, 0)
        return made


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("name", LONGEST)
def test_both_engines_answer_the_longest_inputs_alike(folders, name, pruned):
    ours, theirs = load_backend(folders[name], "float32", 1), load_torch(folders[name], "cpu", "float32", None)
    inputs = [text(n) for n in (LONGEST[name], 5)]
    rule = replace(ExitRule.full_depth(3), tokens=ours.token_rule if pruned else None)
    mine, yours = (run(one, [pack(inputs)], rule, 2) for one in (ours, theirs))
    assert np.abs(mine.readings - yours.readings).max() < 1e-3
    assert np.array_equal(mine.token_counts, yours.token_counts)
    assert mine.token_counts[0, 0] == LONGEST[name]


@pytest.mark.parametrize("pruned", [False, True])
def test_compiled_memory_grows_linearly_with_the_length(folders, pruned):
    used = []
    for n in (2048, 8192):
        backend = load_backend(folders["modernbert"], "float32", 1)
        rule = replace(ExitRule.full_depth(3), tokens=backend.token_rule if pruned else None)
        run(backend, [pack([text(n)])], rule, 1)
        used.append(backend._core.workspace_bytes)
    assert used[1] < 4.1 * used[0]
    assert used[1] < 4 * 8192**2 / 50  # no scores of all pairs


@pytest.mark.parametrize(("lengths", "pruned"), [((8192, 8000), False), ((8192,), True)])
def test_torch_never_makes_a_tensor_of_all_pairs(folders, lengths, pruned):
    backend = load_torch(folders["modernbert"], "cpu", "float32", None)
    rule = replace(ExitRule.full_depth(3), tokens=backend.token_rule if pruned else None)
    with Largest() as largest:
        run(backend, [pack([text(n) for n in lengths])], rule, len(lengths))
    assert 8192 * 16 < largest.numbers <= grid._PROBABILITIES < 8192**2


def test_training_with_scores_makes_none_either_and_learns(folders, monkeypatch):
    """The same at 2,048 tokens with as much smaller a bound, for it takes gradients."""
    monkeypatch.setattr(grid, "_PROBABILITIES", 1 << 20)
    monkeypatch.setattr(grid, "_CHECKPOINT", 1 << 20)
    model, _ = load_model(folders["modernbert"])
    model.train()
    with Largest() as largest:
        logits, _ = soft_logits(model, pack([text(2048)]), 0.1)
        logits.square().sum().backward()
    assert largest.numbers <= 1 << 20 < 2048**2
    assert all(torch.isfinite(one.grad).all() for one in model.encoder.parameters())


def test_texts_longer_than_the_window_equal_transformers(folders):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folders["modernbert"]).eval()
    tokens = text(3000)
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens[:, 0])[None]).logits.numpy()
    for backend, near in (
        (load_torch(folders["modernbert"], "cpu", "float32", None), 1e-5),
        (load_backend(folders["modernbert"], "float32", 2), 1e-3),
    ):
        assert np.abs(run(backend, [pack([tokens])], ExitRule.full_depth(3), 1).readings - expected).max() < near


def test_a_batch_of_long_inputs_holds_fewer():
    lengths = np.array([8192] * 20 + [100] * 40)
    batches = list(by_length(lengths, 32))
    assert [len(batch) for batch in batches] == [8, 8, 4 + 4, 32, 4]
    assert all(lengths[batch].sum() <= MOST_TOKENS for batch in batches)
