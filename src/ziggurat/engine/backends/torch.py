"""The layers on PyTorch: CPU or GPU."""

from __future__ import annotations

import atexit
import copy
import os
import time
from collections.abc import Sequence
from pathlib import Path
from threading import get_ident
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ziggurat.data.packing import PackedBatch, slots_in
from ziggurat.encoder.model_files import ModelFiles, read_model
from ziggurat.encoder.torch.checkpoint import model_of
from ziggurat.encoder.torch.int8 import Int8Linear
from ziggurat.encoder.torch.model import EncoderModel
from ziggurat.encoder.torch.parts import limit_threads, pad_rows, resolve_device
from ziggurat.engine.backend import Finished, Reader
from ziggurat.engine.backends import torch_rules
from ziggurat.engine.backends.stepwise import StepwiseBackend, StepwiseWork
from ziggurat.errors import UserError
from ziggurat.policies.prune import TokenRule
from ziggurat.policies.rules import ExitRule

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class _Calls:
    """Threads that compute at the moment. The interpreter's exit waits for them; threads that come later end.

    Python would end such threads inside torch, where they take back the interpreter's lock: that aborts the process.
    """

    def __init__(self) -> None:
        self._inside: set[int] = set()  # threads; adding and discarding are atomic
        self._last: int | None = None  # the thread that ends the interpreter, once it does
        self._any = False  # whether a thread has computed so far
        atexit.register(self._end)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_child)

    def __enter__(self) -> None:
        self._inside.add(get_ident())
        if self._last not in (None, get_ident()):
            self._inside.discard(get_ident())
            raise SystemExit  # ends only this thread, silently, as Python itself does
        self._any = True

    def __exit__(self, *_: object) -> None:
        self._inside.discard(get_ident())

    def _begin_child(self) -> None:
        """A child process uses a single thread: it would wait endlessly for its parent's threads, which it lacks."""
        self._inside.clear()
        if self._any:
            torch.set_num_threads(1)

    def _end(self) -> None:
        self._last = get_ident()
        while self._inside - {self._last}:
            time.sleep(0.001)


_CALLS = _Calls()


