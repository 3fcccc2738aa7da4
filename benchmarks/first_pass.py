"""Latency of one text at a time in engines just loaded, in a first pass through the texts and in a second.

An engine that prepares itself for each length answers slowly when it first meets a length. Texts come in their order;
engines take turns by whole passes, because idle threads of one engine would slow the next text. A race of `engine.py`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.setting import Setting
from scripts.shared import Row
from ziggurat.bench import KINDS, Peer, PeerSetting, calibration_of, open_peers, padded
from ziggurat.bench.peers.openvino import CALIBRATION_TEXTS
from ziggurat.data import DEFAULT_COLUMNS
from ziggurat.data.tokenizer import Encoded, pack_rows
from ziggurat.encoder import local_folder
from ziggurat.engine import OpenedModel, run_batches
from ziggurat.engine.opened import FULL
from ziggurat.measure import rows_to_measure

PASSES = ("first", "second")
ZIGGURAT = "ziggurat"
Answer = Callable[[Encoded], object]  # one text's logits


def first_passes(setting: Setting, loads: int) -> Iterator[Row]:
    """Latencies of int8 at full depth in both passes, medians over the texts, then over `loads` times of loading."""
    texts = [setting.encoded.take(np.array([row])) for row in range(len(setting.encoded))]
    latencies: dict[str, list[np.ndarray]] = {}  # engine → per load seconds (passes, texts)
    for _ in range(loads):
        with tempfile.TemporaryDirectory() as scratch:
            engines = _opened(setting, Path(scratch))
            seconds = {name: np.empty((len(PASSES), len(texts))) for name in engines}
            for number in range(len(PASSES)):
                for name, answer in engines.items():
                    seconds[name][number] = [_seconds(partial(answer, text)) for text in texts]
            for name, measured in seconds.items():
                latencies.setdefault(name, []).append(measured)
    medians = {name: 1e3 * np.median(np.array(loaded), axis=2) for name, loaded in latencies.items()}  # (loads, passes)
    for name, loaded in latencies.items():
        for number, title in enumerate(PASSES):
            p50, baseline = medians[name][:, number], medians[ZIGGURAT][:, number]
            yield {
                "race": "fresh", "what": name, "dtype": "int8", "batch": 1, "pass": title, "rounds": loads,
                "milliseconds_p50": _median_and_range(p50), "of_theirs": _median_and_range(baseline / p50),
                "milliseconds_p95": _median_and_range(1e3 * np.quantile(np.array(loaded)[:, number], 0.95, axis=1)),
            }  # fmt: skip


def _median_and_range(values: np.ndarray) -> list[float]:
    """Median, least and most."""
    return [float(np.median(values)), float(values.min()), float(values.max())]


def _opened(setting: Setting, scratch: Path) -> dict[str, Answer]:
    baseline = setting.opened("int8")
    rows = rows_to_measure(baseline, setting.source)
    calibration = calibration_of(setting.model, baseline, rows, CALIBRATION_TEXTS, None, DEFAULT_COLUMNS)
    texts = baseline.tokenizer.encode(calibration.rows.texts, calibration.rows.pairs).tokens
    peer_setting = PeerSetting(
        local_folder(setting.model), baseline.spec, baseline.problem.head, setting.threads, scratch, texts
    )
    peers, _ = open_peers([kind for kind in KINDS if kind.dtype == "int8"], peer_setting)
    engines: dict[str, Answer] = {ZIGGURAT: partial(_engine_answer, baseline)}
    for peer in peers:
        if peer.streams == 1:
            engines[peer.name] = partial(_peer_answer, peer)
    return engines


def _engine_answer(classifier: OpenedModel, text: Encoded) -> object:
    return run_batches(classifier.backend, [pack_rows(text, np.arange(1))], classifier.rule_of(FULL), 1).readings


def _peer_answer(peer: Peer, text: Encoded) -> object:
    return peer.logits(padded(text.tokens, peer.inputs))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
