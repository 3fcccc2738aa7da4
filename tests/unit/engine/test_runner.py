"""The batched engine equals the specification, which answers one input at a time.

Exactly so on a scripted backend, whose logits are looked up and not computed; to 1e-5 on torch, where rounding depends
on how many tokens share a multiplication.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.all_rungs import run_every_rung
from tests.kit.scripted import ScriptedBackend
from ziggurat.data import PackedBatch, by_length, in_order, pack
from ziggurat.engine import Outcomes, answer_all
from ziggurat.engine import run_batches as run
from ziggurat.engine.reference import answer_one
from ziggurat.engine.replay import replay
from ziggurat.policies import ExitRule, entropy, exit_score
from ziggurat.policies.exits import SCORES

repeatable = settings(derandomize=True, deadline=None, max_examples=60)
NAN, INF = float("nan"), float("inf")
TOLERANCE = 1e-5
NAMES = (*SCORES, "top-entropy@2", "confident-in-a-row@0.7")


def scripted_inputs(lengths) -> list[np.ndarray]:
    return [np.full((length, 2), i) for i, length in enumerate(lengths)]


def packed_batches(inputs, order, batch_size) -> list[PackedBatch]:
    return [pack([inputs[i] for i in rows], rows=rows) for rows in in_order(np.asarray(order), batch_size)]


def answered(outcomes: Outcomes) -> bool:
    """Every input has a rung, logits that are numbers, and a time."""
    return bool((outcomes.rungs >= 0).all() and np.isfinite(outcomes.readings).all() and (outcomes.seconds >= 0).all())


# --- by hand -------------------------------------------------------------------------------------------------------


def test_a_case_worked_out_by_hand():
    # Probability of class 0 at the rungs after layers 1, 3 and 4; an input leaves when its larger one is 0.75 or more.
    shares = np.array([[0.9, 0.1, 0.5], [0.6, 0.2, 0.4], [0.6, 0.7, 0.3], [0.3, 0.75, 0.9]])
    script = np.log(np.stack([shares, 1 - shares], axis=2))
    backend = ScriptedBackend(script, (1, 3, 4))
    inputs = scripted_inputs([5, 2, 3, 4])
    rule = ExitRule.uniform("max-probability", 0.75 - 1e-6, 3)
    outcomes = run(backend, packed_batches(inputs, [2, 0, 3, 1], 3), rule, 4)
    assert outcomes.rungs.tolist() == [0, 1, 2, 1]
    assert outcomes.predictions.tolist() == [0, 1, 1, 0]
    assert np.array_equal(outcomes.readings, backend.script[range(4), outcomes.rungs])
    # The first batch is inputs 2, 0, 3 (12 tokens); 0 leaves after layer 1, 3 after layer 3. The second is input 1.
    assert backend.layers_run == [(1, 3, 12), (2, 2, 7), (3, 2, 7), (4, 1, 3), (1, 1, 2), (2, 1, 2), (3, 1, 2)]
    assert backend.heads_run == [(0, 3), (1, 2), (2, 1), (0, 1), (1, 1)]


def test_claim_16_heads_that_are_not_asked_are_not_computed():
    backend = ScriptedBackend(np.zeros((3, 4, 2)), (1, 2, 3, 4))
    batches = packed_batches(scripted_inputs([2, 3, 4]), range(3), 2)
    run(backend, batches, ExitRule("margin", np.array([NAN, 1.0, NAN])), 3)
    assert [rung for rung, _ in backend.heads_run] == [1, 3, 1, 3]
    backend.heads_run.clear()
    run(backend, batches, ExitRule.full_depth(4), 3)
    assert [rung for rung, _ in backend.heads_run] == [3, 3]


def test_layers_after_the_last_exit_are_not_run():
    backend = ScriptedBackend(np.zeros((3, 4, 2)), (1, 2, 3, 4))
    run(backend, packed_batches(scripted_inputs([2, 3, 4]), range(3), 3), ExitRule.uniform("entropy", 1.0, 4), 3)
    assert backend.layers_run == [(1, 3, 9)]


@pytest.mark.parametrize(
    ("sizes", "together", "calls"),
    [
        ([3, 3, 3, 2], 12, [[3, 3], [3, 2]]),  # texts of two tokens
        ([3, 3, 3, 2], 0, [[3], [3], [3], [2]]),
        ([3, 3, 1], 100, [[3, 3, 1]]),
        ([1, 1, 1], 100, [[1], [1], [1]]),
    ],
)
def test_a_call_takes_so_many_tokens_and_single_texts_come_alone(sizes, together, calls):
    class Whole(ScriptedBackend):
        def advance(self, work, rule, to_layer):
            edges = [0, len(work.rows)] if work.batches is None else work.batches
            seen.append(np.diff(edges).tolist())
            return super().advance(work, rule, to_layer)

    seen = []
    n = sum(sizes)
    edges = np.cumsum([0, *sizes])
    inputs = scripted_inputs([2] * n)
    batches = [
        pack(inputs[a:b], rows=np.arange(a, b)) for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
    assert answered(run(Whole(np.zeros((n, 1, 2)), (1,)), batches, ExitRule.full_depth(1), n, together))
    assert seen == calls


def test_a_call_without_inputs_has_no_outcomes():
    backend = ScriptedBackend(np.zeros((1, 2, 2)), (1, 2))
    outcomes = run(backend, [], ExitRule.full_depth(2), 0)
    assert (outcomes.readings.shape, outcomes.rungs.shape, outcomes.predictions.shape) == ((0, 2), (0,), (0,))
    assert run_every_rung(backend, [], 0).readings.shape == (0, 2, 2)
    assert replay(np.zeros((0, 2, 2)), ExitRule.full_depth(2)).shape == (0,)


# --- exactly: a scripted backend ------------------------------------------------------------------------------------


@st.composite
def cases(draw):
    """A backend with its inputs, an order, a batch size, and a rule whose thresholds are often scores that occur."""
    n, n_rungs, n_classes = draw(st.integers(1, 9)), draw(st.integers(1, 5)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    script = rng.integers(-2, 3, (n, n_rungs, n_classes)).astype(np.float32)  # few values: ties and exact hits
    rung_layers = tuple(np.sort(rng.choice(np.arange(1, 8), n_rungs, replace=False)).tolist())
    inputs = scripted_inputs(rng.choice([2, 3, 3, 9, 50], n))
    if n > 1 and draw(st.booleans()):
        inputs[0] = inputs[-1].copy()  # the same input twice
    name = draw(st.sampled_from(NAMES))
    temperatures = draw(st.none() | st.just(rng.choice([0.5, 1.0, 3.0], n_rungs)))
    seen = script if temperatures is None else script / temperatures[:, None]
    occurring = np.concatenate([exit_score(name).of(seen[:, : rung + 1]) for rung in range(n_rungs)])
    shape = (n, n_rungs - 1) if draw(st.booleans()) else (n_rungs - 1,)
    thresholds = rng.choice(np.concatenate([occurring, [-INF, INF]]), shape)
    thresholds[..., rng.random(n_rungs - 1) < 0.25] = NAN
    order = draw(st.permutations(range(n)))
    backend = ScriptedBackend(script, rung_layers)
    return backend, inputs, order, draw(st.integers(1, n)), ExitRule(name, thresholds, temperatures)


@repeatable
@given(cases())
def test_claim_14_batched_equals_one_by_one(case):
    backend, inputs, order, batch_size, rule = case
    logits, rungs = answer_all(backend, inputs, rule)
    outcomes = run(backend, packed_batches(inputs, order, batch_size), rule, len(inputs))
    assert answered(outcomes)
    assert outcomes.rungs.tolist() == rungs.tolist()
    assert outcomes.readings.tolist() == logits.tolist()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_classes", [3, 45])
def test_claim_13_every_input_is_answered_by_its_exit_rung(name, n_classes):
    rng = np.random.default_rng(n_classes)
    backend = ScriptedBackend(rng.normal(size=(40, 4, n_classes)) * np.linspace(1, 9, 4)[:, None], (1, 2, 3, 4))
    inputs = scripted_inputs(rng.integers(2, 9, 40))
    for threshold in (-INF, 0.0, 0.2, 0.7, 1.0, 2.0, INF):
        outcomes = run(
            backend, packed_batches(inputs, rng.permutation(40), 7), ExitRule.uniform(name, threshold, 4), 40
        )
        assert answered(outcomes)
        assert np.array_equal(outcomes.readings, backend.script[range(40), outcomes.rungs])
        assert set(outcomes.predictions.tolist()) <= set(range(n_classes)) and len(set(outcomes.predictions)) > 2


@repeatable
@given(cases())
def test_replay_equals_the_engine(case):
    backend, inputs, order, batch_size, rule = case
    batches = packed_batches(inputs, order, batch_size)
    every = run_every_rung(backend, batches, len(inputs)).readings
    assert replay(every, rule).tolist() == run(backend, batches, rule, len(inputs)).rungs.tolist()


@repeatable
@given(cases())
def test_finished_sequences_leave_with_their_tokens_and_heads(case):
    backend, inputs, order, batch_size, rule = case
    backend.layers_run, backend.heads_run = [], []
    outcomes = run(backend, packed_batches(inputs, order, batch_size), rule, len(inputs))
    ran, heads_run = backend.layers_run, backend.heads_run
    lengths = np.array([len(tokens) for tokens in inputs])
    last_layer = np.array(backend.rung_layers)[outcomes.rungs]
    expected, heads_expected = [], []
    for rows in in_order(np.array(order), batch_size):
        for layer in range(1, last_layer[rows].max() + 1):
            live = rows[last_layer[rows] >= layer]
            expected.append((layer, len(live), lengths[live].sum()))
            if layer in backend.rung_layers and rule.active[rung := backend.rung_layers.index(layer)]:
                heads_expected.append((rung, len(live)))
    assert ran == expected
    assert heads_run == heads_expected


@repeatable
@given(cases(), st.data())
def test_every_rung_is_heard_by_everyone_whatever_the_batches(case, data):
    backend, inputs, order, batch_size, _ = case
    every = run_every_rung(backend, packed_batches(inputs, order, batch_size), len(inputs)).readings
    assert every.dtype == np.float32
    assert np.array_equal(every, backend.script[[tokens[0, 0] for tokens in inputs]])


@repeatable
@given(cases(), st.data())
def test_forced_inputs_pass_every_rung_before_their_own(case, data):
    backend, inputs, order, batch_size, _ = case
    n_rungs = len(backend.rung_layers)
    told = np.array(data.draw(st.lists(st.integers(0, n_rungs - 1), min_size=len(inputs), max_size=len(inputs))))
    outcomes = run(backend, packed_batches(inputs, order, batch_size), ExitRule.forced(told, n_rungs), len(inputs))
    assert outcomes.rungs.tolist() == told.tolist()


# --- to 1e-5: torch -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backends(make_model):
    """Torch backends of models with all heads, with two of three, and with none. Shared."""
    from ziggurat.engine import TorchBackend

    shapes = {"fastbert": (1, 2, 3), "pooler": (1, 3), "linear": (2,), "none": ()}
    return {
        name: TorchBackend(make_model("linear" if name == "none" else name, layers), "cpu")
        for name, layers in shapes.items()
    }


def closeness(every: np.ndarray, rule: ExitRule) -> np.ndarray:
    """How far each input's scores keep from their thresholds, (n): below TOLERANCE rounding may decide.

    A count is an integer, but which class is predicted hangs on the gap between the two largest logits, and whether a
    rung is confident on its entropy.
    """
    n, n_rungs, _ = every.shape
    asked = np.flatnonzero(rule.active[:-1])
    if rule.score.startswith("agreement"):
        ordered = np.sort(every, axis=2)
        return (ordered[..., -1] - ordered[..., -2]).min(axis=1)
    every = every if rule.temperatures is None else every / rule.temperatures[:, None]
    if rule.score.startswith("confident"):
        largest = float(rule.score.partition("@")[2])
        return np.min([np.abs(entropy(every[:, rung, None]) - largest) for rung in range(n_rungs)], axis=0)
    thresholds = np.broadcast_to(rule.thresholds, (n, n_rungs - 1))
    gaps = [np.abs(exit_score(rule.score).of(every[:, : rung + 1]) - thresholds[:, rung]) for rung in asked]
    return np.min(gaps, axis=0) if gaps else np.full(n, INF)


def thresholds_for(name: str, every: np.ndarray) -> list[float]:
    """A threshold below all scores, three in gaps between them, one above all."""
    values = np.unique(np.concatenate([exit_score(name).of(every[:, : rung + 1]) for rung in range(every.shape[1])]))
    gaps = np.flatnonzero(np.diff(values) > 100 * TOLERANCE)
    middles = ((values[:-1] + values[1:]) / 2)[gaps]
    return [-1.0, *(middles[len(gaps) * share // 4] for share in (1, 2, 3) if len(gaps)), 9.0]


# A score reads logits, whatever head they are from: every score with one head, and every head with one score.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [*((kind, "entropy") for kind in ("pooler", "linear", "none")), *(("fastbert", name) for name in NAMES)],
)
def test_claim_14_torch_batched_equals_one_by_one(backends, ragged_tokens, kind, name):
    backend, n = backends[kind], len(ragged_tokens)
    n_rungs = len(backend.rung_layers)
    rng = np.random.default_rng(0)
    every = run_every_rung(backend, [pack([t], rows=np.array([i])) for i, t in enumerate(ragged_tokens)], n).readings
    choices = thresholds_for(name, every)
    mixed, temperatures = rng.choice(choices, n), rng.uniform(0.5, 2, n_rungs)
    cases = [ExitRule.uniform(name, choice, n_rungs) for choice in choices]
    cases += [ExitRule.uniform(name, mixed, n_rungs), ExitRule.uniform(name, mixed, n_rungs, temperatures)]
    compared = excused = 0
    seen: set[int] = set()
    for rule in cases:
        logits, rungs = answer_all(backend, ragged_tokens, rule)
        decided = closeness(every, rule) > TOLERANCE
        for batch_size in (2, 7, n):
            outcomes = run(backend, packed_batches(ragged_tokens, rng.permutation(n), batch_size), rule, n)
            assert answered(outcomes)
            assert outcomes.rungs[decided].tolist() == rungs[decided].tolist()
            same = outcomes.rungs == rungs
            assert np.abs(outcomes.readings - logits)[same].max() < TOLERANCE
            compared, excused = compared + n, excused + int((~decided).sum())
            seen |= set(outcomes.rungs.tolist())
    assert excused <= 0.02 * compared
    first = min(int(exit_score(name).compares), n_rungs - 1)  # nobody leaves where there is nothing to compare with
    assert seen == set(range(first, n_rungs))  # the thresholds did send inputs everywhere


@pytest.mark.slow
@repeatable
@given(data=st.data())
def test_claim_14_torch_answers_do_not_depend_on_batch_mates(backends, ragged_tokens, data):
    backend, n = backends["fastbert"], len(ragged_tokens)
    picked = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=14))  # duplicates allowed
    thresholds = data.draw(st.lists(st.floats(0, 1), min_size=len(picked), max_size=len(picked)))
    rule = ExitRule.uniform("entropy", thresholds, 4)
    inputs = [ragged_tokens[i] for i in picked]
    batch_size = data.draw(st.integers(1, len(picked)))
    outcomes = run(backend, packed_batches(inputs, range(len(picked)), batch_size), rule, len(picked))
    assert answered(outcomes)
    for row, tokens in enumerate(inputs):
        logits, rung = answer_one(backend, tokens, rule, row)
        if outcomes.rungs[row] != rung:
            every = run_every_rung(backend, [pack([tokens])], 1).readings
            assert closeness(every, ExitRule.uniform("entropy", thresholds[row], 4))[0] <= TOLERANCE
        else:
            assert np.abs(outcomes.readings[row] - logits).max() < TOLERANCE


def test_torch_without_exits_is_the_full_model(make_model, ragged_tokens):
    import torch

    from ziggurat.engine import TorchBackend

    model = make_model()
    with torch.no_grad():
        full = model.full_logits(pack(ragged_tokens)).numpy()
    backend = TorchBackend(copy.deepcopy(model), "cpu")
    n = len(ragged_tokens)
    lengths = np.array([len(tokens) for tokens in ragged_tokens])
    batches = [pack([ragged_tokens[i] for i in rows], rows=rows) for rows in by_length(lengths, 6)]
    outcomes = run(backend, batches, ExitRule.full_depth(4), n)
    assert outcomes.rungs.tolist() == [3] * n
    assert np.abs(outcomes.readings - full).max() < TOLERANCE


# --- which inputs share a batch -------------------------------------------------------------------------------------


@repeatable
@given(st.lists(st.integers(1, 99), max_size=30), st.integers(1, 9))
def test_batches_by_length_hold_everyone_once_longest_first(lengths, batch_size):
    batches = list(by_length(np.array(lengths, dtype=np.int64), batch_size))
    order = np.concatenate([np.empty(0, dtype=np.int64), *batches])
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert [lengths[i] for i in order] == sorted(lengths, reverse=True)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(0 < len(batch) <= batch_size for batch in batches)
