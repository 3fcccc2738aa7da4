import json
import os
import subprocess
import sys

from ziggurat.encoder.folder import read_manifest


def test_accelerate_launch_trains_one_model_in_several_processes(rows_file, tiny_recipe, tiny_checkpoint, tmp_path):
    out = tmp_path / "model"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]
    # Without --multi_gpu, accelerate starts several processes on CPUs only through MPI.
    launch += ["--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command = ["-m", "ziggurat", "train", "--train", rows_file, "--model", tiny_checkpoint, "--recipe", tiny_recipe]
    command += ["--out", out, "--device", "cpu", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [str(part) for part in launch + command], capture_output=True, text=True, env=environment, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert json.loads(result.stdout)["out"] == str(out)
    assert read_manifest(out).training["processes"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
