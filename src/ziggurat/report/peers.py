"""Competitors on the same texts. Today: transformers with SDPA attention, the padded way that a user would run it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.data.tokenize import Encoded
from ziggurat.errors import UserError


class TransformersPeer:
    """The model folder in plain transformers: full depth, padded batches, PyTorch's fused attention."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        try:
            import torch
            from transformers import AutoModelForSequenceClassification
            from transformers.utils import logging
        except ModuleNotFoundError as error:
            raise UserError(f"the comparison needs {error.name}; pip install 'ziggurat[train]'") from None
        logging.disable_progress_bar()  # its bar for loading would stand in the middle of ours
        self._torch = torch
        self.device = torch.device("cpu" if device == "cpu" else "cuda")
        model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="sdpa")
        self.model = model.eval().to(self.device)

    def prepare(self, encoded: Encoded, batches: Iterable[np.ndarray]) -> list[dict[str, Any]]:
        """Padded tensors of each batch of indices, made beforehand: padding is not on the peer's clock."""
        return [self._pad([encoded.tokens[row] for row in rows]) for rows in batches]

    def run(self, prepared: Iterable[dict[str, Any]]) -> np.ndarray:
        """Logits of all batches behind one another, (n, n_classes) float32."""
        with self._torch.inference_mode():
            return np.concatenate([self.model(**batch).logits.float().cpu().numpy() for batch in prepared])

    def _pad(self, tokens: list[np.ndarray]) -> dict[str, Any]:
        longest = max(len(row) for row in tokens)
        names = ("input_ids", "token_type_ids", "attention_mask")
        grid = np.zeros((3, len(tokens), longest), dtype=np.int64)
        for place, row in enumerate(tokens):
            grid[:2, place, : len(row)] = row.T
            grid[2, place, : len(row)] = 1
        return {name: self._torch.from_numpy(part).to(self.device) for name, part in zip(names, grid, strict=True)}
