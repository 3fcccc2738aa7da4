"""The papers' analyses: every figure is what really running that setting gives, and every report is whole."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ziggurat.analyses import (
    EXITS,
    EXITS_AND_PRUNING,
    FULL_DEPTH,
    PRUNING,
    Exits,
    Request,
    by_length,
    comparing,
    lengths,
    quantiles,
)
from ziggurat.analyses.comparing import methods
from ziggurat.analyses.papers import correctness, joint_sweep, sweep, thresholds, trajectories
from ziggurat.data import Fractions, Role, load, split_roles
from ziggurat.encoder import read_manifest, write_cascade, write_manifest
from ziggurat.errors import UserError
from ziggurat.measure import ModelOptions, Timing
from ziggurat.measure.evaluate import evaluate
from ziggurat.policies import ExitRule

EDGES = (5, 9)
AT = Exits(threshold=0.6)


@pytest.fixture
def request_of(rows_file, tmp_path):
    """A function: model folders in, a request to report on them out."""

    def make(*folders, **changes):
        options = ModelOptions(device="cpu", batch_size=8)
        settings = {"names": [f"model {i}" for i in range(len(folders))], "options": options}
        settings |= {"source": str(rows_file), "out": tmp_path / "report"} | changes
        return Request([str(folder) for folder in folders], **settings)

    return make


@pytest.fixture
def subject(request_of, pruned_folder):
    """The pruned model with its rows."""
    return next(request_of(pruned_folder).subjects())


def rule_at(subject, setting, threshold=0.6):
    exits = ExitRule.full_depth(4) if setting in (FULL_DEPTH, PRUNING) else ExitRule.uniform("entropy", threshold, 4)
    return replace(exits, tokens=subject.classifier.token_rule if setting in (PRUNING, EXITS_AND_PRUNING) else None)


def ran(subject, rule):
    """Outcomes and FLOPs of really running a rule on all rows."""
    outcomes = subject.classifier.run(subject.encoded, rule, batch_size=8)
    flops = subject.classifier.flops(subject.encoded, outcomes.token_counts, rule)[
        np.arange(len(subject.rows)), outcomes.rungs
    ]
    return outcomes, flops


def test_claim_25_every_cell_of_the_grid_equals_a_real_run(subject):
    cells = list(joint_sweep(subject, (0.5, 1.0, 1.4), (0.3, 0.6)))
    assert [(cell.scale, cell.threshold) for cell in cells] == [
        (scale, tau) for scale in (None, 0.5, 1.0, 1.4) for tau in (None, 0.3, 0.6)
    ]
    own = subject.classifier.token_rule
    for cell in cells:
        exits = ExitRule.full_depth(4) if cell.threshold is None else ExitRule.uniform("entropy", cell.threshold, 4)
        tokens = None if cell.scale is None else replace(own, values=own.values * cell.scale)
        outcomes, flops = ran(subject, replace(exits, tokens=tokens))
        assert cell.measured.predictions.tolist() == outcomes.predictions.tolist()
        assert cell.measured.layers.tolist() == (outcomes.rungs + 1).tolist()
        assert cell.measured.remaining.tolist() == outcomes.token_counts.tolist()
        assert cell.measured.flops.tolist() == flops.tolist()


def test_claim_25_the_axes_of_the_grid_do_something(request_of, pruned_folder):
    rows = sweep(request_of(pruned_folder), (0.5, 1.4), (0.3, 0.9)).rows
    by_place = {(row["scale"], row["threshold"]): row["flops_ratio"] for row in rows}
    assert by_place[None, None] == 1.0
    assert by_place[1.4, None] > by_place[0.5, None] >= by_place[None, None]
    assert by_place[0.5, 0.9] > by_place[0.5, 0.3]


class ScriptedClock:
    """Stands in for `interleave`: keeps what would have been timed; the k-th call of a run takes k + 1 seconds."""

    def __init__(self):
        self.runs = []

    def __call__(self, calls, repeats, progress=None):
        self.runs.append(calls)
        return {name: Timing((k + 1.0,) * repeats) for k, name in enumerate(calls)}


def timed(call):
    """The texts, as the ids of their tokens, and the rule of a call that would have been timed."""
    encoded, rule, _ = call.args
    return [tokens.tolist() for tokens in encoded.tokens], rule


def test_thresholds_are_what_eval_says_of_each(request_of, pruned_folder, model_folder, rows_file):
    taus = (0.1, 0.5, 0.8)
    result = thresholds(request_of(pruned_folder, model_folder), taus).to_dict()
    assert [(row["model"], row["setting"]) for row in result["rows"]] == [
        ("model 0", EXITS), *[("model 0", EXITS)] * 2, *[("model 0", EXITS_AND_PRUNING)] * 3, *[("model 1", EXITS)] * 3
    ]  # fmt: skip
    for row in result["rows"]:
        if row["setting"] == EXITS and row["model"] == "model 0":
            continue  # `eval` never switches a model's pruning off
        folder = pruned_folder if row["model"] == "model 0" else model_folder
        options = ModelOptions(device="cpu", batch_size=8)
        judged = evaluate(
            str(folder), str(rows_file), threshold=row["threshold"], options=options, timed_texts=2
        ).to_dict()
        for key in ("accuracy", "full_accuracy", "flops_ratio", "mean_layers"):
            assert row[key] == pytest.approx(judged[key]), (row, key)


def test_trajectories_are_the_tokens_that_runs_leave(subject, request_of, pruned_folder):
    rows = trajectories(request_of(pruned_folder), EDGES, AT).rows
    short = subject.encoded.lengths <= EDGES[0]
    for setting in (EXITS, PRUNING, EXITS_AND_PRUNING):
        outcomes, _ = ran(subject, rule_at(subject, setting))
        mine = [row for row in rows if row["setting"] == setting and row["bucket"] == "1-5"]
        assert [row["layer"] for row in mine] == [0, 1, 2, 3, 4]
        assert [row["tokens_mean"] for row in mine] == pytest.approx(outcomes.token_counts[short].mean(axis=0))
        assert [row["tokens_q75"] for row in mine] == pytest.approx(
            np.quantile(outcomes.token_counts[short], 0.75, axis=0)
        )


def test_correctness_sets_right_answers_beside_wrong_ones(subject, request_of, pruned_folder):
    rows = correctness(request_of(pruned_folder), AT).rows
    outcomes, _ = ran(subject, rule_at(subject, EXITS_AND_PRUNING))
    right = outcomes.predictions == subject.rows.classes
    left = outcomes.token_counts[np.arange(len(right)), outcomes.rungs + 1] / subject.lengths
    (row,) = [row for row in rows if row["setting"] == EXITS_AND_PRUNING and row["measure"] == "share left at the end"]
    assert (row["n_right"], row["n_wrong"]) == (right.sum(), (~right).sum())
    assert row["right_mean"] == pytest.approx(left[right].mean())
    assert row["wrong_median"] == pytest.approx(np.median(left[~right]))


def test_a_cascades_thresholds_and_methods_equal_real_runs(request_of, cascade_folder, static_folder):
    (subject,) = request_of(cascade_folder).subjects()
    swept = thresholds(request_of(cascade_folder), (0.2, 0.6)).rows
    compared = methods(request_of(cascade_folder, static_folder), n_thresholds=3, timed_texts=4, repeats=1).rows
    assert compared[-1]["setting"] == FULL_DEPTH  # a small model is one point, for it cannot leave anywhere
    mine = [row for row in compared if row["model"] == "model 0"]
    assert [row["setting"] for row in mine] == [FULL_DEPTH, PRUNING, *["threshold"] * 3]
    for row in [*swept, *mine[2:]]:
        tokens = None if row["setting"] == EXITS else subject.classifier.token_rule
        outcomes, flops = ran(subject, replace(ExitRule.uniform("entropy", row["threshold"], 5), tokens=tokens))
        assert row["accuracy"] == pytest.approx((outcomes.predictions == subject.rows.classes).mean())
        assert row["gflops_mean"] == pytest.approx(flops.mean() / 1e9)
    assert mine[0]["accuracy"] == (ran(subject, ExitRule.full_depth(5))[0].predictions == subject.rows.classes).mean()


@pytest.mark.parametrize("job", [trajectories, correctness, sweep])
def test_analyses_of_one_encoders_layers_refuse_a_cascade(job, request_of, cascade_folder, model_folder, tmp_path):
    with pytest.raises(UserError, match=rf"`ziggurat report {job.__name__}` is about one encoder's layers; give"):
        job(request_of(cascade_folder))
    write_cascade([model_folder, model_folder], tmp_path / "two")
    with pytest.raises(UserError, match=str(tmp_path / "two" / "tiers" / "1")):
        job(request_of(tmp_path / "two"))


@pytest.mark.parametrize("job", [thresholds, lengths, quantiles, trajectories, correctness, sweep])
def test_analyses_of_exits_and_layers_refuse_a_small_model(job, request_of, static_folder):
    with pytest.raises(UserError, match=rf"a static model alone has .*`ziggurat report {job.__name__}`"):
        job(request_of(static_folder))


@pytest.mark.parametrize("job", [correctness, sweep])
def test_analyses_of_pruning_want_a_model_that_prunes(job, request_of, model_folder):
    with pytest.raises(UserError, match="prunes no tokens"):
        job(request_of(model_folder))


def test_methods_have_each_models_curve_points_and_full_depth(request_of, pruned_folder, model_folder):
    result = methods(request_of(pruned_folder, model_folder), n_thresholds=3, timed_texts=4, repeats=2).to_dict()
    curve = ["threshold"] * 3
    points = ["point balanced", "point fast"]
    settings = [(row["model"], row["setting"]) for row in result["rows"]]
    assert settings == [
        *(("model 0", setting) for setting in [FULL_DEPTH, PRUNING, *points, *curve]),
        *(("model 1", setting) for setting in [FULL_DEPTH, *points, *curve]),
    ]
    for row in result["rows"]:
        assert row["milliseconds_per_text"] > 0
        assert row["time_ratio_low"] <= row["time_ratio"] <= row["time_ratio_high"]
        if row["setting"] == FULL_DEPTH:
            assert row["time_ratio"] == row["flops_ratio"] == 1.0
    svg = Path(result["files"][-1]).read_text()
    assert all(text in svg for text in ("model 0", "model 1", "measured time per text", "GFLOPs per text"))


def test_methods_time_each_setting_beside_its_own_full_depth(request_of, pruned_folder, model_folder, monkeypatch):
    clock = ScriptedClock()
    monkeypatch.setattr(comparing, "interleave", clock)
    result = methods(request_of(pruned_folder, model_folder), n_thresholds=2, timed_texts=5, repeats=2).to_dict()
    [calls] = clock.runs
    assert len(calls) == len(result["rows"])
    seconds = {row: place + 1.0 for place, row in enumerate(map(id, result["rows"]))}
    for row, call in zip(result["rows"], calls.values(), strict=True):
        texts, rule = timed(call)
        [own] = [one for one in result["rows"] if (one["model"], one["setting"]) == (row["model"], FULL_DEPTH)]
        assert len(texts) == 5 and row["milliseconds_per_text"] == 1e3 * seconds[id(row)] / 5
        assert row["time_ratio"] == seconds[id(own)] / seconds[id(row)]
        assert any(rule.active[:-1]) == (row["setting"] not in (FULL_DEPTH, PRUNING))


def test_a_model_that_can_do_only_one_thing_is_one_point(request_of, static_folder, model_folder):
    """Else the same work is timed several times, and what runs first in turn pays for cold caches."""
    rows = methods(request_of(static_folder, model_folder), n_thresholds=2, timed_texts=None).rows
    assert [row["setting"] for row in rows if row["model"] == "model 0"] == [FULL_DEPTH]


def test_a_report_never_replaces_the_rows_that_it_reads(request_of, pruned_folder, tmp_path):
    rows = tmp_path / "lengths.csv"
    rows.write_text("text,label\nbat kin,river\n")
    before = rows.read_bytes()
    with pytest.raises(UserError, match=r"lengths\.csv: is an input of this command"):
        lengths(request_of(pruned_folder, source=str(rows), out=tmp_path), EDGES, AT)
    assert rows.read_bytes() == before


def test_a_point_missing_in_a_later_model_is_refused_first(request_of, pruned_folder, copied, monkeypatch):
    monkeypatch.setattr(by_length, "_grouped", None)
    other = copied(pruned_folder)
    write_manifest(replace(read_manifest(other), operating_points=()), other)
    with pytest.raises(UserError, match="'balanced' is not in the model"):
        lengths(request_of(pruned_folder, other), EDGES, Exits("balanced"))


def test_methods_points_are_what_eval_says_of_them(request_of, pruned_folder, rows_file):
    rows = methods(request_of(pruned_folder), n_thresholds=2, timed_texts=None).rows
    assert "time_ratio" not in rows[0]
    options = ModelOptions(device="cpu", batch_size=8)
    judged = evaluate(str(pruned_folder), str(rows_file), "fast", options=options, timed_texts=2).to_dict()
    (fast,) = [row for row in rows if row["setting"] == "point fast"]
    for key in ("accuracy", "flops_ratio", "mean_layers"):
        assert fast[key] == pytest.approx(judged[key])


@pytest.fixture
def half_folder(copied, pruned_folder):
    """The pruned model, whose point `fast` prunes half as hard, and whose `balanced` does not."""
    folder = copied(pruned_folder)
    manifest = read_manifest(folder)
    points = [replace(point, pruning={"fast": 0.5, "balanced": 0.0}[point.name]) for point in manifest.operating_points]
    write_manifest(replace(manifest, operating_points=tuple(points)), folder)
    return folder


def test_a_point_that_prunes_less_is_reported_as_it_prunes(request_of, half_folder, rows_file):
    rows = methods(request_of(half_folder), n_thresholds=2, timed_texts=None).rows
    options = ModelOptions(device="cpu", batch_size=8)
    costs = set()
    for name in ("fast", "balanced"):
        judged = evaluate(str(half_folder), str(rows_file), name, options=options, timed_texts=2).to_dict()
        (point,) = [row for row in rows if row["setting"] == f"point {name}"]
        for key in ("accuracy", "flops_ratio", "mean_layers"):
            assert point[key] == pytest.approx(judged[key])
        costs.add(round(judged["flops_ratio"], 6))
    result = lengths(request_of(half_folder), (10**6,), Exits("fast")).to_dict()
    judged = evaluate(str(half_folder), str(rows_file), "fast", options=options, timed_texts=2).to_dict()
    (both,) = [row for row in result["rows"] if row["setting"] == EXITS_AND_PRUNING and row["n"]]
    assert both["flops_ratio"] == pytest.approx(judged["flops_ratio"]) and len(costs) == 2
    assert "fast prunes with other thresholds than 'pruning' alone" in " ".join(result["notes"])
    notes = " ".join(lengths(request_of(half_folder), EDGES, Exits("balanced")).notes)
    assert "balanced prunes nothing, so that 'exits' is that point" in notes


def test_tokens_of_a_group_are_those_that_full_depth_reads(subject, request_of, pruned_folder):
    """The model leaves some words unread, and a bucket's texts are as long as its name says all the same."""
    rows = lengths(request_of(pruned_folder), (10**6,), AT).rows
    assert {row["tokens_mean"] for row in rows if row["n"]} == {subject.lengths.mean()}


