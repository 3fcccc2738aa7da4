"""Soft pruning: it ends in the hard one, and its thresholds and penalties mean what the papers say."""

import numpy as np
import pytest
import torch

from ziggurat.data import pack
from ziggurat.encoder import soft_logits, starting_values
from ziggurat.encoder.torch.soft import regularisation_from_ltp
from ziggurat.policies import SCALES, linear_schedule, rescale
from ziggurat.policies.prune import SCORES
from ziggurat.recipe import PruningConfig


@pytest.mark.parametrize("score", SCORES)
def test_claim_7_the_soft_forward_becomes_the_hard_one(make_pruned, ragged_tokens, score):
    model = make_pruned(PruningConfig(final=1.2, vocabulary=0.9, score=score))
    batch = pack(ragged_tokens)
    with torch.no_grad():
        model.pruning.vocabulary.copy_(torch.linspace(-3e4, 3e4, 54).roll(7))
        hard = model.full_logits(batch, model.token_rule)
        gaps = []
        for temperature in (1.0, 1e-2, 1e-5):
            logits, masks = soft_logits(model, batch, temperature)
            gaps.append(float((logits - hard).abs().max()))
    assert gaps[-1] < 1e-3 < gaps[0]
    assert masks[-1].min() == 0 and masks[-1].max() == 1


@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale != "paper"])
def test_t_means_the_same_in_every_scale(make_pruned, ragged_tokens, scale):
    """Of `paper` a text's unit is its own, so that no one threshold is the same."""
    batch = pack(ragged_tokens)
    final = rescale(1.2, "relative", scale, 10).item()
    models = make_pruned(PruningConfig(final=1.2)), make_pruned(PruningConfig(final=final, scale=scale))
    with torch.no_grad():
        masks = [torch.stack(soft_logits(model, batch, 0.1)[1]) for model in models]
    assert torch.allclose(*masks, atol=1e-5)
    assert 0.1 < masks[0][2].mean() < 0.9


@pytest.mark.parametrize("fade", [True, False])
def test_a_threshold_below_zero_recovers_and_zero_means_none(make_pruned, ragged_tokens, fade):
    model = make_pruned(PruningConfig(per_layer=(0.5, 0.5, 0.0, None)))
    with torch.no_grad():
        model.pruning.values[0] = -0.01
    _, masks = soft_logits(model, pack(ragged_tokens), 0.5, fade)
    torch.stack(masks).mean().backward()
    gradient = model.pruning.values.grad
    assert gradient[0] < 0 and gradient[1] < 0 and gradient[2] == 0  # a larger threshold leaves less
    assert model.token_rule.prunes(1) is False
    others = masks[2][masks[1] < 1]
    assert (others < 1).all() if fade else (masks[2] == 1).all()  # what faded stays so, or is a mask of each layer


def test_claim_10_thresholds_start_on_a_line():
    assert np.allclose(linear_schedule(1.2, 4), [0.3, 0.6, 0.9, 1.2])
    assert np.allclose(starting_values(PruningConfig(final=1.2), 4), [0.3, 0.6, 0.9, 1.2])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_claim_10_batches_of_one_two_and_three_run(make_pruned, ragged_tokens, n):
    model = make_pruned(PruningConfig(final=1.2, vocabulary=0.9))
    logits, masks = soft_logits(model, pack(ragged_tokens[:n]), 0.1)
    assert logits.shape == (n, 3) and len(masks) == 5
    logits.sum().backward()
    grads = model.pruning.values.grad.abs()
    assert grads[:3].min() > 0 and grads[3] == 0  # behind the last layer only the first token is read


def test_claim_8_the_mean_share_left_is_the_same_in_any_batch(make_pruned, ragged_tokens):
    model = make_pruned(PruningConfig(final=1.2))
    with torch.no_grad():
        _, together = soft_logits(model, pack(ragged_tokens), 0.1)
        alone = [soft_logits(model, pack([tokens]), 0.1)[1] for tokens in ragged_tokens]
    for layer, mask in enumerate(together):
        assert torch.allclose(mask, torch.cat([masks[layer] for masks in alone]), atol=1e-5)


def test_claim_8_ltps_lambda_converted_pulls_as_in_ltp(make_pruned, ragged_tokens):
    model = make_pruned(PruningConfig(final=1.2))
    lengths = np.array([len(tokens) for tokens in ragged_tokens])
    padded, ltp_weight = 128, 0.02
    # LTP's code: sum over layers but its layer 0 of the mean over all places of the padded batch.
    _, masks = soft_logits(model, pack(ragged_tokens), 0.1, fade_attention=False)
    (ltp_weight * sum(mask.sum() / (len(lengths) * padded) for mask in masks[1:])).backward()
    wanted = model.pruning.values.grad.clone()
    model.pruning.values.grad = None
    _, masks = soft_logits(model, pack(ragged_tokens), 0.1, fade_attention=False)
    weight = regularisation_from_ltp(ltp_weight, 4, lengths.mean(), padded)
    (weight * torch.stack([mask.mean() for mask in masks]).mean()).backward()
    # The first threshold: LTP's sum has no term of that layer's own mask.
    assert torch.allclose(model.pruning.values.grad[1:], wanted[1:], rtol=1e-5)
    assert wanted[1:].abs().min() > 0


def test_claim_9_thresholds_are_saved_and_come_back(make_pruned, tiny_checkpoint, tmp_path):
    from ziggurat.encoder import Manifest, load_model, save_model

    config = PruningConfig(per_layer=(None, 0.5, 0.75, 1.0), vocabulary=0.9)
    model = make_pruned(config)
    manifest = Manifest(("a", "b", "c"), False, 24, "fastbert", (1, 2, 3), "", pruning=config)
    save_model(model, manifest, np.zeros(1, dtype=np.uint64), tiny_checkpoint, tmp_path / "out")
    again, read = load_model(tmp_path / "out")
    assert read.pruning == config
    assert torch.allclose(again.pruning.values, model.pruning.values, rtol=0, atol=0, equal_nan=True)
    assert np.array_equal(again.token_rule.vocabulary, model.token_rule.vocabulary)
    assert not again.token_rule.prunes(1) and again.token_rule.prunes(2)
