"""Writes the tables of docs/performance.md from the latest rows in results/. `make bench` calls it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.targets import OPENVINO, Row, bars
from scripts.markers import between
from ziggurat.bench.competition import ARRIVAL, SORTED
from ziggurat.measure.rows import read_rows_file

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
PAGE = ROOT / "docs" / "performance.md"
NOTHING = "Not measured yet.\n"
SECTIONS = ("bars", "peers", "others", "engine", "shapes")


def written(page: str, peers: Sequence[Row], engine: Sequence[Row], shapes: Sequence[Row]) -> str:
    """The page with all tables between their markers."""
    engine = latest_races(engine)
    peers, others = latest_run(peers, {row["model"] for row in engine}), latest_of_others(peers, engine)
    texts = (
        bars_table(peers, engine),
        peers_table(peers),
        others_table(others),
        engine_tables(engine),
        shapes_tables(latest_shapes(shapes)),
    )
    for name, text in zip(SECTIONS, texts, strict=True):
        page = between(page, *markers(name), text)
    return page


def markers(name: str) -> tuple[str, str]:
    """The lines before and behind a section."""
    return f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->\n"


def latest_run(rows: Sequence[Row], models: Collection[str] = ()) -> list[Row]:
    """Those of the run that was written last, of these models where any are named: they share date, model and CPU."""
    mine = [row for row in rows if not models or row["model"] in models]
    return [row for row in mine if _run(row) == _run(mine[-1])]


def latest_of_others(rows: Sequence[Row], engine: Sequence[Row]) -> list[list[Row]]:
    """The last run of each model that the engine's own races do not know, cascades above all; on their processor."""
    known = {row["model"] for row in engine}
    mine = [row for row in rows if row["model"] not in known and engine and row["cpu"] == engine[-1]["cpu"]]
    return [latest_run(mine, {model}) for model in dict.fromkeys(row["model"] for row in mine)]


def latest_races(rows: Sequence[Row]) -> list[Row]:
    """Of each race and model those of its last run, on the last row's processor."""
    mine = [row for row in rows if row["cpu"] == rows[-1]["cpu"]]
    last = {(row["race"], row["model"]): row["date"] for row in mine}
    return [row for row in mine if row["date"] == last[row["race"], row["model"]]]


def latest_shapes(rows: Sequence[Row]) -> list[Row]:
    """Of each size of model those of its last run."""
    last = {row["layers"]: _run(row) for row in rows}
    return [row for row in rows if _run(row) == last[row["layers"]]]


def _run(row: Row) -> tuple[str, ...]:
    return row["date"], row.get("model", ""), row["cpu"]


def bars_table(peers: Sequence[Row], engine: Sequence[Row]) -> str:
    """Every bar and what was measured."""
    if not peers and not engine:
        return NOTHING
    lines = [bar.line for bar in bars(peers, engine)]
    parts = [said(peers[0], "Beside peers")] if peers else []
    parts += [said(mine[0], "The engine alone") for _, mine in _grouped(engine, "model")]
    return "\n".join(["| measure | bar | measured |", "|---|---|---|", *lines]) + "\n\n" + "\n".join(parts) + "\n"


def said(row: Row, name: str) -> str:
    """What a run was."""
    about = f"{row['cpu']}, {row['cores']} cores, {row['threads']} threads"
    texts = f", {row['tokens_mean']:.0f} tokens on average" if "tokens_mean" in row else ""
    where = f"`{row['model']}` on `{row['data']}/{row['split']}`{texts}; {about}"
    return f"{name}: {where}; {row['date'][:10]}, commit `{row['commit'][:8]}`."


def peers_table(rows: Sequence[Row]) -> str:
    """Everybody in the latest run beside peers: ours as texts come, peers sorted."""
    chosen = [row for row in rows if row["order"] == (SORTED if row["peer"] else ARRIVAL)]
    if not chosen:
        return NOTHING
    lines = []
    for key, group in _grouped(chosen, "what", "engine", "dtype"):
        found = {(row["timed"], "latency_ms_p50" in row): row for row in group}
        model, whole = found.get(("model", False)), found.get(("process", False))
        single = found.get(("model", True))
        over = [_gain(model, f"{peer} int8, sorted") for peer in ("ONNX Runtime", "OpenVINO")]
        accuracy = "" if model is None else f"{100 * model['accuracy']:.2f}"
        speeds = ["" if row is None else f"{row['texts_per_second_p50']:,.0f}" for row in (model, whole)]
        latency = "" if single is None else f"{single['latency_ms_p50']:.2f}"
        lines.append([f"{key[0]}, {key[2]}" if key[1] != "torch" else f"{key[0]} ({key[1]}), {key[2]}",
                      accuracy, *speeds, *over, latency])  # fmt: skip
    head = [
        "system",
        "accuracy",
        "texts/s",
        "from strings",
        "over ONNX Runtime int8",
        "over OpenVINO int8",
        "one text, p50, ms",
    ]
    return _table(head, lines)


def _gain(row: Row | None, peer: str) -> str:
    return "" if row is None or peer not in row.get("over", {}) else f"{row['over'][peer][0]:.2f}x"


def others_table(runs: Iterable[Sequence[Row]]) -> str:
    """Each run's points: the fastest of our dtypes, texts as they come, over OpenVINO int8 sorted, by each clock."""
    lines, about = [], []
    for rows in runs:
        full = next(row for row in rows if row["what"] == "ziggurat full depth")
        about.append(said(rows[0], "Beside peers"))
        for (what,), group in _grouped([row for row in rows if not row["peer"] and row is not full], "what"):
            if what == full["what"]:
                continue
            best = [_fastest(group, timed, single) for timed in ("model", "process") for single in (False, True)]
            lost = [100 * (full["accuracy"] - row["accuracy"]) for row in group]
            lines.append([f"`{rows[0]['model']}`, {what.removeprefix('ziggurat ')}", f"{max(lost):+.2f}", *best])
    if not lines:
        return NOTHING
    head = ["model and point", "points lost", "model only", "one text", "from strings", "one text from strings"]
    return _table(head, lines) + "\n" + "\n".join(about) + "\n"


