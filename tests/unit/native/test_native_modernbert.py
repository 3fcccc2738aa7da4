"""ModernBERT in the compiled engine, in texts longer than its window: every pruning rule, every type, every mate."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.families import save_adaptive
from ziggurat import native

if native.why_missing():
    pytest.skip(native.why_missing(), allow_module_level=True)

from ziggurat.data import pack
from ziggurat.engine import NativeBackend, answer_all
from ziggurat.engine import run_batches as run
from ziggurat.engine.backends import native as native_backend
from ziggurat.engine.backends.native import load_backend
from ziggurat.engine.backends.torch import load_backend as load_torch
from ziggurat.policies import ExitRule
from ziggurat.recipe import PruningConfig

LENGTHS = (3, 250, 2, 70, 9, 130, 17, 5, 70, 33)
RULES = {
    "threshold": PruningConfig(per_layer=(0.7, 0.8, 0.9, 1.0)),
    "from others": PruningConfig(per_layer=(0.7, 0.8, 0.9, 1.0), score="received-from-others"),
    "paper scale": PruningConfig(final=0.2, scale="paper"),
    "predicted": PruningConfig(final=1.0, score="predicted"),
    "share": PruningConfig(kind="share", per_layer=(None, 0.8, 0.5, 0.3)),
    "words": PruningConfig(per_layer=(0.7, 0.8, 0.9, 1.0), vocabulary=0.9),
}
HEADS = {"threshold": "fastbert", "share": "linear"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A folder for each rule, every other one with a classifier that reads the mean of all tokens."""
    root = tmp_path_factory.mktemp("modernbert")
    sizes = {"max_position_embeddings": 256, "num_hidden_layers": 4, "layer_types": None}
    return {
        rule: save_adaptive(
            "modernbert-mean" if i % 2 else "modernbert", root / str(i), pruning, HEADS.get(rule, "pooler"), **sizes
        )
        for i, (rule, pruning) in enumerate(RULES.items())
    }


@pytest.fixture(scope="module")
def inputs() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [np.stack([rng.integers(4, 24, n), np.zeros(n, dtype=np.int64)], axis=1) for n in LENGTHS]


def full_rule(backend):
    return replace(ExitRule.full_depth(4), tokens=backend.token_rule)


@pytest.mark.parametrize("instructions", native.core().instructions())
@pytest.mark.parametrize("rule", RULES)
def test_pruned_answers_and_lengths_are_those_of_torch(folders, inputs, rule, instructions, monkeypatch):
    monkeypatch.setattr(native_backend, "NativeBackend", lambda *parts: NativeBackend(*parts[:5], instructions))
    ours, theirs = load_backend(folders[rule], "float32", 2), load_torch(folders[rule], "cpu", "float32", None)
    mine, yours = (run(one, [pack(inputs)], full_rule(one), len(inputs)) for one in (ours, theirs))
    assert np.array_equal(mine.token_counts, yours.token_counts)
    assert np.abs(mine.readings - yours.readings).max() < 1e-3
    assert mine.token_counts[:, 4].sum() < 0.9 * sum(LENGTHS)


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("score", "threshold"), [("entropy", 0.6), ("margin", 0.4), ("agreement", 1)])
def test_decides_as_the_specification(folders, inputs, rule, score, threshold, engine):
    load = partial(load_backend, dtype="float32", threads=1)
    backend = load(folders[rule]) if engine == "native" else load_torch(folders[rule], "cpu", "float32", None)
    way = replace(ExitRule.uniform(score, threshold, 4), tokens=backend.token_rule)
    outcomes = run(backend, [pack(inputs)], way, len(inputs))
    logits, rungs = answer_all(backend, inputs, way)
    assert outcomes.rungs.tolist() == rungs.tolist()
    assert np.abs(outcomes.readings - logits).max() < 1e-4


@pytest.mark.parametrize("rule", ["threshold", "from others"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_an_answer_ignores_batch_mates_and_threads_to_the_bit(folders, inputs, rule, dtype):
    engines = [load_backend(folders[rule], dtype, threads) for threads in (1, 2, 3)]
    way = replace(ExitRule.uniform("entropy", 0.4, 4), tokens=engines[0].token_rule)
    n = len(inputs)
    alone = run(engines[0], [pack([tokens], rows=np.array([i])) for i, tokens in enumerate(inputs)], way, n)
    assert len(set(alone.rungs.tolist())) > 1

    @settings(derandomize=True, deadline=None, max_examples=10)
    @given(size=st.integers(1, n), seed=st.integers(0, 99), threads=st.sampled_from([0, 1, 2]))
    def check(size, seed, threads):
        order = np.random.default_rng(seed).permutation(n)
        batches = [pack([inputs[i] for i in rows], rows=rows) for rows in np.array_split(order, -(-n // size))]
        outcomes = run(engines[threads], batches, way, n)
        assert np.array_equal(outcomes.readings, alone.readings) and np.array_equal(
            outcomes.token_counts, alone.token_counts
        )

    check()


@pytest.mark.parametrize("stops", [(2, 4), (1, 2, 3, 4)])
def test_layers_in_pieces_answer_as_in_one_call(folders, inputs, stops):
    backend = load_backend(folders["threshold"], "float32", 2)
    way, batch = replace(ExitRule.uniform("entropy", 0.4, 4), tokens=backend.token_rule), pack(inputs)
    whole, work = run(backend, [batch], way, len(inputs)), backend.start(batch)
    for stop in stops:
        work, done = backend.advance(work, way, stop)
        assert np.array_equal(done.readings, whole.readings[done.rows])
    assert len(work.rows) == 0


def test_positions_that_no_table_holds_are_refused(folders, inputs):
    backend = load_backend(folders["threshold"], "float32", 1)
    batch = backend.embed(pack(inputs[:1]))
    for wrong in (-1, 256):
        positions = np.full(len(batch.positions), wrong)
        with pytest.raises(ValueError, match="position"):
            backend._core.context(2, batch.states, positions, batch.cu_seqlens, False, False)
