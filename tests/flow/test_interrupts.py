"""Ctrl-C: one line that says what it leaves, exit code 130."""

import os
import signal
import subprocess
import sys

import pytest

from ziggurat.cli import main


def test_ctrl_c_in_training_is_one_line_and_resumable(rows_file, tiny_recipe, tiny_checkpoint, tmp_path):
    recipe = tmp_path / "long.toml"
    recipe.write_text(tiny_recipe.read_text().replace("epochs = 12", "epochs = 4000"))
    out = tmp_path / "model"
    command = [sys.executable, "-m", "ziggurat", "train", "--train", rows_file, "--recipe", recipe]
    command += ["--model", tiny_checkpoint, "--out", out, "--device", "cpu"]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    stage = tmp_path / "model.training" / "1-regular"
    while process.poll() is None and not list(stage.glob("checkpoint-*/trainer_state.json")):
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    lines = [line for line in err.splitlines() if "goes on from there" in line]
    assert process.returncode == 130, err
    assert len(lines) == 1
    assert "Traceback" not in err
    assert list(stage.glob("checkpoint-*/trainer_state.json"))
    assert not out.exists()


def test_ctrl_c_elsewhere_is_one_line_too(capsys, monkeypatch, model_folder):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ziggurat.measure.information.information", interrupted)
    monkeypatch.setattr(sys, "argv", ["ziggurat", "info", str(model_folder)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    assert capsys.readouterr() == ("", "ziggurat: interrupted; nothing was half-written\n")
