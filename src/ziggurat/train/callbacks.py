"""What happens around training steps: a bar, the stage's progress, a stop that loses nothing."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, Self

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ziggurat.bars import bar
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
            self.bar = bar(self.name, state.max_steps, "steps", done=state.global_step, stays=True)

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
