"""Compares Ziggurat with ONNX Runtime, OpenVINO and transformers, each at its best, in one run."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.bench.competition import (
    Answer,
    Batches,
    Contestant,
    Entry,
    best_entries,
    of_peer,
    race,
    race_from_texts,
    race_single,
    single_entries,
)
from ziggurat.bench.int8_texts import Calibration, calibration_of
from ziggurat.bench.peers.opening import KINDS, LeftOut, open_peers
from ziggurat.bench.peers.openvino import CALIBRATION_TEXTS
from ziggurat.bench.peers.peer import PeerKind, PeerSetting
from ziggurat.bench.result import Comparison, ComparisonRow
from ziggurat.bench.rows import Setting, quality, row_of_batches, row_of_singles
from ziggurat.data.dataset import Dataset
from ziggurat.data.memory import RowsLike, as_rows
from ziggurat.data.sources import DEFAULT_COLUMNS, Columns
from ziggurat.data.tables import Source
from ziggurat.data.tokenizer import Encoded, pack_rows
from ziggurat.encoder.hub import local_folder
from ziggurat.engine.backend import Outcomes
from ziggurat.engine.opened import FULL, OpenedModel
from ziggurat.engine.replay import run_batches
from ziggurat.engine.tiers import DTYPES
from ziggurat.errors import UserError
from ziggurat.measure.rows import append_record, provenance
from ziggurat.measure.subject import ModelOptions, check_has_layers, rows_to_measure, sample
from ziggurat.measure.targets import check_result_path
from ziggurat.native import why_missing
from ziggurat.policies.rules import ExitRule
from ziggurat.system import Progress

BATCH_SIZES = (1, 4, 8, 16, 32, 64)
_SEARCH_ROUNDS = 2


@dataclass(frozen=True)
class Rules:
    """Sizes of the measurement."""

    batch_sizes: Sequence[int] = BATCH_SIZES  # tried in the search
    timed_texts: int = 512
    search_texts: int = 128  # subset for the search
    scored_texts: int = 2000  # for accuracy, at most
    repeats: int = 5
    only: Sequence[str] = ()  # parts of names, such as "openvino" or "int8"; Ziggurat's first engine is always included
    calibration: str | None = None  # source of calibration texts for int8 peers


def compare(
    model: str,
    source: RowsLike,
    rules: Rules = Rules(),
    points: Sequence[str] | None = None,
    columns: Columns = DEFAULT_COLUMNS,
    options: ModelOptions = ModelOptions(),
    out: Path | None = None,
    progress: Progress = None,
) -> Comparison:
    """Result rows of all systems that run here: model alone and from strings, at the best batch size and one by one.

    `points` None = the model's operating points, except those that equal full depth. `options.dtype` and
    `options.backend` are ignored: all backends and dtypes of Ziggurat that run here take part. UserError for a GPU, a
    small model, or a batch size or number below 1.
    """
    source = as_rows(source)
    if options.device not in ("auto", "cpu"):
        raise UserError(f"device {options.device!r}: the peers run on the CPU; give --device cpu")
    numbers = (*rules.batch_sizes, rules.timed_texts, rules.search_texts, rules.scored_texts, rules.repeats)
    if not rules.batch_sizes or min(numbers) < 1:
        raise UserError("batch sizes, texts and rounds must each be at least 1")
    if out is not None:
        check_result_path(out, model, source)
    _refuse_unknown(rules.only)
    check_has_layers(model, "compare")
    opened = _opened_models(model, options, rules.only)
    classifier = opened[0]
    points = _acting(classifier) if points is None else points
    contestants = [_contestant(variant, point) for variant in opened for point in (FULL, *points)]
    data = rows_to_measure(classifier, source, columns)
    kinds = [kind for kind in KINDS if _is_wanted(_peer_name(kind), rules.only)]
    calibration = None
    if any(kind.calibrated for kind in kinds):
        calibration = calibration_of(model, classifier, data, CALIBRATION_TEXTS, rules.calibration, columns)
    with tempfile.TemporaryDirectory() as scratch:
        peers, left_out = _opened_peers(kinds, model, classifier, calibration, Path(scratch))
        measured = data if calibration is None else calibration.measured
        setting = _setting(model, source, classifier, measured, rules, calibration)
        rows = []
        # The rows of each race are written when it ends, so that a later interrupt does not lose them.
        for row in _measured([*contestants, *peers], setting, rules, progress):
            rows.append(row)
            if out is not None:
                append_record(out, row.to_dict())
    return Comparison(tuple(rows), tuple(left_out), None if calibration is None else calibration.origin)


def _acting(classifier: OpenedModel) -> list[str]:
    """Operating points with exits or pruning; all others equal full depth, which is measured anyway."""
    found = {point.name: classifier.rule_of(point) for point in classifier.manifest.operating_points}
    return [name for name, rule in found.items() if any(rule.active[:-1]) or rule.tokens is not None]


def _is_wanted(name: str, only: Sequence[str]) -> bool:
    plain = name.lower().replace(" ", "")
    return not only or any(part.lower().replace(" ", "") in plain for part in only)


def _refuse_unknown(only: Sequence[str]) -> None:
    names = [*map(_our_name, our_engines()), *map(_peer_name, KINDS)]
    for part in only:
        if not any(_is_wanted(name, [part]) for name in names):
            raise UserError(f"--only {part!r}: matches no name; there are {', '.join(names)}")


def _our_name(engine: tuple[str, str]) -> str:
    return " ".join(("ziggurat", *engine))


def _peer_name(kind: PeerKind) -> str:
    return f"{kind.name} {kind.dtype}"


def our_engines() -> list[tuple[str, str]]:
    """Backend and dtype of all of Ziggurat's systems that run here; the first is the baseline of gains."""
    missing = {"native": why_missing() is not None, "torch": importlib.util.find_spec("torch") is None}
    return [(engine, dtype) for engine, dtypes in DTYPES.items() if not missing[engine] for dtype in dtypes]


