"""Every architecture in the compiled engine: transformers' logits, and the specification's decisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.kit.families import FAMILIES, random_texts, save_adaptive
from ziggurat import native

if native.why_missing():
    pytest.skip(native.why_missing(), allow_module_level=True)

from tests.kit.all_rungs import run_every_rung
from ziggurat.data import TextTokenizer
from ziggurat.data.tokenizer import Encoded, pack_rows
from ziggurat.engine import NativeBackend, answer_all
from ziggurat.engine import run_batches as run
from ziggurat.engine.backends import native as native_backend
from ziggurat.engine.backends.native import load_backend
from ziggurat.engine.backends.torch import load_backend as load_torch
from ziggurat.policies import ExitRule
from ziggurat.recipe import PruningConfig

PRUNED = PruningConfig(per_layer=(0.7, 0.85, 1.0))
LENGTHS = (1, 2, 30, 4, 4, 17, 2, 6)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A model folder of each family that prunes. Shared."""
    root = tmp_path_factory.mktemp("families")
    return {name: save_adaptive(name, root / name, PRUNED) for name in FAMILIES}


def encoded_by(folder: Path) -> Encoded:
    return TextTokenizer(folder, 46).encode(random_texts(0, LENGTHS), random_texts(1, LENGTHS[::-1]))


@pytest.mark.parametrize("name", FAMILIES)
def test_full_depth_says_what_transformers_says(folders, name):
    import torch
    from transformers import AutoModelForSequenceClassification

    backend, encoded = load_backend(folders[name], "float32", 1), encoded_by(folders[name])
    logits = run(backend, [pack_rows(encoded, np.arange(len(encoded)))], ExitRule.full_depth(3), len(encoded)).readings
    model = AutoModelForSequenceClassification.from_pretrained(folders[name]).eval()
    reads_segments = model.config.to_dict().get("type_vocab_size", 0) > 1
    for tokens, mine in zip(encoded.tokens, logits, strict=True):
        ids, segments = torch.from_numpy(tokens.T.copy())[:, None]
        with torch.no_grad():
            expected = model(ids, **({"token_type_ids": segments} if reads_segments else {})).logits[0].numpy()
        assert np.abs(mine - expected).max() < 1e-4


@pytest.mark.parametrize("instructions", native.core().instructions())
@pytest.mark.parametrize("name", FAMILIES)
def test_every_rung_says_what_it_says_in_torch(folders, name, instructions, monkeypatch):
    monkeypatch.setattr(native_backend, "NativeBackend", lambda *parts: NativeBackend(*parts[:5], instructions))
    ours, theirs = load_backend(folders[name], "float32", 2), load_torch(folders[name], "cpu", "float32", None)
    encoded = encoded_by(folders[name])
    batches = [pack_rows(encoded, np.arange(len(encoded)))]
    mine, yours = (run_every_rung(one, batches, len(encoded)) for one in (ours, theirs))
    assert ours.instructions == instructions
    assert np.abs(mine.readings - yours.readings).max() < 1e-4
    assert np.array_equal(mine.token_counts, yours.token_counts)


@pytest.mark.parametrize("name", FAMILIES)
def test_one_call_decides_as_the_specification(folders, name):
    backend, encoded = load_backend(folders[name], "float32", 2), encoded_by(folders[name])
    rule = replace(ExitRule.uniform("entropy", 0.8, 3), tokens=backend.token_rule)
    outcomes = run(backend, [pack_rows(encoded, np.arange(len(encoded)))], rule, len(encoded))
    logits, rungs = answer_all(backend, encoded.tokens, rule)
    assert outcomes.rungs.tolist() == rungs.tolist()
    assert np.abs(outcomes.readings - logits).max() < 1e-4
    assert outcomes.token_counts[:, 1].sum() < outcomes.token_counts[:, 0].sum()


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", FAMILIES)
def test_half_and_quarter_precision_stay_near(folders, name, dtype):
    ours, exact = (load_backend(folders[name], kind, 1) for kind in (dtype, "float32"))
    encoded = encoded_by(folders[name])
    batches = [pack_rows(encoded, np.arange(len(encoded)))]
    mine, yours = (run(one, batches, ExitRule.full_depth(3), len(encoded)).readings for one in (ours, exact))
    assert np.abs(mine - yours).max() < 0.1 * np.abs(yours).max()


@pytest.mark.parametrize("name", FAMILIES)
def test_int8_is_what_torch_simulates(folders, name):
    from ziggurat.encoder import load_model, simulate_int8

    model, _ = load_model(folders[name])
    simulate_int8(model)
    encoded = encoded_by(folders[name])
    batch = pack_rows(encoded, np.arange(len(encoded)))
    import torch

    with torch.no_grad():
        expected = torch.stack(model(batch), dim=1).numpy()
    logits = run_every_rung(load_backend(folders[name], "int8", 1), [batch], len(encoded)).readings
    assert np.abs(logits - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["roberta", "distilbert"])
def test_segment_ids_are_refused_only_where_they_are_read(folders, name):
    backend, encoded = load_backend(folders[name], "float32", 1), encoded_by(folders[name])
    batch = pack_rows(encoded, np.arange(3))
    other = batch.with_states(np.maximum(batch.states, [0, 7]))
    assert np.array_equal(backend.embed(batch).states, backend.embed(other).states)
    batch = pack_rows(encoded_by(folders["bert"]), np.arange(3))
    with pytest.raises(ValueError, match="segment id"):
        load_backend(folders["bert"], "float32", 1).embed(batch.with_states(np.maximum(batch.states, [0, 7])))


@pytest.mark.parametrize("name", ["roberta", "bert"])
def test_a_position_behind_the_last_is_refused(folders, name):
    backend = load_backend(folders[name], "float32", 1)
    last = {"roberta": 45, "bert": 47}[name]
    ids = np.zeros((1, 2), dtype=np.int64)
    assert np.isfinite(backend._core.embed(ids, np.array([last]))).all()
    with pytest.raises(ValueError, match="position"):
        backend._core.embed(ids, np.array([last + 1]))
