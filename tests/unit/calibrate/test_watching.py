"""A certified point in production: a shift is noticed, its absence is not, and a restart forgets nothing."""

from __future__ import annotations

import copy
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import numpy as np
import pytest

from ziggurat.calibrate import DriftTest, Monitor, State, Watch, write_state
from ziggurat.calibrate.watching import DEAREST, read_state, watch_of, watched_costs
from ziggurat.data import DEFAULT_COLUMNS, load
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.measure import ModelOptions
from ziggurat.serve.predict import predict
from ziggurat.types import Certificate, OperatingPoint


def certificate(differs: float, flops: float) -> Certificate:
    return Certificate(
        "agreement", 0.0, 100, "hash", "torch", "float32", 1, 32, None, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, differs, flops
    )


@pytest.fixture(scope="module")
def classifier(model_folder):
    return OpenedModel.from_pretrained(model_folder, "cpu", backend="torch")


@pytest.fixture
def with_point(classifier):
    """A function: the classifier with a point `eager` that leaves at the first exit, promised this much."""

    def make(differs: float, flops: float) -> OpenedModel:
        fingerprint = classifier.manifest.fingerprint
        point = OperatingPoint("eager", "entropy", (1.0,) * 3, fingerprint, 0.5, 0.95, "hash")
        point = replace(point, certificate=certificate(differs, flops))
        manifest = replace(classifier.manifest, operating_points=(point,))
        return OpenedModel([replace(classifier.tiers[0], manifest=manifest)])

    return make


@pytest.fixture(scope="module")
def many(rows_file):
    return load(str(rows_file), DEFAULT_COLUMNS).texts


def differing(classifier: OpenedModel, texts: list[str]) -> float:
    pairs = zip(classifier.answer(texts, "eager"), classifier.answer(texts, "full"), strict=True)
    return float(np.mean([one.label != full.label for one, full in pairs]))


def test_answers_are_those_of_the_operating_point(with_point, many):
    model = with_point(0.9, 1.5)
    watched = Monitor(model, "eager", share=0.3)
    assert [one.label for one in watched.answer(many)] == [one.label for one in model.answer(many, "eager")]
    assert watched.drift.state.cost.n == 240
    assert 30 < watched.drift.state.risk.n < 120
    assert watched.alarms == []


def test_more_differences_than_promised_sound_an_alarm(with_point, many):
    share = differing(with_point(0.9, 1.5), many)
    assert share > 0.1  # or the test shows nothing
    watched = Monitor(with_point(share / 4, 1.5), "eager", share=1.0)
    watched.answer(many)
    [alarm] = watched.alarms
    assert "no longer supported" in alarm and "eager" in alarm


def test_dearer_inputs_than_were_expected_sound_an_alarm(with_point, many):
    watched = Monitor(with_point(0.95, 0.1), "eager")
    watched.answer(many)
    [alarm] = watched.alarms
    assert "expected 0.1:" in alarm and "--max-layers" in alarm


def test_a_restart_goes_on_where_it_stopped(with_point, many, tmp_path):
    model, path = with_point(0.5, 1.5), tmp_path / "state.json"
    assert read_state(path) is None
    through = Monitor(model, "eager", share=0.5)
    through.answer(many[:100])
    write_state(through.drift.state, path)
    through.answer(many[100:])
    again = Monitor(model, "eager", share=0.5, state=read_state(path))
    again.answer(many[100:])
    assert again.drift.state == through.drift.state


def test_a_point_that_is_full_depth_never_differs_from_it(with_point, many):
    """Computed in other batches numbers may differ in their last digits, which is proof against a bound of 0."""
    model = with_point(0.0, 1.0)
    whole = replace(model.point("eager"), thresholds=(None,) * 3)
    manifest = replace(model.manifest, operating_points=(whole,))
    model = OpenedModel([replace(model.tiers[0], manifest=manifest)])
    watched = Monitor(model, "eager", share=1.0)
    watched.answer(many)
    assert watched.alarms == [] and watched.drift.state.risk.total == 0 < watched.drift.state.risk.n


def test_numbers_that_differ_in_their_last_digits_are_the_same(with_point, many, monkeypatch):
    model = with_point(0.0, 1.5)
    monkeypatch.setattr(type(model.problem), "apart", lambda *_: 1e-8)
    watched = Monitor(model, "eager", share=1.0)
    watched.answer(many)
    assert watched.alarms == [] and watched.drift.state.risk.total == 0


