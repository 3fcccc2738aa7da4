"""All supported peers, and those that can run on this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ziggurat.bench.peers.onnxruntime import OnnxRuntimePeer
from ziggurat.bench.peers.openvino import OpenVinoPeer, open_vino
from ziggurat.bench.peers.peer import Peer, PeerKind, PeerSetting, TransformersPeer, Unavailable
from ziggurat.errors import first_line

_TORCH = ("torch", "transformers")
_GRAPH = (*_TORCH, "onnx")


def _transformers(dtype: str, setting: PeerSetting) -> list[Peer]:
    return [TransformersPeer(setting.folder, dtype=dtype, head=setting.head)]


def _onnx_runtime(dtype: str, setting: PeerSetting) -> list[Peer]:
    return [OnnxRuntimePeer(dtype, setting)]


def _kinds() -> Iterator[PeerKind]:
    for dtype in ("float32", "bfloat16"):
        yield PeerKind(TransformersPeer.name, dtype, _TORCH, partial(_transformers, dtype))
    for dtype in ("float32", "int8"):
        yield PeerKind(OnnxRuntimePeer.name, dtype, (*_GRAPH, "onnxruntime"), partial(_onnx_runtime, dtype))
    for dtype in ("float32", "bfloat16", "int8"):
        needs = (*_GRAPH, "openvino", *(["nncf"] if dtype == "int8" else []))
        yield PeerKind(OpenVinoPeer.name, dtype, needs, partial(open_vino, dtype), calibrated=dtype == "int8")


KINDS = tuple(_kinds())


@dataclass(frozen=True)
class LeftOut:
    """A peer that is not in the comparison."""

    name: str
    dtype: str
    reason: str  # with the fix


def missing(kind: PeerKind) -> str | None:
    """Missing modules of a peer and the command that installs them; None = none is missing."""
    absent = [module for module in kind.needs if importlib.util.find_spec(module) is None]
    return f"{' and '.join(absent)} not installed: {kind.pip}" if absent else None


def open_peers(kinds: Sequence[PeerKind], setting: PeerSetting) -> tuple[list[Peer], list[LeftOut]]:
    """The loaded peers, and the peers that cannot run here with the reason."""
    peers: list[Peer] = []
    left_out: list[LeftOut] = []
    for kind in kinds:
        reason = missing(kind)
        if reason is None:
            try:
                peers.extend(kind.make(setting))
                continue
            except Unavailable as error:
                reason = str(error)
            except Exception as error:  # one broken peer must not stop the others
                reason = f"could not be loaded ({type(error).__name__}: {first_line(error)})"
        left_out.append(LeftOut(kind.name, kind.dtype, reason))
    return peers, left_out
