"""A work folder is one training's at a time, and one that nothing was put into does not stay."""

from __future__ import annotations

import io
import os
import sys

import pytest
from transformers import TrainerState, TrainingArguments

from ziggurat.errors import UserError
from ziggurat.training.loop import Bar
from ziggurat.training.unfinished import exclusive_folder, identity_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks are POSIX's")


def test_a_second_training_is_told_and_the_first_goes_on(tmp_path):
    work = tmp_path / "new" / "out.training"
    with exclusive_folder(work):
        with (
            pytest.raises(UserError, match=r"out\.training: another training is at work in it"),
            exclusive_folder(work),
        ):
            pytest.fail("the block must not run")
        (work / "kept").write_text("")
    assert [path.name for path in work.iterdir()] == ["kept"]
    with exclusive_folder(work):
        pass
    assert [path.name for path in work.iterdir()] == ["kept"]


def test_folders_that_stay_empty_go_again(tmp_path):
    with pytest.raises(ValueError, match="early"), exclusive_folder(tmp_path / "new" / "out.training"):
        raise ValueError("early")
    assert not (tmp_path / "new").exists()


def test_other_processes_of_one_training_share_it(tmp_path, monkeypatch):
    with exclusive_folder(tmp_path / "work"):
        monkeypatch.setenv("RANK", "1")
        with exclusive_folder(tmp_path / "work"):
            pass


def test_what_ends_a_training_stands_below_its_bar(tmp_path, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    with pytest.raises(OSError, match="full"), Bar("heads") as bar:
        bar.on_train_begin(TrainingArguments(str(tmp_path), use_cpu=True), TrainerState(max_steps=7))
        raise OSError("full")
    assert "heads" in shown.getvalue() and shown.getvalue().endswith("\n")
    length = len(shown.getvalue())
    bar.bar.close()
    assert len(shown.getvalue()) == length


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_a_checkpoint_whose_file_changes_is_another(name, tiny_checkpoint, copied):
    folder = copied(tiny_checkpoint)
    before = identity_of(folder)
    assert identity_of(folder) == before
    with (folder / name).open("ab") as file:
        file.write(b" ")
    assert identity_of(folder) != before
