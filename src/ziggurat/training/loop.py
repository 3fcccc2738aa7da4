"""The training loop of all stages: transformers.Trainer, set up to resume after a stop at any step."""

from __future__ import annotations

import math
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, NoReturn, Self

import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset
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

from ziggurat.encoder.torch.model import EncoderModel
from ziggurat.encoder.torch.parts import has_fast_bfloat16
from ziggurat.errors import Stopped
from ziggurat.files import refusals_explained, whole_file
from ziggurat.recipe import StageConfig
from ziggurat.small.standardise import fold
from ziggurat.system import bar
from ziggurat.training.batches import collate
from ziggurat.training.losses import Metric
from ziggurat.training.objectives import Objective


class Bar(TrainerCallback):
    """Progress bar on stderr, with the last result on the select rows.

    A context manager: the bar is closed before an error message is printed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: tqdm[NoReturn] | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Opens the bar, in the first process only."""
        if state.is_world_process_zero:
            self.bar = bar(self.name, state.max_steps, "steps", done=state.global_step, keep=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Advances the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_evaluate(self, *_: Any, metrics: dict[str, float], **__: Any) -> None:
        """Shows the result on the select rows."""
        if self.bar is not None:
            name = "score" if "eval_score" in metrics else "loss"
            self.bar.set_postfix_str(f"{name} on select rows {metrics[f'eval_{name}']:.4f}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def fill(self) -> None:
        """Marks the bar as complete: a stage may end early."""
        if self.bar is not None:
            self.bar.total = self.bar.n


class Progress(TrainerCallback):
    """Sets the objective's `step` and `progress`, also after a resume."""

    def __init__(self, module: Objective) -> None:
        self.module = module

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Runs before every step, also the first after a resume."""
        self.module.step = state.global_step
        self.module.progress = state.global_step / state.max_steps


class Patience(TrainerCallback):
    """Ends a stage after this many evaluations without a lower loss; None = never."""

    def __init__(self, evaluations: int | None) -> None:
        self.evaluations = evaluations

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Counts in the trainer's log, which is part of checkpoints."""
        losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        if self.evaluations is not None and len(losses) - losses.index(min(losses)) > self.evaluations:
            control.should_training_stop = True
        return control


class StopAtStep(TrainerCallback):
    """Stops at the end of a step, with a checkpoint, once `requested` is set."""

    def __init__(self) -> None:
        self.requested = False
        self.stopped = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Stops with a checkpoint if requested; the last step is always evaluated and saved."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True  # older versions of transformers only save
        if self.requested and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
        return control


@contextmanager
def interrupts(watch: StopAtStep) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM requests a stop; the second stops at once. Without effect outside the main thread."""

    def ask(number: int, frame: FrameType | None) -> None:
        if watch.requested:
            raise KeyboardInterrupt
        watch.requested = True

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # only the main thread may set handlers
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_FINISHED = "finished.safetensors"


@dataclass(frozen=True)
class Keep:
    """Which checkpoint of a stage is the result, and which metric its bar shows."""

    metric: Metric | None  # None = the loss
    at_end: bool  # True = the last checkpoint, False = the best

    @classmethod
    def best(cls, metric: Metric) -> Keep:
        """The checkpoint with the largest metric on the select rows."""
        return cls(metric, at_end=False)

    @classmethod
    def lowest_loss(cls) -> Keep:
        """The checkpoint with the lowest loss on the select rows."""
        return cls(None, at_end=False)

    @classmethod
    def last(cls, metric: Metric) -> Keep:
        """The last checkpoint; the metric is only shown."""
        return cls(metric, at_end=True)


@dataclass(frozen=True)
class Run:
    """Where and how a stage runs."""

    folder: Path  # the stage's folder: checkpoints while it runs, the final weights afterwards
    device: torch.device
    seed: int = 0
    progress: bool = True  # bars on stderr
    mixed_precision: bool = True  # bfloat16 if it is faster on the device
    teacher: EncoderModel | None = None  # of a student; in other distilling stages the float, unpruned model

    def autocast(self) -> torch.autocast:
        """The precision of training steps, for precomputed values."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=_in_bfloat16(self))

    @property
    def finished(self) -> bool:
        """The stage was completed before; its weights are only loaded."""
        return (self.folder / _FINISHED).exists()


def fit(
    module: Objective,
    train: Dataset[Any],
    select: Dataset[Any],
    stage: StageConfig,
    run: Run,
    keep: Keep,
    own_rates: Mapping[str, float] = MappingProxyType({}),
    collator: Callable[[Any], dict[str, Any]] = collate,
) -> None:
    """Trains `module` in place; it ends with the weights of the checkpoint that `keep` selects.

    `own_rates` maps a part of a parameter's name to its learning rate; `collator` makes batches of rows. Resumes from
    the last checkpoint in `run.folder`, with the same bits as without a stop; a finished stage is only loaded. An
    interrupt (Ctrl-C, SIGTERM) writes a checkpoint and raises Stopped.
    """
    finished = run.folder / _FINISHED
    if run.finished:
        module.load_state_dict(load_file(finished))
        return
    watch, metric = StopAtStep(), keep.metric
    trainer = Trainer(
        model=module,
        args=_arguments(len(train), stage, run, keep),
        train_dataset=train,
        eval_dataset=select,
        data_collator=collator,
        compute_metrics=None if metric is None else lambda output: {"score": _score(output, metric)},
        callbacks=[watch, Progress(module), Patience(stage.patience)],
        optimizers=(_optimizer(module.to(run.device), stage, own_rates) if own_rates else None, None),
    )
    # The Trainer's callbacks print dictionaries.
    trainer.remove_callback(ProgressCallback if run.progress else PrinterCallback)
    bar = Bar(stage.kind)
    if run.progress:
        trainer.add_callback(bar)
    with interrupts(watch), refusals_explained(run.folder), bar:
        trainer.train(resume_from_checkpoint=_last_checkpoint(run.folder))
        if not watch.stopped:
            bar.fill()
    if not watch.stopped:
        fold(module)
        _finish(module, finished)
    if watch.requested:
        raise Stopped(
            f"stopped at step {trainer.state.global_step}, which is kept; the same command goes on from there"
        )


def _finish(module: nn.Module, finished: Path) -> None:
    """Saves the weights and removes the checkpoints, in the first process; the others wait."""
    state = PartialState()
    state.wait_for_everyone()  # each process writes a part of the last checkpoint
    if state.is_main_process:
        with whole_file(finished) as path:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}, path)
        for checkpoint in finished.parent.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    state.wait_for_everyone()


def _optimizer(module: nn.Module, stage: StageConfig, own_rates: Mapping[str, float]) -> torch.optim.Optimizer:
    """AdamW with one group per learning rate. No decay for biases, LayerNorms and parameters in `own_rates`."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        special = [rate for part, rate in own_rates.items() if part in name]
        rate = special[0] if special else stage.learning_rate
        decay = stage.weight_decay if parameter.ndim > 1 and not special else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()], fused=True
    )


def _arguments(n_rows: int, stage: StageConfig, run: Run, keep: Keep) -> TrainingArguments:
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
        bf16=_in_bfloat16(run),
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        eval_strategy="steps",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,
        load_best_model_at_end=not keep.at_end,
        metric_for_best_model="score" if keep.metric is not None else "loss",
        greater_is_better=keep.metric is not None,
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


def _in_bfloat16(run: Run) -> bool:
    return run.mixed_precision and has_fast_bfloat16(run.device)


def _score(output: EvalPrediction, metric: Metric) -> float:
    return metric(np.asarray(output.predictions), np.asarray(output.label_ids))


def _last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint: the Trainer writes `trainer_state.json` last."""
    complete = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda path: int(path.name.split("-")[1]))) if complete else None