def _opened_models(model: str, options: ModelOptions, only: Sequence[str]) -> list[OpenedModel]:
    """The model with each wanted backend and dtype, without duplicates (a folder trained for int8 ignores the dtype).

    UserError if none can run.
    """
    first, *rest = our_engines() or [("auto", "float32")]
    wanted = [first, *(system for system in rest if _is_wanted(_our_name(system), only))]
    found: dict[tuple[str, str], OpenedModel] = {}
    for engine, dtype in wanted:
        classifier = replace(options, device="cpu", backend=engine, dtype=dtype).open(model)
        found.setdefault((classifier.backend.engine, classifier.backend.dtype), classifier)
    return list(found.values())


def _contestant(classifier: OpenedModel, point: str) -> Contestant:
    """Ziggurat at an operating point. Packing is timed, although the peers' padding is not."""
    rule = classifier.rule_of(point)

    def answer(encoded: Encoded, batches: Batches) -> np.ndarray:
        if len(classifier.tiers) > 1 or encoded.owners is not None:
            return _engine_readings(classifier, rule, encoded, batches)
        outcomes: Outcomes = run_batches(
            classifier.backend, (pack_rows(encoded, rows) for rows in batches), rule, len(encoded.tokens)
        )
        return outcomes.readings

    def prepare(encoded: Encoded, batches: Batches) -> Answer:
        return partial(answer, encoded, batches)

    label = "full depth" if point == FULL else point
    return Contestant(f"ziggurat {label}", classifier.backend.engine, classifier.backend.dtype, prepare, point)


def _engine_readings(classifier: OpenedModel, rule: ExitRule, encoded: Encoded, batches: Batches) -> np.ndarray:
    """Readings (n, width) of a cascade, or of inputs with several sequences, with the engine's batches.

    In arrival order each batch is answered separately, and later tiers get the rest of it. In sorted order all texts
    are known, so each tier makes full batches of the inputs that reach it, as in `predict`.
    """
    sequences = [len(encoded.sequences_of(rows)) for rows in batches]
    if np.array_equal(np.concatenate(batches), np.arange(len(encoded))):
        parts = zip(batches, sequences, strict=True)
        return np.concatenate([classifier.run(encoded.take(rows), rule, size).readings for rows, size in parts])
    return classifier.run(encoded, rule, max(sequences)).readings


def _opened_peers(
    kinds: Sequence[PeerKind],
    model: str,
    classifier: OpenedModel,
    calibration: Calibration | None,
    scratch: Path,
) -> tuple[list[Contestant], list[LeftOut]]:
    texts: Sequence[np.ndarray] = ()
    if calibration is not None:
        texts = classifier.encode_rows(calibration.rows).tokens
    problem, threads = classifier.problem, classifier.backend.threads
    setting = PeerSetting(local_folder(model), classifier.spec, problem.head, threads, scratch, texts)
    peers, left_out = open_peers(kinds, setting)
    return [of_peer(peer, peer.name.split()[0].lower(), problem.reader) for peer in peers], left_out


def _setting(
    model: str,
    source: Source,
    classifier: OpenedModel,
    data: Dataset,
    rules: Rules,
    calibration: Calibration | None,
) -> Setting:
    scored = data.take(sample(len(data), rules.scored_texts))
    few = max(1, rules.timed_texts // classifier.problem.texts_per_input)
    timed_rows = scored.take(sample(len(scored), few))
    timed, encoded = classifier.encode_rows(timed_rows), classifier.encode_rows(scored)
    return Setting(
        model=model,
        source=source,
        classifier=classifier,
        scored=scored,
        encoded=encoded,
        timed_rows=timed_rows,
        timed=timed,
        calibration=calibration.origin if calibration else None,
        origin=provenance(),
    )


def _measured(
    contestants: Sequence[Contestant], setting: Setting, rules: Rules, progress: Progress
) -> Iterator[ComparisonRow]:
    """Runs all races; quality is measured with the best batch size in sorted order."""
    timed, repeats, n = setting.timed, rules.repeats, len(setting.timed)
    few = timed.take(sample(n, rules.search_texts))
    entries = best_entries(contestants, few, rules.batch_sizes, _SEARCH_ROUNDS, progress)
    single = single_entries(contestants)
    qualities = {entry.contestant.key: quality(setting, entry) for entry in entries if entry.order == "sorted"}

    def rows(
        timing: str, row_of: Callable[..., ComparisonRow], entered: Sequence[Entry], times: Any
    ) -> Iterator[ComparisonRow]:
        return (row_of(setting, entry, timing, entered, times, qualities[entry.contestant.key]) for entry in entered)

    yield from rows("model", row_of_batches, entries, race(entries, timed, repeats, progress))
    yield from rows("process", row_of_batches, entries, race_from_texts(entries, setting.encode, n, repeats, progress))
    yield from rows("model", row_of_singles, single, race_single(single, timed, repeats, progress))
    yield from rows("process", row_of_singles, single, race_single(single, timed, repeats, progress, setting.encode))
