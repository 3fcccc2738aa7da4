"""Where the compiled engine is installed, predicting needs numpy, tokenizers and safetensors, and no torch."""

import json
import subprocess
import sys

import pytest

from ziggurat import native
from ziggurat.engine.classifier import AdaptiveClassifier

if native.why_missing():
    pytest.skip(native.why_missing(), allow_module_level=True)

PREDICT = """
import json, sys
for absent in ("torch", "transformers", "accelerate", "datasets", "scipy", "matplotlib"):
    sys.modules[absent] = None
import ziggurat
model = ziggurat.AdaptiveClassifier.from_pretrained(sys.argv[1])
answers = model.predict(json.loads(sys.argv[2]), "balanced")
print(json.dumps([[answer.label, answer.trace.rung] for answer in answers]))
"""


def test_predicting_needs_no_torch(pruned_folder, texts):
    command = [sys.executable, "-W", "error", "-c", PREDICT, str(pruned_folder), json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answers = AdaptiveClassifier.from_pretrained(pruned_folder, "cpu", engine="native").predict(texts, "balanced")
    assert json.loads(done.stdout) == [[answer.label, answer.trace.rung] for answer in answers]
