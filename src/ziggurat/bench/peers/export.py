"""Exports a model folder as an ONNX graph for other engines."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.bench.peers.peer import PeerSetting, outputs_of, padded

_OPSET = 17  # the first with LayerNormalization as one node


def exported(setting: PeerSetting) -> Path:
    """The graph of the plain checkpoint at full depth, for any batch size and length; made once per run.

    It has "eager" attention, since both engines recognise and fuse its matrix products and softmax. It uses torch's
    older exporter: the newer one needs another package, and both engines fail to recognise its nodes.
    """
    path = setting.scratch / "model.onnx"
    if path.exists():
        return path
    import torch
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    classes = getattr(transformers, f"AutoModel{setting.head}")
    model = classes.from_pretrained(setting.folder, attn_implementation="eager")
    model.eval()
    inputs = setting.inputs
    example = padded([np.ones((length, 2), dtype=np.int64) * [[2, 0]] for length in (5, 3)], inputs)
    axes: dict[str, dict[int, str]] = {name: {0: "batch", 1: "length"} for name in inputs}
    plain, example_inputs = _plain(torch, model, inputs), tuple(torch.from_numpy(example[name]) for name in inputs)
    with warnings.catch_warnings(), torch.inference_mode():
        _expect_warnings(torch)
        outputs = {0: "batch", 1: "length"} if plain(*example_inputs).ndim == 3 else {0: "batch"}  # 3: of every token
        torch.onnx.export(
            plain,
            example_inputs,
            str(path),
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_axes=axes | {"logits": outputs},
            opset_version=_OPSET,
            dynamo=False,
        )
    return path


def _plain(torch: Any, model: Any, inputs: tuple[str, ...]) -> Any:
    """The model as a function from these input tensors to one output tensor."""

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            return outputs_of(torch, self.model(**dict(zip(inputs, tensors, strict=True))))

    return Logits().eval()


def _expect_warnings(torch: Any) -> None:
    """Ignores known warnings: the exporter is deprecated, and mask code branches on sizes and indexes cells (≥ 0)."""
    warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based ONNX export", DeprecationWarning)
    warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning)
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
    warnings.filterwarnings("ignore", "Converting a tensor to a Python", torch.jit.TracerWarning)
    warnings.filterwarnings("ignore", "Exporting aten::index operator of advanced indexing", UserWarning)
