"""Beside other engines: ONNX Runtime, OpenVINO, transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ziggurat.lazy import lazily

if TYPE_CHECKING:
    from ziggurat.bench.competition import Entry, of_peer
    from ziggurat.bench.int8_texts import calibration_of
    from ziggurat.bench.peers.opening import KINDS, open_peers
    from ziggurat.bench.peers.peer import INPUTS, Peer, PeerKind, PeerSetting, TransformersPeer, padded
    from ziggurat.bench.result import BenchResult

_HOMES = {
    "BenchResult": "ziggurat.bench.result",
    "Entry": "ziggurat.bench.competition",
    "INPUTS": "ziggurat.bench.peers.peer",
    "KINDS": "ziggurat.bench.peers.opening",
    "Peer": "ziggurat.bench.peers.peer",
    "PeerKind": "ziggurat.bench.peers.peer",
    "PeerSetting": "ziggurat.bench.peers.peer",
    "TransformersPeer": "ziggurat.bench.peers.peer",
    "calibration_of": "ziggurat.bench.int8_texts",
    "of_peer": "ziggurat.bench.competition",
    "open_peers": "ziggurat.bench.peers.opening",
    "padded": "ziggurat.bench.peers.peer",
}
__all__ = [
    "BenchResult",
    "Entry",
    "INPUTS",
    "KINDS",
    "Peer",
    "PeerKind",
    "PeerSetting",
    "TransformersPeer",
    "calibration_of",
    "of_peer",
    "open_peers",
    "padded",
]

__getattr__ = lazily(__name__, _HOMES)
