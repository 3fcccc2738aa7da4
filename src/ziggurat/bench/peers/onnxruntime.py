"""ONNX Runtime: float32, and int8 with dynamic activation scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ziggurat.bench.peers.export import exported
from ziggurat.bench.peers.peer import Feed, Peer, PeerSetting


class OnnxRuntimePeer(Peer):
    """A session on the exported graph with all optimisations.

    Without the separate optimiser for transformers: with it, MiniLM was no faster at batch 1 to 8 and slower at 32.
    """

    name = "ONNX Runtime"

    def __init__(self, dtype: str, setting: PeerSetting) -> None:
        import onnxruntime

        graph = {"float32": exported, "int8": _quantised}[dtype](setting)
        self.dtype, self.inputs = dtype, setting.inputs
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = setting.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def logits(self, batch: Feed) -> np.ndarray:
        """Outputs of one padded batch, see `Peer`."""
        return self._session.run(["logits"], dict(batch))[0]


def _quantised(setting: PeerSetting) -> Path:
    """int8 weights per channel; activations by `quantize_dynamic`, with one scale per tensor at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, path = setting.scratch / "prepared.onnx", setting.scratch / "int8.onnx"
    quant_pre_process(str(exported(setting)), str(prepared), skip_optimization=True, skip_symbolic_shape=True)
    reduced = not _adds_in_32_bits()
    quantize_dynamic(str(prepared), str(path), weight_type=QuantType.QInt8, per_channel=True, reduce_range=reduced)
    return path


def _adds_in_32_bits() -> bool:
    """Whether the CPU sums int8 products in 32 bits, so that 8-bit weights cannot overflow 16-bit sums."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text("utf-8") if info.exists() else ""
    return any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "asimddp"))