def test_a_report_is_a_table_twice_and_a_figure_twice(request_of, pruned_folder):
    result = thresholds(request_of(pruned_folder), (0.2, 0.6)).to_dict()
    paths = [Path(file) for file in result["files"]]
    assert [path.name for path in paths] == [f"thresholds{suffix}" for suffix in (".md", ".csv", ".png", ".svg")]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(path.name for path in paths)
    text = paths[0].read_text()
    assert text.startswith(f"# {result['title']}\n")
    assert all(f"- {note}\n" in text for note in result["notes"])
    header, *body = csv.reader(paths[1].read_text().splitlines())
    assert len(body) == len(result["rows"]) == 4
    assert float(body[0][header.index("accuracy")]) == result["rows"][0]["accuracy"]


@pytest.mark.parametrize("job", [methods, thresholds, lengths, quantiles, trajectories, correctness, sweep])
def test_the_notes_name_seen_rows_and_cut_texts(job, request_of, pruned_folder, rows_file, tmp_path, monkeypatch):
    rows = split_roles(load(str(rows_file)), Fractions())[Role.SELECT]
    monkeypatch.setattr("ziggurat.measure.subject.trained_rows", lambda folder: rows.hashes)
    longer = tmp_path / "rows.jsonl"
    longer.write_text(rows_file.read_text() + '{"text": "' + "bat " * 90 + '", "label": "river"}\n')
    extra = {"timed_texts": None} if job is methods else {}
    result = job(request_of(pruned_folder, source=str(longer)), **extra).to_dict()
    warning, cut = result["notes"][:2]
    assert warning.startswith(f"Warning: {len(rows)} of the 241 rows trained model 0")
    assert cut == "1 of the 241 texts are longer than the 24 tokens that model 0 reads."


