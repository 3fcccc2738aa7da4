"""Every architecture in the torch engine: pruned and early answers are those of the specification."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.kit.families import FAMILIES, random_texts, save_adaptive
from ziggurat.data import TextTokenizer
from ziggurat.data.tokenizer import pack_rows
from ziggurat.engine import answer_all
from ziggurat.engine import run_batches as run
from ziggurat.engine.backends.torch import load_backend
from ziggurat.policies import ExitRule
from ziggurat.recipe import PruningConfig

PRUNED = PruningConfig(per_layer=(0.7, 0.85, 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_batches_decide_as_the_specification(tmp_path, name, pairs):
    folder = save_adaptive(name, tmp_path, PRUNED, pairs=pairs)
    backend = load_backend(folder, "cpu", "float32", 1)
    lengths = (1, 2, 9, 4, 4, 17, 2, 6)
    other = random_texts(1, lengths[::-1]) if pairs else None
    encoded = TextTokenizer(folder, 40).encode(random_texts(0, lengths), other)
    rule = replace(ExitRule.uniform("entropy", 0.8, 3), tokens=backend.token_rule)
    outcomes = run(backend, [pack_rows(encoded, np.arange(len(encoded)))], rule, len(encoded))
    logits, rungs = answer_all(backend, encoded.tokens, rule)
    assert outcomes.rungs.tolist() == rungs.tolist()
    assert np.abs(outcomes.readings - logits).max() < 1e-4
    assert outcomes.token_counts[:, 1].sum() < outcomes.token_counts[:, 0].sum()
