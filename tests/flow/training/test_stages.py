import copy
import dataclasses

import pytest
import torch
from transformers import Trainer

from tests.kit.training import make_examples
from ziggurat.errors import UserError
from ziggurat.training import Examples, accuracy, collate, full_accuracy, heads, packed, regular, stages
from ziggurat.training.stages import stage_of


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before, model):
    return {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}


def exits_agree(model, rows):
    batch = collate([rows[i] for i in range(len(rows))])
    with torch.no_grad():
        *exits, last = (logits.argmax(-1) for logits in model.eval()(packed(batch["states"], batch["lengths"])))
    return sum((exit_ == last).float().mean().item() for exit_ in exits) / len(exits)


def test_regular_learns_and_leaves_the_exit_heads_alone(model, train_rows, select_rows, stage, run):
    before = weights(model)
    regular(model, train_rows, select_rows, dataclasses.replace(stage, epochs=8), run)
    assert full_accuracy(model, select_rows) > 0.8
    assert not {name for name in changed(before, model) if name.startswith("exits.")}
    assert {name.split(".")[0] for name in changed(before, model)} == {"encoder", "classifier"}


@pytest.mark.parametrize("kept", [True, False])
def test_claim_21_heads_changes_nothing_but_heads_bit_for_bit(
    model, train_rows, select_rows, stage, run, monkeypatch, kept
):
    monkeypatch.setattr(stages, "inputs_fit_memory", lambda *_: kept)
    before = weights(model)
    heads(model, train_rows, select_rows, stage, run)
    touched = changed(before, model)
    assert touched
    assert all(name.startswith("exits.") for name in touched)


def test_heads_learn_from_rows_without_labels(model, stage, run):
    unlabelled, select = make_examples(96, 1, labelled=False), make_examples(40, 2, labelled=False)
    before = exits_agree(model, select)
    heads(model, unlabelled, select, dataclasses.replace(stage, epochs=6), run)
    assert exits_agree(model, select) > max(before, 0.8)


def test_labels_do_not_matter_to_the_default_heads_stage(model, train_rows, select_rows, stage, run):
    twin, unlabelled = copy.deepcopy(model), make_examples(96, 1, labelled=False)
    heads(model, train_rows, select_rows, stage, run)
    heads(twin, unlabelled, select_rows, stage, dataclasses.replace(run, folder=run.folder / "twin"))
    assert not changed(weights(model), twin)


@pytest.mark.parametrize("kept", [True, False])
def test_claim_20_the_teacher_is_in_evaluation_mode(model, train_rows, select_rows, stage, run, monkeypatch, kept):
    monkeypatch.setattr(stages, "inputs_fit_memory", lambda *_: kept)
    modes = []
    hook = model.encoder.layers[0].register_forward_hook(lambda module, *_: modes.append(module.training))
    heads(model, train_rows, select_rows, stage, run)
    hook.remove()
    assert modes and not any(modes)


@pytest.mark.parametrize("kept", [True, False])
def test_claim_21_frozen_parts_get_no_gradient_and_no_clipping(
    model, train_rows, select_rows, stage, run, monkeypatch, kept
):
    monkeypatch.setattr(stages, "inputs_fit_memory", lambda *_: kept)
    clipped, clip = [], torch.nn.utils.clip_grad_norm_

    def watched(parameters, *rest, **named):
        parameters = list(parameters)
        clipped.append({id(parameter) for parameter in parameters if parameter.grad is not None})
        return clip(parameters, *rest, **named)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    heads(model, train_rows, select_rows, stage, run)
    assert len(clipped) == 24  # every step of two epochs
    assert all(ids == {id(parameter) for parameter in model.exits.parameters()} for ids in clipped)
    frozen = [*model.encoder.parameters(), *model.classifier.parameters()]
    assert all(parameter.grad is None for parameter in frozen)


def test_claim_21_each_stages_rate_falls_to_zero(model, train_rows, select_rows, stage, run, monkeypatch):
    schedulers, create = [], Trainer.create_scheduler

    def watched(trainer, *rest, **named):
        schedulers.append(create(trainer, *rest, **named))
        return schedulers[-1]

    monkeypatch.setattr(Trainer, "create_scheduler", watched)
    regular(model, train_rows, select_rows, stage, run)
    longer = dataclasses.replace(stage, epochs=3, batch_size=4)
    heads(model, train_rows, select_rows, longer, dataclasses.replace(run, folder=run.folder / "heads"))
    assert [scheduler.last_epoch for scheduler in schedulers] == [2 * 96 // 8, 3 * 96 // 4]
    assert all(rate == pytest.approx(0, abs=1e-9) for scheduler in schedulers for rate in scheduler.get_last_lr())


def test_the_last_state_of_a_stage_is_looked_at(model, train_rows, select_rows, stage, run, monkeypatch):
    """Where its epochs are no multiple of what is between two looks."""
    looked_at, evaluate = [], Trainer.evaluate
    monkeypatch.setattr(
        Trainer,
        "evaluate",
        lambda trainer, *a, **b: looked_at.append(trainer.state.global_step) or evaluate(trainer, *a, **b),
    )
    regular(model, train_rows, select_rows, dataclasses.replace(stage, epochs=1.5, evaluations=1), run)
    assert looked_at == [96 // 8, 96 * 3 // 2 // 8]


def test_regular_skips_unlabelled_rows(model, select_rows, stage, run):
    rows = make_examples(96, 1)
    rows.labels[::2] = -1
    regular(model, rows, select_rows, stage, run)
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_gradient_accumulation_takes_the_step_of_the_large_batch(model, train_rows, select_rows, stage, run):
    twin = copy.deepcopy(model)
    large = dataclasses.replace(stage, kind="heads", batch_size=16, epochs=1)
    heads(model, train_rows, select_rows, large, run)
    split = dataclasses.replace(large, batch_size=8, accumulate=2)
    heads(twin, train_rows, select_rows, split, dataclasses.replace(run, folder=run.folder / "twin"))
    batch = collate([select_rows[i] for i in range(len(select_rows))])
    with torch.no_grad():
        one, other = (torch.stack(m(packed(batch["states"], batch["lengths"]))) for m in (model, twin))
    # Not the weights: a key's bias has no gradient but rounding, which Adam scales up to a step of its own.
    assert torch.allclose(one, other, atol=1e-3)


def test_the_best_on_select_is_kept(model, train_rows, select_rows, stage, run):
    # Trained towards the opposite of what select asks for, it only gets worse: the last weights are not the best.
    seen = []
    flipped = Examples(train_rows.encoded, 1 - train_rows.labels)
    slow = dataclasses.replace(stage, epochs=6, learning_rate=1e-3, batch_size=16)
    forward = model.full_logits

    def watched(batch):
        logits = forward(batch)
        if not model.training:
            seen.append(accuracy(logits.detach().numpy(), select_rows.labels))
        return logits

    model.full_logits = watched
    regular(model, flipped, select_rows, slow, run)
    del model.full_logits
    assert len(seen) == 12
    assert full_accuracy(model, select_rows) == max(seen)
    assert seen[-1] < max(seen)


def test_a_model_without_heads_has_no_heads_stage(train_rows, select_rows, stage, run, model):
    model.exits.clear()
    with pytest.raises(UserError, match="head_layers"):
        heads(model, train_rows, select_rows, stage, run)


def test_unknown_stage_lists_the_known():
    with pytest.raises(UserError, match="regular, guess, soft, hard, heads"):
        stage_of("softer")
