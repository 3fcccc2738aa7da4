"""The compiled engine against the torch engine, and against the specification, which decides one by one in Python."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.all_rungs import run_every_rung
from ziggurat import native
from ziggurat.data import pack
from ziggurat.engine import answer_all
from ziggurat.engine import run_batches as run
from ziggurat.policies import ExitRule, TokenRule, exits, one_by_one, prune
from ziggurat.recipe import PruningConfig

if native.why_missing():
    pytest.skip(native.why_missing(), allow_module_level=True)

from ziggurat.engine import NativeBackend
from ziggurat.engine.backends import native as native_backend
from ziggurat.engine.backends.native import load_backend
from ziggurat.engine.backends.torch import load_backend as load_torch

N_RUNGS = 4
PRUNED = PruningConfig(per_layer=(0.8, 0.9, 0.95, 1.0), vocabulary=0.9)
RULES = {
    "threshold": PRUNED,
    "paper scale": PruningConfig(final=0.2, scale="paper"),
    "ltp-code scale": PruningConfig(final=0.008, scale="ltp-code"),
    "from others": PruningConfig(final=1.0, score="received-from-others"),
    "predicted": PruningConfig(final=1.0, score="predicted"),
    "share": PruningConfig(kind="share", per_layer=(None, 0.8, 0.5, 0.3)),
    "count": PruningConfig(kind="count", per_layer=(20, 9, 4, 2)),
}
SCORES = [
    ("entropy", 0.6), ("max-probability", 0.7), ("margin", 0.4), ("agreement", 1), ("agreement-in-a-row", 1),
    ("top-entropy@2", 0.5), ("confident-in-a-row@0.7", 2), ("learned", 0.5),
]  # fmt: skip
WEIGHTS = np.random.default_rng(5).normal(size=(N_RUNGS - 1, 4 + 3))  # of the learned score


@pytest.fixture(scope="module")
def folders(make_folder):
    """A model folder for each pruning rule, and one that does not prune."""
    return {"none": make_folder()} | {name: make_folder(pruning=config) for name, config in RULES.items()}


@pytest.fixture(scope="module")
def backend(folders):
    return load_backend(folders["threshold"], "float32", 2)


def full_rule(backend):
    return replace(ExitRule.full_depth(len(backend.rung_layers)), tokens=backend.token_rule)


def in_batches(inputs, order, size):
    return [pack([inputs[i] for i in rows], rows=rows) for rows in np.array_split(order, -(-len(order) // size))]


@pytest.mark.parametrize("head_kind", ["fastbert", "pooler", "linear"])
def test_every_rung_says_what_it_says_in_torch(make_folder, ragged_tokens, head_kind):
    folder = make_folder(head_kind)
    ours, theirs = load_backend(folder, "float32", 2), load_torch(folder, "cpu", "float32", None)
    batches = [pack(ragged_tokens)]
    mine, yours = (run_every_rung(one, batches, len(ragged_tokens)) for one in (ours, theirs))
    assert np.abs(mine.readings - yours.readings).max() < 1e-4
    assert np.array_equal(mine.token_counts, yours.token_counts)


@pytest.fixture(scope="module")
def narrow_folder(make_bert, make_checkpoint, tmp_path_factory):
    """TinyBERT's widths: 312 with 12 heads of 26, which fill no vector, and 1200."""
    import torch

    from ziggurat.encoder import Manifest, load_hf, save_model

    folder = tmp_path_factory.mktemp("narrow")
    bert = make_bert(
        hidden_size=312, num_attention_heads=12, intermediate_size=1200, num_hidden_layers=2, initializer_range=0.05
    )
    source = make_checkpoint(bert, folder / "source")
    torch.manual_seed(1)
    pruning = PruningConfig(kind="share", per_layer=(0.8, 0.6))
    model = load_hf(source, 3, "fastbert", (1,), pruning=pruning)
    manifest = Manifest(("river", "stone", "tower"), False, 64, "fastbert", (1,), "", pruning=pruning)
    save_model(model, manifest, np.array([1], dtype=np.uint64), source, folder / "model")
    return folder / "model"


