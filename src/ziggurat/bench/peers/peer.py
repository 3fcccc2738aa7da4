"""Competitors ("peers") on the same texts: what each must offer, and transformers, the padded way a user would run it.

ONNX Runtime is in `onnxruntime`, OpenVINO in `openvino`; `opening` knows all of them.
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
    """Another engine with the same model in it, at full depth."""

    name: str  # what tables call it
    dtype: str  # of its weights and activations: float32, bfloat16, int8
    inputs: tuple[str, ...] = INPUTS  # what a batch holds
    streams: int = 1  # batches that it works on at once, sharing the threads

    def logits(self, batch: Feed) -> np.ndarray:
        """Outputs of one padded batch, float32, when all work is done: (n, n_outputs), or (n, longest, 2) of spans."""
        ...

    def all_logits(self, batches: Sequence[Feed]) -> list[np.ndarray]:
        """`logits` of each batch."""
        return [self.logits(batch) for batch in batches]


class Unavailable(Exception):
    """A peer that cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class PeerSetting:
    """What every peer is made from."""

    folder: Path  # of the model, as plain transformers loads it
    spec: EncoderSpec
    head: str  # how the names of transformers' classes end that have the model's outputs
    threads: int  # that each may use
    scratch: Path  # for exported graphs, for as long as the run lasts
    calibration: Sequence[np.ndarray] = ()  # texts (length, 2) that int8 peers may look at

    @property
    def inputs(self) -> tuple[str, ...]:
        """What an exported graph of this model takes: no segment ids where the architecture has none."""
        return tuple(name for name in INPUTS if self.spec.segments or name != "token_type_ids")


@dataclass(frozen=True)
class PeerKind:
    """A peer that may be in the comparison."""

    name: str
    dtype: str
    needs: tuple[str, ...]  # modules
    make: Callable[[PeerSetting], list[Peer]]  # the ways to run it; the fastest of them stands for it
    pip: str = install("bench")  # installs what it needs
    calibrated: bool = False  # looks at `PeerSetting.calibration`


def padded(tokens: Sequence[np.ndarray], inputs: Sequence[str] = INPUTS) -> dict[str, np.ndarray]:
    """Texts of (length_i, 2 …) token and segment ids as one batch of these `inputs`, zeros up to the longest."""
    longest = max(len(row) for row in tokens)
    grid = np.zeros((3, len(tokens), longest), dtype=np.int64)
    for place, row in enumerate(tokens):
        grid[:2, place, : len(row)] = row[:, :2].T
        grid[2, place, : len(row)] = 1
    return {name: part for name, part in zip(INPUTS, grid, strict=True) if name in inputs}


def outputs_of(torch: Any, said: Any) -> Any:
    """What a model of transformers says as one tensor, see `Peer.logits`."""
    return said.logits if "logits" in said else torch.stack([said.start_logits, said.end_logits], dim=-1)


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
        logging.disable_progress_bar()  # its bar for loading would stand in the middle of ours
        self._torch = torch
        self.dtype = dtype
        self.device = torch.device("cpu" if device == "cpu" else "cuda")
        kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
        classes = getattr(transformers, f"AutoModel{head}")
        model = classes.from_pretrained(folder, attn_implementation="sdpa", dtype=kind)
        self.model = model.eval().to(self.device)

    def logits(self, batch: Feed) -> np.ndarray:
        """Outputs of one padded batch, see `Peer`."""
        return next(self._each([self._tensors(batch)]))

    def prepare(self, encoded: Encoded, batches: Iterable[np.ndarray]) -> list[dict[str, Any]]:
        """Padded tensors of each batch of indices, made beforehand: padding is not on the peer's clock."""
        return [self._tensors(padded([encoded.tokens[row] for row in rows])) for rows in batches]

    def run(self, prepared: Iterable[dict[str, Any]]) -> np.ndarray:
        """`logits` of all batches behind one another, (n, n_outputs); of spans (n x longest, 2)."""
        return np.concatenate([said.reshape(-1, said.shape[-1]) for said in self._each(prepared)])

    def _each(self, prepared: Iterable[dict[str, Any]]) -> Iterator[np.ndarray]:
        with self._torch.inference_mode():
            for batch in prepared:
                yield outputs_of(self._torch, self.model(**batch)).float().cpu().numpy()

    def _tensors(self, batch: Feed) -> dict[str, Any]:
        return {name: self._torch.from_numpy(part).to(self.device) for name, part in batch.items()}
