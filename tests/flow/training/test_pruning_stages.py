"""Stages that learn what to prune."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from tests.kit.training import SPEC
from ziggurat.data.tokenizer import Encoded
from ziggurat.encoder import Dropout, EncoderModel, Int8Linear, soft_logits
from ziggurat.encoder.torch.pruning import ALWAYS_READ
from ziggurat.errors import UserError
from ziggurat.recipe import PruningConfig, StageConfig
from ziggurat.training import (
    Examples,
    Soft,
    collate,
    hard,
    heads,
    initialise_vocabulary,
    joint,
    packed,
    regular,
    soft,
    stages,
    with_teacher_logits,
)
from ziggurat.training.stages import guess, int8


def pruned(**changes):
    torch.manual_seed(0)
    return EncoderModel(SPEC, 2, "fastbert", [1, 2], PruningConfig(**changes))


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before, model):
    return {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}


def share_left(model, rows):
    """Mean share of tokens after the second layer, under the hard rule."""
    batch = packed(*(collate([rows[i] for i in range(len(rows))])[key] for key in ("states", "lengths")))
    model.eval()
    with torch.no_grad():
        states = model.embed(batch, model.token_rule)
        for layer in (1, 2):
            states = model.layer(layer, states, model.token_rule)
    return float((states.lengths / batch.lengths).mean())


def test_soft_moves_thresholds_up_against_lambda(train_rows, select_rows, stage, run):
    left = {}
    for weight in (0.0, 1.0):
        model = pruned(final=0.6)
        config = dataclasses.replace(stage, kind="soft", regularisation=weight, threshold_learning_rate=0.02)
        soft(model, train_rows, select_rows, config, dataclasses.replace(run, folder=run.folder / str(weight)))
        left[weight] = share_left(model, select_rows)
    assert left[1.0] < left[0.0]


def test_claim_9_hard_and_heads_keep_every_threshold(train_rows, select_rows, stage, run):
    model = pruned(vocabulary=0.9)
    before = weights(model)
    hard(model, train_rows, select_rows, dataclasses.replace(stage, kind="hard"), run)
    touched = changed(before, model)
    assert {name.split(".")[0] for name in touched} == {"encoder", "classifier"}
    before = weights(model)
    config = dataclasses.replace(stage, kind="heads")
    heads(model, train_rows, select_rows, config, dataclasses.replace(run, folder=run.folder / "heads"))
    assert {name.split(".")[0] for name in changed(before, model)} == {"exits"}


def test_claim_9_thresholds_have_their_own_rate_and_no_decay(train_rows, select_rows, stage, run, monkeypatch):
    model = pruned(vocabulary=0.9)
    seen, optimizer = [], torch.optim.AdamW

    def watched(groups, **rest):
        seen.extend(groups)
        return optimizer(groups, **rest)

    monkeypatch.setattr(torch.optim, "AdamW", watched)
    config = dataclasses.replace(
        stage, kind="soft", threshold_learning_rate=0.0, vocabulary_learning_rate=0.0, weight_decay=0.5
    )
    initialise_vocabulary(model, train_rows, run.device)
    expected = model.pruning.vocabulary.detach().clone()
    values = model.pruning.values.detach().clone()
    before = weights(model)
    soft(model, train_rows, select_rows, config, run)
    assert torch.equal(model.pruning.values, values)
    assert torch.equal(model.pruning.vocabulary, expected)
    decays = {id(mine): group["weight_decay"] for group in seen for mine in group["params"]}
    assert decays[id(model.pruning.values)] == decays[id(model.pruning.vocabulary)] == 0
    assert decays[id(model.encoder.layers[0].up.weight)] == 0.5
    assert any(name.startswith("encoder.") for name in changed(before, model))


def test_the_vocabulary_learns_which_words_say_nothing(train_rows, select_rows, stage, run):
    # The class is the first token's, which always stays: every other word may go, and λ wants them gone.
    model = pruned(vocabulary=0.9)
    config = dataclasses.replace(stage, kind="soft", epochs=4, regularisation=3.0, vocabulary_learning_rate=0.2)
    soft(model, train_rows, select_rows, config, run)
    assert model.token_rule.vocabulary.mean() < 0.5


@torch.no_grad()
def test_claim_8_the_loss_has_lambda_times_the_mean_mask(train_rows):
    model = pruned(final=1.2)
    for part in model.modules():
        if isinstance(part, Dropout):
            part.share = 0.0
    for layer in model.encoder.layers:
        layer.attention_dropout = 0.0
    few = collate([train_rows[i] for i in range(12)])
    twice = collate([train_rows[i] for i in range(12)] * 2)
    _, masks = soft_logits(model, packed(few["states"], few["lengths"]), 0.4)
    left = float(torch.stack([mask.mean() for mask in masks]).mean())
    for batch in (few, twice):
        losses = [
            float(Soft(model, StageConfig("soft", 1, 1e-3, temperature=0.4, regularisation=weight))(**batch)["loss"])
            for weight in (0.0, 1.0)
        ]
        assert losses[1] - losses[0] == pytest.approx(left, abs=1e-5)
    assert 0.1 < left < 0.9


def test_a_threshold_rate_is_in_the_unit_of_the_scale(train_rows, select_rows, stage, run):
    moved = {}
    for scale, final in (("relative", 0.6), ("ltp-code", 0.6 / 128)):
        model = pruned(final=final, scale=scale)
        start = model.pruning.values.detach().clone()
        config = dataclasses.replace(stage, kind="soft", regularisation=1.0, threshold_learning_rate=0.02)
        soft(model, train_rows, select_rows, config, dataclasses.replace(run, folder=run.folder / scale))
        moved[scale] = (model.pruning.values.detach() - start)[:2] * (128 if scale == "ltp-code" else 1)
    assert torch.allclose(*moved.values(), rtol=0.1)
    assert moved["relative"].min() > 0.01


def test_where_all_thresholds_are_zero_none_learns(train_rows, select_rows, stage, run):
    model, asked = pruned(final=0.0, vocabulary=0.9), []
    model.encoder.embeddings.register_forward_pre_hook(lambda *_: asked.append(model.pruning.values.requires_grad))
    soft(model, train_rows, select_rows, dataclasses.replace(stage, kind="soft"), run)
    assert asked and not asked[-1]
    assert not model.pruning.values.any()


def test_t_falls_by_the_same_factor_from_first_to_last():
    objective = Soft(pruned(), StageConfig("soft", 1, 1e-3, temperature=0.4, final_temperature=0.1))
    seen = []
    for objective.progress in (0.0, 0.5, 1.0):
        seen.append(objective.temperature)
    assert seen == pytest.approx([0.4, 0.2, 0.1])
    assert Soft(pruned(), StageConfig("soft", 1, 1e-3, temperature=0.4)).temperature == 0.4


def test_a_soft_stage_that_was_killed_ends_like_an_unbroken_one(train_rows, select_rows, stage, run, monkeypatch):
    model = pruned(vocabulary=0.9)
    config = dataclasses.replace(stage, kind="soft", temperature=0.5, final_temperature=0.05)
    unbroken = soft(
        copy.deepcopy(model), train_rows, select_rows, config, dataclasses.replace(run, folder=run.folder / "whole")
    )
    steps, forward = [], Soft.forward

    def watched(self, labels, lengths, states):
        steps.append(self.training)
        if sum(steps) == 15:
            raise KeyboardInterrupt
        return forward(self, labels, lengths, states)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Soft, "forward", watched)
        soft(copy.deepcopy(model), train_rows, select_rows, config, run)
    assert list(run.folder.glob("checkpoint-*"))
    resumed = soft(copy.deepcopy(model), train_rows, select_rows, config, run)
    assert not changed(weights(unbroken), resumed)


def test_a_learned_vocabulary_is_continued(train_rows, select_rows, stage, run, monkeypatch):
    model, config = pruned(vocabulary=0.9), dataclasses.replace(stage, kind="soft")
    soft(model, train_rows, select_rows, config, run)
    monkeypatch.setattr(stages, "initialise_vocabulary", None)
    learned, still = (
        model.pruning.vocabulary.detach().clone(),
        dataclasses.replace(config, vocabulary_learning_rate=0.0),
    )
    soft(model, train_rows, select_rows, still, dataclasses.replace(run, folder=run.folder / "second"))
    assert torch.equal(model.pruning.vocabulary, learned)


def test_special_entries_are_read_for_ever(train_rows, select_rows, stage, run):
    model = pruned(vocabulary=0.9)
    for tokens in train_rows.encoded.tokens:
        tokens[-1, 0] = 39  # the last token of every text, like [SEP]
    initialise_vocabulary(model, train_rows, run.device)
    config = dataclasses.replace(stage, kind="soft", regularisation=3.0, vocabulary_learning_rate=0.5)
    soft(model, train_rows, select_rows, config, run)
    assert model.token_rule.vocabulary[39]
    assert not model.token_rule.vocabulary[3:39].all()


def test_separators_between_pairs_are_special_too(train_rows, run):
    """RoBERTa's pairs: the last entry of each text stands twice within it as well."""
    model = pruned(vocabulary=0.3)
    pairs = [np.concatenate([row[:2], row[[-1, -1]], row[2:]]) for row in train_rows.encoded.tokens]
    for tokens in pairs:
        tokens[0, 0], tokens[[2, 3, -1], 0] = 37, 39
    tokens = Encoded(pairs, train_rows.encoded.truncated)
    initialise_vocabulary(model, dataclasses.replace(train_rows, encoded=tokens), run.device)
    special = model.pruning.vocabulary.detach() == ALWAYS_READ
    assert special.nonzero().flatten().tolist() == [37, 39]