def _fastest(rows: Iterable[Row], timed: str, single: bool) -> str:
    """Of the rows by this clock: how often OpenVINO's speed, median, least and most."""
    mine = [row for row in rows if row["timed"] == timed and ("latency_ms_p50" in row) == single]
    mine = [row for row in mine if row["order"] == ARRIVAL]
    gains = [row["over"][OPENVINO] for row in mine if OPENVINO in row.get("over", {})]
    if not gains:
        return ""
    median, low, high = max(gains)
    return f"{median:.1f}x ({low:.1f} to {high:.1f})"


def engine_tables(rows: Sequence[Row]) -> str:
    """What idle policies cost, what saved FLOPs save, and the roof."""
    by_race = {race: list(group) for (race,), group in _grouped(rows, "race")}
    parts = []
    if idle := by_race.get("never acting"):
        lines = [
            [f"{what}, batch {batch}", *(f"{_of(group, dtype)['over_full'][0]:.3f}" for dtype in _dtypes(idle))]
            for (what, batch), group in _grouped([row for row in idle if row["what"] != "full"], "what", "batch")
        ]
        parts.append("Rules that never act, time over full depth's:\n\n" + _table(["rule", *_dtypes(idle)], lines))
    if saved := by_race.get("savings"):
        head = ["point", "dtype", "batch", "time saved", "FLOPs saved", "the one over the other", "over FLOPs computed"]
        lines = [
            [f"`{row['what']}` ({row['acts']}){_whose(row, saved)}", row["dtype"], str(row["batch"]),
             f"{row['time_gain'][0]:.2f}x",
             f"{row['flops_gain']:.2f}x", f"{row['efficiency'][0]:.2f}", f"{row['efficiency_computed'][0]:.2f}"]
            for row in saved
        ]  # fmt: skip
        parts.append("Operating points:\n\n" + _table(head, lines))
    if roof := by_race.get("roofline"):
        parts.append(_roof(roof))
    return "\n".join(parts) or NOTHING


def _whose(row: Row, rows: Sequence[Row]) -> str:
    """The model's name, where there are several."""
    return f", `{row['model']}`" if len({one["model"] for one in rows}) > 1 else ""


def _roof(rows: Sequence[Row]) -> str:
    """One line for each kernel and shape, one column for each number of rows or tokens."""
    parts = []
    for size, unit, pick in (("rows", "rows", "d_in"), ("tokens", "tokens", "width")):
        mine = [row for row in rows if pick in row]
        counts = list(dict.fromkeys(row[size] for row in mine))
        shape = (
            (lambda row: f"{row['d_in']} x {row['d_out']}") if size == "rows" else (lambda row: f"width {row['width']}")
        )
        lines = {}
        for row in mine:
            line = lines.setdefault(f"{row['what']}, {shape(row)}", [f"{row['peak_tops'][0]:.2f}"])
            line.append(f"{row['tops'][0]:.2f} ({100 * row['share'][0]:.0f} %)")
        if lines:
            head = ["kernel", "peak", *(f"{count} {unit}" for count in counts)]
            parts.append(_table(head, [[name, *cells] for name, cells in lines.items()]))
    return (
        f"TOP/s and share of the peak, {rows[0]['threads']} threads at once, {rows[0]['instructions']}:\n\n"
        + "\n".join(parts)
    )


def shapes_tables(rows: Sequence[Row]) -> str:
    """Milliseconds of a batch by length, for each size of model."""
    parts = []
    for (layers, hidden), mine in _grouped(rows, "layers", "hidden"):
        systems = list(dict.fromkeys(f"{row['what']} {row['dtype']}" for row in mine))
        lines = []
        for (length, batch), group in _grouped(mine, "length", "batch"):
            by_name = {f"{row['what']} {row['dtype']}": row for row in group}
            gain = by_name.get("ziggurat int8", {}).get("over_openvino_int8")
            cells = [f"{by_name[name]['milliseconds_p50']:.2f}" if name in by_name else "" for name in systems]
            lines.append([str(length), str(batch), *cells, f"{gain[0]:.2f}x" if gain else ""])
        first = mine[0]
        about = f"{layers} layers of {hidden}, {first['threads']} threads, {first['cpu']}, {first['date'][:10]}"
        parts.append(
            f"{about}, milliseconds a batch:\n\n"
            + _table(["tokens", "texts", *systems, "int8 over OpenVINO int8"], lines)
        )
    return "\n".join(parts) or NOTHING


def _of(rows: Iterable[Row], dtype: str) -> Row:
    return next(row for row in rows if row["dtype"] == dtype)


def _dtypes(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["dtype"] for row in rows))


def _grouped(rows: Iterable[Row], *keys: str) -> list[tuple[tuple[Any, ...], list[Row]]]:
    """Rows with the same values together, in the order of their first."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(found.items())


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def rows_of(name: str) -> list[Row]:
    """Rows of a file of results, none where it is not there."""
    path = RESULTS / name
    return read_rows_file(path) if path.exists() else []


if __name__ == "__main__":
    rows = [rows_of(f"{name}.jsonl") for name in ("peers", "engine", "shapes")]
    PAGE.write_text(written(PAGE.read_text("utf-8"), *rows), "utf-8")
