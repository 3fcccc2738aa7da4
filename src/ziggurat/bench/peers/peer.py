"""Other engines ("peers"): their interface, and plain transformers with padded batches.

ONNX Runtime is in `onnxruntime`, OpenVINO in `openvino`; `opening` has the list of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ziggurat.data.tokenizer import Encoded
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.errors import UserError, install
from ziggurat.problems.problem import Problem

INPUTS = ("input_ids", "token_type_ids", "attention_mask")
Feed = Mapping[str, np.ndarray]  # one padded batch: some of INPUTS → (n, longest) int64


class Peer(Protocol):
    """Another engine with the same model, at full depth."""

    name: str  # in tables
    dtype: str  # of its weights and activations: float32, bfloat16, int8
    inputs: tuple[str, ...] = INPUTS  # arrays of a batch
    streams: int = 1  # batches that run in parallel and share the threads

    def logits(self, batch: Feed) -> np.ndarray:
        """Outputs of one padded batch, float32, after all work is done: (n, n_outputs); for spans (n, longest, 2)."""
        ...

    def all_logits(self, batches: Sequence[Feed]) -> list[np.ndarray]:
        """`logits` of each batch."""
        return [self.logits(batch) for batch in batches]


class Unavailable(Exception):
    """A peer cannot run on this machine; the message has the reason."""


@dataclass(frozen=True)
class PeerSetting:
    """Settings of all peers."""

    folder: Path  # of the model, as plain transformers loads it
    spec: EncoderSpec
    head: str  # suffix of transformers' class with the model's outputs
    threads: int  # for each peer
    scratch: Path  # temporary folder for exported graphs
    calibration: Sequence[np.ndarray] = ()  # calibration texts (length, 2) of int8 peers

    @property
    def inputs(self) -> tuple[str, ...]:
        """Inputs of an exported graph of this model: without segment ids if the architecture has none."""
        return tuple(name for name in INPUTS if self.spec.segments or name != "token_type_ids")


@dataclass(frozen=True)
class PeerKind:
    """A kind of peer."""

    name: str
    dtype: str
    needs: tuple[str, ...]  # modules
    make: Callable[[PeerSetting], list[Peer]]  # the ways to run it; the fastest one counts
    pip: str = install("bench")  # command that installs its modules
    calibrated: bool = False  # uses `PeerSetting.calibration`


def padded(tokens: Sequence[np.ndarray], inputs: Sequence[str] = INPUTS) -> dict[str, np.ndarray]:
    """Texts of (length_i, 2 …) token and segment ids as one batch of these `inputs`, zeros up to the longest."""
    longest = max(len(row) for row in tokens)
    arrays = np.zeros((3, len(tokens), longest), dtype=np.int64)
    for index, row in enumerate(tokens):
        arrays[:2, index, : len(row)] = row[:, :2].T
        arrays[2, index, : len(row)] = 1
    return {name: part for name, part in zip(INPUTS, arrays, strict=True) if name in inputs}


def outputs_of(torch: Any, output: Any) -> Any:
    """The output of a transformers model as one tensor, see `Peer.logits`."""
    return output.logits if "logits" in output else torch.stack([output.start_logits, output.end_logits], dim=-1)


class TransformersPeer(Peer):
    """The model folder in plain transformers: full depth, padded batches, PyTorch's fused attention."""

    name = "transformers SDPA"

    def __init__(self, folder: Path, device: str = "cpu", dtype: str = "float32", head: str = Problem.head) -> None:
        try:
            import torch
            import transformers
            from transformers.utils import logging
        except ModuleNotFoundError as error:
            raise UserError(f"the comparison needs {error.name}; {install('train')}") from None
        logging.disable_progress_bar()  # it would mix with the progress bar of the run
        self._torch = torch
        self.dtype = dtype
        self.device = torch.device("cpu" if device == "cpu" else "cuda")
        kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
        classes = getattr(transformers, f"AutoModel{head}")
        model = classes.from_pretrained(folder, attn_implementation="sdpa", dtype=kind)
        self.model = model.eval().to(self.device)

    def logits(self, batch: Feed) -> np.ndarray:
        """Outputs of one padded batch, see `Peer`."""
        return next(self._outputs([self._tensors(batch)]))

    def prepare(self, encoded: Encoded, batches: Iterable[np.ndarray]) -> list[dict[str, Any]]:
        """Padded tensors of each batch of indices; padding is not timed."""
        return [self._tensors(padded([encoded.tokens[row] for row in rows])) for rows in batches]

    def run(self, prepared: Iterable[dict[str, Any]]) -> np.ndarray:
        """Concatenated `logits` of all batches, (n, n_outputs); for spans (n x longest, 2)."""
        return np.concatenate([logits.reshape(-1, logits.shape[-1]) for logits in self._outputs(prepared)])

    def _outputs(self, prepared: Iterable[dict[str, Any]]) -> Iterator[np.ndarray]:
        with self._torch.inference_mode():
            for batch in prepared:
                yield outputs_of(self._torch, self.model(**batch)).float().cpu().numpy()

    def _tensors(self, batch: Feed) -> dict[str, Any]:
        return {name: self._torch.from_numpy(part).to(self.device) for name, part in batch.items()}
