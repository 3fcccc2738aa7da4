"""Runs candidates of a search for shares on rows: each once, and only until it is known to lose."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from ziggurat.data.dataset import Dataset
from ziggurat.data.packing import pack
from ziggurat.engine.opened import OpenedModel
from ziggurat.files import whole_file
from ziggurat.policies.prune import TokenRule, without_repeats
from ziggurat.policies.rules import ExitRule
from ziggurat.training.lengths.evolution import Shares

_BATCH = 64  # rows per batch; after each, candidates that cannot win are stopped


class Trials:
    """Cost and accuracy of shares on some rows; without labels, accuracy is agreement with the full model.

    Rows on which many candidates failed come first, so that losing candidates are stopped early.
    """

    def __init__(self, classifier: OpenedModel, tokens: TokenRule, rows: Dataset, memory: Path | None = None) -> None:
        """`memory`: a file that saves results, so that a resumed search does not compute them again."""
        self._classifier, self._tokens, self._memory = classifier, tokens, memory
        self._encoded = classifier.tokenizer.encode(rows.texts, rows.pairs)
        full = classifier.run(self._encoded, ExitRule.full_depth(len(classifier.rungs)), _BATCH).predictions
        self._truth = full if rows.labels is None else rows.classes
        batch = pack(self._encoded.tokens)
        reads = tokens.reads(batch)
        self._entering = (batch if reads is None else batch.take_tokens(reads)).lengths
        self._full_flops = classifier.full_flops(self._encoded).sum()
        self._right: dict[Shares, int] = {}
        self._mistakes = np.zeros(len(rows), dtype=np.int64)  # number of wrong candidates so far, by row
        self.full_accuracy = float((full == self._truth).mean())
        if memory is not None and memory.exists():
            saved = json.loads(memory.read_text("utf-8"))
            self._right = {tuple(shares): right for shares, right in saved["right"]}
            self._mistakes = np.array(saved["mistakes"])

    def flops(self, shares: Shares) -> float:
        """FLOPs as a share of the full model's, from token counts only."""
        lengths = self._encoded.lengths
        counts = [self._entering]
        for share in shares:
            counts.append(np.minimum(counts[-1], np.maximum(1, np.rint(share * lengths)).astype(np.int64)))
        flops = self._classifier.flops(self._encoded, np.stack(counts, axis=1), self._rule(shares))[:, -1]
        return float(flops.sum() / self._full_flops)

    def accuracy(self, shares: Shares, beaten: float) -> float:
        """Share of correct rows; a lower bound of it, once it cannot exceed `beaten`."""
        if shares not in self._right:
            self._right[shares] = self._answer(shares, beaten)
            self._remember()
        return self._right[shares] / len(self._truth)

    def _answer(self, shares: Shares, beaten: float) -> int:
        """Number of correct rows until the run was stopped or complete."""
        rule, right, n = self._rule(shares), 0, len(self._truth)
        hard_first = np.argsort(-self._mistakes, kind="stable")
        for start in range(0, n, _BATCH):
            rows = hard_first[start : start + _BATCH]
            wrong = self._classifier.run(self._encoded.take(rows), rule, _BATCH).predictions != self._truth[rows]
            self._mistakes[rows] += wrong
            right += int((~wrong).sum())
            if (right + n - start - len(rows)) / n <= beaten:
                break
        return right

    def _rule(self, shares: Shares) -> ExitRule:
        tokens = replace(self._tokens, values=without_repeats(np.array(shares)))
        return replace(ExitRule.full_depth(len(self._classifier.rungs)), tokens=tokens)

    def _remember(self) -> None:
        if self._memory is not None:
            saved = {"right": list(self._right.items()), "mistakes": self._mistakes.tolist()}
            with whole_file(self._memory) as path:
                path.write_text(json.dumps(saved) + "\n", "utf-8")