def test_guess_learns_the_order_of_the_upper_half_alone(train_rows, select_rows, stage, run):
    from ziggurat.encoder.torch.soft import received_by_layer

    model = pruned(score="predicted")
    before = weights(model)
    batch = packed(*(collate([select_rows[i] for i in range(40)])[key] for key in ("states", "lengths")))
    _, received = received_by_layer(model.eval(), batch)
    target = torch.stack(received[1:]).mean(0).numpy()

    def correlation():
        with torch.no_grad():
            return np.corrcoef(model.pruning.predicted(2, received_by_layer(model, batch)[0][1]).numpy(), target)[0, 1]

    start = correlation()
    guess(model, train_rows, select_rows, dataclasses.replace(stage, kind="guess", epochs=6, learning_rate=0.02), run)
    assert all(name.startswith("pruning.guesses") for name in changed(before, model))
    assert correlation() > max(start + 0.2, 0.4)


def test_joint_trains_backbone_and_every_rung(model, train_rows, select_rows, stage, run):
    before = weights(model)
    joint(model, train_rows, select_rows, dataclasses.replace(stage, kind="joint"), run)
    assert {".".join(name.split(".")[:2]) for name in changed(before, model)} >= {
        "exits.1",
        "exits.2",
        "encoder.layers",
    }


