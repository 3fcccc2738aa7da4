import copy
import dataclasses
import os
import signal

import pytest
import torch
from accelerate import PartialState

from ziggurat.errors import UserError
from ziggurat.training import heads, loop, regular


class Killed(BaseException):
    """Stands for a kill: nothing catches it, nothing is written after it."""


def kill_at(model, step, monkeypatch, act):
    """Runs `act` in the forward pass of the given training step."""
    forward, steps = type(model).full_logits, []

    def watched(self, batch):
        if self.training:
            steps.append(1)
            if len(steps) == step:
                act()
        return forward(self, batch)

    monkeypatch.setattr(type(model), "full_logits", watched)


def same(one, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


@pytest.fixture
def unbroken(model, train_rows, select_rows, stage, run):
    twin = copy.deepcopy(model)
    return regular(twin, train_rows, select_rows, stage, dataclasses.replace(run, folder=run.folder / "unbroken"))


@pytest.mark.parametrize("step", [1, 7, 12, 13, 20, 24])  # 12 steps per epoch, checkpoints at 6, 12, 18, 24
def test_a_run_killed_at_any_step_ends_like_an_unbroken_one(
    step, model, unbroken, train_rows, select_rows, stage, run, monkeypatch
):
    start = copy.deepcopy(model)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(model, step, patch, lambda: (_ for _ in ()).throw(Killed()))
        regular(model, train_rows, select_rows, stage, run)
    resumed = regular(start, train_rows, select_rows, stage, run)
    assert same(resumed, unbroken)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_its_step_and_the_run_resumes_there(
    number, model, unbroken, train_rows, select_rows, stage, run, monkeypatch
):
    start = copy.deepcopy(model)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="stopped at step 8"):
        kill_at(model, 8, patch, lambda: os.kill(os.getpid(), number))
        regular(model, train_rows, select_rows, stage, run)
    assert (run.folder / "checkpoint-8").is_dir()
    assert same(regular(start, train_rows, select_rows, stage, run), unbroken)


def test_an_interrupt_in_the_last_step_keeps_the_finished_stage(
    model, unbroken, train_rows, select_rows, stage, run, monkeypatch
):
    start = copy.deepcopy(model)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="stopped at step 24"):
        kill_at(model, 24, patch, lambda: os.kill(os.getpid(), signal.SIGINT))
        regular(model, train_rows, select_rows, stage, run)
    assert run.finished
    assert same(regular(start, train_rows, select_rows, stage, run), unbroken)


def test_an_incomplete_checkpoint_is_skipped(model, unbroken, train_rows, select_rows, stage, run, monkeypatch):
    start = copy.deepcopy(model)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(model, 14, patch, lambda: (_ for _ in ()).throw(Killed()))
        regular(model, train_rows, select_rows, stage, run)
    (run.folder / "checkpoint-12" / "trainer_state.json").unlink()
    assert same(regular(start, train_rows, select_rows, stage, run), unbroken)


def test_a_finished_stage_is_loaded_and_not_trained_again(model, train_rows, select_rows, stage, run, monkeypatch):
    start = copy.deepcopy(model)
    done = heads(model, train_rows, select_rows, stage, run)
    monkeypatch.setattr(loop, "Trainer", None)
    assert same(heads(start, train_rows, select_rows, stage, run), done)
    assert not list(run.folder.glob("checkpoint-*"))


def test_no_checkpoint_is_dropped_while_another_process_writes(model, train_rows, select_rows, stage, run, monkeypatch):
    written = []

    class Late(PartialState):
        def wait_for_everyone(self):
            if not written:
                written.append(next(run.folder.glob("checkpoint-*")) / "rng_state_1.pth")
                written[0].touch()
            super().wait_for_everyone()

    monkeypatch.setattr(loop, "PartialState", Late)
    regular(model, train_rows, select_rows, stage, run)
    assert written and not list(run.folder.glob("checkpoint-*"))