def test_full_depth_promises_nothing_that_could_be_watched(with_point):
    with pytest.raises(UserError, match="promises nothing that could be watched"):
        Monitor(with_point(0.5, 1.5), "full")


def test_no_texts_are_no_news(with_point):
    watched = Monitor(with_point(0.5, 1.5), "eager")
    before = watched.drift.state
    assert watched.answer([]) == [] and watched.drift.state == before


def test_what_promises_nothing_or_another_state_is_refused(classifier, with_point, many, tmp_path):
    with pytest.raises(UserError, match="promises nothing"):
        Monitor(classifier, "balanced")
    with pytest.raises(UserError, match="share 0"):
        watch_of(with_point(0.5, 1.5).point("eager"), 0.0)
    state = Monitor(with_point(0.5, 1.5), "eager").drift.state
    with pytest.raises(UserError, match="as it is now"):
        Monitor(with_point(0.4, 1.5), "eager", state=state)
    path = tmp_path / "broken.json"
    wrong = json.dumps(state.to_dict() | {"cost": {**state.to_dict()["cost"], "n": "x"}})
    few = json.dumps(state.to_dict() | {"cost": {**state.to_dict()["cost"], "stakes": [0.5]}})
    for text in ("{", "[]", '{"watch": 3}', wrong, few):
        path.write_text(text)
        with pytest.raises(UserError, match=r"broken\.json: not the state"):
            read_state(path)
    with pytest.raises(UserError, match="not the state"):
        read_state(tmp_path)
    with pytest.raises(UserError, match="not the state"):
        read_state(path / "below")


def test_expected_costs_are_counted_as_the_monitor_counts(with_point, many):
    """A mean of shares, which short texts raise, is not the share that all texts together cost."""
    point = with_point(0.9, 0.2).point("eager")
    assert watch_of(point).expected_cost == 0.2  # an older certificate
    assert watch_of(replace(point, certificate=replace(point.certificate, cost=0.3))).expected_cost == 0.3
    assert watched_costs(np.array([10, 90, 1000]), np.array([20, 100, 100])).tolist() == [0.5, 0.9, DEAREST]


def test_predict_keeps_the_state_between_calls_and_warns(with_point, many, tmp_path, monkeypatch, caplog):
    model, path = with_point(0.95, 0.1), tmp_path / "state.json"
    monkeypatch.setattr(ModelOptions, "open", lambda self, folder: model)
    predict("folder", many[:100], operating_point="eager", watch=path)
    assert read_state(path).cost.n == 100
    predict("folder", many[100:], operating_point="eager", watch=path)
    assert read_state(path).cost.n == 240
    assert "expected 0.1:" in caplog.messages[-1]
    with pytest.raises(UserError, match="--watch goes with an operating point"):
        predict("folder", many, threshold=0.5, watch=path)


WATCH = Watch(0, 1, 0.1, 0.3)


def test_two_runs_at_once_both_count_and_a_written_alarm_stays(with_point, tmp_path):
    model, path = with_point(0.5, 0.3), tmp_path / "state.json"
    begun = Monitor(model, "eager")
    begun.drift.add(np.full(100, 0.3))
    write_state(begun.drift.state, path)
    storm, calm = (Monitor(model, "eager", state=read_state(path)) for _ in range(2))
    storm.drift.add(np.full(2000, 2.9))
    write_state(storm.drift.state, path)
    calm.drift.add(np.full(50, 0.3))
    write_state(calm.drift.state, path)
    found = read_state(path)
    assert found.cost.n == 2150 and found.cost.total == pytest.approx(2000 * 2.9 + 150 * 0.3)
    assert found.cost_drifted
    calm.drift.add(np.full(7, 0.3))
    calm.keep(path)  # all that it saw was added before, but for the last seven
    assert read_state(path) == calm.drift.state and calm.drift.state.cost.n == 2157
    assert "expected" in calm.alarms[0]  # of the other run
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_two_first_runs_both_count(with_point, tmp_path):
    model, path = with_point(0.5, 0.3), tmp_path / "state.json"
    both = [Monitor(model, "eager", state=read_state(path)) for _ in range(2)]
    for one in both:
        one.drift.add(np.full(5, 0.3))
        one.keep(path)
    assert read_state(path).cost.n == 10
    new = Monitor(model, "eager")
    new.drift.add(0.3)
    write_state(new.drift.state, path)
    assert read_state(path).cost.n == 1


