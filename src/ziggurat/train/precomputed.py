"""What is computed once before the epochs: a frozen backbone's states, a teacher's answers."""

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
from ziggurat.train.batches import BATCH, Examples, in_batches, packed, spread
from ziggurat.train.loop import Run
from ziggurat.train.objectives import known
from ziggurat.types import ProblemType

_OF_MEMORY = 4  # a quarter of the machine's may hold readings
_BYTES = 4  # of a float32
Reading = tuple[np.ndarray, np.ndarray, list[np.ndarray]]  # label (…), wanted logits (…), of each head (length, d)


@dataclass(frozen=True)
class Readings(Dataset[Reading]):
    """Rows as exit heads see them: for each head the states that it reads, and what it shall say."""

    labels: np.ndarray  # (n, …), see `ziggurat.data.labels`
    wanted: np.ndarray  # (n, n_outputs) float32: logits of the last rung, or of the teacher where the stage distils
    states: list[np.ndarray]  # of each head (n_tokens, d) float32, row behind row
    starts: list[np.ndarray]  # of each head (n + 1): row i has the tokens starts[i] … starts[i + 1] - 1

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Reading:
        mine = [states[at[index] : at[index + 1]] for states, at in zip(self.states, self.starts, strict=True)]
        return self.labels[index], self.wanted[index], mine


def collate_readings(rows: Sequence[Reading]) -> dict[str, Tensor | list[Tensor]]:
    """Labels (n, …) first, for a Trainer takes the batch size from the first entry; states and lengths by head."""
    labels, wanted, states = zip(*rows, strict=True)
    by_head = list(zip(*states, strict=True))
    return {
        "labels": torch.from_numpy(np.stack(labels)),
        "wanted": torch.from_numpy(np.stack(wanted)),
        "states": [torch.from_numpy(np.concatenate(mine)) for mine in by_head],
        "lengths": [torch.tensor([len(row) for row in mine]) for mine in by_head],
    }


def worth_keeping(model: EncoderModel, parts: Sequence[Examples], run: Run) -> bool:
    """Whether readings of all these rows fit into memory, on a device that is slower than a copy from there.

    Spans are left out, whose heads read what restored states say; and several processes, each with rows of its own.
    """
    if run.device.type != "cpu" or model.problem is ProblemType.QUESTION_ANSWERING or PartialState().num_processes > 1:
        return False
    tokens = sum(sum(map(len, rows.encoded.tokens)) for rows in parts)
    read = sum(len(parts[0]) + len(parts[1]) if head.reads_first else tokens for head in model.exits.values())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return read * model.spec.hidden * _BYTES <= memory // _OF_MEMORY


@torch.no_grad()
def readings(model: EncoderModel, rows: Examples, stage: StageConfig, run: Run) -> Readings:
    """What the model's exit heads read of the rows, and what the stage wants them to say.

    Without dropout a frozen backbone says the same in every epoch, and an epoch of heads is cheap beside it.
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
                mine, counts = next(heads)
                if model.exits[str(layer)].reads_first:
                    read = read.take_tokens(np.zeros(len(read.positions), bool))  # all but the first leave
                mine.append(read.states.float().numpy())
                counts.append(read.lengths)
            shown.update(batch.n_seqs)
    wanted = known(rows.taught) if stage.distillation else np.concatenate(last)
    starts = [np.concatenate([[0], np.cumsum(np.concatenate(counts))]) for counts in lengths]
    kept = [np.concatenate(states.pop(0)) for _ in model.exits]  # one head's twice in memory, not all
    return Readings(rows.labels, wanted, kept, starts)


def show_readings(model: EncoderModel, read: Readings) -> None:
    """Runs the exit heads on some of what they read."""
    rows = spread(len(read), ROWS)
    for start in range(0, len(rows), BATCH):
        batch = collate_readings([read[row] for row in rows[start : start + BATCH]])
        for head, states, lengths in zip(model.exits.values(), batch["states"], batch["lengths"], strict=True):
            head(packed(states, lengths))


@torch.no_grad()
def taught_by(teacher: EncoderModel, rows: Examples, run: Run, name: str = "teacher") -> Examples:
    """The rows with the logits of the teacher's last rung, nothing pruned.

    A teacher without dropout says the same of a row in every epoch, at a quarter of what a training step costs. Of
    several processes each asks about a part of the rows and hears the others' answers.
    """
    teacher, said = teacher.eval().to(run.device), list[np.ndarray]()
    share = PartialState().split_between_processes(rows.encoded.tokens)
    with share as mine, bar(name, len(mine), "texts", run.progress) as shown, run.autocast():
        for batch in in_batches(mine):
            said.append(teacher.full_logits(batch).float().cpu().numpy())
            shown.update(batch.n_seqs)
    return replace(rows, taught=np.concatenate(gather_object(said)))
