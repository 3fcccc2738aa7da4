"""The page of a calibration shows what the model did: its numbers come back from runs of the engine, row by row."""

from __future__ import annotations

import json
import re
import shutil
import sys
from functools import cache

import numpy as np
import pytest

from ziggurat.calibrate import Promise, calibrate_model, frontier, net_loss, risk_by_name, rule_of
from ziggurat.calibrate import calibrate as certify
from ziggurat.calibrate import points as calibration_points
from ziggurat.calibrate import times as calibration_time
from ziggurat.calibrate.page.curves import band, mechanisms
from ziggurat.calibrate.rows import full_run
from ziggurat.encoder import read_manifest
from ziggurat.errors import UserError
from ziggurat.measure import Costs, ModelOptions, Profile, Timing, conditions_of
from ziggurat.problems import CLASSES
from ziggurat.recipe import PruningConfig

CPU = ModelOptions(device="cpu", threads=1)
ALONE = {"recipe": {"select": 0.1, "certify": 0.1, "grouped": False}}  # each row counts, whatever text it shares
LOOSE = (("tight", 0.02), ("loose", 0.7))  # of answers that may differ: a model of random weights is never sure


def flat_profile(classifier, _=None) -> Profile:
    """A machine on which every part costs its tokens."""
    tokens, lengths = (1, 64, 4096), (1, 2, 4, 8, 16, 32, 64)
    part = tuple((t * 1e-6,) * len(lengths) for t in tokens)
    head = tuple((1e-7,) * len(lengths) for _ in tokens)
    half = tuple((t * 5e-7,) * len(lengths) for t in tokens)
    return Profile(conditions_of(classifier), "2026-01-01", tokens, lengths, Costs(head, part, part, head, half, half))


