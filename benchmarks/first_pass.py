"""One text at a time by engines that have just been loaded: shapes that nobody has prepared for, then the same again.

An engine that prepares itself for each length answers a text slowly when it first meets one of that length. Texts come
in their order, one after the other; engines take turns by passes, for idle threads of one would slow the next text.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.bench.int8_texts import calibration_of
from ziggurat.bench.peers.opening import KINDS, open_peers
from ziggurat.bench.peers.openvino import CALIBRATION_TEXTS
from ziggurat.bench.peers.peer import PeerSetting, padded
from ziggurat.data.sources import DEFAULT_COLUMNS
from ziggurat.data.tokenizer import Encoded, pack_rows
from ziggurat.encoder.hub import local_folder
from ziggurat.engine.opened import FULL, OpenedModel
from ziggurat.engine.replay import run_batches
from ziggurat.measure.subject import ModelOptions, rows_to_measure

PASSES = ("first", "second")
OURS = "ziggurat"
Answer = Callable[[Encoded], object]  # one text's logits


def fresh_engines(model: str, source: str, threads: int, encoded: Encoded, loads: int) -> Iterator[dict[str, Any]]:
    """Latencies of int8 at full depth in both passes, medians over the texts, then over freshly loaded engines."""
    ones = [encoded.take(np.array([row])) for row in range(len(encoded))]
    found: dict[str, list[np.ndarray]] = {}
    for _ in range(loads):
        with tempfile.TemporaryDirectory() as scratch:
            engines = _opened(model, source, threads, Path(scratch))
            seconds = {name: np.empty((len(PASSES), len(ones))) for name in engines}
            for each in range(len(PASSES)):
                for name, answer in engines.items():
                    seconds[name][each] = [_timed(partial(answer, one)) for one in ones]
            for name, both in seconds.items():
                found.setdefault(name, []).append(both)
    medians = {name: 1e3 * np.median(np.array(loaded), axis=2) for name, loaded in found.items()}  # (loads, passes)
    for name, loaded in found.items():
        for each, which in enumerate(PASSES):
            p50, of_theirs = medians[name][:, each], medians[OURS][:, each] / medians[name][:, each]
            yield {
                "race": "fresh", "what": name, "dtype": "int8", "batch": 1, "pass": which, "rounds": loads,
                "milliseconds_p50": _listed(p50), "of_theirs": _listed(of_theirs),
                "milliseconds_p95": _listed(1e3 * np.quantile(np.array(loaded)[:, each], 0.95, axis=1)),
            }  # fmt: skip


def _listed(values: np.ndarray) -> list[float]:
    """Median, least and most."""
    return [float(np.median(values)), float(values.min()), float(values.max())]


def _opened(model: str, source: str, threads: int, scratch: Path) -> dict[str, Answer]:
    ours = ModelOptions("cpu", "int8", threads, backend="native").open(model)
    calibration = calibration_of(model, ours, rows_to_measure(ours, source), CALIBRATION_TEXTS, None, DEFAULT_COLUMNS)
    texts = ours.tokenizer.encode(calibration.rows.texts, calibration.rows.pairs).tokens
    setting = PeerSetting(local_folder(model), ours.spec, threads, scratch, texts)
    peers, _ = open_peers([kind for kind in KINDS if kind.dtype == "int8"], setting)
    engines: dict[str, Answer] = {OURS: partial(_ours, ours)}
    for peer in peers:
        if peer.streams == 1:
            engines[peer.name] = lambda one, peer=peer: peer.logits(padded(one.tokens, peer.inputs))
    return engines


def _ours(classifier: OpenedModel, one: Encoded) -> object:
    return run_batches(classifier.backend, [pack_rows(one, np.arange(1))], classifier.rule_of(FULL), 1).readings


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