@pytest.mark.parametrize("stage_function", [soft, hard])
def test_a_model_without_pruning_has_no_pruning_stage(model, train_rows, select_rows, stage, run, stage_function):
    with pytest.raises(UserError, match=r"\[pruning\] table"):
        stage_function(model, train_rows, select_rows, stage, run)


def test_soft_needs_thresholds_to_learn(train_rows, select_rows, stage, run):
    with pytest.raises(UserError, match="starts with 'hard'"):
        soft(pruned(kind="share", schedule="spatten", final=0.5), train_rows, select_rows, stage, run)


def test_guess_needs_scores_to_learn(train_rows, select_rows, stage, run):
    with pytest.raises(UserError, match="score = 'predicted'"):
        guess(pruned(), train_rows, select_rows, stage, run)


def test_int8_learns_under_int8_and_stays_there(train_rows, select_rows, stage, run):
    model, teacher = pruned(), pruned()
    before, wisdom = weights(model), weights(teacher)
    config = dataclasses.replace(stage, kind="int8", distillation=0.5)
    rows = (with_teacher_logits(teacher, part, run) for part in (train_rows, select_rows))
    int8(model, *rows, config, dataclasses.replace(run, teacher=teacher))
    assert {name.split(".")[0] for name in changed(before, model)} == {"encoder", "classifier"}
    assert not changed(wisdom, teacher)
    assert sum(isinstance(part, Int8Linear) for part in model.modules()) == 4 * SPEC.layers + 2 * (SPEC.layers - 1)
    assert not list(run.folder.glob("*teacher*"))


@pytest.mark.parametrize("kind", [soft, hard, int8, joint])
def test_a_teacher_is_listened_to(kind, train_rows, select_rows, stage, run):
    lies = (Examples(rows.encoded, 1 - rows.labels) for rows in (train_rows, select_rows))
    teacher = regular(pruned(), train_rows, select_rows, dataclasses.replace(stage, epochs=8), run)
    config = dataclasses.replace(stage, kind=kind.__name__, distillation=1.0, epochs=8)
    model = pruned(per_layer=(None, None, 0.5))
    twin = dataclasses.replace(run, folder=run.folder / "taught", teacher=teacher)
    # The labels lie and the teacher does not: with nothing but distillation the student learns the truth.
    kind(model, *(with_teacher_logits(teacher, rows, run) for rows in lies), config, twin)
    with torch.no_grad():
        batch = packed(*(collate([select_rows[i] for i in range(40)])[key] for key in ("states", "lengths")))
        taught = teacher.eval().full_logits(batch).argmax(-1)
        learned = model.eval().full_logits(batch, model.token_rule).argmax(-1)
    assert (taught == learned).float().mean() > 0.5


def test_heads_can_learn_from_the_unpruned_model(train_rows, select_rows, stage, run):
    teacher = regular(pruned(), train_rows, select_rows, dataclasses.replace(stage, epochs=8), run)
    model = pruned(per_layer=(None, None, 0.5))  # its own last rung knows nothing
    config = dataclasses.replace(stage, kind="heads", distillation=1.0, epochs=8)
    rows = (with_teacher_logits(teacher, part, run) for part in (train_rows, select_rows))
    heads(model, *rows, config, dataclasses.replace(run, folder=run.folder / "heads"))
    batch = packed(*(collate([select_rows[i] for i in range(40)])[key] for key in ("states", "lengths")))
    with torch.no_grad():
        taught = teacher.eval().full_logits(batch).argmax(-1)
        first, *_ = model.eval()(batch, model.token_rule)
    assert (taught == first.argmax(-1)).float().mean() > 0.7