def test_runs_that_write_at_the_same_time_lose_nothing(tmp_path):
    path, start = tmp_path / "state.json", threading.Barrier(4)

    def add(_):
        start.wait()
        for _ in range(10):
            monitor = DriftTest(read_state(path) or State(WATCH))
            monitor.add(np.full(3, 0.3))
            write_state(monitor.state, path, anew=False)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert read_state(path).cost.n == 4 * 10 * 3
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_what_was_not_written_is_added_by_the_next_attempt(tmp_path, monkeypatch):
    path, monitor = tmp_path / "state.json", DriftTest(State(WATCH))
    monitor.add(0.3)
    write_state(monitor.state, path)
    monitor.add(0.3)
    with monkeypatch.context() as full, pytest.raises(UserError, match="free some space"):
        full.setattr("ziggurat.calibrate.watching.whole_file", lambda _: _raises(OSError(28, "full")))
        write_state(monitor.state, path)
    write_state(monitor.state, path)
    assert read_state(path).cost.n == 2


def _raises(error):
    raise error


def test_any_other_watch_than_the_points_is_refused_by_name(with_point):
    model = with_point(0.5, 1.5)
    watch = watch_of(model.point("eager"))
    for key, value in {"delta": 0.2, "tolerance": 0.5, "share": 0.5, "seed": 3, "largest_cost": 9.0}.items():
        with pytest.raises(UserError, match=rf"as it is now \({key} {value:g}, now {asdict(watch)[key]:g}\)"):
            Monitor(model, "eager", state=State(replace(watch, **{key: value})))


VALUES = (
    *(None, True, False, 0, 1, -1, 0.5, -0.5, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 1e-320),
    *(10**12, 10**18, 2**63, 10**400, "x", "", [], {}, [0.0] * 8, [1] * 8, [-1.0] * 8, [True] * 8, [[]] * 8),
)


def _places(values, place=()):
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in inner:
        yield (*place, key)
        yield from _places(value, (*place, key))


def _spoilt(good, draws):
    """The state with one or two values changed, removed, added, or the text cut."""
    values = copy.deepcopy(good)
    if draws.random() < 0.5:
        del values["digest"]
    for _ in range(draws.choice([1, 1, 2])):
        *way, last = draws.choice([*_places(values)])
        part = values
        for key in way:
            part = part[key]
        if draws.random() < 0.15:
            del part[last]
        elif draws.random() < 0.1 and isinstance(part, dict):
            part["more"] = 1
        else:
            part[last] = draws.choice(VALUES)
    text = json.dumps(values)
    return text[: draws.randrange(len(text))] if draws.random() < 0.1 else text


def test_a_spoilt_state_is_refused_or_still_monitored(tmp_path):
    path, draws = tmp_path / "state.json", random.Random(0)
    monitor = DriftTest(WATCH)
    monitor.due(500)
    monitor.add(np.full(500, 0.3), np.zeros(50))
    write_state(monitor.state, path)
    good, refused, saw = json.loads(path.read_text()), 0, 0
    for _ in range(400):
        path.write_text(_spoilt(good, draws))
        try:
            state = read_state(path)
        except UserError as error:
            assert "\n" not in str(error) and "not the state of a monitor" in str(error)
            refused += 1
            continue
        if state.watch == WATCH:  # another one is refused by whoever goes on from it
            again = DriftTest(state)
            again.due(10)
            again.add(np.full(10_000, 1.4), np.ones(10_000))
            assert again.state.promise_lost and again.state.cost_drifted
            saw += 1
    assert refused > 300 and saw > 5


def test_a_state_that_was_changed_by_hand_is_noticed(tmp_path):
    path = tmp_path / "state.json"
    write_state(DriftTest(WATCH).add(0.3), path)
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"drawn": 7}))
    with pytest.raises(UserError, match="not as it was written"):
        read_state(path)
    del values["digest"]  # of an older version
    path.write_text(json.dumps(values))
    assert read_state(path).cost.n == 1


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '{"digest": 1}', "\ud800"])
def test_what_is_no_json_of_ours_is_no_state(text, tmp_path):
    path = tmp_path / "state.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=r"state\.json: not the state"):
        read_state(path)
