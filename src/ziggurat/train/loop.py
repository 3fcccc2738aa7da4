"""The one training loop: transformers.Trainer, set up so that a run can be killed at any step and taken up again."""

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
from ziggurat.train.batches import collate
from ziggurat.train.losses import Metric
from ziggurat.train.objectives import Objective


class Bar(TrainerCallback):
    """Steps on stderr, with what the select rows last said. As a context it is closed whatever ends the training, so
    that an error's line stands below it and nothing is drawn behind that.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: tqdm[NoReturn] | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Opens the bar, in one process."""
        if state.is_world_process_zero:
            self.bar = bar(self.name, state.max_steps, "steps", done=state.global_step, keep=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """One step further."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_evaluate(self, *_: Any, metrics: dict[str, float], **__: Any) -> None:
        """Shows what the select rows said."""
        if self.bar is not None:
            name = "score" if "eval_score" in metrics else "loss"
            self.bar.set_postfix_str(f"{name} on select rows {metrics[f'eval_{name}']:.4f}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def fill(self) -> None:
        """What was done is all there was to do: a stage may end by itself."""
        if self.bar is not None:
            self.bar.total = self.bar.n


class Progress(TrainerCallback):
    """Tells the objective how far the stage is, also after a resume."""

    def __init__(self, module: Objective) -> None:
        self.module = module

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Before every step, also the first after a resume."""
        self.module.step = state.global_step
        self.module.progress = state.global_step / state.max_steps


class Patience(TrainerCallback):
    """Ends a stage when so many looks at the select rows in a row have found no lower loss; None = never."""

    def __init__(self, looks: int | None) -> None:
        self.looks = looks

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Counts in the trainer's own log, which a checkpoint keeps."""
        losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        if self.looks is not None and len(losses) - losses.index(min(losses)) > self.looks:
            control.should_training_stop = True
        return control


class StopAtStep(TrainerCallback):
    """Asked to stop, lets the step end and writes a checkpoint."""

    def __init__(self) -> None:
        self.asked = False
        self.stopped = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Stops here if it was asked to, with a checkpoint; the last state is looked at, too."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True  # older versions of transformers do only the latter
        if self.asked and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
        return control


@contextmanager
def interrupts(watch: StopAtStep) -> Iterator[None]:
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


_FINISHED = "finished.safetensors"


@dataclass(frozen=True)
class Keep:
    """Which of a stage's states is kept, and what its bar shows of the select rows."""

    metric: Metric | None  # None = the loss
    at_end: bool  # the last state, not the best

    @classmethod
    def best(cls, metric: Metric) -> Keep:
        """The state with the largest metric on the select rows."""
        return cls(metric, at_end=False)

    @classmethod
    def lowest_loss(cls) -> Keep:
        """The state with the lowest loss on the select rows."""
        return cls(None, at_end=False)

    @classmethod
    def last(cls, metric: Metric) -> Keep:
        """The last state; the metric is only shown."""
        return cls(metric, at_end=True)


@dataclass(frozen=True)
class Run:
    """Where and how a stage runs."""

    folder: Path  # the stage's own: checkpoints while it runs, the finished weights afterwards
    device: torch.device
    seed: int = 0
    progress: bool = True  # bars on stderr
    mixed_precision: bool = True  # bfloat16 where the device is fast with it
    teacher: EncoderModel | None = None  # of a student; elsewhere the float, unpruned model, where stages distil

    def autocast(self) -> torch.autocast:
        """The precision in which steps run, for what is worked out before them."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=_in_bfloat16(self))

    @property
    def finished(self) -> bool:
        """The stage ran to its end before; it will only be loaded."""
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
    """Trains `module` in place and leaves it in the state that `keep` says.

    `own_rates` are learning rates of parameters whose name contains the key, `collator` makes batches of rows. Goes on
    from the last checkpoint in `run.folder`, bit for bit as if it had not stopped; a finished stage is only loaded. An
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
    # Theirs print dictionaries.
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
    if watch.asked:
        raise Stopped(
            f"stopped at step {trainer.state.global_step}, which is kept; the same command goes on from there"
        )


def _finish(module: nn.Module, finished: Path) -> None:
    """Keeps the weights and drops the checkpoints; one process does, the others wait."""
    state = PartialState()
    state.wait_for_everyone()  # each process writes its own part of the last checkpoint
    if state.is_main_process:
        with whole_file(finished) as path:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}, path)
        for checkpoint in finished.parent.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    state.wait_for_everyone()


def _optimizer(module: nn.Module, stage: StageConfig, own_rates: Mapping[str, float]) -> torch.optim.Optimizer:
    """AdamW with a group for each learning rate; no decay on biases, LayerNorms and whatever has a rate of its own."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        own = [rate for part, rate in own_rates.items() if part in name]
        rate = own[0] if own else stage.learning_rate
        decay = stage.weight_decay if parameter.ndim > 1 and not own else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": mine, "lr": rate, "weight_decay": decay} for (rate, decay), mine in groups.items()], fused=True
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
    """The newest checkpoint that was written to its end: the Trainer writes `trainer_state.json` last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None