@pytest.mark.parametrize("instructions", native.core().instructions())
def test_heads_of_width_26_say_what_they_say_in_torch(narrow_folder, ragged_tokens, instructions, monkeypatch):
    monkeypatch.setattr(native_backend, "NativeBackend", lambda *parts: NativeBackend(*parts[:5], instructions))
    ours, theirs = load_backend(narrow_folder, "float32", 2), load_torch(narrow_folder, "cpu", "float32", None)
    n, batches = len(ragged_tokens), [pack(ragged_tokens)]
    mine, yours = (run_every_rung(one, batches, n) for one in (ours, theirs))
    assert ours.instructions == instructions
    assert np.abs(mine.readings - yours.readings).max() < 1e-4
    mine, yours = (run(one, batches, full_rule(one), n) for one in (ours, theirs))
    assert np.array_equal(mine.token_counts, yours.token_counts)
    assert np.abs(mine.readings - yours.readings).max() < 1e-4


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_heads_of_width_26_answer_in_half_and_quarter_precision(narrow_folder, ragged_tokens, dtype):
    ours, exact = (load_backend(narrow_folder, kind, 2) for kind in (dtype, "float32"))
    batches = [pack(ragged_tokens)]
    mine, yours = (run_every_rung(one, batches, len(ragged_tokens)).readings for one in (ours, exact))
    assert np.abs(mine - yours).max() < 0.1 * np.abs(yours).max()


def test_int8_is_simulated_in_exactly_the_int8_parts(folders, ragged_tokens):
    """Some values are rounded to the next code, where floats differ in the last digit; most answers are the same."""
    import torch

    from ziggurat.encoder import load_model, simulate_int8

    model, _ = load_model(folders["none"])
    simulate_int8(model)
    with torch.no_grad():
        expected = torch.stack(model(pack(ragged_tokens)), dim=1).numpy()
    backend = load_backend(folders["none"], "int8", 1)
    logits = run_every_rung(backend, [pack(ragged_tokens)], len(ragged_tokens)).readings
    assert np.median(np.abs(logits - expected), axis=(0, 2)).max() < 1e-4


@pytest.mark.parametrize("name", ["none", *RULES])
def test_pruned_answers_and_lengths_are_those_of_torch(folders, ragged_tokens, name):
    ours, theirs = load_backend(folders[name], "float32", 2), load_torch(folders[name], "cpu", "float32", None)
    n, batches = len(ragged_tokens), [pack(ragged_tokens)]
    mine, yours = (run(one, batches, full_rule(one), n) for one in (ours, theirs))
    assert np.array_equal(mine.token_counts, yours.token_counts)
    assert np.abs(mine.readings - yours.readings).max() < 1e-4


@pytest.mark.parametrize("name", ["none", *RULES])
@pytest.mark.parametrize(("score", "threshold"), SCORES)
def test_one_call_decides_as_the_specification(folders, ragged_tokens, name, score, threshold):
    backend = load_backend(folders[name], "float32", 1)
    rule = replace(ExitRule.uniform(score, threshold, N_RUNGS), tokens=backend.token_rule, deferral=WEIGHTS)
    outcomes = run(backend, [pack(ragged_tokens)], rule, len(ragged_tokens))
    logits, rungs = answer_all(backend, ragged_tokens, rule)
    assert outcomes.rungs.tolist() == rungs.tolist()
    assert np.abs(outcomes.readings - logits).max() < 1e-4


def test_temperatures_and_thresholds_of_each_input_are_obeyed(backend, ragged_tokens):
    n = len(ragged_tokens)
    thresholds = np.random.default_rng(0).uniform(0.3, 0.9, n)
    rule = ExitRule.uniform("entropy", thresholds, N_RUNGS, temperatures=np.array([0.5, 2.0, 1.0, 3.0]))
    outcomes = run(backend, in_batches(ragged_tokens, np.arange(n), 7), rule, n)
    _, rungs = answer_all(backend, ragged_tokens, rule)
    assert outcomes.rungs.tolist() == rungs.tolist()
    assert len(set(rungs.tolist())) > 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_an_answer_ignores_batch_mates_and_threads_to_the_bit(folders, ragged_tokens, dtype):
    rule = replace(
        ExitRule.uniform("entropy", 0.6, N_RUNGS), tokens=load_backend(folders["threshold"], dtype, 1).token_rule
    )
    n = len(ragged_tokens)

    @settings(derandomize=True, deadline=None, max_examples=12)
    @given(size=st.integers(1, n), seed=st.integers(0, 99), threads=st.sampled_from([0, 1, 2]))
    def check(size, seed, threads):
        order = np.random.default_rng(seed).permutation(n)
        outcomes = run(engines[threads], in_batches(ragged_tokens, order, size), rule, n)
        assert np.array_equal(outcomes.readings, alone.readings) and np.array_equal(
            outcomes.token_counts, alone.token_counts
        )

    engines = [load_backend(folders["threshold"], dtype, threads) for threads in (1, 2, 3)]
    alone = run(engines[0], in_batches(ragged_tokens, np.arange(n), 1), rule, n)
    check()


