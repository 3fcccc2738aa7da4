"""OpenVINO on CPUs: float32, bfloat16, and int8 by NNCF's post-training quantisation."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from ziggurat.bench.peers.export import exported
from ziggurat.bench.peers.peer import Feed, Peer, PeerSetting, Unavailable, padded

CALIBRATION_TEXTS = 300  # NNCF's own default
_HINTS = {"float32": "f32", "bfloat16": "bf16"}  # int8: OpenVINO chooses for parts that are not quantised


class OpenVinoPeer(Peer):
    """The exported graph with dynamic shapes, compiled for latency: one stream with all threads."""

    name = "OpenVINO"

    def __init__(self, dtype: str, setting: PeerSetting) -> None:
        self.dtype, self.inputs = dtype, setting.inputs
        self._compiled = _compiled(dtype, setting, {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"})
        self._request = self._compiled.create_infer_request()

    def logits(self, batch: Feed) -> np.ndarray:
        """Outputs of one padded batch, see `Peer`."""
        answer = self._request.infer(dict(batch), share_inputs=True)
        return np.array(answer[0], dtype=np.float32)


class OpenVinoStreamsPeer(Peer):
    """The graph compiled for throughput: one stream per thread, with different batches."""

    name = OpenVinoPeer.name

    def __init__(self, dtype: str, setting: PeerSetting) -> None:
        import openvino

        self.dtype, self.inputs = dtype, setting.inputs
        self.streams = setting.threads
        properties = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": str(self.streams)}
        self._queue = openvino.AsyncInferQueue(_compiled(dtype, setting, properties), self.streams)

    def logits(self, batch: Feed) -> np.ndarray:
        """Outputs of one padded batch, see `Peer`."""
        return self.all_logits([batch])[0]

    def all_logits(self, batches: Sequence[Feed]) -> list[np.ndarray]:
        """`logits` of each batch, several at once."""
        answers: list[np.ndarray] = [np.empty(0)] * len(batches)

        def store(request: Any, index: int) -> None:
            answers[index] = np.array(request.get_output_tensor(0).data, dtype=np.float32)

        self._queue.set_callback(store)
        for index, batch in enumerate(batches):
            self._queue.start_async(dict(batch), index, share_inputs=True)
        self._queue.wait_all()
        return answers


def open_vino(dtype: str, setting: PeerSetting) -> list[Peer]:
    """Both ways to run it; `Unavailable` with the reason if it cannot run."""
    latency: list[Peer] = [OpenVinoPeer(dtype, setting)]
    return latency if setting.threads == 1 else [*latency, OpenVinoStreamsPeer(dtype, setting)]


def _compiled(dtype: str, setting: PeerSetting, properties: dict[str, Any]) -> Any:
    """The compiled graph on the CPU; `Unavailable` if OpenVINO would silently use another precision."""
    import openvino

    core = openvino.Core()
    graph = _quantised(core, setting) if dtype == "int8" else core.read_model(str(exported(setting)))
    hint = _HINTS.get(dtype)
    precision = {} if hint is None else {"INFERENCE_PRECISION_HINT": hint}
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_NUM_THREADS": setting.threads, **properties, **precision})
    runs = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if hint not in (None, runs):
        raise Unavailable(f"this CPU has no {dtype} arithmetic for OpenVINO, which would compute in {runs} instead")
    return compiled


def _quantised(core: Any, setting: PeerSetting) -> Any:
    """The graph quantised as NNCF recommends for transformers, with statistics of single texts; made once per run."""
    path = setting.scratch / "int8.xml"
    if path.exists():
        return core.read_model(str(path))
    if not setting.calibration:
        raise Unavailable("there are no texts to calibrate it with")
    # Set before the import, which else reports its use over the network.
    os.environ.setdefault("NNCF_CI", "1")
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    feeds = [padded([text], setting.inputs) for text in setting.calibration[:CALIBRATION_TEXTS]]
    with redirect_stdout(io.StringIO()):  # its progress bars
        graph = nncf.quantize(
            core.read_model(str(exported(setting))),
            nncf.Dataset(feeds),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(feeds),
        )
    openvino.save_model(graph, str(path), compress_to_fp16=False)
    return graph
