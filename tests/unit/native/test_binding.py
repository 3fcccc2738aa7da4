"""Whatever Python hands to the compiled engine, it gets an answer or an exception, never a crash."""

import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat import native

if native.why_missing():
    pytest.skip(native.why_missing(), allow_module_level=True)

from ziggurat.encoder import from_hf, map_tensors, read_manifest, read_spec

REFUSED = (ValueError, TypeError, RuntimeError)
core = native.core()


@pytest.fixture(scope="module")
def parts(pruned_folder):
    """Spec and tensors of a model that the compiled engine takes."""
    from ziggurat.encoder import read_config

    spec = read_spec(read_config(pruned_folder))
    tensors = from_hf(map_tensors(pruned_folder / "model.safetensors"), spec, np.concatenate)
    return spec, tensors | map_tensors(pruned_folder / "ziggurat.safetensors"), read_manifest(pruned_folder).head_layers


def make(parts, spec=None, tensors=None, heads=None, dtype="float32", threads=1):
    spec = asdict(parts[0]) | (spec or {})
    named = {name: tensor for name, tensor in parts[1].items() if tensor.dtype == np.float32} | (tensors or {})
    return core.Engine(spec, named, list(parts[2]) if heads is None else heads, dtype, threads)


@pytest.fixture(scope="module")
def engine(parts):
    return make(parts)


def inputs(lengths, vocabulary=26):
    n = int(np.sum(lengths))
    ids = np.stack([np.arange(n) % vocabulary, np.zeros(n, dtype=np.int64)], axis=1)
    positions = np.concatenate([np.arange(length) for length in lengths] or [np.zeros(0, dtype=np.int64)])
    return ids, positions.astype(np.int64), np.cumsum([0, *lengths]), np.array(lengths, dtype=np.int64)


EXITS = core.ExitRule("entropy", 0.0, np.full((1, 3), 0.5), None)


@pytest.mark.parametrize("lengths", [(1,), (64,), (1, 64, 2)])
def test_the_shortest_and_the_longest_inputs_are_answered(engine, lengths):
    logits, rungs, *_ = engine.run(*inputs(lengths), EXITS, None, 4)
    assert np.isfinite(logits).all() and (rungs >= 0).all()


@pytest.mark.parametrize("lengths", [(), (0,), (3, 0, 2), (65,), (-1, 4)])
def test_inputs_that_are_empty_or_too_long_are_refused(engine, lengths):
    with pytest.raises(REFUSED):
        engine.run(*inputs([max(length, 0) for length in lengths]), EXITS, None, 4)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(data=st.data())
def test_arrays_that_do_not_fit_are_refused(engine, data):
    good = dict(zip(("ids", "positions", "cu_seqlens", "original"), inputs((3, 5)), strict=True))
    name = data.draw(st.sampled_from(sorted(good)))
    array = good[name]
    spoilt = data.draw(
        st.sampled_from(
            [
                array[:-1],
                array[..., None],
                array.astype(np.float64),
                array.astype(np.int32),
                array.astype(str),
                array - 10_000,
                array + 10_000,
                np.zeros((0,), dtype=np.int64),
                np.int64(3),
                None,
                np.full_like(array, 2**62),
                np.full_like(array, -(2**62)),
            ]
        )
    )
    if name == "original" and isinstance(spoilt, np.ndarray) and spoilt.shape == array.shape:
        return  # any number will do there
    with pytest.raises(REFUSED):
        engine.run(*(good | {name: spoilt}).values(), EXITS, None, 4)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(edges=st.lists(st.integers(-3, 12), max_size=6))
def test_only_edges_that_rise_from_0_to_n_are_taken(engine, edges):
    ids, positions, _, _ = inputs((8,))
    fits = len(edges) > 1 and edges[0] == 0 and edges[-1] == 8 and all(np.diff(edges) > 0)
    cu_seqlens = np.array(edges, dtype=np.int64)
    original = np.full(max(len(edges) - 1, 0), 8)
    if fits:
        engine.run(ids, positions, cu_seqlens, original, EXITS, None, 4)
    else:
        with pytest.raises(REFUSED):
            engine.run(ids, positions, cu_seqlens, original, EXITS, None, 4)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(edges=st.lists(st.integers(-2, 5), max_size=5))
def test_only_batches_that_divide_all_sequences_are_taken(engine, edges):
    fits = len(edges) > 1 and edges[0] == 0 and edges[-1] == 4 and all(np.diff(edges) > 0)
    given = *inputs((8, 3, 1, 5)), np.array(edges, dtype=np.int64), EXITS, None
    if fits:
        assert (engine.answer(*given)[1] >= 0).all()
    else:
        with pytest.raises(ValueError, match="batches: "):
            engine.answer(*given)


