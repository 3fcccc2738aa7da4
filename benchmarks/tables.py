"""Writes the tables of docs/performance.md and of README.md from the latest rows in results/.

    python -m benchmarks.tables [performance] [readme]

`make bench` calls it for the former, `make readme` for the latter; a test compares both pages with the rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from benchmarks.targets import OPENVINO, targets
from scripts.shared import DOCS, RESULTS, ROOT, Row, filled, grouped, stored_rows, table
from ziggurat.bench.competition import ARRIVAL, SORTED

PERFORMANCE, README = DOCS / "performance.md", ROOT / "README.md"
UNMEASURED = "Not measured yet.\n"
# The README's rows: a model and, of another run, the same behind a small first tier.
MODEL, CASCADE = "ag-exit", "ag-cascade"
README_SYSTEMS = {("ziggurat full depth", "int8"), ("ziggurat fast", "int8")}


def performance_page(page: str, peers: Sequence[Row], engine: Sequence[Row], shapes: Sequence[Row]) -> str:
    """The page with all tables between their markers."""
    engine = latest_races(engine)
    peers, other_rows = latest_run(peers, {row["model"] for row in engine}), latest_of_others(peers, engine)
    sections = {
        "targets": targets_table(peers, engine),
        "peers": peers_table(peers),
        "others": others_table(other_rows),
        "engine": engine_tables(engine),
        "shapes": shapes_tables(latest_shapes(shapes)),
    }
    for name, text in sections.items():
        page = filled(page, name, text)
    return page


def readme_page(page: str, peers: Sequence[Row]) -> str:
    """The README with its table of results."""
    return filled(page, "results", readme_section(peers))


def readme_section(peers: Sequence[Row]) -> str:
    """What was measured and how, and the table."""
    rows = [row for row in latest_run(peers, {MODEL}) if row["peer"] or (row["what"], row["dtype"]) in README_SYSTEMS]
    fast = [row for row in latest_run(peers, {CASCADE}) if (row["what"], row["dtype"]) == ("ziggurat fast", "int8")]
    cascade = [row | {"what": "ziggurat, static tier in front"} for row in fast]
    how = (
        "Texts per second, from token ids and from strings. The other engines get texts sorted by length, at their\n"
        "best batch size; Ziggurat takes texts as they come. "
        f"Accuracy is that of {rows[0]['n_accuracy']:,} test texts. `fast` was chosen on\n"
        f"select rows. The cascade is of another run, which scored {cascade[0]['n_accuracy']:,}; "
        "it is certified to lose at most one point."
    )
    measured = f"{about(rows[0], 'Measured')} More: [performance](docs/performance.md)."
    return f"{how}\n\n{peers_table([*rows, *cascade])}\n{measured}\n"


# --- the latest rows -----------------------------------------------------------------------------------------------


def latest_run(rows: Sequence[Row], models: Collection[str] = ()) -> list[Row]:
    """The rows of the run that was written last, of these models where any are named."""
    chosen = [row for row in rows if not models or row["model"] in models]
    return [row for row in chosen if _run(row) == _run(chosen[-1])]


def latest_of_others(rows: Sequence[Row], engine: Sequence[Row]) -> list[list[Row]]:
    """The last run of each model that the engine's own races lack, cascades above all; on their processor."""
    known = {row["model"] for row in engine}
    other_rows = [row for row in rows if row["model"] not in known and engine and row["cpu"] == engine[-1]["cpu"]]
    return [latest_run(other_rows, {model}) for model in dict.fromkeys(row["model"] for row in other_rows)]


def latest_races(rows: Sequence[Row]) -> list[Row]:
    """The last run of each race and model, on the last row's processor."""
    same_cpu = [row for row in rows if row["cpu"] == rows[-1]["cpu"]]
    last = {(row["race"], row["model"]): row["date"] for row in same_cpu}
    return [row for row in same_cpu if row["date"] == last[row["race"], row["model"]]]


def latest_shapes(rows: Sequence[Row]) -> list[Row]:
    """The last run of each size of model."""
    last = {row["layers"]: _run(row) for row in rows}
    return [row for row in rows if _run(row) == last[row["layers"]]]


def _run(row: Row) -> tuple[str, ...]:
    """What rows of one run share."""
    return row["date"], row.get("model", ""), row["cpu"]


