from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from ziggurat.data import cumulate
from ziggurat.errors import UserError
from ziggurat.small import UNKNOWN, BilstmTier, load_bilstm_tier
from ziggurat.small.bilstm import WIDE, BilstmShape, bilstm_flops, blocks_of, product, scaled

IDS, ROWS = 60, 20
NAMES = ("weight_ih", "weight_hh")


def make_tier(width: int = 5, state: int = 6, hidden: int = 7, n_classes: int = 3, seed: int = 0) -> BilstmTier:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(scale=0.7, size=shape).astype(np.float32)

    vocabulary = np.where(np.arange(IDS) < 40, np.arange(IDS) % ROWS, UNKNOWN).astype(np.int16)
    layers = normal(2, 4 * state, width + state + 1), normal(2, 4 * state, 3 * state + 1)
    dense = normal(hidden, 2 * state + 1), normal(n_classes, hidden + 1)
    return BilstmTier(vocabulary, normal(ROWS, width), normal(2, width), *layers, *dense)


def make_texts(lengths: list[int] | np.ndarray, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    total = int(np.sum(lengths))
    tokens = np.stack([rng.integers(0, IDS, total), rng.integers(0, 2, total)], axis=1)
    return tokens, cumulate(np.asarray(lengths, dtype=np.int64))


def torch_logits(tier: BilstmTier, tokens: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The same by `nn.LSTM`; no text may be empty."""
    sizes = tier.shape
    lstm = nn.LSTM(sizes.width, sizes.state, num_layers=2, bidirectional=True)
    for layer, weights in enumerate((tier.first, tier.second)):
        inputs = weights.shape[2] - sizes.state - 1
        for matrix, direction in zip(torch.from_numpy(weights.copy()), ("", "_reverse"), strict=True):
            for name, part in zip(NAMES, matrix[:, :-1].split([inputs, sizes.state], 1), strict=True):
                getattr(lstm, f"{name}_l{layer}{direction}").data.copy_(part)
            getattr(lstm, f"bias_ih_l{layer}{direction}").data.copy_(matrix[:, -1])
            getattr(lstm, f"bias_hh_l{layer}{direction}").data.zero_()
    states = torch.from_numpy(tier.embedding[tier.vocabulary[tokens[:, 0]]] + tier.segments[tokens[:, 1]])
    texts = list(states.split(np.diff(edges).tolist()))
    with torch.no_grad():
        last = lstm(pack_sequence(texts, enforce_sorted=False))[1][0]
    states = torch.cat([last[2], last[3]], dim=1).numpy()
    network = np.maximum(states @ tier.hidden[:, :-1].T + tier.hidden[:, -1], 0)
    return network @ tier.output[:, :-1].T + tier.output[:, -1]


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=50),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(2, 5),
    st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_it_says_what_torch_says(lengths, width, state, hidden, n_classes, seed):
    tier, texts = make_tier(width, state, hidden, n_classes, seed), make_texts(lengths, seed)
    said = tier.logits(*texts)
    assert said.dtype == np.float32 and said.shape == (len(lengths), n_classes)
    np.testing.assert_allclose(said, torch_logits(tier, *texts), rtol=1e-4, atol=1e-4)  # float32, 40 steps in a row


def test_it_says_what_torch_says_at_its_full_size():
    tier, texts = make_tier(50, 64, 200, 4), make_texts(np.random.default_rng(2).integers(1, 200, 150))
    tier = dataclasses.replace(tier, **{name: getattr(tier, name) * np.float32(0.2) for name in ("first", "second")})
    np.testing.assert_allclose(tier.logits(*texts), torch_logits(tier, *texts), rtol=1e-5, atol=1e-5)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_an_answer_depends_neither_on_the_batch_nor_on_its_place(lengths, seed):
    tier, (tokens, edges) = make_tier(), make_texts(lengths, seed)
    together = tier.logits(tokens, edges)
    order = np.random.default_rng(seed).permutation(len(lengths))
    shuffled = np.concatenate([tokens[edges[i] : edges[i + 1]] for i in order])
    again = tier.logits(shuffled, cumulate(np.asarray(lengths)[order]))
    alone = tier.logits(tokens[: edges[1]], edges[:2])
    # To the last bit where BLAS treats sixteen columns alike, which the next test is about.
    np.testing.assert_allclose(again, together[order], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(alone, together[:1], rtol=1e-5, atol=1e-5)


def columns_are_alike(*sizes: tuple[int, int]) -> bool:
    """Whether this machine's BLAS gives every one of sixteen columns the same bits, for these rows and inner sizes."""
    rng = np.random.default_rng(3)
    tables = [rng.normal(size=size).astype(np.float32) for size in sizes]
    columns = [rng.normal(size=(inner, 1)).astype(np.float32).repeat(WIDE, axis=1) for _, inner in sizes]
    said = [table @ column for table, column in zip(tables, columns, strict=True)]
    return all(np.array_equal(each, each[:, :1].repeat(WIDE, axis=1)) for each in said)


def test_answers_do_not_depend_on_how_blas_orders_columns():
    tier, lengths = make_tier(50, 64, 200, 4), np.random.default_rng(4).integers(0, 60, 70)
    if not columns_are_alike((256, 115), (256, 193), (200, 129), (4, 201)):
        pytest.skip("this machine's BLAS gives columns of one product different bits")
    tokens, edges = make_texts(lengths)
    together = tier.logits(tokens, edges)
    for start, end in ((0, 1), (1, 2), (2, 9), (9, 70), (0, 40)):
        part = edges[start : end + 1]
        assert np.array_equal(tier.logits(tokens[part[0] : part[-1]], part - part[0]), together[start:end])


def test_texts_of_no_token_or_one_are_answered():
    tier, (tokens, edges) = make_tier(), make_texts([1, 0, 1, 3, 0])
    said = tier.logits(tokens, edges)
    network = np.maximum(tier.hidden[:, -1], 0)
    nothing = tier.output[:, :-1] @ network + tier.output[:, -1]
    np.testing.assert_allclose(said[[1, 4]], [nothing, nothing], rtol=1e-5)
    full = edges[[0, 2, 3, 4]]  # without the empty ones
    np.testing.assert_allclose(said[[0, 2, 3]], torch_logits(tier, tokens, full), rtol=1e-5, atol=1e-5)
    assert np.array_equal(tier.logits(tokens[:0], np.zeros(3, dtype=np.int64)), said[[1, 4]])
    assert tier.logits(tokens[:0], edges[:1]).shape == (0, 3)


def test_ids_without_a_row_share_one_and_others_do_not():
    tier, (tokens, edges) = make_tier(), make_texts([5])
    said = []
    for index in (40, 59, 1, 2):
        tokens[2, 0] = index
        said.append(tier.logits(tokens, edges))
    assert np.array_equal(said[0], said[1])
    assert not np.allclose(said[0], said[2]) and not np.allclose(said[2], said[3])


def test_order_and_segments_are_read():
    tier, (tokens, edges) = make_tier(), make_texts([6])
    other_side = tokens.copy()
    other_side[3, 1] = 1 - other_side[3, 1]
    for other in (tokens[::-1], other_side):
        assert not np.allclose(tier.logits(np.ascontiguousarray(other), edges), tier.logits(tokens, edges), atol=1e-3)


def test_every_token_has_its_slot_in_both_directions():
    lengths = np.array([9] * 20 + [4] * 5 + [1] * 3)
    starts = cumulate(lengths)[:-1]
    blocks = blocks_of(starts, lengths)
    assert blocks.n_slots == 9 + 9 and blocks.live.tolist() == [2] * 9  # 16 and 12 texts, both blocks nine steps long
    for text, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        block, place = divmod(text, WIDE)
        slots = blocks.edges[:length] + block
        assert blocks.tokens[0, slots, place].tolist() == list(range(start, start + length))
        assert blocks.tokens[1, slots, place].tolist() == list(range(start, start + length))[::-1]
        assert blocks.mirror[slots, place].tolist() == slots[::-1].tolist()
        assert blocks.last[text] == slots[-1]
    # Blocks that end take no further part.
    assert blocks_of(starts[4:], lengths[4:]).live.tolist() == [2] * 4 + [1] * 5


def test_a_sigmoid_is_a_tanh_of_half():
    weights = np.arange(2 * 8 * 3, dtype=np.float32).reshape(2, 8, 3)
    halved = np.concatenate([weights[:, :4] / 2, weights[:, 6:] / 2, weights[:, 4:6]], axis=1)
    assert np.array_equal(scaled(weights), halved)


def test_a_product_is_one_whatever_its_rows():
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(4, 6)).astype(np.float32)
    for n in (0, 1, 16, 17, 40):
        inputs = rng.normal(size=(n, 5)).astype(np.float32)
        said = product(weights, inputs)
        np.testing.assert_allclose(said, inputs @ weights[:, :-1].T + weights[:, -1], rtol=1e-5, atol=1e-6)


def test_a_file_gives_the_same_tier_which_no_longer_needs_it(tmp_path):
    tier, path = make_tier(), tmp_path / "tier.safetensors"
    tier.save(path)
    again = load_bilstm_tier(path)
    texts = make_texts([3, 0, 40])
    assert np.array_equal(again.logits(*texts), tier.logits(*texts))
    for field in dataclasses.fields(tier):
        assert np.array_equal(getattr(again, field.name), getattr(tier, field.name))
    path.write_bytes(bytes(path.stat().st_size))
    assert np.array_equal(again.embedding, tier.embedding)


def test_a_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "tier.safetensors"
    with pytest.raises(UserError, match="not found"):
        load_bilstm_tier(path)
    make_tier().save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    with pytest.raises(UserError, match="broken or truncated"):
        load_bilstm_tier(path)
    path.write_bytes(content)
    tensors = load_file(path)
    save_file(tensors, path, {"format_version": "2"})
    with pytest.raises(UserError, match="newer"):
        load_bilstm_tier(path)
    for change in (
        {"output": tensors["output"][:, 1:]},
        {"more": tensors["output"]},
        {"vocabulary": tensors["vocabulary"].astype(np.int64)},
    ):
        kept = {name: np.ascontiguousarray(values) for name, values in (tensors | change).items()}
        save_file(kept, path, {"format_version": "1"})
        with pytest.raises(UserError, match="not a bilstm tier"):
            load_bilstm_tier(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocabulary", np.zeros(9, dtype=np.int64)),
        ("vocabulary", np.full(9, ROWS, dtype=np.int16)),
        ("vocabulary", np.full(9, -1, dtype=np.int16)),
        ("embedding", np.zeros((0, 5), dtype=np.float32)),
        ("embedding", np.zeros((ROWS, 5))),
        ("embedding", np.full((ROWS, 5), np.nan, dtype=np.float32)),
        ("segments", np.zeros((3, 5), dtype=np.float32)),
        ("first", np.zeros((2, 24, 11), dtype=np.float32)),
        ("second", np.zeros((1, 24, 19), dtype=np.float32)),
        ("hidden", np.zeros((7, 12), dtype=np.float32)),
        ("output", np.zeros((0, 8), dtype=np.float32)),
        ("output", np.zeros(8, dtype=np.float32)),
    ],
)
def test_parts_that_do_not_fit_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(make_tier(), **{name: value})