def test_arrays_that_are_not_contiguous_are_refused(engine):
    ids, positions, cu_seqlens, original = inputs((3, 5))
    wide = np.zeros((len(ids), 4), dtype=np.int64)
    wide[:, ::2] = ids
    for spoilt in (wide[:, ::2], np.asfortranarray(ids)):
        with pytest.raises(TypeError):
            engine.run(spoilt, positions, cu_seqlens, original, EXITS, None, 4)


def in_the_middle(array):
    """The same numbers, each of them beginning one byte behind where numbers begin."""
    shifted = np.zeros(array.nbytes + 1, dtype=np.uint8)[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    return shifted


def test_arrays_that_begin_in_the_middle_of_a_number_are_refused(engine, parts):
    good = dict(zip(("ids", "positions", "cu_seqlens", "original"), inputs((3, 5)), strict=True))
    for name, array in good.items():
        with pytest.raises(TypeError):
            engine.run(*(good | {name: in_the_middle(array)}).values(), EXITS, None, 4)
    with pytest.raises(ValueError, match=r"layers\.0\.up\.weight: must be a contiguous float32 array"):
        make(parts, tensors={"encoder.layers.0.up.weight": in_the_middle(parts[1]["encoder.layers.0.up.weight"])})
    with pytest.raises(TypeError):
        core.ExitRule("entropy", 0.0, np.full((1, 3), 0.5), in_the_middle(np.ones(4)))
    with pytest.raises(TypeError):
        core.kernels.attend("scalar", in_the_middle(np.ones((1, 12), dtype=np.float32)), 2)


@pytest.mark.parametrize("heads", [0, -1, 5, 715827883, 1431655766, 2**30, 2**31 - 1, -(2**31)])
def test_heads_that_do_not_divide_the_columns_are_refused(heads):
    qkv = np.ones((2, 12), dtype=np.float32)
    for call in (
        lambda: core.kernels.attend("scalar", qkv, heads),
        lambda: core.kernels.attend_seconds("scalar", qkv, heads, True, 1),
        lambda: core.kernels.attend_first("scalar", qkv[:1], np.ones((3, 24), dtype=np.float32), heads),
    ):
        with pytest.raises(ValueError, match="heads"):
            call()


CHANGING = """
import sys, threading
import numpy as np
from pathlib import Path
from ziggurat import native
from ziggurat.engine.backends.native import load_backend

core, n = native.core(), 64 * 40
backend = load_backend(Path(sys.argv[1]), "float32", 2)
ids, positions = np.zeros((n, 2), dtype=np.int64), np.tile(np.arange(64), 40)
edges, rule = np.arange(0, n + 1, 64), core.ExitRule("entropy", 0.0, np.full((1, 3), 0.5), None)
calls = [
    lambda: backend._core.run(ids, positions, edges, np.full(40, 64), rule, None, backend.n_layers),
    lambda: backend._core.embed(ids, positions),
    lambda: core.StaticTier(
        np.ones((256, 2), dtype=np.int16), *np.ones((2, 2), dtype=np.float32), np.zeros(26, dtype=np.uint8)
    ).logits(ids, edges),
]
stop = threading.Event()

def write():
    while not stop.is_set():
        ids[-64:, 0] = 2**30
        positions[-64:] = 2**40
        ids[-64:, 0] = 0
        positions[-64:] = 0

sys.setswitchinterval(1e-5)
writer = threading.Thread(target=write)
writer.start()
for number in range(300):
    try:
        calls[number % 3]()
    except ValueError as error:
        assert "must be at least 0 and below" in str(error)
stop.set()
writer.join()
"""


def test_ids_changed_by_another_thread_are_answered_or_refused(pruned_folder):
    command = [sys.executable, "-c", CHANGING, str(pruned_folder)]
    done = subprocess.run(command, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(parts, value):
    name = "encoder.layers.2.up.weight"
    spoilt = parts[1][name].copy()
    spoilt[3, 5] = value
    with pytest.raises(ValueError, match=f"{name} has numbers that are not finite"):
        make(parts, tensors={name: spoilt})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensor: tensor[:-1],
        lambda tensor: tensor.astype(np.float64),
        lambda tensor: tensor.astype(np.int32),
        lambda tensor: tensor[..., None],
        lambda tensor: np.asfortranarray(tensor),
        lambda tensor: "weights",
        lambda tensor: None,
    ],
)
@pytest.mark.parametrize(
    "name", ["encoder.embeddings.word.weight", "encoder.layers.0.qkv.weight", "exits.1.out.weight"]
)
def test_tensors_of_another_shape_or_type_are_refused(parts, name, spoil):
    with pytest.raises(REFUSED):
        make(parts, tensors={name: spoil(parts[1][name])})


