"""Observing changes nothing, and what is noted is what the rule saw."""

from dataclasses import replace

import numpy as np
import pytest

from ziggurat.data import pack
from ziggurat.engine import TorchBackend
from ziggurat.engine import run_batches as run
from ziggurat.engine.backends.recording import RecordingBackend
from ziggurat.policies import ExitRule
from ziggurat.recipe import PruningConfig

CONFIGS = {
    "threshold": PruningConfig(per_layer=(0.8, None, 0.95, 1.0), vocabulary=0.9),
    "paper": PruningConfig(per_layer=(0.03, 0.05, 0.07, 0.09), scale="paper"),
    "share": PruningConfig(kind="share", per_layer=(0.9, 0.7, 0.5, 0.3)),
    "predicted": PruningConfig(per_layer=(0.8, 0.9, 0.95, 1.0), score="predicted"),
}


@pytest.fixture(scope="module", params=CONFIGS)
def backend(request, make_pruned):
    return TorchBackend(make_pruned(CONFIGS[request.param]), "cpu")


def test_the_engine_does_what_it_does_unobserved(backend, ragged_tokens):
    observed = RecordingBackend(backend)
    rule = replace(ExitRule.uniform("entropy", 0.5, 4), tokens=backend.token_rule)
    for tokens in ragged_tokens:
        seen, unseen = (run(one, [pack([tokens])], rule, 1) for one in (observed, backend))
        assert np.array_equal(seen.readings, unseen.readings)
        assert np.array_equal(seen.token_counts, unseen.token_counts)
        depth = backend.rung_layers[seen.rungs[0]]
        assert [step.layer for step in observed.steps] == list(range(depth + 1))
        assert [len(step.left_over) for step in observed.steps] == seen.token_counts[0, : depth + 1].tolist()
        assert np.array_equal(observed.answers[-1][1], seen.readings[0])


def test_scores_and_value_are_those_that_the_rule_decided_by(backend, ragged_tokens):
    observed, rule = RecordingBackend(backend), backend.token_rule
    for tokens in ragged_tokens:
        batch = pack([tokens])
        read = observed.embed(batch, rule)
        for layer in range(1, 5):
            after = observed.layer(layer, read, rule)
            step = observed.steps[-1]
            assert (step.scores is not None) == rule.prunes(layer)
            if step.scores is not None:
                assert step.value == rule.values[layer - 1]
                kept = rule.keep(step.value, step.scores, read)
                kept[0] = True
                assert step.entered[kept].tolist() == step.left_over.tolist() == after.positions.tolist()
            read = after


def test_only_one_input_is_observed_and_each_begins_anew(backend, ragged_tokens):
    observed, rule = RecordingBackend(backend), backend.token_rule
    with pytest.raises(ValueError, match="one input at a time"):
        observed.embed(pack(ragged_tokens[:2]), rule)
    observed.logits(0, observed.layer(1, observed.embed(pack(ragged_tokens[:1]), rule), rule))
    assert (len(observed.steps), len(observed.answers)) == (2, 1)
    observed.embed(pack(ragged_tokens[1:2]), rule)
    assert (len(observed.steps), len(observed.answers)) == (1, 0)
