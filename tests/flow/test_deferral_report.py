"""`report deferral` on tiny ladders: its figures are what running the ladder gives, and its refusals one line."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ziggurat.analyses import Request
from ziggurat.analyses.deferral import RATES, deferral
from ziggurat.cli import main
from ziggurat.encoder import with_deferral, write_cascade
from ziggurat.errors import UserError
from ziggurat.measure import ModelOptions
from ziggurat.policies import ExitRule

CONFIDENCE = ["entropy", "max-probability", "margin"]


@pytest.fixture
def request_of(rows_file, tmp_path):
    """A function: a model folder in, a request to report on it out."""
    options = ModelOptions(device="cpu", batch_size=64)
    return lambda folder: Request([str(folder)], str(rows_file), tmp_path / "report", ["tiny"], options=options)


@pytest.fixture(scope="module")
def long_cascade(static_folder, model_folder, pruned_folder, tmp_path_factory):
    """Three tiers, the second of which says other things than the third."""
    folder = tmp_path_factory.mktemp("long") / "model"
    write_cascade([model_folder, static_folder, pruned_folder], folder)
    return folder


def part(result, name):
    return next(one["rows"] for one in result["parts"] if one["name"] == name)


def curve(result, router):
    return [row for row in part(result, "curves") if row["router"] == router]


def measured(subject, rule):
    """Accuracy and GFLOPs of really running a rule."""
    outcomes = subject.classifier.run(subject.encoded, rule)
    flops = subject.classifier.flops(subject.encoded, outcomes.token_counts, rule)[
        np.arange(len(subject.rows)), outcomes.rungs
    ]
    return (outcomes.predictions == subject.rows.classes).mean(), flops.mean() / 1e9


def test_every_router_goes_from_tier_1_to_the_last_rung(request_of, cascade_folder):
    result = deferral(request_of(cascade_folder)).to_dict()
    (subject,) = request_of(cascade_folder).subjects()
    assert [row["router"] for row in result["rows"]] == [*CONFIDENCE, "random", "oracle"]
    first, dear = measured(subject, ExitRule.fixed_depth(0, 5)), measured(subject, ExitRule.fixed_depth(4, 5))
    whole = measured(subject, subject.classifier.rule_of("full"))
    for router in (row["router"] for row in result["rows"]):
        rows = curve(result, router)
        assert [row["share"] for row in rows] == list(RATES)
        assert (rows[0]["accuracy"], rows[0]["gflops_mean"]) == pytest.approx(first)
        # The last rung as the full model says it; who goes on has paid for both tiers.
        assert rows[-1]["accuracy"] == pytest.approx(whole[0])
        assert rows[-1]["gflops_mean"] == pytest.approx(first[1] + dear[1])
        assert all(row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] for row in rows)


@pytest.mark.parametrize("score", ["entropy", "margin"])
def test_a_point_of_a_curve_is_what_running_that_threshold_gives(request_of, cascade_folder, score):
    (subject,) = request_of(cascade_folder).subjects()
    values = ExitRule(score, np.zeros(4)).values(0, subject.every_rung(None).readings[:, :1])
    doubt = np.sort(values if score == "entropy" else -values)[::-1]
    half = (doubt[119] + doubt[120]) / 2
    assert doubt[119] > doubt[120]
    rule = ExitRule(score, np.array([half if score == "entropy" else -half, *[np.nan] * 3]))
    (row,) = [row for row in curve(deferral(request_of(cascade_folder)).to_dict(), score) if row["share"] == 0.5]
    assert (row["accuracy"], row["gflops_mean"]) == pytest.approx(measured(subject, rule))


def test_the_learned_score_is_there_where_the_model_has_one(request_of, copied, cascade_folder, rows_file):
    folder = copied(cascade_folder)
    weights = np.zeros((4, 7))
    weights[:, 1] = 3.0  # it rises with the margin, so both order texts alike
    with_deferral(folder, weights, np.array([5], dtype=np.uint64))
    result = deferral(request_of(folder)).to_dict()
    learned, margin = curve(result, "learned"), curve(result, "margin")
    assert [row["accuracy"] for row in learned] == pytest.approx([row["accuracy"] for row in margin])


def test_a_second_tier_may_ask_whether_it_agrees_with_the_first(request_of, long_cascade):
    result = deferral(request_of(long_cascade), 2).to_dict()
    (subject,) = request_of(long_cascade).subjects()
    assert "tier 2 (static)" in result["title"]
    rule = ExitRule("agreement", np.array([*[np.nan] * 3, np.inf, 1.0, *[np.nan] * 3]))
    went_on = (subject.classifier.run(subject.encoded, rule).rungs > 4).mean()
    assert 0 < went_on < 1
    agreement, margin = curve(result, "agreement"), curve(result, "margin")
    assert agreement[0]["gflops_mean"] > margin[0]["gflops_mean"]  # it runs the first tier too
    (summed,) = [row for row in result["rows"] if row["router"] == "agreement"]
    assert 0 <= summed["stays_99"] <= summed["stays_98"] <= 1
    x, accuracy = [row["share"] for row in agreement], [row["accuracy"] for row in agreement]
    exact = measured(subject, rule)[0]
    assert np.interp(went_on, x, accuracy) == pytest.approx(exact, abs=0.01)


def test_each_tier_of_a_longer_chain_is_compared_with_the_next(request_of, long_cascade):
    result = deferral(request_of(long_cascade)).to_dict()
    (subject,) = request_of(long_cascade).subjects()
    steps, ends = part(result, "steps"), (3, 4, 8)  # rungs: four of the first tier, one, four
    said = [subject.classifier.run(subject.encoded, ExitRule.fixed_depth(end, 9)).predictions for end in ends[:2]]
    said.append(subject.classifier.run(subject.encoded, subject.classifier.rule_of("full")).predictions)
    right = [predictions == subject.rows.classes for predictions in said]
    names = ["tier 1 (encoder)", "tier 2 (static)", "tier 3 (encoder)"]
    for number in (1, 2):
        mine = [row for row in steps if row["step"] == number]
        assert [row["decile"] for row in mine] == list(range(1, 11)) and sum(row["n"] for row in mine) == 240
        assert {(row["tier"], row["next_tier"]) for row in mine} == {(names[number - 1], names[number])}
        before, after = right[number - 1], right[number]
        assert sum(row["corrected"] for row in mine) == pytest.approx((~before & after).mean())
        assert sum(row["introduced"] for row in mine) == pytest.approx((before & ~after).mean())
        for key, one in (("accuracy", before), ("next_accuracy", after)):
            assert sum(row[key] * row["n"] for row in mine) == pytest.approx(one.sum())
    assert (~right[0] & right[1]).mean() != pytest.approx((~right[0] & right[2]).mean())  # or nothing is shown
    assert part(deferral(request_of(long_cascade), 2).to_dict(), "steps") == steps  # --tier is the routers'


def test_a_longer_chains_steps_have_their_own_names(request_of, long_cascade):
    result = deferral(request_of(long_cascade)).to_dict()
    assert [one["name"] for one in result["parts"]] == ["steps", "curves"]
    files = {Path(file).name: Path(file).read_text("utf-8") for file in result["files"] if not file.endswith("png")}
    table = list(csv.DictReader(files["deferral-steps.csv"].splitlines()))
    assert [row["step"] for row in table] == ["1"] * 10 + ["2"] * 10
    assert {row["next tier"] for row in table} == {"tier 2 (static)", "tier 3 (encoder)"}
    assert all(f"next: {name}" in files["deferral.svg"] for name in ("tier 2 (static)", "tier 3 (encoder)"))
    assert "next corrects" in files["deferral.svg"] and "last corrects" not in files["deferral.md"]
    assert "tier 2 (static): tier 3 (encoder) corrects" in files["deferral.md"]


def test_a_chain_of_two_has_one_step_and_needs_no_name_for_it(request_of, cascade_folder, pruned_folder):
    for folder in (cascade_folder, pruned_folder):  # a model's exits are held against its last rung
        errors = part(deferral(request_of(folder)).to_dict(), "errors")
        assert len(errors) == 10 and not {"step", "tier", "next_tier"} & set(errors[0])
        assert "last_accuracy" in errors[0]


def test_a_model_with_exits_counts_rungs(request_of, pruned_folder):
    result = deferral(request_of(pruned_folder), 2).to_dict()
    assert "layer 2" in result["title"] and "agreement" in [row["router"] for row in result["rows"]]
    (subject,) = request_of(pruned_folder).subjects()
    rows = curve(result, "margin")
    assert rows[0]["accuracy"] == pytest.approx(measured(subject, ExitRule.fixed_depth(1, 4))[0])
    assert rows[-1]["accuracy"] == pytest.approx(measured(subject, ExitRule.fixed_depth(3, 4))[0])


def test_it_writes_three_tables_a_figure_and_no_promise(request_of, cascade_folder):
    result = deferral(request_of(cascade_folder)).to_dict()
    names = [
        "deferral.md",
        "deferral.csv",
        "deferral-errors.csv",
        "deferral-curves.csv",
        "deferral.png",
        "deferral.svg",
    ]
    assert [Path(file).name for file in result["files"]] == names
    text = Path(result["files"][0]).read_text()
    assert text.count("\n## ") == 2 and "not a promise" in text
    (random,) = [row for row in result["rows"] if row["router"] == "random"]
    assert random["share_of_oracle"] == pytest.approx(0.0)
    for file, rows in zip(
        result["files"][1:4], (result["rows"], *(one["rows"] for one in result["parts"])), strict=True
    ):
        assert len(list(csv.reader(Path(file).read_text().splitlines()))) == len(rows) + 1
    errors = part(result, "errors")
    assert len(errors) == 10 and sum(row["n"] for row in errors) == 240
    svg = Path(result["files"][-1]).read_text()
    assert all(word in svg for word in ("oracle", "random", "99 % of the last", "last corrects", "escalated"))


@pytest.mark.parametrize("tier", [0, 2, -1])
def test_a_tier_that_is_not_before_the_last_is_refused(request_of, cascade_folder, tier):
    with pytest.raises(UserError, match=rf"--tier {tier}: .* has 1$"):
        deferral(request_of(cascade_folder), tier)


def test_without_tiers_and_exits_nothing_is_escalated(request_of, static_folder, make_folder):
    for folder in (static_folder, make_folder(head_layers=(), operating_points=())):
        with pytest.raises(UserError, match="nothing is escalated"):
            deferral(request_of(folder))


@pytest.fixture
def command(capsys, monkeypatch, rows_file, tmp_path):
    """A function: a model folder and arguments in, exit code, output and errors out."""

    def run(folder, *extra):
        about = ["report", "deferral", folder, "--data", rows_file, "--out", tmp_path / "out", "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", [str(word) for word in ("ziggurat", *about, *extra)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capsys.readouterr()

    return run


def test_the_command_is_one_json_object_or_tables(command, cascade_folder):
    code, out, _ = command(cascade_folder, "--json")
    assert not code and out.count("\n") == 1
    result = json.loads(out)
    assert result["kind"] == "deferral" and len(part(result, "curves")) == 5 * 21
    code, out, _ = command(cascade_folder)
    assert not code and "Errors by confidence of tier 1 (static)" in out
    assert len(out.splitlines()) < 40


def test_a_mistake_is_one_line(command, cascade_folder, static_folder):
    for folder, extra, word in ((cascade_folder, ["--tier", "5"], "--tier 5"), (static_folder, [], "nothing is")):
        code, out, err = command(folder, *extra)
        mine = [line for line in err.splitlines() if line.startswith("ziggurat:")]
        assert code == 2 and not out and len(mine) == 1 and word in mine[0]
