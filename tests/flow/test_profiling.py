"""Measuring a machine's profile, keeping it, and knowing when it does not fit. No claim here on any speed."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from ziggurat.encoder import write_cascade
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.measure import Effort, ModelOptions, Shape, Timing, check_profile, profile_engine, stored_profile, ways_of
from ziggurat.measure import check as profile_checks
from ziggurat.measure import profile as profiling
from ziggurat.measure.check import PredictionError, batch_numbers, held_out, prediction_error, with_gain_errors
from ziggurat.measure.profile import load_profile, mismatch, profile_file, read_profile
from ziggurat.measure.runs import costs_of, length_grid, shapes_of, token_grid
from ziggurat.policies import ExitRule
from ziggurat.recipe import PruningConfig

QUICK = Effort(rounds=1, seconds_per_call=0.0, longest_call=0.0)
PARTS = ("call", "layer", "last", "head", "attention", "rest")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZIGGURAT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def classifier(model_folder):
    return OpenedModel.from_pretrained(model_folder, device="cpu", backend="torch")


@pytest.fixture(scope="module")
def profile(classifier):
    return profile_engine(classifier, effort=QUICK, clock=itertools.count().__next__)


def truth(shape):
    """What the parts of this shape cost on an imaginary machine, a layer in stairs."""
    n_texts, pairs = len(shape.lengths), int((shape.lengths**2).sum())
    parts = {"call": 50 + 3 * n_texts + shape.tokens / 2, "head": 4 + n_texts + shape.tokens / 10}
    parts |= {"last": 20 + n_texts + 2 * shape.tokens, "rest": 10 + 6.0 * shape.tokens}
    parts["attention"] = 5 + 60 * (shape.tokens // 12) + pairs / 4
    return parts | {"layer": parts["attention"] + parts["rest"] - 3}


def imagined(classifier):
    """Grids, shapes and seconds of every way on the imaginary machine; first tokens alone are such texts."""
    ways, lengths = ways_of(classifier), length_grid(24)
    tokens, seconds = token_grid("native", 2)[:20], {}
    for shape in shapes_of(tokens, lengths):
        ones = truth(Shape(len(shape.lengths), 1))
        parts = truth(shape) | {"one": ones["layer"]}
        short = parts | {"call": parts["call"]}
        seconds[shape] = np.array(
            [sum(n * (short if way.one_token else parts)[part] for part, n in way.counts.items()) for way in ways]
        )
    return ways, seconds, tokens, lengths


@pytest.mark.parametrize("pruned", [False, True])
def test_a_machine_whose_costs_are_known_is_found_again(pruned, model_folder, pruned_folder):
    classifier = OpenedModel.from_pretrained(pruned_folder if pruned else model_folder, device="cpu")
    ways, seconds, tokens, lengths = imagined(classifier)
    costs = costs_of(classifier.spec, ways, seconds, tokens, lengths)
    for part in PARTS if pruned else PARTS[:4]:
        table = np.array(getattr(costs, part))
        for shape in seconds:
            if shape.tokens in tokens and shape.length in lengths:
                found = table[tokens.index(shape.tokens), lengths.index(shape.length)]
                assert found == pytest.approx(truth(shape)[part], rel=0.03), (part, shape)


def test_without_pruning_a_layer_is_divided_by_flops(classifier):
    costs = costs_of(classifier.spec, *imagined(classifier))
    np.testing.assert_allclose(np.add(costs.attention, costs.rest), costs.layer, rtol=0.01)
    assert 0 < costs.attention[-1][-1] < costs.layer[-1][-1]


@pytest.mark.parametrize("layers", [(), (2,), (1, 3)])
@pytest.mark.parametrize("pruning", [None, PruningConfig(per_layer=(0.8,) * 4), PruningConfig("count", 3.0)])
@pytest.mark.parametrize("engine", ["native", "torch"])
def test_all_heads_prunings_and_engines_are_profiled(layers, pruning, engine, make_folder, texts, monkeypatch):
    folder = make_folder(head_layers=layers, pruning=pruning)
    classifier = OpenedModel.from_pretrained(folder, device="cpu", backend=engine, threads=1)
    monkeypatch.setattr(profiling, "token_grid", lambda engine, threads: [1, 2, 4, 8, 24])
    profile = profile_engine(classifier, effort=QUICK, clock=itertools.count().__next__)
    assert profile.conditions.rung_layers == (*layers, 4)
    encoded = classifier.encode(texts)
    every = {"full": ExitRule.full_depth(len(layers) + 1), "own": classifier.rule("entropy", 0.3)}
    errors = prediction_error(profile, classifier, encoded, every, 8, rounds=1)
    assert [error.point for error in errors] == ["full", "own"]
    assert all(np.isfinite(error.error) and error.predicted > 0 for error in errors)


def test_full_depth_adds_up_to_what_was_measured(model_folder):
    classifier = OpenedModel.from_pretrained(model_folder, device="cpu")
    ways, seconds, tokens, lengths = imagined(classifier)
    costs = costs_of(classifier.spec, ways, seconds, tokens, lengths)
    for shape, times in seconds.items():
        if shape.tokens in tokens and shape.length in lengths:
            at = tokens.index(shape.tokens), lengths.index(shape.length)
            parts = {part: np.array(getattr(costs, part))[at] for part in PARTS}
            assert parts["call"] + 3 * parts["layer"] + parts["last"] == pytest.approx(times[0], rel=0.01)


@pytest.mark.parametrize("max_length", [2, 3, 5, 8, 24, 128, 512])
@pytest.mark.parametrize("threads", [1, 2, 16])
@pytest.mark.parametrize("engine", ["native", "torch"])
def test_every_shape_and_step_of_the_grid_can_be_run(max_length, threads, engine):
    tokens, lengths = token_grid(engine, threads), length_grid(max_length)
    assert tokens == sorted(set(tokens)) and tokens[0] == 1
    shapes = shapes_of(tokens, lengths)
    assert len(set(shapes)) == len(shapes)
    for shape in shapes:
        assert shape.lengths.sum() == shape.tokens
        assert shape.lengths.min() >= 1 and shape.lengths.max() <= max(max_length, 1.5 * shape.length)
    assert {shape.tokens for shape in shapes} >= set(tokens)


def test_a_profile_says_where_it_was_measured(profile, classifier):
    where = profile.conditions
    assert where.cpu and where.cores >= 1 and where.engine == "torch" and where.dtype == "float32"
    assert (where.layers, where.rung_layers, where.max_length) == (4, (1, 2, 3, 4), 24)
    assert mismatch(profile, classifier) is None


def test_another_machines_or_threads_profile_is_recognised(profile, classifier):
    conditions = dataclasses.replace(profile.conditions, threads=99, cpu="abacus")
    words = mismatch(dataclasses.replace(profile, conditions=conditions), classifier)
    assert "threads 99 (here " in words
    assert "cpu 'abacus'" in words
    assert "dtype" not in words


@pytest.fixture
def measurements(classifier, profile, monkeypatch):
    """The list to which every measurement is added; each gives the same profile."""
    made = []

    def measure(classifier, beside, *_):
        made.append(beside)
        return profile, {name: Timing((2.0, 1.0, 3.0)) for group in beside for name in group}

    monkeypatch.setattr(profiling, "profile_beside", measure)
    monkeypatch.setattr(profile_checks, "profile_beside", measure)
    return made


def test_a_machine_is_measured_once_for_a_model_shape(classifier, profile, measurements, cache):
    assert load_profile(classifier) is None
    assert stored_profile(classifier) == profile
    assert stored_profile(classifier) == profile == load_profile(classifier)
    assert len(measurements) == 1
    assert [path for path in cache.rglob("*") if path.is_file()] == [profile_file(classifier)]


def test_other_settings_have_another_file(model_folder, pruned_folder, classifier):
    others = [(model_folder, "torch", "bfloat16"), (pruned_folder, "torch", "float32")]
    files = [
        profile_file(OpenedModel.from_pretrained(folder, device="cpu", backend=engine, dtype=dtype))
        for folder, engine, dtype in others
    ]
    assert len({*files, profile_file(classifier)}) == 3


def test_a_broken_file_is_named_and_measured_again(classifier, profile, measurements):
    path = profile_file(classifier)
    path.parent.mkdir(parents=True)
    path.write_text('{"format_version": 1, "tokens"')
    with pytest.raises(UserError, match=path.name):
        load_profile(classifier)
    assert stored_profile(classifier) == profile
    assert read_profile(path) == profile


def test_a_copied_file_of_another_machine_is_not_taken(classifier, profile, measurements):
    other = dataclasses.replace(profile, conditions=dataclasses.replace(profile.conditions, cpu="abacus"))
    path = profile_file(classifier)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(other.to_dict()))
    assert load_profile(classifier) is None
    assert stored_profile(classifier) == profile


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match="`ziggurat profile MODEL`"):
        read_profile(tmp_path / "absent.json")


def test_the_cache_is_where_the_user_wants_it(classifier, monkeypatch, tmp_path):
    assert profile_file(classifier).is_relative_to(tmp_path / "cache")
    monkeypatch.delenv("ZIGGURAT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert profile_file(classifier).is_relative_to(tmp_path / "xdg" / "ziggurat")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert profile_file(classifier).is_relative_to(tmp_path / "home" / ".cache" / "ziggurat")


def test_batches_are_numbered_as_they_are_run(classifier, texts):
    encoded = classifier.encode(texts)
    numbers = batch_numbers(encoded.lengths, 3)
    for number, batch in enumerate(classifier.tiers[0].batches(encoded, 3)):
        assert sorted(batch) == np.flatnonzero(numbers == number).tolist()


def test_held_out_texts_are_no_longer_than_the_model_reads(classifier):
    for case in held_out(classifier):
        assert case.encoded.lengths.max() <= 24


def test_the_measured_time_is_the_median_and_the_error_relative(classifier, profile, texts):
    ticks = iter([0, 9, 10, 11, 20, 22, 30, 33])  # the warm-up, then 1, 2 and 3 seconds
    point = {"full": ExitRule.full_depth(4)}
    encoded = classifier.encode(texts)
    [found] = prediction_error(profile, classifier, encoded, point, 8, rounds=3, clock=lambda: next(ticks))
    assert (found.measured, found.measured_low, found.measured_high) == (2, 1, 3)
    assert found.error == pytest.approx(found.predicted / 2 - 1)
    assert (found.point, found.batch, found.n_texts) == ("full", 8, len(texts))


def test_bench_profile_measures_anew_and_shows_shapes_and_data(
    model_folder, rows_file, classifier, profile, measurements
):
    options = ModelOptions(device="cpu", backend="torch")
    result = check_profile(str(model_folder), str(rows_file), (1, 4), options=options, texts=6, rounds=1).to_dict()
    assert json.loads(json.dumps(result)) == result
    assert len(measurements) == 1
    assert result["key"] == profile.key
    assert {error["point"] for error in result["errors"]} == {"full", "balanced", "fast"}
    ours = [error for error in result["errors"] if error["what"] == str(rows_file)]
    assert [(error["batch"], error["n_texts"]) for error in ours] == [(1, 6)] * 3 + [(4, 6)] * 3
    assert {error["measured"] for error in result["errors"]} == {2.0}
    check_profile(str(model_folder), options=options, points=[], rounds=1)
    assert len(measurements) == 2
    with pytest.raises(UserError, match="at least 1"):
        check_profile(str(model_folder), str(rows_file), (0,), options=options)


def test_a_slower_machine_moves_times_and_no_speed_up():
    """Everything takes twice as long as predicted, and the exits win just what they were predicted to win."""
    full = PredictionError("texts", "full", 32, 8, 4.0, 8.0, 8.0, 8.0)
    fast = dataclasses.replace(full, point="fast", predicted=1.0, measured=2.0)
    lame = dataclasses.replace(full, point="lame", measured=4.0)
    errors = {one.point: one.to_dict() for one in with_gain_errors([full, fast, lame])}
    assert errors["fast"]["error"] == -0.5 and errors["fast"]["gain_error"] == 0
    assert errors["full"]["gain_error"] == 0 and errors["lame"]["gain_error"] == -0.5


def test_of_a_cascade_only_the_encoders_are_profiled(cascade_folder, static_folder, model_folder, tmp_path):
    with pytest.raises(UserError, match=r"a cascade, .* by themselves: the folder that its last tier was made from"):
        check_profile(str(cascade_folder))
    write_cascade([static_folder, model_folder, model_folder], tmp_path / "long")
    with pytest.raises(UserError, match=rf"by themselves: {tmp_path}/long/tiers/2, the folder"):
        check_profile(str(tmp_path / "long"))
    with pytest.raises(UserError, match="a static model alone has neither layers nor exits"):
        check_profile(str(static_folder))