@pytest.mark.parametrize("name", ["none", *RULES])
def test_joined_leftovers_are_answered_as_if_run_alone(folders, ragged_tokens, name):
    backend, n = load_backend(folders[name], "int8", 2), len(ragged_tokens)
    order = np.argsort([-len(tokens) for tokens in ragged_tokens], kind="stable")

    @settings(derandomize=True, deadline=None, max_examples=10)
    @given(size=st.integers(2, 7), threshold=st.floats(0.2, 0.9), falling=st.booleans())
    def check(size, threshold, falling):
        rule = replace(ExitRule.uniform("entropy", threshold, N_RUNGS), tokens=backend.token_rule)
        batches = in_batches(ragged_tokens, order if falling else order[::-1], size)
        alone, together = (run(backend, batches, rule, n, tokens) for tokens in (0, 1 << 20))
        for field in ("readings", "rungs", "token_counts"):
            assert np.array_equal(getattr(together, field), getattr(alone, field))
        assert (together.seconds > 0).all()

    check()


def test_those_who_wait_take_at_most_a_batch_for_each_layer(folders, ragged_tokens):
    backend = load_backend(folders["threshold"], "float32", 2)
    rule = replace(ExitRule.uniform("entropy", 0.5, N_RUNGS), tokens=backend.token_rule)
    n, batches = len(ragged_tokens), in_batches(ragged_tokens, np.arange(len(ragged_tokens)), 5)
    run(backend, batches, rule, n, 0)
    alone = backend._core.workspace_bytes
    run(backend, batches * 40, rule, n, 1 << 20)
    states = max(len(batch.positions) for batch in batches) * backend.embed(batches[0]).states[0].nbytes
    assert alone < backend._core.workspace_bytes <= alone + backend.n_layers * states


@pytest.mark.parametrize("score", prune.SCORES)
def test_pruning_at_the_last_layer_changes_no_answer(folders, ragged_tokens, score):
    backend, n = load_backend(folders["predicted"], "float32", 2), len(ragged_tokens)
    at_last = TokenRule(prune.above, np.array([np.nan] * 3 + [1.0]), score)
    whole, pruned = (
        run(backend, [pack(ragged_tokens)], replace(ExitRule.full_depth(N_RUNGS), tokens=tokens), n)
        for tokens in (None, at_last)
    )
    assert np.array_equal(pruned.readings, whole.readings)
    slow = load_torch(folders["predicted"], "cpu", "float32", 1)
    counted = run(slow, [pack(ragged_tokens)], replace(ExitRule.full_depth(N_RUNGS), tokens=at_last), n).token_counts
    assert (
        np.array_equal(pruned.token_counts, counted)
        and pruned.token_counts[:, 4].sum() < whole.token_counts[:, 4].sum()
    )


def test_a_rule_of_the_users_own_runs_step_by_step(backend, ragged_tokens):
    halves = one_by_one(lambda layer, scores, original: np.arange(len(scores)) < original / (layer + 1))
    rule = replace(ExitRule.full_depth(N_RUNGS), tokens=TokenRule(halves, np.arange(1.0, 5.0)))
    n = len(ragged_tokens)
    outcomes = run(backend, [pack(ragged_tokens)], rule, n)
    assert outcomes.token_counts[:, 4].tolist() == [int(np.ceil(len(tokens) / 5)) for tokens in ragged_tokens]


def test_a_score_that_is_new_to_the_core_runs_step_by_step(backend, ragged_tokens, monkeypatch):
    new = replace(exits.SCORES["margin"])
    monkeypatch.setattr("ziggurat.policies.exits.SCORES", {**exits.SCORES, "new": new})
    n = len(ragged_tokens)
    as_new, as_margin = (
        run(backend, [pack(ragged_tokens)], ExitRule.uniform(name, 0.3, N_RUNGS), n) for name in ("new", "margin")
    )
    assert as_new.rungs.tolist() == as_margin.rungs.tolist() and len(set(as_new.rungs)) > 1
    assert np.array_equal(as_new.readings, as_margin.readings)


def test_scaled_pruning_is_obeyed(backend, ragged_tokens):
    rules = [
        replace(ExitRule.full_depth(N_RUNGS), tokens=prune.scaled(backend.token_rule, factor))
        for factor in (0, 0.5, 1, 1.5)
    ]
    kept = [run(backend, [pack(ragged_tokens)], rule, len(ragged_tokens)).token_counts[:, 4].sum() for rule in rules]
    assert kept == sorted(kept, reverse=True) and len(set(kept)) == 4


