"""Predicted time: equal to a slow count of layers, rows and heads, whatever leaves where."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ziggurat.errors import UserError
from ziggurat.measure import Costs, Profile, predicted_seconds
from ziggurat.measure.predicted_time import (
    Conditions,
    completed,
    nonnegative,
    nonnegative_line,
    predicted_batches,
    rising,
    typical,
)

CONDITIONS = Conditions(
    cpu="a processor",
    cores=2,
    threads=2,
    engine="torch",  # whose batches run each by itself
    device="cpu",
    instructions="",
    dtype="float32",
    version="0.1.0",
    layers=4,
    hidden=32,
    intermediate=64,
    heads=4,
    head_kind="fastbert",
    n_classes=3,
    rung_layers=(1, 3, 4),
    max_length=24,
    pruning="",
)
TOKENS, LENGTHS = (1, 2, 4, 8, 16, 48, 90, 100), (1, 2, 4, 8, 16, 24)
PARTS = ("call", "layer", "last", "head", "attention", "rest")


def profile_of(cell):
    """A profile whose seconds of each part are `cell(part, tokens, length)`."""
    tables = {part: tuple(tuple(cell(part, t, n) for n in LENGTHS) for t in TOKENS) for part in PARTS}
    return Profile(CONDITIONS, "2026-01-01T00:00:00+00:00", TOKENS, LENGTHS, Costs(**tables))


def noise(part, tokens, length):
    """Some number that is another one in each cell."""
    return float(np.random.default_rng([PARTS.index(part), tokens, length]).random())


NOISY = profile_of(noise)


def interpolated(profile, part, lengths):
    """The specification: one batch of these texts, one cell after the other."""
    total = sum(lengths)
    if not total:
        return 0.0
    table, log = getattr(profile.costs, part), np.log2(sum(n * n for n in lengths) / total)
    i = max(i for i in range(len(TOKENS) - 1) if i == 0 or TOKENS[i] <= total)
    k = i + 1
    if total > TOKENS[-1]:
        i, k = max(i for i in range(len(TOKENS)) if TOKENS[i] <= TOKENS[-1] // 2), len(TOKENS) - 1
    j = max(j for j in range(len(LENGTHS) - 1) if j == 0 or np.log2(LENGTHS[j]) <= log + 1e-12)
    t = (total - TOKENS[i]) / (TOKENS[k] - TOKENS[i])
    u = (log - np.log2(LENGTHS[j])) / np.log2(LENGTHS[j + 1] / LENGTHS[j])
    low, high = ((1 - u) * table[k][j] + u * table[k][j + 1] for k in (i, k))
    return max((1 - t) * low + t * high, 0.0)


def slow(profile, kept, rungs, asked, batch_of, pruned):
    """The specification of `predicted_batches`: batch by batch, layer by layer."""
    found = []
    for batch in sorted(set(batch_of.tolist())):
        rows = [row for row in range(len(rungs)) if batch_of[row] == batch]
        seconds = interpolated(profile, "call", [kept[row, 0] for row in rows])
        for layer in range(1, 5):
            rows = [row for row in rows if layer <= CONDITIONS.rung_layers[rungs[row]]]
            entering, left = ([int(kept[row, at]) for row in rows] for at in (layer - 1, layer))
            if pruned[layer - 1]:
                seconds += interpolated(profile, "attention", entering) + interpolated(profile, "rest", left)
                seconds += interpolated(profile, "head", left) if layer == 4 else 0
            else:
                seconds += interpolated(profile, "last" if layer == 4 else "layer", entering)
            if layer in (1, 3) and asked[(1, 3).index(layer)]:
                seconds += interpolated(profile, "head", left)
        found.append(seconds)
    return np.array(found)


@st.composite
def runs(draw):
    """Rows that lost tokens in some layers, left at some rung, in batches in any order."""
    n = draw(st.integers(1, 12))
    pruned = draw(st.tuples(*[st.booleans()] * 4))
    kept = np.empty((n, 5), dtype=np.int64)
    for row in range(n):
        kept[row, 0] = draw(st.integers(1, 24))
        for layer in range(4):
            kept[row, layer + 1] = draw(st.integers(1, int(kept[row, layer]))) if pruned[layer] else kept[row, layer]
    rungs = np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    asked = (draw(st.booleans()), draw(st.booleans()), True)
    batch_of = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    return kept, rungs, asked, batch_of, pruned


@given(runs())
def test_prediction_is_the_sum_over_batches_layers_and_heads(run):
    kept, rungs, asked, batch_of, pruned = run
    wanted = slow(NOISY, *run)
    np.testing.assert_allclose(predicted_batches(NOISY, kept, rungs, asked, batch_of, pruned), wanted, rtol=1e-9)
    assert predicted_seconds(NOISY, kept, rungs, asked, batch_of, pruned) == pytest.approx(wanted.sum())


@given(runs())
def test_what_stands_behind_a_rows_rung_is_not_charged(run):
    kept, rungs, asked, batch_of, pruned = run
    ended = kept * (np.arange(5) <= np.array(CONDITIONS.rung_layers)[rungs][:, None])
    args = (rungs, asked, batch_of, pruned)
    assert predicted_seconds(NOISY, ended, *args) == predicted_seconds(NOISY, kept, *args)


@given(runs())
def test_layers_that_prune_are_inferred_from_the_tokens(run):
    kept, rungs, asked, batch_of, _ = run
    alive = np.arange(1, 5) <= np.array(CONDITIONS.rung_layers)[rungs][:, None]
    seen = ((kept[:, 1:] < kept[:, :-1]) & alive).any(axis=0)
    args = (kept, rungs, asked, batch_of)
    assert predicted_seconds(NOISY, *args) == predicted_seconds(NOISY, *args, seen)


def test_one_text_at_a_time_is_the_sum_of_single_texts():
    lengths = np.array([1, 5, 24, 5, 17])
    kept, rungs = np.repeat(lengths[:, None], 5, axis=1), np.array([0, 1, 2, 2, 1])
    found = predicted_batches(NOISY, kept, rungs, (True, False, True), np.array([4, 0, 3, 2, 1]))
    wanted = slow(NOISY, kept, rungs, (True, False, True), np.array([4, 0, 3, 2, 1]), (False,) * 4)
    np.testing.assert_allclose(found, wanted)


@pytest.mark.parametrize("part", PARTS)
def test_seconds_at_a_grid_point_are_those_of_the_table(part):
    for tokens in TOKENS:
        for length in LENGTHS:
            found = NOISY.seconds(part, np.array(tokens), np.array(tokens * length))
            assert found == pytest.approx(noise(part, tokens, length))


def test_beyond_the_grid_time_goes_on_as_a_line_of_tokens():
    line = profile_of(lambda part, tokens, length: 3.0 + 2.0 * tokens)
    tokens = np.array([101, 5000, 200_000])
    np.testing.assert_allclose(line.seconds("layer", tokens, tokens * 8), 3.0 + 2.0 * tokens)


def test_no_tokens_cost_nothing_and_no_rows_have_no_batches():
    assert NOISY.seconds("head", np.zeros(2, np.int64), np.zeros(2, np.int64)).tolist() == [0, 0]
    empty = np.empty((0, 5), np.int64), np.empty(0, np.int64)
    assert predicted_seconds(NOISY, *empty, (True, True, True), np.empty(0, np.int64)) == 0


def test_shapes_that_do_not_fit_are_refused():
    kept = np.ones((3, 5), np.int64)
    with pytest.raises(ValueError, match="active"):
        predicted_seconds(NOISY, kept, np.zeros(3, int), (True, True), np.zeros(3, int))
    with pytest.raises(ValueError, match="counts"):
        predicted_seconds(NOISY, kept[:, 1:], np.zeros(3, int), (True, True, True), np.zeros(3, int))


def test_a_profile_survives_json():
    again = Profile.from_dict(json.loads(json.dumps(NOISY.to_dict())))
    assert again == NOISY
    assert again.key == NOISY.key


def test_the_key_is_of_the_conditions_and_nothing_else():
    other = replace(profile_of(lambda *_: 1.0), date="2027")
    assert other.key == NOISY.key
    assert replace(NOISY, conditions=replace(CONDITIONS, threads=4)).key != NOISY.key


def spoiled(**changes):
    return NOISY.to_dict() | changes


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (spoiled(format_version=99), "format_version 99"),
        (spoiled(tokens=[2, 1]), "tokens"),
        (spoiled(lengths=[1, 3, 5]), "lengths"),
        (spoiled(surprise=1), "surprise"),
        (spoiled(costs=NOISY.to_dict()["costs"] | {"head": [[1.0]]}), "head"),
        (spoiled(costs=NOISY.to_dict()["costs"] | {"head": [[-1.0] * 6] * 8}), "at least 0"),
        (spoiled(costs=NOISY.to_dict()["costs"] | {"head": [[float("nan")] * 6] * 8}), "finite"),
        ({"format_version": 1}, "missing"),
    ],
)
def test_a_spoiled_profile_is_refused_by_the_name_of_its_file(values, named):
    with pytest.raises(UserError, match=r"some\.json.*") as raised:
        Profile.from_dict(values, "some.json")
    assert named in str(raised.value)


def test_least_squares_are_exact_and_never_below_zero():
    rows = np.array([[1.0, 1, 0], [1, 3, 0], [1, 4, 1]])
    truth = np.array([0.5, 2.0, 3.0])
    np.testing.assert_allclose(nonnegative(rows, rows @ truth, np.ones(3)), truth)
    found = nonnegative(rows, np.array([2.0, 7.0, 1.0]), np.ones(3))
    assert (found >= 0).all() and found[2] == 0
    assert nonnegative(rows, -np.ones(3), np.ones(3)).tolist() == [0, 0, 0]


@given(st.lists(st.floats(-1, 9), min_size=1, max_size=8))
def test_rising_values_stay_and_others_are_smoothed_without_bias(values):
    found = rising(np.array(values))
    assert (np.diff(found) >= 0).all() and found.min() >= 0
    assert found.sum() == pytest.approx(np.maximum(values, 0).sum())
    np.testing.assert_allclose(rising(found), found)


def test_a_line_is_not_bent_by_a_few_disturbed_timings():
    rng = np.random.default_rng(0)
    rows = np.stack([np.ones(40), rng.random(40)], axis=1)
    wanted = rows @ [0.3, 2.0]
    wanted[::10] *= 5
    np.testing.assert_allclose(nonnegative_line(rows, wanted, np.ones(40)), [0.3, 2.0], rtol=1e-2)


def test_a_slow_round_does_not_change_shares():
    truth = np.array([1.0, 2.0, 5.0])
    runs = np.outer([1.0, 1.0, 4.0, 1.0, 2.5], truth)
    np.testing.assert_allclose(typical(runs), truth)


def test_a_table_is_completed_from_a_column_and_a_few_cells():
    def truth(tokens, length):
        return 1.0 + 2.0 * tokens + 0.1 * tokens * length

    tokens, lengths, base = (1, 2, 4, 8, 16, 48), (1, 2, 4, 8, 16), 4
    cells = [(t, min(t, base)) for t in tokens] + [(n, n) for n in lengths] + [(16, n) for n in lengths]
    table = completed({cell: truth(*cell) for cell in cells}, tokens, lengths, base)
    # Below the base length stand single texts, which are of no other length than they have.
    np.testing.assert_allclose(table[3:], [[truth(t, n) for n in lengths] for t in tokens[3:]], rtol=1e-6)
    with pytest.raises(ValueError, match="nothing measured"):
        completed({cell: 1.0 for cell in cells[1:] if cell != (1, 1)}, tokens, lengths, base)