def test_models_are_called_by_their_folders_unless_named(request_of, copied, model_folder):
    copy = copied(model_folder)
    named = thresholds(request_of(model_folder, copy, names=()), (0.5,)).rows
    assert [row["model"] for row in named] == ["model", "copy"]
    with pytest.raises(UserError, match=r"two models are called 'model'; .*--name"):
        thresholds(request_of(model_folder, model_folder, names=()))
    with pytest.raises(UserError, match="1 names for 2 models"):
        thresholds(request_of(model_folder, copy, names=("one",)))


@pytest.mark.parametrize(
    ("job", "given", "named"),
    [
        (thresholds, {"taus": (0.1, float("nan"))}, "--taus"),
        (thresholds, {"taus": (-0.1,)}, "--taus"),
        (sweep, {"scales": (float("inf"),)}, "--scales"),
        (lengths, {"edges": (70, 35)}, "--buckets"),
        (lengths, {"edges": (0, 35)}, "--buckets"),
        (trajectories, {"edges": (5, 5)}, "--buckets"),
        (quantiles, {"shares": (0.5, 1.0)}, "--quantiles"),
        (methods, {"n_thresholds": 1}, "--curve"),
    ],
)
def test_senseless_numbers_are_refused_before_a_model_is_opened(job, given, named, request_of):
    with pytest.raises(UserError, match=named):
        job(request_of("absent/"), **given)


def test_without_matplotlib_nothing_is_measured_first(request_of, model_folder, monkeypatch):
    import sys

    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install '\.\[report\]' in Ziggurat's folder"):
        thresholds(request_of("absent/"))