@pytest.mark.parametrize(("score", "threshold"), [("agreement", 1), ("learned", 0.5)])
@pytest.mark.parametrize("stops", [(4,), (1, 4), (2, 3, 4), (1, 2, 3, 4)])
def test_layers_in_pieces_answer_as_in_one_call(backend, ragged_tokens, stops, score, threshold):
    rule = replace(ExitRule.uniform(score, threshold, N_RUNGS), tokens=backend.token_rule, deferral=WEIGHTS)
    n, batch = len(ragged_tokens), pack(ragged_tokens)
    whole = run(backend, [batch], rule, n)
    rungs, kept = np.full(n, -1), np.zeros_like(whole.token_counts)
    work = backend.start(batch)
    for stop in stops:
        rows = work.rows
        work, done = backend.advance(work, rule, stop)
        rungs[done.rows], kept[done.rows] = done.rungs, done.token_counts
        assert sorted([*work.rows, *done.rows]) == rows.tolist()
        assert np.array_equal(done.readings, whole.readings[done.rows])
    assert rungs.tolist() == whole.rungs.tolist() and len(work.rows) == 0
    assert np.array_equal(kept, whole.token_counts)


def test_rows_that_join_on_the_way_are_answered_as_if_alone(backend, ragged_tokens):
    rule = replace(ExitRule.uniform("entropy", 0.5, N_RUNGS), tokens=backend.token_rule)
    n = len(ragged_tokens)
    whole = run(backend, [pack(ragged_tokens)], rule, n)
    parts = in_batches(ragged_tokens, np.arange(n), 10)
    after_one = [backend.advance(backend.start(part), rule, 1)[0] for part in parts]
    together = backend.join(after_one[:2])
    rows = together.rows
    assert len(rows) > 2
    _, done = backend.advance(together, rule, 4)
    assert sorted(done.rows) == sorted(rows)
    assert np.array_equal(done.readings, whole.readings[done.rows]) and np.array_equal(
        done.token_counts, whole.token_counts[done.rows]
    )
    with pytest.raises(ValueError, match="cannot go on together"):
        backend.join([after_one[0], backend.start(parts[1])])


def test_dropped_inputs_change_no_other_answer(backend, ragged_tokens):
    rule = replace(ExitRule.uniform("entropy", 0.5, N_RUNGS), tokens=backend.token_rule)
    n = len(ragged_tokens)
    whole = run(backend, [pack(ragged_tokens)], rule, n)
    work, _ = backend.advance(backend.start(pack(ragged_tokens)), rule, 1)
    work = work.take(np.arange(len(work.rows)) % 2 == 0)
    rows = work.rows
    rest, done = backend.advance(work, rule, 4)
    assert len(rows) > 0 and sorted(done.rows) == sorted(rows) and not len(rest.rows)
    assert np.array_equal(done.readings, whole.readings[done.rows]) and np.array_equal(
        done.token_counts, whole.token_counts[done.rows]
    )


def test_embeddings_are_read_where_the_file_is_mapped(folders):
    from ziggurat.encoder import map_tensors

    tensors = map_tensors(folders["none"] / "model.safetensors")
    assert all(isinstance(tensor.base, np.memmap) or tensor.base is not None for tensor in tensors.values())
    assert not any(tensor.flags.writeable for tensor in tensors.values())


def test_calls_from_several_threads_wait_for_each_other(backend, ragged_tokens):
    rule, n = full_rule(backend), len(ragged_tokens)
    alone = run(backend, [pack(ragged_tokens)], rule, n).readings
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: run(backend, [pack(ragged_tokens)], rule, n).readings, range(16)))
    assert all(np.array_equal(logits, alone) for logits in answers)


FORKED = """
import os, sys
import numpy as np
from pathlib import Path
from ziggurat.data.packing import pack
from ziggurat.engine.backends.native import NativeBackend, load_backend
from ziggurat.policies.rules import ExitRule
from ziggurat.engine.replay import run_batches as run

backend = load_backend(Path(sys.argv[1]), "float32", 3)
inputs = [np.array([[2, 0], *([[7, 0]] * n), [3, 0]]) for n in (5, 9, 30, 41)]
answer = lambda: run(backend, [pack(inputs)], ExitRule.full_depth(len(backend.rung_layers)), 4).readings
before = answer()
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(answer(), before) else 1)
assert os.waitpid(child, 0)[1] == 0 and np.array_equal(answer(), before)
"""


def test_a_forked_process_answers_with_threads_of_its_own(model_folder):
    # Later Pythons warn of forking beside threads; that it works is what is claimed here.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, str(model_folder)], timeout=120, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
