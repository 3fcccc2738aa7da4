"""The engine's own benchmark writes what its races promise, for a tiny model; and the tables are made of such rows."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmarks import tables, targets
from scripts.shared import RESULTS, stored_rows
from ziggurat.engine import OpenedModel
from ziggurat.measure import read_rows_file
from ziggurat.native import core, why_missing

compiled = pytest.mark.skipif(why_missing() is not None, reason="the compiled part is missing")
linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")


# --- what is measured ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine_rows(pruned_folder, rows_file, tmp_path_factory):
    """Rows of the races over a tiny model that prunes; without those that start processes."""
    from benchmarks import engine

    out = tmp_path_factory.mktemp("engine") / "engine.jsonl"
    arguments = [str(pruned_folder), str(rows_file), "--texts", "24", "--rounds", "2", "--threads", "1"]
    engine.main([*arguments, "--out", str(out), "--races", "never_acting", "savings", "answers", "first_pass", "avx2"])
    return read_rows_file(out)


@compiled
def test_every_row_names_its_origin_and_its_race(engine_rows):
    for row in engine_rows:
        assert {
            "date",
            "commit",
            "cpu",
            "model",
            "data",
            "split",
            "threads",
            "tokens_mean",
            "race",
            "what",
        } <= row.keys()
    found = {race: {row["dtype"] for row in engine_rows if row["race"] == race} for race in ("never acting", "savings")}
    assert all(dtypes == {"float32", "bfloat16", "int8"} for dtypes in found.values())


@compiled
def test_idle_rules_are_timed_beside_full_depth_in_all_batches(engine_rows):
    idle = [row for row in engine_rows if row["race"] == "never acting"]
    assert {row["what"] for row in idle} == {"full", "pruning", "pruning before the last layer", "exits"}
    assert {row["batch"] for row in idle} == {1, 8, 32}
    assert all(row["over_full"] == [1, 1, 1] for row in idle if row["what"] == "full")


@compiled
def test_idle_rules_compute_scores_and_change_no_answer(pruned_folder, ragged_tokens):
    from benchmarks import engine
    from ziggurat.data.tokenizer import Encoded

    classifier = OpenedModel.from_pretrained(pruned_folder, "cpu", backend="native")
    encoded = Encoded(ragged_tokens, np.zeros(len(ragged_tokens), dtype=bool))
    rules = engine.idle_rules(classifier)
    assert all(rules["pruning"].tokens.prunes(layer) for layer in (1, 2, 3, 4))
    assert [rules["pruning before the last layer"].tokens.prunes(layer) for layer in (3, 4)] == [True, False]
    assert all(rules["exits"].active) and not any(rules["pruning"].active[:-1])
    full = engine.answers(classifier.backend, encoded, rules["full"], 8)
    for rule in rules.values():
        outcomes = engine.answers(classifier.backend, encoded, rule, 8)
        assert np.array_equal(outcomes.token_counts, full.token_counts) and (outcomes.rungs == 3).all()
        np.testing.assert_allclose(outcomes.readings, full.readings, atol=1e-4)


@compiled
def test_a_pruned_models_points_are_timed_with_and_without(engine_rows):
    saved = [row for row in engine_rows if row["race"] == "savings"]
    assert {(row["what"], row["acts"]) for row in saved} == {
        ("balanced", "exits and pruning"), ("balanced without pruning", "exits"),
        ("fast", "exits and pruning"), ("fast without pruning", "exits"),
    }  # fmt: skip
    for row in saved:
        assert row["efficiency"][0] == pytest.approx(row["time_gain"][0] / row["flops_gain"])
        assert row["efficiency_computed"][0] == pytest.approx(row["time_gain"][0] / row["computed_gain"])


def test_a_last_layers_saving_is_what_only_other_tokens_need(tiny_spec):
    from benchmarks.time_vs_flops import not_computed
    from ziggurat.encoder import layer_flops

    n, d = np.array([0, 1, 7]), tiny_spec.hidden
    left_out = not_computed(tiny_spec, n)
    assert left_out[0] == left_out[1] == 0  # of one token nothing can be left out
    keys_and_values = 4 * d * d * 6
    attention_to_six_more = 4 * d * 6
    assert layer_flops(tiny_spec, 7, 7, 4) - left_out[2] == layer_flops(tiny_spec, 1, 1, 4) + (
        keys_and_values + attention_to_six_more
    )


@compiled
@linux
def test_memory_and_cold_starts_are_of_fresh_processes(model_folder, monkeypatch):
    from benchmarks import cold_start

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    [*memories] = cold_start.memories(str(model_folder), 1, 1)
    assert [row["dtype"] for row in memories] == ["float32", "bfloat16", "int8"]
    for row in memories:
        assert row["tokens"] == 32 * 24  # all that this model reads
        assert 0 < row["workspace"] < row["loaded"] and row["growth"] <= row["growth_with_files"] + 1
    starts = list(cold_start.cold_starts(str(model_folder), "bat kin", 1, 1))
    assert [row["dtype"] for row in starts] == ["float32", "int8"] and all(row["seconds"][0] > 0 for row in starts)


@compiled
def test_the_peak_counts_its_operations():
    for name in core().instructions():
        for dtype in ("f32", "bf16", "i8"):
            operations, seconds = core().kernels.peak(name, dtype, 100)
            assert core().kernels.peak(name, dtype, 200)[0] == 2 * operations > 0 and seconds >= 0
    with pytest.raises(ValueError, match="no instruction set"):
        core().kernels.peak("mmx", "f32", 1)
    with pytest.raises(ValueError, match="dtype"):
        core().kernels.peak("scalar", "f64", 1)


@compiled
def test_all_threads_rates_are_added():
    from benchmarks import kernels

    with ThreadPoolExecutor(2) as pool:
        assert kernels.at_once(lambda repeats: (6.0 * repeats, 2.0), 5, pool, 2) == 2 * 15.0
    assert kernels.spread([3, 1, 2], 2) == [4, 2, 6]


# --- the tables ----------------------------------------------------------------------------------------------------

ORIGIN = {"date": "2030-01-02T00:00:00", "commit": "abcdef0123", "cpu": "A", "cores": 2, "model": "m", "data": "ag",
          "split": "test", "threads": 2, "tokens_mean": 54.0}  # fmt: skip


def peer_row(what, dtype="int8", over=2.0, timed="model", single=False, accuracy=0.9, **changes):
    row = ORIGIN | {"what": what, "engine": "native", "peer": False, "dtype": dtype, "timed": timed, "batch": 32}
    peers = ("OpenVINO int8, sorted", "OpenVINO int8, as it comes", "ONNX Runtime float32, sorted")
    row |= {"order": "as it comes", "accuracy": accuracy, "texts_per_second_p50": 500.0 * over}
    row |= {"over": {peer: [over, over - 0.5, over + 0.5] for peer in peers}}
    return row | ({"latency_ms_p50": 1.5} if single else {}) | changes


def lines_of(found):
    return {target.measure: f"| {' | '.join(target.cells)} |" for target in found}


def test_a_target_shows_its_figure_and_whether_it_is_missed():
    rows = [peer_row(targets.FULL, over=2.0), peer_row(targets.FULL, "float32", over=1.1)]
    lines = list(lines_of(targets.targets(rows, [])).values())
    assert lines[0].endswith("| >= 1.35x | 2.00x (1.50 to 2.50) |")
    assert lines[6].endswith("| >= 1.20x | 1.10x (0.60 to 1.60): **missed** |")
    assert lines[1].endswith("| <= 0.30x | not measured |") and lines[-1].endswith("| reported | not measured |")


def test_a_latency_is_a_share_of_the_peers():
    lines = list(lines_of(targets.targets([peer_row(targets.FULL, over=2.0, single=True)], [])).values())
    assert lines[2].endswith("| <= 0.65x | 0.50x (0.40 to 0.67) |")
    assert lines[1].endswith("**missed** |")


def test_exits_within_a_point_are_the_fastest_that_lose_no_more():
    full = peer_row(targets.FULL, "float32", accuracy=0.92)
    rows = [
        full,
        peer_row("ziggurat balanced", over=4.5, accuracy=0.911),
        peer_row("ziggurat fast", accuracy=0.909, over=9.0),
    ]
    assert targets.within_a_point(rows, "model", False)["what"] == "ziggurat balanced"
    rows[2] |= {"accuracy": 0.91}
    assert targets.within_a_point(rows, "model", False)["what"] == "ziggurat fast"
    assert targets.within_a_point(rows[:1], "model", False) is None
    assert "`fast`, +1.00 points lost" in "\n".join(lines_of(targets.targets(rows, [])).values())


def engine_row(race, what, dtype="int8", **figures):
    return ORIGIN | {"race": race, "what": what, "dtype": dtype, "rounds": 5} | figures


def some_engine_rows():
    roof = {
        "d_in": 384,
        "d_out": 1152,
        "instructions": "avx512",
        "peak_tops": [2.1, 2.0, 2.2],
        "share": [0.9, 0.8, 1.0],
    }
    return [
        *(engine_row("never acting", what, batch=batch, over_full=[over, 0.9, 1.2])
          for what, batch, over in (("full", 1, 1.0), ("pruning", 1, 1.01), ("pruning", 32, 1.02), ("exits", 1, 1.1))),
        *(engine_row("savings", point, acts="exits", batch=8, time_gain=[3.6, 3, 4], flops_gain=4.0, computed_gain=3.9,
                     efficiency=[0.75, 0.7, 0.8], efficiency_computed=[efficiency, 0.8, 1.0])
          for point, efficiency in (("balanced", 0.93), ("fast", 0.88))),
        engine_row("cold start", "first answer", seconds=[0.4, 0.3, 0.6]),
        engine_row("memory", "full depth", growth=36.0),
        *(engine_row("roofline", "linear i8", "i8", rows=rows, tops=[tops, 1.5, 2.0], **roof)
          for rows, tops in ((8, 0.5), (54, 1.8))),
        engine_row("roofline", "attention", "f32", tokens=54, width=32, tops=[0.3, 0.2, 0.4],
                   **{key: value for key, value in roof.items() if not key.startswith("d_")}),
        engine_row("avx2", "avx2", over_torch=[8.0, 7.5, 8.5], batch=32),
    ]  # fmt: skip


def test_the_worst_system_is_held_against_a_target():
    lines = lines_of(targets.targets([], some_engine_rows()))
    text = "\n".join(lines.values())
    assert "| <= 1.030x | 1.020x (0.900 to 1.200), int8, batch 32 |" in text
    assert "| >= 0.90 | 0.88 (0.80 to 1.00), `fast`, int8, batch 8: **missed** |" in text
    assert "| reported | 0.75 (0.70 to 0.80), `balanced`, int8, batch 8 |" in text
    assert "| <= 0.50 s | 0.40 s (0.30 to 0.60), int8 |" in text and "| <= 64.0 MiB | 36.0 MiB, int8 |" in text
    assert "| >= 1.70 TOP/s | 1.80 TOP/s (1.50 to 2.00), 384 x 1152, 54 rows |" in text
    assert "| reported | 8.0x (7.5 to 8.5), int8 |" in text


def shape_row(what, dtype, **changes):
    return ORIGIN | {"what": what, "dtype": dtype, "layers": 6, "hidden": 384, "length": 16, "batch": 1,
                     "milliseconds_p50": 0.5, "over_openvino_int8": [2.5, 2, 3]} | changes  # fmt: skip


def test_the_page_gets_every_table_from_the_latest_rows():
    old = {"date": "2029-01-01T00:00:00"}
    openvino = peer_row("OpenVINO") | {"peer": True, "order": "sorted", "over": {}}
    peers = [
        peer_row("old") | old,
        peer_row(targets.FULL),
        openvino,
        # A cascade's run, later: the engine's own races do not know it, so it has a table of its own.
        peer_row(targets.FULL, model="cascade"),
        peer_row("ziggurat fast", model="cascade", over=11.0, accuracy=0.895),
        openvino | {"model": "cascade"},
    ]
    engine = [row | old | {"what": "old"} for row in some_engine_rows()] + some_engine_rows()[:-1]
    shapes = [shape_row("old", "int8", **old), shape_row("ziggurat", "int8"), shape_row("OpenVINO", "int8")]
    page = tables.PERFORMANCE.read_text("utf-8")
    filled = tables.performance_page(page, peers, engine, shapes)
    assert tables.performance_page(filled, peers, engine, shapes) == filled
    assert tables.performance_page(filled, [], [], []) == tables.performance_page(page, [], [], [])
    assert "| old" not in filled and "Not measured yet" not in filled
    assert "| ziggurat full depth, int8 | 90.00 | 1,000 |" in filled
    assert "| `cascade`, fast | +0.50 | 11.0x" in filled and "ziggurat fast, int8" not in filled
    assert "| 16 | 1 | 0.50 | 0.50 | 2.50x |" in filled
    assert "| linear i8, 384 x 1152 | 2.10 | 0.50 (90 %) | 1.80 (90 %) |" in filled
    assert "| `balanced` (exits) | int8 | 8 | 3.60x | 4.00x | 0.75 | 0.93 |" in filled
    for block in filled.split("\n\n"):
        assert len({line.count("|") for line in block.splitlines() if line.startswith("|")}) <= 1


def test_without_rows_the_page_says_that_nothing_was_measured():
    empty = tables.performance_page(tables.PERFORMANCE.read_text("utf-8"), [], [], [])
    assert empty.count(tables.UNMEASURED) == 5  # one for each section


def test_the_page_in_docs_shows_the_rows_in_results():
    page = tables.PERFORMANCE.read_text("utf-8")
    rows = [stored_rows(RESULTS / f"{name}.jsonl") for name in ("peers", "engine", "shapes")]
    assert all(rows) and tables.performance_page(page, *rows) == page
