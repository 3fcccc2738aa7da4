"""The model folder as an ONNX graph, which other engines read."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.bench.peers.peer import PeerSetting, outputs_of, padded

_OPSET = 17  # the first with LayerNormalization as one node


def exported(setting: PeerSetting) -> Path:
    """The graph of the plain checkpoint at full depth, any batch and length; made once for a run.

    With "eager" attention, whose plain matrix products and softmax both engines recognise and fuse; and by torch's
    older exporter, for the newer one needs one more package and names its nodes so that they do not.
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
    """The model as a function of these tensors that returns one."""

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            return outputs_of(torch, self.model(**dict(zip(inputs, tensors, strict=True))))

    return Logits().eval()


def _expect_warnings(torch: Any) -> None:
    """The older exporter is deprecated; the masks' code branches on sizes and picks cells by index, none negative."""
    warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based ONNX export", DeprecationWarning)
    warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning)
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
    warnings.filterwarnings("ignore", "Converting a tensor to a Python", torch.jit.TracerWarning)
    warnings.filterwarnings("ignore", "Exporting aten::index operator of advanced indexing", UserWarning)
