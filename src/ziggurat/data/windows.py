"""Long texts in windows: each has the question and a part of the context, and overlaps the window before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from ziggurat.data.encoded import Encoded
from ziggurat.data.tokenizer import Piece, TextTokenizer
from ziggurat.errors import UserError
from ziggurat.recipe import SpanConfig

if TYPE_CHECKING:
    from ziggurat.data.squad import Gold


@dataclass(frozen=True, eq=False, kw_only=True)
class Windows(Encoded):
    """n questions in s ≥ n windows. Columns of tokens: token id, segment id, 1 = a span may start or end there."""

    owners: np.ndarray
    first: np.ndarray  # (s) int64: where in the window its context begins
    places: list[np.ndarray]  # (s) arrays (context tokens, 2) int64: their characters, from here … to before here
    contexts: Sequence[str]  # (n)

    def take(self, rows: np.ndarray) -> Self:
        """Only these questions, (m) indices, in this order."""
        sequences = self.sequences_of(rows)
        return replace(
            super().take(rows),
            first=self.first[sequences],
            places=[self.places[window] for window in sequences],
            contexts=[self.contexts[row] for row in rows],
        )

    def text(self, row: int, window: int, start: int, end: int) -> tuple[str, int, int]:
        """The text from token `start` to token `end` of a window, and its first and last + 1 character in the context.

        `row` is the question; `window` counts its windows from 0.
        """
        sequence = int(self.edges[row]) + window
        first, places = self.first[sequence], self.places[sequence]
        begin, stop = int(places[start - first, 0]), int(places[end - first, 1])
        return self.contexts[row][begin:stop], begin, stop


def windows_of(
    tokenizer: TextTokenizer, questions: Sequence[str], contexts: Sequence[str], config: SpanConfig
) -> Windows:
    """N questions, each with its context, in windows of at most the tokenizer's `max_length` tokens.

    Adjacent windows share `config.stride` context tokens. UserError for an empty question or context, or for a stride
    so large that a window has no new tokens.
    """
    if len(questions) != len(contexts):
        raise ValueError(f"{len(questions)} questions about {len(contexts)} contexts")
    for side, texts in (("question", questions), ("context", contexts)):
        for index, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{side} number {index} is empty; remove it or give it words")
    frame = tokenizer.frame(2)
    least = tokenizer.max_length - frame.size - config.question
    if config.stride >= least:
        raise UserError(
            f"stride {config.stride}: windows of {tokenizer.max_length} tokens have room for {max(least, 0)} of the "
            f"context beside a question of {config.question}, and must overlap by less; lower stride or question"
        )
    question_ids = [encoding.ids for encoding in tokenizer.encodings(questions)]
    distinct = list(dict.fromkeys(contexts))
    known = dict(zip(distinct, tokenizer.encodings(distinct), strict=True))
    owners, starts, sides, places = [], [], [], []
    for row, (ids, context) in enumerate(zip(question_ids, contexts, strict=True)):
        read, encoding = ids[: config.question], known[context]
        room = tokenizer.max_length - frame.size - len(read)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        for start in _starts(len(encoding.ids), room, config.stride):
            owners.append(row)
            sides.append((read, encoding.ids[start : start + room]))
            starts.append(len(frame.blocks[0]) + len(read) + len(frame.blocks[1]))
            places.append(offsets[start : start + room])
    tables = frame.around([[window[side] for window in sides] for side in (0, 1)])
    tokens = [_marked(*window) for window in zip(tables, starts, map(len, places), strict=True)]
    return Windows(
        tokens=tokens,
        truncated=np.array([len(ids) > config.question for ids in question_ids], dtype=bool),
        owners=np.array(owners, dtype=np.int64),
        first=np.array(starts, dtype=np.int64),
        places=places,
        contexts=contexts,
    )


def gold_tokens(windows: Windows, answers: Sequence[Sequence[Gold]]) -> np.ndarray:
    """First and last token of the first gold answer in each window, (w, 2) int64: the shortest run that covers it.

    0, 0 (the first token) if the window does not contain the complete answer, or there is none.
    """
    found = np.zeros((len(windows.tokens), 2), dtype=np.int64)
    for window, (row, first) in enumerate(zip(windows.owners, windows.first, strict=True)):
        places = windows.places[window]
        if not answers[row] or not len(places):
            continue
        text, begin = answers[row][0]
        stop = begin + len(text)
        if places[0, 0] <= begin and stop <= places[-1, 1]:
            start = int(np.searchsorted(places[:, 0], begin, side="right")) - 1
            end = int(np.searchsorted(places[:, 1], stop, side="left"))
            found[window] = first + start, first + max(start, end)
    return found


def window_pieces(tokenizer: TextTokenizer, windows: Windows, window: int, question: str, begin: int) -> list[Piece]:
    """The tokens of one window in readable form: side 0 is the question, side 1 the context from `begin` on."""
    ids, first, places = windows.tokens[window][:, 0], int(windows.first[window]), windows.places[window]
    pieces = [Piece(string) for string in tokenizer.strings(ids)]
    before = len(tokenizer.frame(2).blocks[0])
    read = first - before - len(tokenizer.frame(2).blocks[1])
    question_offsets = tokenizer.encodings([question])[0].offsets[:read]
    for side, start, offsets in ((0, before, question_offsets), (1, first, (places - begin).tolist())):
        for place, (piece_start, piece_end) in enumerate(offsets, start=start):
            pieces[place] = Piece(pieces[place].string, side, piece_start, piece_end)
    return pieces


def _starts(n_tokens: int, room: int, stride: int) -> range:
    """Starts of windows of `room` tokens that cover n tokens; adjacent windows share `stride` tokens."""
    return range(0, max(1, n_tokens - stride), room - stride)


def _marked(table: np.ndarray, first: int, n_context: int) -> np.ndarray:
    """Ids (length, 2) with a third column: 1 for the context and for the first token, which means "no answer"."""
    marks = np.zeros((len(table), 1), dtype=np.int64)
    marks[0] = marks[first : first + n_context] = 1
    return np.concatenate([table, marks], axis=1)
