"""Values that are computed once before the epochs: inputs of exit heads on a frozen backbone, teacher logits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import Dataset

from ziggurat.encoder.torch.model import EncoderModel
from ziggurat.recipe import StageConfig
from ziggurat.small.standardise import ROWS
from ziggurat.system import bar
from ziggurat.training.batches import BATCH, Examples, in_batches, packed, spread
from ziggurat.training.loop import Run
from ziggurat.training.objectives import required_logits
from ziggurat.types import ProblemType

_OF_MEMORY = 4  # head inputs may take a quarter of the machine's memory
_BYTES = 4  # of a float32
HeadInput = tuple[
    np.ndarray, np.ndarray, list[np.ndarray]
]  # label (…), target logits (…), for each head states (length, d)


@dataclass(frozen=True)
class HeadInputs(Dataset[HeadInput]):
    """Rows as inputs of exit heads: states for each head, and target logits."""

    labels: np.ndarray  # (n, …), see `ziggurat.data.labels`
    wanted: np.ndarray  # (n, n_outputs) float32: logits of the last rung, or of the teacher if the stage distils
    states: list[np.ndarray]  # for each head (n_tokens, d) float32, rows concatenated
    starts: list[np.ndarray]  # for each head (n + 1): row i has tokens starts[i] … starts[i + 1] - 1

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> HeadInput:
        row = [states[at[index] : at[index + 1]] for states, at in zip(self.states, self.starts, strict=True)]
        return self.labels[index], self.wanted[index], row


def collate_head_inputs(rows: Sequence[HeadInput]) -> dict[str, Tensor | list[Tensor]]:
    """Labels (n, …) first, since the Trainer takes the batch size from the first entry; states and lengths by head."""
    labels, wanted, states = zip(*rows, strict=True)
    by_head = list(zip(*states, strict=True))
    return {
        "labels": torch.from_numpy(np.stack(labels)),
        "wanted": torch.from_numpy(np.stack(wanted)),
        "states": [torch.from_numpy(np.concatenate(rows)) for rows in by_head],
        "lengths": [torch.tensor([len(row) for row in rows]) for rows in by_head],
    }


def inputs_fit_memory(model: EncoderModel, parts: Sequence[Examples], run: Run) -> bool:
    """Whether head inputs of all these rows fit into memory, and the device is a CPU (on others recomputing is faster).

    False for spans, whose heads read restored states, and for several processes, which have different rows.
    """
    if run.device.type != "cpu" or model.problem is ProblemType.QUESTION_ANSWERING or PartialState().num_processes > 1:
        return False
    tokens = sum(sum(map(len, rows.encoded.tokens)) for rows in parts)
    read = sum(len(parts[0]) + len(parts[1]) if head.reads_first else tokens for head in model.exits.values())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return read * model.spec.hidden * _BYTES <= memory // _OF_MEMORY


@torch.no_grad()
def head_inputs(model: EncoderModel, rows: Examples, stage: StageConfig, run: Run) -> HeadInputs:
    """Inputs of the model's exit heads for these rows, and the stage's target logits.

    A frozen backbone without dropout computes the same in every epoch, and training only the heads is much cheaper.
    """
    model.eval().to(run.device)
    states: list[list[np.ndarray]] = [[] for _ in model.exits]
    lengths: list[list[np.ndarray]] = [[] for _ in model.exits]
    last = []
    with bar("layers below", len(rows), "texts", run.progress) as shown, run.autocast():
        for batch in in_batches(rows.encoded.tokens):
            heads = iter(zip(states, lengths, strict=True))
            for layer, read in model.climb(batch, model.token_rule):
                if layer == model.spec.layers:
                    last.append(model.classifier(read).float().numpy())
                    continue
                head_states, head_lengths = next(heads)
                if model.exits[str(layer)].reads_first:
                    read = read.take_tokens(np.zeros(len(read.positions), bool))  # keeps only first tokens
                head_states.append(read.states.float().numpy())
                head_lengths.append(read.lengths)
            shown.update(batch.n_seqs)
    wanted = required_logits(rows.teacher_logits) if stage.distillation else np.concatenate(last)
    starts = [np.concatenate([[0], np.cumsum(np.concatenate(counts))]) for counts in lengths]
    joined = [np.concatenate(states.pop(0)) for _ in model.exits]  # only one head's states are in memory twice
    return HeadInputs(rows.labels, wanted, joined, starts)


def run_heads(model: EncoderModel, read: HeadInputs) -> None:
    """Runs the exit heads on a sample of their inputs."""
    rows = spread(len(read), ROWS)
    for start in range(0, len(rows), BATCH):
        batch = collate_head_inputs([read[row] for row in rows[start : start + BATCH]])
        for head, states, lengths in zip(model.exits.values(), batch["states"], batch["lengths"], strict=True):
            head(packed(states, lengths))


@torch.no_grad()
def with_teacher_logits(teacher: EncoderModel, rows: Examples, run: Run, name: str = "teacher") -> Examples:
    """The rows with the logits of the teacher's last rung, without pruning.

    A teacher without dropout gives the same logits in every epoch; computing them costs a quarter of a training step.
    With several processes, each runs its shard of the rows; results are gathered.
    """
    teacher, logits = teacher.eval().to(run.device), list[np.ndarray]()
    split = PartialState().split_between_processes(rows.encoded.tokens)
    with split as shard, bar(name, len(shard), "texts", run.progress) as shown, run.autocast():
        for batch in in_batches(shard):
            logits.append(teacher.full_logits(batch).float().cpu().numpy())
            shown.update(batch.n_seqs)
    return replace(rows, teacher_logits=np.concatenate(gather_object(logits)))
