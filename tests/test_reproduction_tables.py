"""The page of the reproduction: tables made of measured rows."""

from __future__ import annotations

from reproduction import tables
from scripts.shared import RESULTS, stored_rows


def measured(what, data="rte", accuracy=0.5, fell_back=False, **changes):
    """A row as the tool writes it, as far as the table reads it."""
    row = {"what": what, "data": data, "split": "validation", "n_accuracy": 1277, "tokens_mean": 64.4, "seed": 0}
    row |= {
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.05,
        "accuracy_high": accuracy + 0.05,
        "full_accuracy": 0.7,
    }
    return row | {"gflops_mean": 1.25, "flops_gain": 2.0, "time_gain": 1.5, "fell_back": fell_back} | changes


def lines_of(text):
    return [line for line in text.splitlines() if line.startswith("| ")][1:]


def test_a_line_is_what_was_measured_with_the_papers_figures_beside_it():
    text = tables.methods_tables([measured("full", accuracy=0.7), measured("magic-pyramid", accuracy=0.675)])
    assert text.startswith("### `rte` (1,277 validation texts, 64 tokens on average)\n\n| method |")
    assert lines_of(text) == [
        "| full | 70.00 | 65.0 to 75.0 | 1.250 | 0.00 | 2.00 | 1.50 |  |",
        "| Magic Pyramid | 67.50 | 62.5 to 72.5 | 1.250 | 2.50 | 2.00 | 1.50 | 67.5, 1.72 |",
    ]


def test_several_seeds_become_their_mean_and_the_title_says_how_many():
    seeds = ((0.4, 1.0), (0.5, 2.0))
    rows = [measured("ltp", accuracy=right, flops_gain=gain, seed=seed) for seed, (right, gain) in enumerate(seeds)]
    text = tables.methods_tables(rows)
    assert "on average, mean of 2 seeds)" in text
    assert lines_of(text) == ["| LTP | 45.00 | 40.0 to 50.0 | 1.250 | 25.00 | 1.50 | 1.50 | 67.8, 1.50 |"]


def test_a_line_of_another_full_model_says_so():
    text = tables.methods_tables([measured("full", accuracy=0.71), measured("ltp")])
    assert lines_of(text)[1].startswith("| LTP (beside another full model, 70.00) | 50.00 |")


def test_a_line_of_fewer_seeds_than_others_says_so():
    text = tables.methods_tables([measured("full", accuracy=0.7), measured("full", seed=1), measured("ltp")])
    assert [line.split("|")[1].strip() for line in lines_of(text)] == ["full", "LTP (seeds: 1)"]


def test_a_method_that_fell_back_at_every_seed_says_so():
    note = "nothing within one point"
    assert note in tables.methods_tables([measured("lat", fell_back=True)])
    assert note in tables.methods_tables([measured("lat", fell_back=True, seed=seed) for seed in (0, 1)])
    assert note not in tables.methods_tables([measured("lat", fell_back=True), measured("lat", seed=1)])


def test_rows_of_heads_that_had_not_learned_say_so_until_they_are_made_anew():
    old, new, note = "2026-11-30T05:26:36+00:00", "2026-12-02T05:26:36+00:00", "had not learned"
    assert note in tables.methods_tables([measured("deebert", date=old)])
    assert note not in tables.methods_tables([measured("deebert", date=new)])
    assert note not in tables.methods_tables([measured("early-exit", date=old)])


def test_of_several_rows_for_one_seed_the_last_counts():
    text = tables.methods_tables([measured("full", accuracy=0.9), measured("full", accuracy=0.5)])
    assert "seeds" not in text
    assert lines_of(text)[0].startswith("| full | 50.00 ")


def test_each_data_set_has_its_own_table_and_its_own_printed_figures():
    text = tables.methods_tables([measured("ltp", data) for data in ("unheard-of", "rte", "sst2", "mrpc")])
    assert [line.split("`")[1] for line in text.splitlines() if line.startswith("#")] == [
        "sst2",
        "mrpc",
        "rte",
        "unheard-of",
    ]
    assert text.count("### `") == text.count("| method | accuracy | 95 % |") == 4
    assert [line.split("|")[-2].strip() for line in lines_of(text) if line.startswith("| LTP")] == [
        "",
        "84.8, 1.48",
        "67.8, 1.50",
        "",
    ]


def test_a_table_is_well_formed_markdown():
    text = tables.methods_tables([measured("full"), measured("spatten")])
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {9}


def test_the_page_in_docs_shows_the_rows_in_results():
    page = tables.PAGE.read_text("utf-8")
    rows = [stored_rows(RESULTS / f"{name}.jsonl") for name in ("reproduction", "cascades", "tasks")]
    assert all(rows) and tables.page(page, *rows) == page
    others = tables.page(page, rows[0][:1], [], [])
    assert others != page and others.split("<!-- tables:begin")[0] == page.split("<!-- tables:begin")[0]