def test_ids_segments_and_edges_that_do_not_fit_are_refused():
    tier, (tokens, edges) = make_tier(), make_texts([3, 4])
    for change, what in (([IDS, 0], "token id"), ([-1, 0], "token id"), ([0, 2], "segment"), ([0, -1], "segment")):
        wrong = tokens.copy()
        wrong[2] = change
        with pytest.raises(ValueError, match=what):
            tier.logits(wrong, edges)
    with pytest.raises(ValueError, match="cu_seqlens"):
        tier.logits(tokens, edges[:-1])


def test_flops_are_two_for_each_multiply_add_of_real_tokens():
    # By hand: a direction of layer one 4 · 3 · (2 + 3) multiply-adds a token, of layer two 4 · 3 · (6 + 3).
    by_token, by_text = 2 * (60 + 108), 6 * 5 + 5 * 4
    lengths = np.array([[1, 10], [0, 7]])
    flops = bilstm_flops(BilstmShape(width=2, state=3, hidden=5, n_classes=4), lengths)
    assert flops.dtype == np.int64
    assert np.array_equal(flops, 2 * (by_token * lengths + by_text))


def test_flops_are_two_for_each_weight_of_the_cells():
    tier = make_tier(50, 64, 200, 2)
    inner = sum(weights[..., :-1].size for weights in (tier.first, tier.second, tier.hidden, tier.output))
    assert bilstm_flops(tier.shape, np.array(1)) == 2 * inner


def test_it_has_the_paper_s_number_of_parameters():
    tier = make_tier(50, 64, 200, 2)
    parts = (tier.first, tier.second, tier.hidden, tier.output)
    assert 680_000 < 10_000 * 50 + sum(part.size for part in parts) < 690_000