def about(row: Row, name: str) -> str:
    """One sentence about a run: model, data, machine, date."""
    machine = f"{row['cpu']}, {row['cores']} cores, {row['threads']} threads"
    texts = f", {row['tokens_mean']:.0f} tokens on average" if "tokens_mean" in row else ""
    subject = f"`{row['model']}` on `{row['data']}/{row['split']}`{texts}; {machine}"
    return f"{name}: {subject}; {row['date'][:10]}, commit `{row['commit'][:8]}`."


# --- the tables ----------------------------------------------------------------------------------------------------


def targets_table(peers: Sequence[Row], engine: Sequence[Row]) -> str:
    """All targets and what was measured."""
    if not peers and not engine:
        return UNMEASURED
    lines = [f"| {' | '.join(target.cells)} |" for target in targets(peers, engine)]
    runs = [about(peers[0], "Beside peers")] if peers else []
    runs += [about(rows[0], "The engine alone") for _, rows in grouped(engine, "model")]
    return "\n".join(["| measure | target | measured |", "|---|---|---|", *lines]) + "\n\n" + "\n".join(runs) + "\n"


def peers_table(rows: Sequence[Row]) -> str:
    """All systems of a run beside peers: Ziggurat with texts as they come, peers with sorted ones."""
    chosen = [row for row in rows if row["order"] == (SORTED if row["peer"] else ARRIVAL)]
    if not chosen:
        return UNMEASURED
    lines = []
    for (system, engine, dtype), group in grouped(chosen, "what", "engine", "dtype"):
        by_clock = {(row["timed"], "latency_ms_p50" in row): row for row in group}
        model, process, single = (by_clock.get(key) for key in (("model", False), ("process", False), ("model", True)))
        name = f"{system}, {dtype}" if engine != "torch" else f"{system} ({engine}), {dtype}"
        accuracy = "" if model is None else f"{100 * model['accuracy']:.2f}"
        speeds = ["" if row is None else f"{row['texts_per_second_p50']:,.0f}" for row in (model, process)]
        gains = [_gain(model, f"{peer} int8, sorted") for peer in ("ONNX Runtime", "OpenVINO")]
        lines.append([name, accuracy, *speeds, *gains, "" if single is None else f"{single['latency_ms_p50']:.2f}"])
    head = ["system", "accuracy", "texts/s", "from strings", "over ONNX Runtime int8", "over OpenVINO int8"]
    return table([*head, "one text, p50, ms"], lines)


def _gain(row: Row | None, peer: str) -> str:
    return "" if row is None or peer not in row.get("over", {}) else f"{row['over'][peer][0]:.2f}x"


def others_table(runs: Iterable[Sequence[Row]]) -> str:
    """Each run's points: the fastest of our dtypes, texts as they come, over OpenVINO int8 sorted, by each clock."""
    lines, sentences = [], []
    for rows in runs:
        full = next(row for row in rows if row["what"] == "ziggurat full depth")
        sentences.append(about(rows[0], "Beside peers"))
        points = [row for row in rows if not row["peer"] and row["what"] != full["what"]]
        for (system,), group in grouped(points, "what"):
            fastest = [_fastest(group, timed, single) for timed in ("model", "process") for single in (False, True)]
            lost = max(100 * (full["accuracy"] - row["accuracy"]) for row in group)
            lines.append([f"`{rows[0]['model']}`, {system.removeprefix('ziggurat ')}", f"{lost:+.2f}", *fastest])
    if not lines:
        return UNMEASURED
    head = ["model and point", "points lost", "model only", "one text", "from strings", "one text from strings"]
    return table(head, lines) + "\n" + "\n".join(sentences) + "\n"


def _fastest(rows: Iterable[Row], timed: str, single: bool) -> str:
    """The greatest gain over OpenVINO of the rows by this clock: median, least and most."""
    timed_so = [row for row in rows if row["timed"] == timed and ("latency_ms_p50" in row) == single]
    gains = [row["over"][OPENVINO] for row in timed_so if row["order"] == ARRIVAL and OPENVINO in row.get("over", {})]
    if not gains:
        return ""
    median, low, high = max(gains)
    return f"{median:.1f}x ({low:.1f} to {high:.1f})"


def engine_tables(rows: Sequence[Row]) -> str:
    """What idle policies cost, what saved FLOPs save, and what the kernels reach."""
    by_race = {race: group for (race,), group in grouped(rows, "race")}
    parts = []
    if idle := by_race.get("never acting"):
        parts.append("Rules that never act, time over full depth's:\n\n" + _idle_table(idle))
    if savings := by_race.get("savings"):
        parts.append("Operating points:\n\n" + _savings_table(savings))
    if roofline := by_race.get("roofline"):
        parts.append(_roofline_tables(roofline))
    return "\n".join(parts) or UNMEASURED