class TorchBackend(StepwiseBackend):
    """A model in evaluation mode, with weights laid out for inference; implements `engine.backend.Backend`.

    It copies the model, so the caller can still train and save it. Exits and pruning are decided on the device
    (`engine.backends.torch_rules`); only one flag per input or token, for the next shapes, and answers come to the
    host. Custom rules in numpy, and readings of several sequences, are computed on the host.
    """

    engine = "torch"

    def __init__(
        self, model: EncoderModel, device: str = "auto", dtype: str = "float32", reader: Reader | None = None
    ) -> None:
        if dtype not in DTYPES:
            raise UserError(f"dtype {dtype!r} is not known; known: {', '.join(DTYPES)}")
        place = resolve_device(device)
        self.device = torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu"
        self.dtype = dtype
        self.reader = reader
        self.model = copy.deepcopy(model).eval().requires_grad_(False).to(place, DTYPES[dtype])
        self.n_layers = model.spec.layers
        self.n_classes = model.n_classes
        self.rung_layers = tuple(rung.layer for rung in model.rungs)
        self.token_rule = model.token_rule
        self._place = place
        if place.type == "cpu" and dtype == "float32" and torch.backends.mkldnn.is_available():
            _prepack(self.model)

    @property
    def threads(self) -> int:
        """CPU threads that torch uses."""
        return int(torch.get_num_threads())

    @torch.inference_mode()
    def embed(self, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """Token and segment ids (n_tokens, 2) → token states (n_tokens, d) of the tokens that the rule reads."""
        with _CALLS:
            return self.model.embed(batch, tokens)

    @torch.inference_mode()
    def layer(self, layer: int, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """Token states before → after layer `layer`, 1 … L, of the tokens that the rule keeps there."""
        with _CALLS:
            if tokens is None or not tokens.prunes(layer):
                return self.model.layer(layer, batch)
            context, scores = self.model.scored_context(layer, batch, tokens)
            decided = torch_rules.keep_mask(tokens, layer, scores, batch)
            if decided is None:
                keep = tokens.keep_mask(layer, scores.float().cpu().numpy(), batch)
            else:
                keep = decided.cpu().numpy()
            return self.model.pruned(layer, batch, context, keep)

    @torch.inference_mode()
    def logits(self, rung: int, batch: PackedBatch) -> np.ndarray:
        """Logits of rung `rung`: (n_seqs, n_classes) float32, with a reader (n_tokens, n_classes)."""
        with _CALLS:
            return self._logits(rung, batch).cpu().numpy()

    def _logits(self, rung: int, batch: PackedBatch) -> Tensor:
        return self.model.head_at(self.rung_layers[rung])(batch).float()

    def start(self, batch: PackedBatch, history: np.ndarray | None = None) -> StepwiseWork:
        """A new work from token tables; see `engine.backend.Backend`."""
        work = super().start(batch, history)
        if self.reader is None:
            work.history = torch.from_numpy(work.history).to(self._place)
        return work

    @torch.inference_mode()
    def ask(self, rung: int, work: StepwiseWork, rule: ExitRule) -> np.ndarray:
        """Adds a rung's readings to the history on the device; returns which inputs exit there, (n) bool."""
        if self.reader is not None:
            return super().ask(rung, work, rule)
        with _CALLS:
            assert work.live is not None
            work.history = torch.cat([work.history, self._logits(rung, work.live)[:, None]], dim=1)
            exiting = torch_rules.exits(rule, rule.first + rung, work.history, work.rows)
            if exiting is None:
                return rule.exits(rule.first + rung, work.history.cpu().numpy(), work.rows)
            return exiting.cpu().numpy()

    @torch.inference_mode()
    def finished(self, work: StepwiseWork, exiting: np.ndarray, rung: int) -> Finished:
        """The inputs where `exiting` (n) bool is true: their latest readings come to the host."""
        if self.reader is not None:
            return super().finished(work, exiting, rung)
        with _CALLS:
            readings = work.history[np.flatnonzero(exiting), -1].cpu().numpy()
        rungs = np.full(len(readings), rung, dtype=np.int64)
        return Finished(work.rows[exiting], readings, rungs, work.seconds[exiting], work.token_counts[exiting])

    @torch.inference_mode()
    def put_back(self, unpruned: PackedBatch, live: PackedBatch) -> None:
        """Writes the states of the live tokens into the states of all."""
        with _CALLS:
            slots = torch.from_numpy(slots_in(unpruned, live)).to(unpruned.states.device)
            unpruned.states[slots] = live.states

    def _concatenated(self, arrays: Sequence[Any]) -> Any:
        return torch.cat(list(arrays)) if isinstance(arrays[0], Tensor) else np.concatenate(arrays)


def load_backend(folder: Path, device: str, dtype: str, threads: int | None) -> TorchBackend:
    """The backend of a model folder; `threads` None = torch's default, at most all cores."""
    return backend_of(read_model(folder), device, dtype, threads)


def backend_of(files: ModelFiles, device: str, dtype: str, threads: int | None) -> TorchBackend:
    """The backend for the files of a model folder; UserError if they do not fit together."""
    limit_threads(threads)
    model = model_of(files)
    return TorchBackend(model, device, dtype, files.manifest.problem.reader)


class _PrepackedLinear(nn.Module):
    """nn.Linear with a weight that oneDNN laid out once: 1.2-1.5 times MKL's speed here, most with few rows."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 256)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, states: Tensor) -> Tensor:
        """(n, d_in) → (n, d_out)."""
        padded = pad_rows(states)
        return torch.ops.mkldnn._linear_pointwise(padded, self.weight, self.bias, "none", [], "")[: len(states)]


def _prepack(model: nn.Module) -> None:
    """Replaces all linear layers in place, if this build of torch has the operator.

    Layers that simulate int8 are not replaced: as float layers they would give the answers of floats.
    """
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return
    for module in list(model.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, nn.Linear) and not isinstance(part, Int8Linear):
                setattr(module, name, _PrepackedLinear(part))
