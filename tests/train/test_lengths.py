"""Fixed schedules and LengthDrop: what trains, under which rule, and what is refused before anything does."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from conftest import SPEC
from rows_for_training import make_examples
from torch.nn import functional

from ziggurat.config import PruningConfig, Recipe, SearchConfig, StageConfig, load_recipe
from ziggurat.data.packing import pack
from ziggurat.encoder.model import AdaptiveModel
from ziggurat.errors import UserError
from ziggurat.policies.prune import TokenRule, top_share
from ziggurat.train import loop
from ziggurat.train.batches import collate, packed
from ziggurat.train.checks import refuse_misfits
from ziggurat.train.lengthdrop import LengthDrop, random_shares, smallest_shares
from ziggurat.train.losses import kl_divergence
from ziggurat.train.stages import accuracy, hard, lengthdrop

SHARES = PruningConfig(kind="share", schedule="flat", final=1.0)
RULES = {
    "spatten": PruningConfig(kind="share", per_layer=(None, 0.6, 0.3)),
    "power": PruningConfig(kind="count", score="received-from-others", schedule="geometric", first=6, final=1),
    "manual thresholds": PruningConfig(final=1.2),
}


def pruned_model(config):
    torch.manual_seed(0)
    return AdaptiveModel(SPEC, 2, "fastbert", [], config)


def late_rows(n, seed):
    """Rows whose class stands at the second place and not at the first, which no rule ever removes."""
    rows = make_examples(n, seed)
    for tokens, label in zip(rows.encoded.tokens, rows.labels, strict=True):
        tokens[0, 0], tokens[1, 0] = 0, label + 1
    return rows


def right(model, rows, rule):
    batch = collate([rows[i] for i in range(len(rows))])
    with torch.no_grad():
        logits = model.eval().full_logits(packed(batch["states"], batch["lengths"]), rule)
    return accuracy(logits.numpy(), rows.labels)


@pytest.mark.parametrize("name", RULES)
def test_hard_learns_under_a_fixed_rule_while_tokens_really_leave(name, stage, run):
    model, train, select = pruned_model(RULES[name]), late_rows(256, 1), late_rows(64, 2)
    before = copy.deepcopy(model.state_dict())
    entering = []
    model.encoder.layers[2].register_forward_pre_hook(lambda layer, given: None)
    context = model.encoder.layers[2].scored_context
    model.encoder.layers[2].scored_context = lambda batch, *rest: entering.append(batch.lengths) or context(
        batch, *rest
    )
    hard(model, train, select, dataclasses.replace(stage, epochs=8), run)
    full = np.array([len(tokens) for tokens in train.encoded.tokens])
    assert np.concatenate(entering).mean() < 0.8 * full.mean()
    assert right(model, select, model.token_rule) > 0.8
    assert torch.equal(model.pruning.values, before["pruning.values"]) or torch.allclose(
        model.pruning.values, before["pruning.values"], rtol=0, atol=0, equal_nan=True
    )
