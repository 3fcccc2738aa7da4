"""Candidates of a search for shares, really run on rows: each once, and no longer than it may still be worth it."""

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
from ziggurat.train.lengths.evolution import Shares

_BATCH = 64  # rows between two looks at whether a candidate can still win, too


class Trials:
    """What shares cost on some rows, and how often they are right; agreement with the full model without labels.

    Rows that many candidates got wrong are asked first, so that one that cannot win shows it soon.
    """

    def __init__(self, classifier: OpenedModel, tokens: TokenRule, rows: Dataset, memory: Path | None = None) -> None:
        """`memory`: a file that keeps the answers, so that a search that was stopped asks for none of them again."""
        self._classifier, self._tokens, self._memory = classifier, tokens, memory
        self._encoded = classifier.tokenizer.encode(rows.texts, rows.pairs)
        full = classifier.run(self._encoded, ExitRule.full_depth(len(classifier.rungs)), _BATCH).predictions
        self._truth = full if rows.labels is None else rows.classes
        batch = pack(self._encoded.tokens)
        reads = tokens.reads(batch)
        self._entering = (batch if reads is None else batch.take_tokens(reads)).lengths
        self._full_flops = classifier.whole(self._encoded).sum()
        self._right: dict[Shares, int] = {}
        self._mistakes = np.zeros(len(rows), dtype=np.int64)  # of all candidates so far, by row
        self.full_accuracy = float((full == self._truth).mean())
        if memory is not None and memory.exists():
            kept = json.loads(memory.read_text("utf-8"))
            self._right = {tuple(shares): right for shares, right in kept["right"]}
            self._mistakes = np.array(kept["mistakes"])

    def flops(self, shares: Shares) -> float:
        """FLOPs as a share of the full model's; how many tokens stay does not depend on which."""
        lengths = self._encoded.lengths
        kept = [self._entering]
        for share in shares:
            kept.append(np.minimum(kept[-1], np.maximum(1, np.rint(share * lengths)).astype(np.int64)))
        spent = self._classifier.spent(self._encoded, np.stack(kept, axis=1), self._rule(shares))[:, -1]
        return float(spent.sum() / self._full_flops)

    def accuracy(self, shares: Shares, beaten: float) -> float:
        """The share of rows answered rightly; what is known of it by then, once it cannot exceed `beaten`."""
        if shares not in self._right:
            self._right[shares] = self._answer(shares, beaten)
            self._remember()
        return self._right[shares] / len(self._truth)

    def _answer(self, shares: Shares, beaten: float) -> int:
        """How many rows were answered rightly when it was over."""
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
            kept = {"right": list(self._right.items()), "mistakes": self._mistakes.tolist()}
            with whole_file(self._memory) as path:
                path.write_text(json.dumps(kept) + "\n", "utf-8")