def _idle_table(rows: Sequence[Row]) -> str:
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    lines = []
    for (system, batch), group in grouped([row for row in rows if row["what"] != "full"], "what", "batch"):
        by_dtype: dict[str, Row] = {}
        for row in group:  # of several models the first
            by_dtype.setdefault(row["dtype"], row)
        lines.append([f"{system}, batch {batch}", *(f"{by_dtype[dtype]['over_full'][0]:.3f}" for dtype in dtypes)])
    return table(["rule", *dtypes], lines)


def _savings_table(rows: Sequence[Row]) -> str:
    many_models = len({row["model"] for row in rows}) > 1
    lines = [
        [f"`{row['what']}` ({row['acts']})" + (f", `{row['model']}`" if many_models else ""), row["dtype"],
         str(row["batch"]), f"{row['time_gain'][0]:.2f}x", f"{row['flops_gain']:.2f}x", f"{row['efficiency'][0]:.2f}",
         f"{row['efficiency_computed'][0]:.2f}"]
        for row in rows
    ]  # fmt: skip
    return table(
        ["point", "dtype", "batch", "time saved", "FLOPs saved", "time saved over FLOPs saved", "over FLOPs computed"],
        lines,
    )


def _roofline_tables(rows: Sequence[Row]) -> str:
    """One line for each kernel and shape, one column for each number of rows or tokens."""
    parts = []
    for size, of_this_table in (("rows", "d_in"), ("tokens", "width")):
        chosen = [row for row in rows if of_this_table in row]
        lines: dict[str, list[str]] = {}
        for row in chosen:
            shape = f"{row['d_in']} x {row['d_out']}" if size == "rows" else f"width {row['width']}"
            line = lines.setdefault(f"{row['what']}, {shape}", [f"{row['peak_tops'][0]:.2f}"])
            line.append(f"{row['tops'][0]:.2f} ({100 * row['share'][0]:.0f} %)")
        if lines:
            sizes = dict.fromkeys(row[size] for row in chosen)
            head = ["kernel", "peak", *(f"{number} {size}" for number in sizes)]
            parts.append(table(head, [[name, *cells] for name, cells in lines.items()]))
    first = rows[0]
    heading = f"TOP/s and share of the peak, {first['threads']} threads at once, {first['instructions']}"
    return f"{heading}:\n\n" + "\n".join(parts)


def shapes_tables(rows: Sequence[Row]) -> str:
    """Milliseconds of a batch by length, for each size of model."""
    parts = []
    for (layers, hidden), of_model in grouped(rows, "layers", "hidden"):
        systems = list(dict.fromkeys(f"{row['what']} {row['dtype']}" for row in of_model))
        lines = []
        for (length, batch), group in grouped(of_model, "length", "batch"):
            by_name = {f"{row['what']} {row['dtype']}": row for row in group}
            gain = by_name.get("ziggurat int8", {}).get("over_openvino_int8")
            cells = [f"{by_name[name]['milliseconds_p50']:.2f}" if name in by_name else "" for name in systems]
            lines.append([str(length), str(batch), *cells, f"{gain[0]:.2f}x" if gain else ""])
        first = of_model[0]
        machine = f"{first['threads']} threads, {first['cpu']}, {first['date'][:10]}"
        parts.append(
            f"{layers} layers of {hidden}, {machine}, milliseconds a batch:\n\n"
            + table(["tokens", "texts", *systems, "int8 over OpenVINO int8"], lines)
        )
    return "\n".join(parts) or UNMEASURED


def main() -> None:
    """Writes the pages."""
    pages: dict[str, tuple[Path, Callable[..., str], tuple[str, ...]]] = {
        "performance": (PERFORMANCE, performance_page, ("peers.jsonl", "engine.jsonl", "shapes.jsonl")),
        "readme": (README, readme_page, ("peers.jsonl",)),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", default=list(pages), help="performance, readme (default: both)")
    for name in parser.parse_args().pages:
        if name not in pages:
            parser.error(f"{name}: no such page; known: {', '.join(pages)}")
        path, written, files = pages[name]
        path.write_text(written(path.read_text("utf-8"), *(stored_rows(RESULTS / file) for file in files)), "utf-8")


if __name__ == "__main__":
    main()