def steady(calls, *_, **__):
    """The looser a point the faster, and full depth slowest, whatever else the machine does."""
    seconds = {"None": 2.0, "tight": 1.0, "loose": 0.5}
    return {name: Timing((seconds[name],) * 5) for name in calls}


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A function: folder, file and what is promised in; the result, the page and all that it was made from out."""
    whole, made = certify.picture, {}

    def watched(*arguments):
        made["arguments"], made["picture"] = arguments, whole(*arguments)
        return made["picture"]

    @cache
    def run(folder, source, criterion="agreement", targets=LOOSE):
        place = tmp_path_factory.mktemp("calibrated")
        html = place / "new" / "page.html"
        model = str(shutil.copytree(folder, place / "model"))
        result = calibrate_model(
            model, str(source), Promise(dict(targets), criterion=criterion), options=CPU, html=html
        ).to_dict()
        return result, html.read_text(), made["picture"], made["arguments"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration_time, "stored_profile", flat_profile)
        patch.setattr(calibration_points, "interleave", steady)
        patch.setattr(certify, "picture", watched)
        yield run


@pytest.fixture(scope="module")
def plain(make_folder):
    """A model that has seen none of the rows."""
    return make_folder(training=ALONE)


@pytest.fixture(scope="module")
def pruned(make_folder):
    """The same with pruning."""
    return make_folder(training=ALONE, pruning=PruningConfig(per_layer=(0.8, 0.9, 0.95, 1.0), vocabulary=0.9))


@pytest.fixture(scope="module")
def unlabelled(rows_file, tmp_path_factory):
    """The same rows without labels, one of them hostile."""
    texts = [json.loads(line)["text"] for line in rows_file.read_text().splitlines()]
    path = tmp_path_factory.mktemp("unlabelled") / "rows.jsonl"
    hostile = [f"<script>alert({i})</script> {'bat kin ' * 12}" for i in range(40)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, *hostile]))
    return path


@pytest.mark.parametrize("kind", ["plain", "pruned"])
def test_the_page_shows_what_the_engine_does_at_the_chosen_point(calibrated, rows_file, request, kind):
    result, text, picture, (_, classifier, chosen, _, _, witness, _) = calibrated(
        request.getfixturevalue(kind), rows_file
    )
    loose = chosen[-1]
    assert loose.setting is not None and [spot.name for spot in picture.spots][-1] == "loose"
    spot = picture.spots[-1]
    ran = classifier.run(witness.encoded, rule_of(classifier, loose.setting))
    n = len(ran.rungs)
    assert spot.exits == pytest.approx(np.bincount(ran.rungs, minlength=4) / n)
    assert spot.tokens.computed == pytest.approx(ran.token_counts[:, 1:].sum(axis=0) / ran.token_counts[:, 0].sum())
    full = full_run(witness.runs).predictions()[:, -1]
    labels = witness.rows.labels
    assert spot.accuracy == pytest.approx((ran.predictions == labels).mean())
    assert spot.loss == pytest.approx((ran.predictions != full).mean())
    assert spot.deciles.differs.sum() == pytest.approx(spot.loss)
    assert spot.deciles.early.sum() == pytest.approx((ran.rungs < 3).mean())
    lost = spot.deciles.corrected.sum() - spot.deciles.added.sum()
    assert lost == pytest.approx(picture.full_accuracy - spot.accuracy)
    spent = classifier.flops(witness.encoded, ran.token_counts, rule_of(classifier, loose.setting))
    flops = spent[np.arange(n), ran.rungs]
    assert picture.mean_gflops == pytest.approx(flops.mean() / 1e9)
    assert [one.gflops for one in picture.costly] == pytest.approx(sorted(flops / 1e9)[:-11:-1])
    certificate = result["points"][-1]["point"]["certificate"]
    assert (spot.predicted_ms, spot.measured_ms) == (certificate["predicted_ms"], certificate["measured_ms"])
    assert f"loose: {certificate['gain']:.1f}x as fast as full depth" in text
    for share in spot.exits:
        assert f"{100 * share:.1f} %" in text


def test_the_costliest_inputs_are_told_as_they_ran(calibrated, pruned, rows_file):
    _, _, picture, (_, classifier, chosen, _, _, witness, _) = calibrated(pruned, rows_file)
    rule = rule_of(classifier, chosen[-1].setting)
    assert len(picture.costly) == 10
    for one in picture.costly:
        (answer,) = classifier.answer([one.text], rule)
        trace = answer.trace
        assert (one.read, one.remaining, one.rung) == (trace.read, trace.tokens[-1], f"layer {trace.layers}")
        assert (one.gflops, one.answer) == (pytest.approx(trace.flops / 1e9), answer.label)
        row = witness.rows.texts.index(one.text)
        assert one.label == witness.rows.label_names[witness.rows.labels[row]]


def test_the_curves_are_of_the_frontier_on_the_certifying_rows(calibrated, pruned, rows_file):
    _, _, picture, (_, classifier, _, paths, order, witness, time) = calibrated(pruned, rows_file)
    front = frontier(one for path in paths for one in path)
    assert 2 <= len(picture.frontier.ms) <= 30
    assert picture.frontier.ms[[0, -1]] == pytest.approx([1e3 * front[0].seconds, 1e3 * front[-1].seconds])
    assert (np.diff(picture.frontier.ms) < 0).all() and (np.diff(picture.estimate) > 0).all()
    first = classifier.run(witness.encoded, rule_of(classifier, front[0]))
    full = full_run(witness.runs).predictions()[:, -1]
    assert picture.frontier.loss[0] == pytest.approx((first.predictions != full).mean())
    assert (picture.frontier.low <= picture.frontier.loss).all()
    assert (picture.frontier.loss <= picture.frontier.high).all()
    # Oracle: nobody loses anything where nothing is pruned, and nothing that loses nothing is faster.
    assert picture.oracle.loss[0] == 0
    assert len(picture.random.ms) == len(picture.frontier.ms) == min(30, len(front))
    lossless = [one.seconds for one in front if one.loss == 0]
    assert all(picture.oracle.ms[0] <= 1e3 * seconds for seconds in lossless)
    assert picture.full_ms == pytest.approx(2e3 / len(order.rows))
    assert picture.full_predicted_ms == picture.mechanisms[0].ms == pytest.approx(1e3 * time.of_full_depth(4))
    assert picture.pace == picture.full_ms / picture.full_predicted_ms


def test_without_labels_the_page_is_whole_and_runs_no_text(calibrated, plain, unlabelled):
    _, text, picture, _ = calibrated(plain, unlabelled)
    assert picture.full_accuracy is None and picture.accuracy_scale is None
    assert all(spot.deciles.corrected is None and spot.accuracy is None for spot in picture.spots)
    assert all(one.label is None for one in picture.costly)
    assert "differs from full depth" in text
    assert "<script" not in text and "&lt;script&gt;alert(" in text
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)


def test_a_page_over_an_input_file_is_refused_before_the_work(plain, rows_file):
    before = read_manifest(plain).operating_points
    for page in (rows_file, plain / "ziggurat.json"):
        with pytest.raises(UserError, match="is an input of this command"):
            calibrate_model(str(plain), str(rows_file), Promise(dict(LOOSE)), options=CPU, html=page)
    assert read_manifest(plain).operating_points == before


def test_where_nothing_is_certified_the_page_is_of_full_depth(calibrated, plain, rows_file):
    _, text, picture, (_, classifier, _, _, _, witness, _) = calibrated(
        plain, rows_file, "accuracy", (("tight", 0.018),)
    )
    assert picture.spots == () and picture.costly_at == "full depth"
    assert "Nothing faster than full depth is promised" in text
    assert picture.full_loss == 0 and picture.accuracy_scale == pytest.approx(picture.full_accuracy)
    dearest = classifier.full_flops(witness.encoded).max() / 1e9
    assert picture.costly[0].gflops == pytest.approx(dearest)
    assert picture.costly[0].rung == "layer 4"


def test_each_mechanism_is_its_fastest_or_says_why_not(calibrated, pruned, plain, rows_file):
    _, _, picture, (_, classifier, _, paths, _, witness, time) = calibrated(pruned, rows_file)
    n = len(witness.rows)
    every = [one for path in paths for one in path if one.hoped_for(n, 0.95, net_loss(paths)) <= 0.7]
    kinds = {
        "pruning alone": [one for one in every if one.pruning > 0 and not any(one.active[:-1])],
        "exits alone": [one for one in every if one.pruning == 0 and any(one.active[:-1])],
        "both": [one for one in every if one.pruning > 0 and any(one.active[:-1])],
    }
    for mechanism in picture.mechanisms[1:]:
        mine = kinds[mechanism.name]
        assert (mechanism.ms is None) == (not mine)
        assert mechanism.ms is None or mechanism.ms == pytest.approx(1e3 * min(one.seconds for one in mine))
    full = time.of_full_depth(4)
    too_risky = list(mechanisms(classifier, paths, -1.0, 0.95, n, full))[1:]
    assert all("would lose too much" in one.why for one in too_risky if kinds[one.name])
    nothing = list(mechanisms(classifier, [], 0.7, 0.95, n, full))[1:]
    assert all("faster than full depth" in one.why for one in nothing)
    unpruned = CPU.open(str(plain))
    whys = [one.why for one in mechanisms(unpruned, [], 0.7, 0.95, n, full)]
    assert whys.count("the model prunes no tokens") == 2


def test_a_band_holds_the_mean_and_narrows_with_the_rows():
    losses = np.tile([0.0, 0, 0, 1, 0, 0, 0, 0, -1, 1], 200)
    for name, values in (("accuracy", losses), ("agreement", np.abs(losses)), ("harm", losses.clip(0))):
        risk = risk_by_name(name, CLASSES)
        low, high = band(risk, values, 0.95)
        few_low, few_high = band(risk, values[:100], 0.95)
        assert few_low < low < values.mean() < high < few_high


def test_the_page_is_refused_before_anything_is_measured(monkeypatch, plain, rows_file, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(calibration_time, "stored_profile", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(UserError, match=r"'\.\[report\]'"):
        calibrate_model(str(plain), str(rows_file), Promise(dict(LOOSE)), options=CPU, html=tmp_path / "page.html")
