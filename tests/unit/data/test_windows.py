"""Windows of long contexts: nothing of the context is missed, and places lead back to the exact text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.questions import MAX_LENGTH, QUESTION, STRIDE, make_contexts, make_questions
from ziggurat.data import TextTokenizer, windows_of
from ziggurat.data.tokenizer import pack_rows
from ziggurat.data.windows import gold_tokens
from ziggurat.errors import UserError
from ziggurat.recipe import SpanConfig

CONFIG = SpanConfig(MAX_LENGTH, STRIDE, QUESTION)


def text_in(windows, window, start, end):
    """What stands between two tokens of the how many-th of all windows."""
    row = int(windows.owners[window])
    return windows.text(row, window - int(windows.edges[row]), start, end)


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return TextTokenizer(tiny_checkpoint, MAX_LENGTH)


def context_of(windows, window):
    """Token ids of a window's stretch of context."""
    first = windows.first[window]
    return windows.tokens[window][first : first + len(windows.places[window]), 0].tolist()


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 120), min_size=1, max_size=5), stride=st.integers(0, 14), seed=st.integers(0, 99)
)
def test_windows_cover_the_context_and_share_the_stride(tokenizer, lengths, stride, seed):
    contexts, questions = make_contexts(seed, lengths), make_questions(seed, len(lengths))
    windows = windows_of(tokenizer, questions, contexts, SpanConfig(MAX_LENGTH, stride, QUESTION))
    whole = [encoding.ids for encoding in tokenizer.encodings(contexts)]
    assert windows.lengths.max() <= MAX_LENGTH
    for row, ids in enumerate(whole):
        mine = range(windows.edges[row], windows.edges[row + 1])
        joined = context_of(windows, mine[0])
        for window in mine[1:]:
            part = context_of(windows, window)
            assert joined[len(joined) - stride :] == part[:stride] and len(part) > stride
            joined += part[stride:]
        assert joined == ids


def test_every_window_is_the_pair_that_the_tokenizer_would_make(tokenizer):
    contexts, questions = make_contexts(), make_questions()
    windows = windows_of(tokenizer, questions, contexts, CONFIG)
    for window, tokens in enumerate(windows.tokens):
        row = windows.owners[window]
        places = windows.places[window]
        stretch = contexts[row][places[0, 0] : places[-1, 1]]
        cut = " ".join(questions[row].split()[:QUESTION])
        assert np.array_equal(tokens[:, :2], tokenizer.encode([cut], [stretch]).tokens[0])
        assert windows.truncated[row] == (len(questions[row].split()) > QUESTION)


def test_marks_are_the_first_token_and_the_context(tokenizer):
    windows = windows_of(tokenizer, make_questions(), make_contexts(), CONFIG)
    for window, tokens in enumerate(windows.tokens):
        first = windows.first[window]
        marked = [0, *range(first, first + len(windows.places[window]))]
        assert np.flatnonzero(tokens[:, 2]).tolist() == marked
        assert tokens[-1, 2] == 0  # the separator


def test_places_lead_back_to_the_exact_text(tokenizer):
    contexts = make_contexts()
    windows = windows_of(tokenizer, make_questions(), contexts, CONFIG)
    rng = np.random.default_rng(0)
    for window in range(len(windows.tokens)):
        n = len(windows.places[window])
        start, end = sorted(rng.integers(0, n, 2).tolist())
        text, begin, stop = text_in(windows, window, windows.first[window] + start, windows.first[window] + end)
        assert contexts[windows.owners[window]][begin:stop] == text
        assert tokenizer.encodings([text])[0].ids == context_of(windows, window)[start : end + 1]


def test_gold_tokens_give_the_answer_in_windows_that_hold_it(tokenizer):
    contexts = make_contexts(3)
    rng = np.random.default_rng(1)
    answers = []
    for context in contexts:
        words = context.split()
        begin = context.index(words[int(rng.integers(0, len(words)))])
        stop = min(len(context), begin + int(rng.integers(2, 9)))
        answers.append(((context[begin:stop].strip(), begin),))
    answers[4] = ()
    windows = windows_of(tokenizer, make_questions(3), contexts, CONFIG)
    found = gold_tokens(windows, answers)
    held = set()
    for window, (start, end) in enumerate(found):
        row, places = windows.owners[window], windows.places[window]
        inside = bool(answers[row]) and places[0, 0] <= answers[row][0][1]
        inside = inside and answers[row][0][1] + len(answers[row][0][0]) <= places[-1, 1]
        assert (start > 0) == inside
        if inside:
            # An answer may end inside a word; the tokens are the shortest run around it.
            assert text_in(windows, window, start, end)[0].startswith(answers[row][0][0])
            held.add(row)
    assert held == set(range(len(contexts))) - {4}


def test_taking_questions_takes_their_windows(tokenizer):
    contexts, questions = make_contexts(), make_questions()
    windows = windows_of(tokenizer, questions, contexts, CONFIG)
    rows = np.array([7, 0, 5])
    some = windows.take(rows)
    again = windows_of(tokenizer, [questions[r] for r in rows], [contexts[r] for r in rows], CONFIG)
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(some.tokens, again.tokens, strict=True))
    assert some.owners.tolist() == again.owners.tolist() and some.read.tolist() == again.read.tolist()
    assert windows.sequences_of(rows).tolist() == [w for row in rows for w in np.flatnonzero(windows.owners == row)]
    packed = pack_rows(windows, rows)
    assert packed.rows.tolist() == windows.owners[windows.sequences_of(rows)].tolist()
    assert packed.lengths.tolist() == some.lengths.tolist()


@pytest.mark.parametrize(("questions", "contexts"), [(["bat", " "], ["kit"] * 2), (["bat"] * 2, ["kit", "\n"])])
def test_an_empty_question_or_context_is_named(tokenizer, questions, contexts):
    with pytest.raises(UserError, match="number 1 is empty"):
        windows_of(tokenizer, questions, contexts, CONFIG)


def test_a_stride_that_leaves_nothing_new_to_read_is_refused(tokenizer):
    with pytest.raises(UserError, match="stride 15: windows of 24 tokens have room for 15"):
        windows_of(tokenizer, ["bat"], ["kit"], SpanConfig(384, 15, QUESTION))
    with pytest.raises(ValueError, match="stride 128: must be less than the 57 context tokens of a window"):
        SpanConfig(window=124, stride=128)


def test_an_unreadable_context_has_one_window_without_places(tokenizer):
    windows = windows_of(tokenizer, ["bat"], ["\u200b"], CONFIG)
    assert [len(places) for places in windows.places] == [0]
    assert gold_tokens(windows, [(("\u200b", 0),)]).tolist() == [[0, 0]]
