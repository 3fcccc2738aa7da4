"""The one training loop: transformers.Trainer, set up so that a run can be killed at any step and taken up again."""

from __future__ import annotations

import math
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm
from transformers import (
    EvalPrediction,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ziggurat.config import StageConfig
from ziggurat.encoder.devices import has_fast_bfloat16
from ziggurat.errors import UserError
from ziggurat.files import refusals_explained, whole_file
from ziggurat.train.batches import Examples, collate

Metric = Callable[[np.ndarray, np.ndarray], float]  # logits (n, …), labels (n) → larger is better
_FINISHED = "finished.safetensors"


@dataclass(frozen=True)
class Run:
    """Where and how a stage runs."""

    folder: Path  # the stage's own: checkpoints while it runs, the finished weights afterwards
    device: torch.device
    seed: int = 0
    progress: bool = True  # bars on stderr
    mixed_precision: bool = True  # bfloat16 where the device is fast with it


def fit(
    module: nn.Module, train: Examples, select: Examples, stage: StageConfig, run: Run, metric: Metric | None = None
) -> None:
    """Trains `module` in place, and leaves it as it was best on the select rows: by `metric`, else by the lowest loss.

    Goes on from the last checkpoint in `run.folder`, bit for bit as if it had not stopped; a finished stage is only
    loaded. An interrupt (Ctrl-C, SIGTERM) writes a checkpoint and raises UserError.
    """
    finished = run.folder / _FINISHED
    if finished.exists():
        module.load_state_dict(load_file(finished))
        return
    watch = _StopAtStep()
    trainer = Trainer(
        model=module,
        args=_arguments(len(train), stage, run, by_metric=metric is not None),
        train_dataset=train,
        eval_dataset=select,
        data_collator=collate,
        compute_metrics=None if metric is None else lambda output: {"score": _score(output, metric)},
        callbacks=[watch],
    )
    # Theirs print dictionaries.
    trainer.remove_callback(ProgressCallback if run.progress else PrinterCallback)
    if run.progress:
        trainer.add_callback(_Bar(stage.kind))
    with _interrupts(watch), refusals_explained(run.folder):
        trainer.train(resume_from_checkpoint=_last_checkpoint(run.folder))
    if watch.stopped:
        raise UserError(
            f"stopped at step {trainer.state.global_step}, which is kept; the same command goes on from there"
        )
    _finish(module, finished)


def _finish(module: nn.Module, finished: Path) -> None:
    """Keeps the weights and drops the checkpoints; one process does, the others wait."""
    state = PartialState()
    if state.is_main_process:
        with whole_file(finished) as path:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}, path)
        for checkpoint in finished.parent.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    state.wait_for_everyone()


def _arguments(n_rows: int, stage: StageConfig, run: Run, by_metric: bool) -> TrainingArguments:
    on_cpu = run.device.type == "cpu"
    processes = PartialState(cpu=on_cpu).num_processes
    updates = math.ceil(n_rows / (stage.batch_size * stage.accumulate * processes))
    interval = max(1, updates // stage.evaluations)
    return TrainingArguments(
        output_dir=str(run.folder),
        per_device_train_batch_size=stage.batch_size,
        per_device_eval_batch_size=4 * stage.batch_size,
        gradient_accumulation_steps=stage.accumulate,
        num_train_epochs=stage.epochs,
        learning_rate=stage.learning_rate,
        warmup_steps=stage.warmup,
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.max_gradient,
        bf16=run.mixed_precision and has_fast_bfloat16(run.device),
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        eval_strategy="steps",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="score" if by_metric else "loss",
        greater_is_better=by_metric,
        optim="adamw_torch_fused",
        seed=run.seed,
        logging_strategy="no",
        disable_tqdm=not run.progress,
        report_to="none",
        remove_unused_columns=False,
        label_names=["labels"],
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if on_cpu and processes > 1 else None,
    )


def _score(output: EvalPrediction, metric: Metric) -> float:
    return metric(np.asarray(output.predictions), np.asarray(output.label_ids))


def _last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end: the Trainer writes `trainer_state.json` last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None


class _Bar(TrainerCallback):
    """Steps on stderr, with what the select rows last said."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: tqdm[NoReturn] | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.name, unit=" steps")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_evaluate(self, *_: Any, metrics: dict[str, float], **__: Any) -> None:
        if self.bar is not None:
            name = "score" if "eval_score" in metrics else "loss"
            self.bar.set_postfix_str(f"{name} on select rows {metrics[f'eval_{name}']:.4f}")

    def on_train_end(self, *_: Any, **__: Any) -> None:
        if self.bar is not None:
            self.bar.close()


class _StopAtStep(TrainerCallback):
    """Asked to stop, lets the step end and writes a checkpoint."""

    def __init__(self) -> None:
        self.asked = False
        self.stopped = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if self.asked and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
        return control


@contextmanager
def _interrupts(watch: _StopAtStep) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks `watch` to stop; a second one stops at once. Off the main thread: no handler."""

    def ask(number: int, frame: FrameType | None) -> None:
        if watch.asked:
            raise KeyboardInterrupt
        watch.asked = True

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # only the main thread may set handlers; a caller's thread stops its training by other means
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
