import json
import os
import subprocess
import sys

import pytest

from ziggurat.encoder import read_manifest

REGULAR = '[[stages]]\nkind = "regular"\nepochs = 1\nlearning_rate = 3e-3\n\n'
# Where a loss reaches not every weight that is trained, processes refuse to go on.
STUDENTS = {
    "narrow": "hidden = 24\n\n"
    + REGULAR
    + """[[stages]]
kind = "distil"
epochs = 1
learning_rate = 3e-3
answer_weight = 0.0
hidden_weight = 1.0
attention_weight = 1.0
""",
    "theseus": REGULAR
    + """[[stages]]
kind = "theseus"
epochs = 2
learning_rate = 3e-3
replacing = 0.3

[[stages]]
kind = "heads"
epochs = 1
learning_rate = 3e-3
""",
}


@pytest.fixture
def launch(rows_file, tiny_checkpoint, tmp_path):
    """A function that trains with a recipe in two processes and returns what they printed."""

    def run(recipe):
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]
        # Without --multi_gpu, accelerate starts several processes on CPUs only through MPI.
        launch += ["--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        launch += ["--main_process_port", "0"]  # a free one: tests run side by side
        command = ["-m", "ziggurat", "train", "--train", rows_file, "--model", tiny_checkpoint, "--recipe", recipe]
        command += ["--out", tmp_path / "model", "--device", "cpu", "--json"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(
            [str(part) for part in launch + command], capture_output=True, text=True, env=environment, timeout=300
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return run


@pytest.mark.parametrize("name", STUDENTS)
def test_accelerate_launch_trains_one_model_in_several_processes(name, launch, tmp_path):
    recipe = tmp_path / "student.toml"
    head = 'name = "s"\ndescription = "For tests."\nmax_length = 24\n\n[student]\nlayers = 2\n'
    recipe.write_text(head + STUDENTS[name])
    assert launch(recipe)["out"] == str(tmp_path / "model")
    assert read_manifest(tmp_path / "model").training["processes"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "student.toml"]
    assert json.loads((tmp_path / "model" / "config.json").read_text())["num_hidden_layers"] == 2
