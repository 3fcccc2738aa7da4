"""Where the compiled engine is installed, predicting needs no torch, only the packages of the small installation."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ziggurat import native
from ziggurat.engine import OpenedModel

if native.why_missing():
    pytest.skip(native.why_missing(), allow_module_level=True)

PREDICT = """
import json, sys
for absent in ("torch", "transformers", "accelerate", "datasets", "scipy", "matplotlib"):
    sys.modules[absent] = None
import ziggurat
model = ziggurat.AdaptiveModel.from_pretrained(sys.argv[1])
answers = model.answer(json.loads(sys.argv[2]), "balanced")
print(json.dumps([[answer.label, answer.trace.rung] for answer in answers]))
"""


def test_predicting_needs_no_torch(pruned_folder, texts):
    command = [sys.executable, "-W", "error", "-c", PREDICT, str(pruned_folder), json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answers = OpenedModel.from_pretrained(pruned_folder, "cpu", backend="native").answer(texts, "balanced")
    assert json.loads(done.stdout) == [[answer.label, answer.trace.rung] for answer in answers]


SMALL = Path(__file__).resolve().parents[3] / "requirements-small.txt"
WITH_SMALL = """
import sys
from importlib.metadata import packages_distributions

allowed = {name.replace("_", "-").lower() for name in sys.argv[1].split(",")}
homes = packages_distributions()

class Rest:
    def find_spec(self, name, path=None, target=None):
        owners = {owner.replace("_", "-").lower() for owner in homes.get(name.partition(".")[0], ())}
        if owners and not owners & allowed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Rest())
for absent in ("huggingface_hub", "rich", "torch"):
    try:
        __import__(absent)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{absent} can be imported: this test looks at nothing")
from ziggurat.cli import main
sys.argv = ["ziggurat", *sys.argv[2:]]
main()
"""


def test_the_small_installation_predicts_on_the_command_line(pruned_folder, texts):
    lines = [line for line in SMALL.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+", line) for line in lines)
    start = [sys.executable, "-c", WITH_SMALL, ",".join([*lines, "ziggurat"])]
    done = subprocess.run([*start, "predict", str(pruned_folder), texts[0], "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)["answers"]
    assert answer["label"] in OpenedModel.from_pretrained(pruned_folder).manifest.labels
    wrong = subprocess.run([*start, "predict", str(pruned_folder), "--nope"], capture_output=True, text=True)
    assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1
    named = subprocess.run([*start, "predict", "someone/some-model", texts[0]], capture_output=True, text=True)
    assert named.returncode == 2 and "pip install huggingface-hub" in named.stderr
