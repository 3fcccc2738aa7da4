"""Exit heads that learn from what was read once learn what they would learn from the backbone itself."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.training import SPEC, make_examples
from ziggurat.encoder import EncoderModel
from ziggurat.encoder.torch.heads import HEADS
from ziggurat.recipe import PruningConfig, StageConfig
from ziggurat.training import FrozenHeads, Run, collate, heads, in_batches, stages, with_teacher_logits
from ziggurat.training import precomputed as frozen
from ziggurat.training.objectives import Heads
from ziggurat.training.precomputed import collate_head_inputs, head_inputs

HEADS_STAGE = StageConfig(kind="heads", epochs=2, learning_rate=5e-3, batch_size=8, warmup=0.0)


def model_of(kind, pooling="first", prunes=True):
    torch.manual_seed(0)
    spec = dataclasses.replace(SPEC, pooling=pooling, dropout=0.0)  # which is drawn anew for every forward
    return EncoderModel(spec, 2, kind, [1, 2], PruningConfig(final=1.1) if prunes else None).eval()


@settings(max_examples=25)
@given(
    kind=st.sampled_from(sorted(HEADS)),
    pooling=st.sampled_from(["first", "mean"]),
    prunes=st.booleans(),
    stage=st.sampled_from(
        [{}, {"label_weight": 0.3}, {"reverse_kl": True}, {"distillation": 1.0}, {"label_weight": 1.0}]
    ),
    chosen=st.lists(st.integers(0, 99), min_size=1, max_size=9),
    seed=st.integers(0, 3),
)
def test_readings_give_the_backbones_loss_and_gradients(kind, pooling, prunes, stage, chosen, seed, tmp_path_factory):
    model, config = model_of(kind, pooling, prunes), dataclasses.replace(HEADS_STAGE, **stage)
    run = Run(tmp_path_factory.getbasetemp(), torch.device("cpu"), progress=False, mixed_precision=False)
    rows = make_examples(100, seed)
    rows = dataclasses.replace(rows, labels=np.where(np.arange(100) % 4 == 0, -1, rows.labels))
    rows = with_teacher_logits(model_of(kind, pooling), rows, run) if config.distillation else rows
    read = head_inputs(model, rows, config, run)
    found = []
    for objective, batch in (
        (Heads(model, config), collate([rows[row] for row in chosen])),
        (FrozenHeads(model, config), collate_head_inputs([read[row] for row in chosen])),
    ):
        stages.only_train(model, model.exits.values())
        loss = objective.train()(**batch)["loss"]
        found.append([loss, *torch.autograd.grad(loss, list(model.exits.parameters()), materialize_grads=True)])
    for slow, quick in zip(*found, strict=True):
        assert torch.allclose(slow, quick, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_a_stage_ends_the_same_without_memory_for_readings(kind, train_rows, select_rows, run, monkeypatch):
    ends = []
    config = dataclasses.replace(HEADS_STAGE, learning_rate=2e-4)  # Adam blows up what differs in the last digit
    for share in (frozen._OF_MEMORY, 10**12):
        monkeypatch.setattr(frozen, "_OF_MEMORY", share)
        mine = dataclasses.replace(run, folder=run.folder / str(share))
        model = heads(model_of(kind), train_rows, select_rows, config, mine).eval()
        [batch] = in_batches(select_rows.encoded.tokens)
        ends.append(torch.stack(model(batch, model.token_rule)))
    before = torch.stack(model_of(kind)(batch, model.token_rule))
    assert (ends[0] - ends[1]).abs().max() < 0.1 * (ends[0] - before).abs().max()


def test_the_backbone_is_asked_once_however_many_epochs(train_rows, select_rows, run):
    asked, model = [], model_of("fastbert", prunes=False)
    model.encoder.layers[0].register_forward_hook(lambda layer, inputs, _: asked.append(inputs[0].n_seqs))
    heads(model, train_rows, select_rows, dataclasses.replace(HEADS_STAGE, epochs=5), run)
    assert sum(asked) == len(train_rows) + len(select_rows)


def test_heads_that_read_the_first_token_keep_no_other(train_rows, run):
    n = len(train_rows)
    for kind, pooling, many in (("linear", "first", False), ("pooler", "first", False), ("pooler", "mean", True)):
        read = head_inputs(model_of(kind, pooling), train_rows, HEADS_STAGE, run)
        assert all((len(states) > n) == many for states in read.states)


def test_a_finished_stage_asks_nobody(train_rows, select_rows, run, monkeypatch):
    start = model_of("linear")
    done = heads(copy.deepcopy(start), train_rows, select_rows, HEADS_STAGE, run)
    monkeypatch.setattr(stages, "head_inputs", None)
    again = heads(start, train_rows, select_rows, HEADS_STAGE, run)
    assert all(torch.equal(mine, again.state_dict()[name]) for name, mine in done.state_dict().items())
