"""Compares a model with plain transformers in speed and quality: same texts and threads, one interleaved run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.bench.peers.peer import TransformersPeer
from ziggurat.bench.result import BenchResult, BenchRow
from ziggurat.bench.rows import judged
from ziggurat.data.dataset import Dataset
from ziggurat.data.memory import RowsLike, as_rows
from ziggurat.data.packing import by_length, in_order
from ziggurat.data.sources import DEFAULT_COLUMNS, Columns
from ziggurat.data.tables import Source
from ziggurat.data.tokenizer import Encoded
from ziggurat.encoder.hub import local_folder
from ziggurat.engine.opened import FULL, OpenedModel
from ziggurat.errors import UserError
from ziggurat.measure.clock import Timing, interleave, paired_ratio, speed_of
from ziggurat.measure.rows import append_record, provenance
from ziggurat.measure.subject import (
    ModelOptions,
    check_has_layers,
    data_and_split,
    lengths_summary,
    rows_to_measure,
    sample,
)
from ziggurat.measure.targets import check_result_path

_BASELINE = "full depth"  # Ziggurat without exits: the baseline of every gain
_PEER = ""  # key of transformers' figures; no operating point has this name


@dataclass(frozen=True)
class Bench:
    """The model and the rows of one comparison."""

    model: str
    source: Source
    opened: OpenedModel
    timed: Encoded
    peer: TransformersPeer


@dataclass(frozen=True)
class System:
    """A system that is timed."""

    name: str
    padding: str
    dtype: str
    call: Callable[[], object]
    point: str  # the operating point with its accuracy and FLOPs, or _PEER


def bench(
    model: str,
    source: RowsLike,
    batch_sizes: Sequence[int] = (1, 32),
    points: Sequence[str] | None = None,
    columns: Columns = DEFAULT_COLUMNS,
    options: ModelOptions = ModelOptions(),
    timed_texts: int = 512,
    repeats: int = 5,
    out: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> BenchResult:
    """Result rows for transformers with padding (in arrival order; sorted), full depth, and each operating point.

    `points` None = all operating points of the model. Accuracy and FLOPs are of all rows. Times are of `timed_texts`
    rows, without tokenising; of questions a quarter as many are timed, and batches count windows. At batch 1, rows have
    latencies too. With `out`, rows are appended to that file. UserError for a batch size below 1, or for a small model.
    """
    source = as_rows(source)
    if not batch_sizes or min(batch_sizes) < 1:
        raise UserError(f"batch sizes {list(batch_sizes)}: each must be at least 1")
    if out is not None:
        check_result_path(out, model, source)
    check_has_layers(model, "bench")  # transformers cannot run it
    opened = options.open(model)
    if points is None:
        points = [point.name for point in opened.manifest.operating_points]
    for point in points:
        opened.rule_of(point)
    rows = rows_to_measure(opened, source, columns)
    encoded = opened.encode_rows(rows)
    timed = encoded.take(sample(len(rows), timed_texts // opened.problem.texts_per_input))
    peer = TransformersPeer(local_folder(model), opened.backend.device, head=opened.problem.head)
    setting = Bench(model, source, opened, timed, peer)
    quality = {point: _quality(opened, source, rows, encoded, point) for point in (FULL, *points)}
    quality[_PEER] = quality[FULL]
    if opened.backend.dtype != peer.dtype:  # transformers' answers are those of full depth in its precision
        quality[_PEER] = _quality(replace(options, dtype=peer.dtype).open(model), source, rows, encoded, FULL)
    origin = provenance()
    found: list[BenchRow] = []
    for batch_size in batch_sizes:
        systems = _systems(setting, batch_size, points)
        timings = interleave({system.name: system.call for system in systems}, repeats, progress=progress)
        for system in systems:
            found.append(_row(setting, system, batch_size, timings, quality[system.point], origin))
            if out is not None:
                append_record(out, found[-1].to_dict())
    return BenchResult(tuple(found))


def _systems(setting: Bench, batch_size: int, points: Sequence[str]) -> list[System]:
    opened, timed, peer = setting.opened, setting.timed, setting.peer
    orders = {
        "as it comes": list(in_order(np.arange(len(timed.tokens)), batch_size)),
        "sorted": list(by_length(timed.lengths, batch_size)),
    }
    systems = []
    for padding, batches in orders.items():
        if batch_size == 1 and padding == "sorted":
            continue  # single texts have no padding
        call = partial(peer.run, peer.prepare(timed, batches))
        systems.append(System(f"transformers SDPA, {padding}", padding, peer.dtype, call, _PEER))
    for point in (FULL, *points):
        label = _BASELINE if point == FULL else point
        run = partial(opened.run, timed, opened.rule_of(point), batch_size)
        systems.append(System(f"ziggurat {label}", "packed", opened.backend.dtype, run, point))
    return systems


def _quality(classifier: OpenedModel, source: Source, rows: Dataset, encoded: Encoded, point: str) -> dict[str, Any]:
    """Quality (`judged`) of an operating point on all rows."""
    rule = classifier.rule_of(point)
    outcomes, full = classifier.run(encoded, rule), classifier.full_flops(encoded)
    flops = (
        full
        if point == FULL
        else classifier.flops(encoded, outcomes.token_counts, rule)[np.arange(len(rows)), outcomes.rungs]
    )
    return judged(classifier, source, classifier.predictions(encoded, outcomes), rows, flops, full)


def _row(
    setting: Bench,
    system: System,
    batch_size: int,
    timings: Mapping[str, Timing],
    quality: Mapping[str, Any],
    origin: Mapping[str, Any],
) -> BenchRow:
    timing, backend = timings[system.name], setting.opened.backend
    gain = paired_ratio(timings[f"ziggurat {_BASELINE}"], timing)
    data, split = data_and_split(setting.source)
    return BenchRow(
        system=system.name,
        data=data,
        split=split,
        model=Path(setting.model).name,
        device=backend.device,
        threads=backend.threads,
        batch=batch_size,
        dtype=system.dtype,
        padding=system.padding,
        timed="model",
        speed=speed_of(timing, len(setting.timed), gain),
        tokens=lengths_summary(setting.timed),
        quality=quality,
        origin=origin,
    )
