"""Tokens that leave, against a masked forward that keeps every token and says what was meant."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.data import pack
from ziggurat.encoder import fingerprint, read_manifest, starting_values
from ziggurat.policies import SCALES, TokenRule, above, top_count, top_share, without_repeats
from ziggurat.policies.prune import FROM_OTHERS, only_first
from ziggurat.recipe import PruningConfig

ONE_TEXT = st.lists(st.integers(5, 53), min_size=1, max_size=25)
TEXTS = st.lists(ONE_TEXT, min_size=1, max_size=6)


def tokens_of(ids, pair_from=None):
    """[CLS] ids [SEP], segment 1 from `pair_from` on."""
    ids = np.array([2, *ids, 3])
    segments = np.zeros_like(ids) if pair_from is None else (np.arange(len(ids)) >= pair_from).astype(int)
    return np.stack([ids, segments], axis=1)


@torch.no_grad()
def masked_forward(model, tokens, rule):
    """One text with all its tokens kept in place and switched off by masks.

    Returns every rung's logits, the tokens left after each layer, and the state in which each token was last alive.
    """
    encoder, n = model.encoder, len(tokens)
    alive = np.ones(n, dtype=bool) if rule.vocabulary is None else rule.vocabulary[tokens[:, 0]].copy()
    alive[0] = True
    states = last = encoder.embeddings(pack([tokens])).states
    answers, left = [], [alive.sum()]
    for number, layer in enumerate(encoder.layers, start=1):
        query, key, value = layer.qkv(states).view(n, 3, layer.heads, -1).permute(1, 2, 0, 3)
        products = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        products[:, :, torch.from_numpy(~alive)] = -torch.inf
        shares = products.softmax(-1)
        received = shares.mean(0).numpy()
        if rule.score == FROM_OTHERS:
            np.fill_diagonal(received, 0)
        scores = received[alive].sum(0)
        if not np.isnan(rule.values[number - 1]):
            unit = scores * SCALES[rule.scale](np.array([n]))[0]
            value_here = rule.values[number - 1]
            stays = alive.copy()
            if rule.keep is above:
                stays &= unit > value_here
            else:
                count = round(value_here * n) if rule.keep is top_share else int(value_here)
                order = [0, *(i for i in np.argsort(-scores, kind="stable") if i != 0 and alive[i])]
                stays = np.isin(np.arange(n), order[: max(count, 1)])
            stays[0] = True
            alive = stays
        left.append(alive.sum())
        context = (shares @ value).transpose(0, 1).reshape(n, -1)
        whole = pack([tokens]).with_states(states)
        states = layer.finish(whole, context).states
        last = torch.where(torch.from_numpy(alive)[:, None], states, last)
        if (head := model.head_at(number)) is not None:
            answers.append(head(whole.with_states(states).take_tokens(alive))[0])
    return torch.stack(answers), left, last


def rules(n_layers=4, vocabulary=54):
    numbers = st.lists(st.floats(0.2, 2.0), min_size=n_layers, max_size=n_layers).map(np.array)
    shares = st.lists(st.floats(0.0, 1.0), min_size=n_layers, max_size=n_layers).map(np.array)
    counts = st.lists(st.integers(1, 12).map(float), min_size=n_layers, max_size=n_layers).map(np.array)
    read = st.none() | st.integers(0, 2**20).map(lambda seed: np.random.default_rng(seed).random(vocabulary) < 0.7)
    scores = st.sampled_from(["received", FROM_OTHERS])
    thresholds = st.builds(TokenRule, st.just(above), numbers, scores, st.just("relative"), read)
    paper = st.builds(
        TokenRule, st.just(above), numbers.map(lambda v: v / 20), st.just("received"), st.just("paper"), read
    )
    shares_rule = st.builds(TokenRule, st.just(top_share), shares, scores, st.just("relative"), read)
    counts_rule = st.builds(TokenRule, st.just(top_count), counts, scores, st.just("relative"), read)
    return thresholds | paper | shares_rule | counts_rule


@pytest.mark.parametrize("pair", [False, True])
def test_claim_4_physical_removal_equals_masking(make_model, pair):
    model = make_model()

    @settings(derandomize=True, deadline=None, max_examples=40)
    @given(TEXTS, rules())
    def check(texts, rule):
        tokens = [tokens_of(ids, 1 + len(ids) // 2 if pair else None) for ids in texts]
        with torch.no_grad():
            packed = torch.stack(model(pack(tokens), rule), dim=1)
        for row, one in enumerate(tokens):
            masked, _, _ = masked_forward(model, one, rule)
            assert torch.allclose(packed[row], masked, atol=1e-5)

    check()


@settings(derandomize=True, deadline=None, max_examples=40)
@given(TEXTS, rules())
def test_restored_states_are_those_of_a_tokens_last_layer(tiny_model_once, texts, rule):
    tokens = [tokens_of(ids) for ids in texts]
    with torch.no_grad():
        restored = tiny_model_once.restored_states(pack(tokens), rule)
    literal = torch.cat([masked_forward(tiny_model_once, one, rule)[2] for one in tokens])
    assert torch.allclose(restored, literal, atol=1e-5)


def test_restored_states_are_the_last_layers_without_pruning(tiny_model, ragged_tokens):
    batch = pack(ragged_tokens)
    with torch.no_grad():
        states = tiny_model.embed(batch)
        for layer in range(1, 5):
            states = tiny_model.layer(layer, states)
        assert torch.equal(tiny_model.restored_states(batch), states.states)


def test_a_dropped_token_gets_a_gradient_through_its_state(make_model, ragged_tokens):
    model = make_model()
    batch, rule = pack(ragged_tokens), TokenRule(top_count, np.array([np.nan, 1.0, np.nan, np.nan]))
    restored = model.restored_states(batch, rule)
    pruned = np.flatnonzero(batch.positions > 0)  # all but the first tokens, after layer 1
    restored[torch.from_numpy(pruned)].square().sum().backward()
    reached = [any(p.grad is not None and p.grad.any() for p in layer.parameters()) for layer in model.encoder.layers]
    assert reached == [True, False, False, False]


@settings(derandomize=True, deadline=None, max_examples=30)
@given(TEXTS, rules(), st.randoms(use_true_random=False))
def test_claim_6_order_and_batch_mates_change_nothing(tiny_model_once, texts, rule, random):
    tokens = [tokens_of(ids) for ids in texts]
    order = list(range(len(tokens)))
    random.shuffle(order)
    with torch.no_grad():
        together = torch.stack(tiny_model_once(pack(tokens), rule))
        shuffled = torch.stack(tiny_model_once(pack([tokens[i] for i in order]), rule))
        states = tiny_model_once.embed(pack(tokens))
        for layer in range(1, 5):
            states = tiny_model_once.layer(layer, states, rule)
    assert torch.allclose(together[:, order], shuffled, atol=1e-5)
    for first, stop in itertools.pairwise(states.cu_seqlens.tolist()):  # what is left of a text keeps its order
        assert (np.diff(states.positions[first:stop]) > 0).all()


@pytest.fixture(scope="module")
def tiny_model_once(make_model):
    return make_model()


@pytest.mark.parametrize("keep", [above, top_share, top_count])
def test_claim_3_the_first_token_stays_whatever_the_number(tiny_model, ragged_tokens, keep):
    hardest = np.full(4, np.inf if keep is above else 0.0)
    states = tiny_model.embed(pack(ragged_tokens))
    with torch.no_grad():
        for layer in range(1, 5):
            states = tiny_model.layer(layer, states, TokenRule(keep, hardest))
    assert states.lengths.tolist() == [1] * len(ragged_tokens)
    assert (states.positions == 0).all()


def test_claim_3_a_share_that_rounds_to_zero_keeps_the_first(tiny_model):
    rule = TokenRule(top_share, np.full(4, 0.01))
    with torch.no_grad():
        states = tiny_model.layer(1, tiny_model.embed(pack([tokens_of(range(5, 23))])), rule)
    assert states.positions.tolist() == [0]


def test_claim_5_counts_never_rise_even_with_negative_thresholds(tiny_model, ragged_tokens):
    rule = TokenRule(above, np.array([1.0, -5.0, 1.1, -np.inf]))
    read_by_feed_forward = []  # tokens leave between attention and what follows it
    for layer in tiny_model.encoder.layers:
        layer.up.register_forward_pre_hook(lambda _, states: read_by_feed_forward.append(len(states[0])))
    with torch.no_grad():
        states = tiny_model.embed(pack(ragged_tokens))
        positions = [set(zip(np.repeat(states.rows, states.lengths), states.positions, strict=True))]
        for layer in range(1, 5):
            states = tiny_model.layer(layer, states, rule)
            positions.append(set(zip(np.repeat(states.rows, states.lengths), states.positions, strict=True)))
    assert all(later <= earlier for earlier, later in itertools.pairwise(positions))
    assert [len(layer) for layer in positions[1:]] == read_by_feed_forward
    assert (
        len(positions[1]) < len(positions[0]) and positions[1] == positions[2] and len(positions[3]) < len(positions[2])
    )


def test_claim_2_scores_have_mean_one_at_every_layer_and_length(tiny_model, ragged_tokens):
    with torch.no_grad():
        states = tiny_model.embed(pack(ragged_tokens))
        for layer in tiny_model.encoder.layers:
            _, scores = layer.scored_context(states)
            means = np.add.reduceat(scores.numpy(), states.cu_seqlens[:-1]) / states.lengths
            assert np.allclose(means, 1, atol=1e-5)
            states = layer(states).take_tokens(scores.numpy() > 0.9)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 19), min_size=1, max_size=12))
def test_claim_1_scores_and_kept_tokens_ignore_batch_mates(tiny_model_once, ragged_tokens, picked):
    together = pruning_of(tiny_model_once, [ragged_tokens[i] for i in picked])
    alone = [pruning_of(tiny_model_once, [ragged_tokens[i]]) for i in picked]
    for layer, (scores, kept) in enumerate(together):
        assert np.allclose(scores, np.concatenate([one[layer][0] for one in alone]), atol=1e-5)
        assert kept.tolist() == np.concatenate([one[layer][1] for one in alone]).tolist()


def test_claim_1_the_compared_models_prune_at_every_layer(tiny_model_once, ragged_tokens):
    left = [len(kept) for _, kept in pruning_of(tiny_model_once, ragged_tokens)]
    assert sum(map(len, ragged_tokens)) > left[0] > left[1] > left[2] > left[3] > len(ragged_tokens)


def pruning_of(model, tokens):
    """For each layer the scores (n_tokens) of a batch, and the places (n_left) in their texts that it leaves."""
    rule, layers = TokenRule(above, np.array([0.6, 0.7, 0.8, 0.9])), []
    with torch.no_grad():
        states = model.embed(pack(tokens))
        for layer in range(1, 5):
            scores = model.encoder.layers[layer - 1].scored_context(states)[1].numpy()
            states = model.layer(layer, states, rule)
            layers.append((scores, states.positions))
    return layers


def test_scores_come_with_the_same_context_as_fused_attention(tiny_model, ragged_tokens):
    layer = tiny_model.encoder.layers[0]
    states = tiny_model.embed(pack(ragged_tokens))
    with torch.no_grad():
        assert torch.allclose(layer.scored_context(states)[0], layer.context(states), atol=1e-5)


def test_a_geometric_schedule_falls_by_one_factor():
    shares = starting_values(PruningConfig(kind="share", schedule="geometric", first=0.8, final=0.1), 4)
    assert np.allclose(shares, [0.8, 0.4, 0.2, 0.1])
    counts = starting_values(PruningConfig(kind="count", schedule="geometric", first=96, final=8), 6)
    assert counts.tolist() == [96, 58, 36, 22, 13, 8]


def test_a_share_already_removed_removes_no_more(tiny_model, ragged_tokens):
    shares = np.array([1.0, 0.6, 0.6, 0.3])
    assert np.array_equal(without_repeats(shares), [np.nan, 0.6, np.nan, 0.3], equal_nan=True)
    batch = pack(ragged_tokens)
    with torch.no_grad():
        scored = tiny_model.full_logits(batch, TokenRule(top_share, shares))
        spared = tiny_model.full_logits(batch, TokenRule(top_share, without_repeats(shares)))
    assert torch.allclose(scored, spared, atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_only_first_names_the_thresholds_that_no_token_passes(scale):
    longest = 12
    attention = {n: np.array([0.0, n, *[0.0] * (n - 2)]) for n in range(2, longest + 1)}  # all of it to one token
    highest = max(float((scores * SCALES[scale](np.array([n]))).max()) for n, scores in attention.items())
    assert only_first("threshold", scale, highest, longest)
    assert not only_first("threshold", scale, highest * 0.999, longest)


@pytest.mark.parametrize(("kind", "nothing", "something"), [("share", 0.124, 0.126), ("count", 1, 2)])
def test_only_first_names_shares_and_counts_that_leave_one_token(tiny_model, kind, nothing, something):
    assert only_first(kind, "relative", nothing, 12) and not only_first(kind, "relative", something, 12)
    keep = {"share": top_share, "count": top_count}[kind]
    for value, left in ((nothing, 1), (something, 2)):
        with torch.no_grad():
            rule = TokenRule(keep, np.full(4, float(value)))
            assert tiny_model.layer(1, tiny_model.embed(pack([tokens_of(range(5, 15))])), rule).lengths == [left]


def test_predicted_scores_have_mean_one_and_prune(make_pruned, ragged_tokens):
    model = make_pruned(PruningConfig(final=1.0, schedule="flat", score="predicted"))
    batch = pack(ragged_tokens)
    with torch.no_grad():
        states = model.embed(batch)
        scores = model.pruning.predicted(1, states).numpy()
        means = np.add.reduceat(scores, batch.cu_seqlens[:-1]) / batch.lengths
        left = model.layer(1, states, model.token_rule)
    assert np.allclose(means, 1, atol=1e-5)
    assert len(left.positions) < len(batch.positions)
    kept = scores > 1
    kept[batch.cu_seqlens[:-1]] = True
    assert left.positions.tolist() == batch.positions[kept].tolist()


def test_old_folders_without_a_starting_key_keep_the_fingerprint(model_folder):
    manifest = read_manifest(model_folder)
    start = {"kind": "count", "schedule": "geometric", "final": 2}
    prints = {
        fingerprint(model_folder, replace(manifest, pruning=PruningConfig(**start | changes)))
        for changes in ({"first": 9}, {"first": 5}, {"first": 5, "score": FROM_OTHERS})
    }
    assert len(prints) == 2
