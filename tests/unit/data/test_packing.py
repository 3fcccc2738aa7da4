from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.data import PackedBatch, cumulate, pack
from ziggurat.data.packing import padded_slots

repeatable = settings(derandomize=True, deadline=None, max_examples=100)
ragged = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def coded(lengths: list[int]) -> list[np.ndarray]:
    """Sequences whose values say where they belong: 100 x sequence + position, and its negative."""
    return [np.stack([100 * i + np.arange(n), -100 * i - np.arange(n)], axis=1) for i, n in enumerate(lengths)]


def assert_sound(batch: PackedBatch) -> None:
    """Every token still has the value of its row and its position, and order is kept."""
    assert batch.cu_seqlens[0] == 0
    assert batch.cu_seqlens[-1] == len(batch.states) == len(batch.positions)
    assert len(batch.cu_seqlens) == len(batch.rows) + 1 == batch.n_seqs + 1
    rows = np.repeat(batch.rows, batch.lengths)
    assert np.asarray(batch.states)[:, 0].tolist() == (100 * rows + batch.positions).tolist()
    for start, end in zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True):
        assert batch.positions[start] == 0
        assert (np.diff(batch.positions[start:end]) > 0).all()


@st.composite
def batches_with_masks(draw) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Lengths, which sequences to keep (one at least), which tokens to keep."""
    lengths = draw(ragged)
    sequences = np.array(draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths))))
    sequences[draw(st.integers(0, len(lengths) - 1))] = True
    n = sum(lengths)
    return lengths, sequences, np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))


@repeatable
@given(ragged)
def test_packing_keeps_every_token_in_order(lengths):
    batch = pack(coded(lengths))
    assert_sound(batch)
    assert batch.lengths.tolist() == lengths
    assert batch.rows.tolist() == list(range(len(lengths)))
    assert batch.states.tolist() == [token for sequence in coded(lengths) for token in sequence.tolist()]


@repeatable
@given(batches_with_masks())
def test_taking_sequences_keeps_those_and_nothing_else(case):
    lengths, sequences, _ = case
    batch = pack(coded(lengths)).take_sequences(sequences)
    assert_sound(batch)
    assert batch.rows.tolist() == np.flatnonzero(sequences).tolist()
    assert batch.lengths.tolist() == np.array(lengths)[sequences].tolist()


@repeatable
@given(batches_with_masks())
def test_taking_tokens_keeps_those_and_every_first(case):
    lengths, _, tokens = case
    whole = pack(coded(lengths))
    given_mask = tokens.copy()
    batch = whole.take_tokens(tokens)
    assert_sound(batch)
    firsts = np.isin(np.arange(len(tokens)), whole.cu_seqlens[:-1])
    assert batch.states.tolist() == whole.states[tokens | firsts].tolist()
    assert batch.rows.tolist() == whole.rows.tolist()
    assert tokens.tolist() == given_mask.tolist()  # the caller's mask is not written to


@repeatable
@given(batches_with_masks(), batches_with_masks())
def test_neighbours_do_not_matter(case, other):
    lengths, _, tokens = case
    alone = pack(coded(lengths)).take_tokens(tokens)
    neighbours = [np.full((n, 2), -1) for n in other[0]]
    together = pack([*neighbours, *coded(lengths)]).take_tokens(np.concatenate([other[2], tokens]))
    mine = together.take_sequences(together.rows >= len(neighbours))
    assert mine.states.tolist() == alone.states.tolist()
    assert mine.cu_seqlens.tolist() == alone.cu_seqlens.tolist()
    assert mine.positions.tolist() == alone.positions.tolist()


@repeatable
@given(batches_with_masks())
def test_sequences_and_tokens_can_be_taken_in_either_order(case):
    lengths, sequences, tokens = case
    whole = pack(coded(lengths))
    tokens_of_kept = tokens[np.repeat(sequences, whole.lengths)]
    one = whole.take_sequences(sequences).take_tokens(tokens_of_kept)
    two = whole.take_tokens(tokens).take_sequences(sequences)
    assert one.states.tolist() == two.states.tolist()
    assert one.positions.tolist() == two.positions.tolist()
    assert one.cu_seqlens.tolist() == two.cu_seqlens.tolist()


@pytest.mark.slow
@repeatable
@given(batches_with_masks())
def test_torch_states_are_shortened_like_numpy_states(case):
    torch = pytest.importorskip("torch")
    lengths, sequences, tokens = case
    whole = pack(coded(lengths))
    on_torch = whole.with_states(torch.from_numpy(whole.states))
    for one, two in (
        (whole.take_tokens(tokens), on_torch.take_tokens(tokens)),
        (whole.take_sequences(sequences), on_torch.take_sequences(sequences)),
    ):
        assert isinstance(two.states, torch.Tensor)
        assert two.states.tolist() == one.states.tolist()
        assert_sound(two)


@repeatable
@given(ragged)
def test_padded_slots_are_row_times_longest_plus_place(lengths):
    longest = max(lengths)
    grid = np.full((len(lengths), longest, 2), -1)
    grid.reshape(-1, 2)[padded_slots(np.array(lengths))] = pack(coded(lengths)).states
    for i, sequence in enumerate(coded(lengths)):
        assert grid[i, : len(sequence)].tolist() == sequence.tolist()
        assert (grid[i, len(sequence) :] == -1).all()


def test_taking_everything_gives_the_same_batch():
    batch = pack(coded([2, 3]))
    assert batch.take_sequences(np.ones(2, dtype=bool)) is batch
    assert batch.take_tokens(np.ones(5, dtype=bool)) is batch


def test_taking_no_sequence_gives_an_empty_batch():
    batch = pack(coded([2, 3])).take_sequences(np.zeros(2, dtype=bool))
    assert (batch.n_seqs, len(batch.states), batch.cu_seqlens.tolist()) == (0, 0, [0])


def test_rows_may_be_any_numbers():
    batch = pack(coded([1, 2]), rows=np.array([7, 3]))
    assert batch.take_sequences(np.array([False, True])).rows.tolist() == [3]


def test_empty_batches_and_empty_sequences_are_refused():
    for sequences in ([], [np.zeros((0, 2))], [np.zeros((1, 2)), np.zeros((0, 2))]):
        with pytest.raises(ValueError, match="at least one"):
            pack(sequences)


def test_a_batch_is_frozen():
    with pytest.raises(FrozenInstanceError):
        pack(coded([1])).rows = np.array([1])


def test_cumulate_starts_with_zero():
    assert cumulate(np.array([2, 0, 3])).tolist() == [0, 2, 2, 5]
    assert cumulate(np.array([], dtype=np.int64)).tolist() == [0]