@pytest.mark.parametrize(
    "wrong",
    [
        {"spec": {"heads": 5}}, {"spec": {"layers": 5}}, {"spec": {"hidden": 0}}, {"spec": {"vocabulary": -1}},
        {"spec": {"segments": 3}}, {"spec": {"segments": -1}}, {"spec": {"segments": 2**31 - 1}},
        {"spec": {"position_offset": 1}}, {"spec": {"position_offset": -1}}, {"spec": {"position_offset": 2**31 - 1}},
        {"spec": {"embedding_width": 16}}, {"spec": {"embedding_width": -1}}, {"spec": {"task_types": 2}},
        {"spec": {"activation": "silu"}}, {"spec": {"head_activation": ""}}, {"spec": {"activation": None}},
        {"heads": [0]}, {"heads": [4]}, {"heads": [2, 1]}, {"heads": [1, 1]}, {"dtype": "int4"}, {"threads": 0},
        {"threads": 10**6}, {"spec": {"vocabulary": 2**31}}, {"spec": {"hidden": "32"}}, {"spec": {"rotary": 1.0}},
        {"spec": {"intermediate": 2**30, "gated": True}}, {"spec": {"hidden": 2**31 - 1}}, {"spec": {"gated": "yes"}},
    ],
)  # fmt: skip
def test_models_that_do_not_fit_are_refused(parts, wrong):
    with pytest.raises(REFUSED):
        make(parts, **wrong)


@pytest.mark.parametrize(
    "rule",
    [
        lambda: core.ExitRule("mood", 0.0, np.zeros((1, 3)), None),
        lambda: core.ExitRule("top-entropy", 1.0, np.zeros((1, 3)), None),
        lambda: core.ExitRule("entropy", 0.0, np.zeros(3), None),
        lambda: core.ExitRule("entropy", 0.0, np.zeros((0, 3)), None),
        lambda: core.ExitRule("entropy", 0.0, np.zeros((1, 3)), np.ones(3)),
        lambda: core.ExitRule("entropy", 0.0, np.zeros((1, 3)), None, np.zeros((3, 7))),
        lambda: core.ExitRule("learned", 0.0, np.zeros((1, 3)), None),
        lambda: core.ExitRule("learned", 0.0, np.zeros((1, 3)), None, np.zeros((4, 7))),
        lambda: core.ExitRule("learned", 0.0, np.zeros((1, 3)), None, np.zeros(21)),
        lambda: core.TokenRule("threshold", "mood", "relative", np.zeros(4), None),
        lambda: core.TokenRule("threshold", "received", "miles", np.zeros(4), None),
        lambda: core.TokenRule("sometimes", "received", "relative", np.zeros(4), None),
    ],
)
def test_rules_that_are_not_known_are_refused(rule):
    with pytest.raises(REFUSED):
        rule()


@pytest.mark.parametrize(
    ("exits", "tokens"),
    [
        (core.ExitRule("entropy", 0.0, np.zeros((1, 2)), None), None),
        (core.ExitRule("entropy", 0.0, np.zeros((3, 3)), None), None),
        (core.ExitRule("learned", 0.0, np.zeros((1, 3)), None, np.zeros((3, 6))), None),
        (EXITS, core.TokenRule("threshold", "received", "relative", np.zeros(3), None)),
        (EXITS, core.TokenRule("threshold", "predicted", "relative", np.zeros(4), None)),
        (EXITS, core.TokenRule("threshold", "received", "relative", np.zeros(4), np.ones(3, dtype=bool))),
    ],
)
def test_rules_of_another_model_are_refused(engine, exits, tokens):
    with pytest.raises(REFUSED):
        engine.run(*inputs((3, 5)), exits, tokens, 4)


@pytest.mark.parametrize("layers", [(0, 4), (2, 1), (1, 5), (-1, 2)])
def test_layers_that_there_are_not_are_refused(engine, layers):
    ids, positions, cu_seqlens, original = inputs((3, 5))
    states, history = engine.embed(ids, positions), np.zeros((2, 4, 3), dtype=np.float32)
    with pytest.raises(REFUSED):
        engine.resume(states, positions, cu_seqlens, original, history, EXITS, None, *layers)
    with pytest.raises(REFUSED):
        engine.context(layers[0] if layers[0] < 1 else 5, states, cu_seqlens, False, False)


def test_states_that_are_not_finite_spoil_nobody_else(engine):
    ids, positions, cu_seqlens, original = inputs((3, 5))
    states, history = engine.embed(ids, positions), np.zeros((2, 4, 3), dtype=np.float32)
    counts = core.TokenRule("count", "received", "relative", np.array([9.0, 4, 3, 2]), None)
    clean = engine.resume(states, positions, cu_seqlens, original, history, EXITS, counts, 1, 4)
    states[1] = np.nan
    spoilt = engine.resume(states, positions, cu_seqlens, original, history, EXITS, counts, 1, 4)
    assert np.array_equal(clean[0][1], spoilt[0][1]) and clean[1][1] == spoilt[1][1]
    assert spoilt[1][0] == 3
