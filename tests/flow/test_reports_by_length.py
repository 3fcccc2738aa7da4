"""Analyses by length of text: every figure is what running that setting on those texts gives."""

from dataclasses import replace

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
    lengths,
    quantiles,
)
from ziggurat.data import Fractions, Role, load, split_roles
from ziggurat.measure import ModelOptions, Timing, sample
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


def test_claim_26_each_buckets_figures_are_those_of_a_real_run(subject, request_of, pruned_folder):
    result = lengths(request_of(pruned_folder), EDGES, AT).to_dict()
    assert [row["bucket"] for row in result["rows"]] == ["1-5", "6-9", "> 9"] * 4
    size = subject.encoded.lengths
    members = {"1-5": size <= 5, "6-9": (size > 5) & (size <= 9), "> 9": size > 9}
    full, whole = ran(subject, ExitRule.full_depth(4))
    for row in result["rows"]:
        here = members[row["bucket"]]
        outcomes, flops = ran(subject, rule_at(subject, row["setting"]))
        assert row["n"] == here.sum() > 0
        assert row["accuracy"] == (outcomes.predictions == subject.rows.classes)[here].mean()
        assert row["full_accuracy"] == (full.predictions == subject.rows.classes)[here].mean()
        assert row["flops_ratio"] == pytest.approx(whole[here].sum() / flops[here].sum())
    assert {row["flops_ratio"] for row in result["rows"] if row["setting"] == FULL_DEPTH} == {1.0}


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


def test_claim_26_each_setting_is_timed_on_its_buckets_texts(subject, request_of, pruned_folder, monkeypatch):
    clock = ScriptedClock()
    monkeypatch.setattr(by_length, "interleave", clock)
    result = lengths(request_of(pruned_folder), EDGES, AT, timed_texts=4, repeats=2).to_dict()
    size = subject.encoded.lengths
    members = [np.flatnonzero(chosen) for chosen in (size <= 5, (size > 5) & (size <= 9), size > 9)]
    for bucket, (name, mine) in enumerate(zip(["1-5", "6-9", "> 9"], members, strict=True)):
        texts = [subject.encoded.tokens[row].tolist() for row in mine[sample(len(mine), 4)]]
        for place, (setting, call) in enumerate(clock.runs[bucket].items()):
            found, rule = timed(call)
            wanted = rule_at(subject, setting)
            assert found == texts and np.array_equal(rule.thresholds, wanted.thresholds, equal_nan=True)
            assert (rule.tokens is None) == (wanted.tokens is None)
            [row] = [row for row in result["rows"] if (row["bucket"], row["setting"]) == (name, setting)]
            assert row["milliseconds_per_text"] == 1e3 * (place + 1) / len(texts)
            assert row["time_ratio"] == row["time_ratio_low"] == row["time_ratio_high"] == 1 / (place + 1)


def test_claim_26_times_are_beside_the_buckets_full_depth(request_of, pruned_folder):
    result = lengths(request_of(pruned_folder), (5, 9, 60), AT, timed_texts=4, repeats=2).to_dict()
    for row in result["rows"]:
        if row["bucket"] == "> 60":
            assert row["n"] == 0 and "time_ratio" not in row
        else:
            assert 0 < row["time_ratio_low"] <= row["time_ratio"] <= row["time_ratio_high"]
        if row["setting"] == FULL_DEPTH and row["n"]:
            assert row["time_ratio"] == 1.0


def test_without_pruning_there_are_no_pruning_settings(request_of, model_folder):
    rows = lengths(request_of(model_folder), EDGES, AT).rows
    assert list(dict.fromkeys(row["setting"] for row in rows)) == [FULL_DEPTH, EXITS]


def test_quantiles_share_out_all_rows_by_length(subject, request_of, pruned_folder):
    rows = quantiles(request_of(pruned_folder), (0.5, 0.75), AT).rows
    edge = int(np.quantile(subject.encoded.lengths, 0.5))
    mine = [row for row in rows if row["setting"] == PRUNING]
    assert [row["quantile"] for row in mine] == ["0-50 %", "50-75 %", "75-100 %"]
    assert sum(row["n"] for row in mine) == len(subject.rows)
    assert mine[0]["span"].endswith(f"-{edge}") and mine[1]["span"].startswith(f"{edge + 1}-")
    _, flops = ran(subject, rule_at(subject, PRUNING))
    _, whole = ran(subject, ExitRule.full_depth(4))
    short = subject.encoded.lengths <= edge
    assert mine[0]["relative_flops"] == pytest.approx(flops[short].sum() / whole[short].sum())
    assert mine[0]["accuracy_change"] == mine[0]["accuracy"] - mine[0]["full_accuracy"]


def test_quantiles_say_how_long_the_training_texts_were(request_of, make_folder, rows_file, monkeypatch):
    folder = make_folder(training={"data": {"source": str(rows_file)}})
    rows = split_roles(load(str(rows_file)), Fractions())[Role.SELECT]
    monkeypatch.setattr("ziggurat.analyses.by_length.trained_rows", lambda folder: rows.hashes)
    (subject,) = request_of(folder).subjects()
    used = np.isin(subject.rows.hashes, rows.hashes)
    median, most = np.median(subject.encoded.lengths[used]), subject.encoded.lengths[used].max()
    notes = " ".join(quantiles(request_of(folder), exits=AT).notes)
    assert f"trained on {used.sum()} texts" in notes
    assert f"{median:g} tokens in the median and {most} at most" in notes


@pytest.mark.parametrize("source", [None, "gone.jsonl", "ROWS"])
def test_quantiles_say_where_training_lengths_are_not_known(request_of, make_folder, rows_file, source):
    """ROWS are there, but none of them trained the model."""
    where = str(rows_file) if source == "ROWS" else source
    folder = make_folder(training={"data": {"source": where}} if source else {})
    assert "is not known" in " ".join(quantiles(request_of(folder), exits=AT).notes)


@pytest.mark.parametrize("job", [lengths, quantiles])
def test_a_cascades_length_groups_are_the_same_in_every_setting(job, request_of, cascade_folder):
    rows = job(request_of(cascade_folder), exits=AT).rows
    rows = [row for row in rows if row["n"]]
    tokens = [[row["tokens_mean"] for row in rows if row["setting"] == one] for one in (FULL_DEPTH, EXITS)]
    assert tokens[0] == tokens[1] and tokens[0] == sorted(tokens[0]) and tokens[0][0] > 1
