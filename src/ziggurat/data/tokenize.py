"""Texts in, token ids out, without padding."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from ziggurat.data.packing import PackedBatch, pack
from ziggurat.data.tables import first_line
from ziggurat.errors import UserError

CHUNK = 1024  # texts per call: an encoding takes far more memory than the two numbers per token that we keep
UNSPEAKABLE = re.compile("[\x00\ud800-\udfff]")  # NUL and lone surrogates


@dataclass(frozen=True, eq=False)
class Encoded:
    """Token ids of n texts."""

    tokens: list[np.ndarray]  # (n) arrays of shape (length, 2) int64: token id, segment id
    truncated: np.ndarray  # (n) bool: the text was longer than the model reads

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, special ones included, (n) int64."""
        return np.array([len(tokens) for tokens in self.tokens], dtype=np.int64)


@dataclass(frozen=True)
class Piece:
    """One token as people read it."""

    string: str  # the vocabulary's entry: "river", "##s", "[CLS]"
    side: int | None = None  # 0 = of the text, 1 = of a pair's second text, None = a special token
    start: int = 0  # its characters in that text: from here …
    end: int = 0  # … to before here; of a special token both are 0


@dataclass(frozen=True, eq=False)
class Frame:
    """The special tokens around a text, or around and between the two texts of a pair."""

    blocks: list[np.ndarray]  # (sides + 1) arrays of (any number, 2): before the first side, …, after the last
    segments: list[int]  # (sides): the segment id of each side's own tokens

    @property
    def size(self) -> int:
        """How many special tokens there are."""
        return sum(map(len, self.blocks))

    def around(self, sides: Sequence[np.ndarray]) -> np.ndarray:
        """Token ids of each side, (length_i), as one text of (size + their sum, 2)."""
        parts = [self.blocks[0]]
        for ids, segment, block in zip(sides, self.segments, self.blocks[1:], strict=True):
            parts += [np.stack([ids, np.full_like(ids, segment)], axis=1), block]
        return np.concatenate(parts)


class TextTokenizer:
    """The `tokenizer.json` of a model folder; its own truncation and padding settings are ignored.

    Texts are cut here and not by the `tokenizers` library, which also builds everything that it cuts off: for two long
    sides of a pair that is each piece of one with each piece of the other, gigabytes for a single request.
    """

    def __init__(self, folder: Path, max_length: int) -> None:
        """Texts are cut to `max_length` tokens, special ones included; UserError if the folder has no tokenizer."""
        path = folder / "tokenizer.json"
        self.max_length = max_length
        self._tokenizer = _load(path)
        self._frames = [_frame(self._tokenizer, path, sides) for sides in (1, 2)]
        shortest = max(frame.size + sides for sides, frame in enumerate(self._frames, start=1))
        if max_length < shortest:
            raise UserError(f"max_length {max_length} leaves no room for text; use {shortest} or more")

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Encoded:
        """Tokens of n texts, or of n pairs; of a pair that is too long the longer side is cut first.

        NUL and lone surrogates, which are not text, are read as U+FFFD (the replacement character).
        """
        columns = [self._token_ids(column) for column in (texts, pairs) if column is not None]
        frame = self._frames[len(columns) - 1]
        room = self.max_length - frame.size
        tokens, truncated = [], []
        for sides in zip(*columns, strict=True):
            kept = [ids[:length] for ids, length in zip(sides, _fit([len(ids) for ids in sides], room), strict=True)]
            tokens.append(frame.around(kept))
            truncated.append(sum(map(len, sides)) > room)
        return Encoded(tokens, np.array(truncated, dtype=bool))

    def pieces(self, text: str, pair: str | None = None) -> list[Piece]:
        """The tokens that `encode` makes of one text or pair, in its order, each with its place in the text."""
        sides = [text] if pair is None else [text, pair]
        frame = self._frames[len(sides) - 1]
        encodings = [self._tokenizer.encode(speakable(side), add_special_tokens=False) for side in sides]
        lengths = _fit([len(encoding.ids) for encoding in encodings], self.max_length - frame.size)
        pieces = self._special(frame.blocks[0])
        for side, (encoding, length) in enumerate(zip(encodings, lengths, strict=True)):
            places = zip(encoding.tokens[:length], encoding.offsets[:length], strict=True)
            pieces += [Piece(string, side, start, end) for string, (start, end) in places]
            pieces += self._special(frame.blocks[side + 1])
        return pieces

    def _special(self, block: np.ndarray) -> list[Piece]:
        return [Piece(self._tokenizer.id_to_token(int(token))) for token in block[:, 0]]

    def _token_ids(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        """All token ids of each text, (length) int64, without special tokens."""
        for start in range(0, len(texts), CHUNK):
            chunk = [speakable(text) for text in texts[start : start + CHUNK]]
            for encoding in self._tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
                yield np.array(encoding.ids, dtype=np.int64)


def limit_threads(threads: int) -> None:
    """Lets the `tokenizers` library use so many threads at most, from its first batch on; a limit of the user's stays.

    It tokenises while the engine waits and the reverse, so that both together never exceed this number.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))


def speakable(text: str) -> str:
    """The text with U+FFFD for each NUL and lone surrogate: what is read of it, as long as before."""
    return UNSPEAKABLE.sub("\ufffd", text)


def pack_rows(encoded: Encoded, indices: np.ndarray) -> PackedBatch:
    """The texts with these indices, (m ≥ 1) int, as one batch whose `rows` are the indices."""
    return pack([encoded.tokens[i] for i in indices], rows=np.asarray(indices, dtype=np.int64))


def _fit(lengths: Sequence[int], room: int) -> list[int]:
    """How many tokens each side of a text may keep so that their sum is at most `room`."""
    if sum(lengths) <= room or len(lengths) == 1:
        return [min(length, room) for length in lengths]
    first, second = lengths
    shorter = min(first, second, room // 2)
    return [room - shorter, shorter] if first > second else [shorter, room - shorter]


def _load(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such file; save the tokenizer with save_pretrained of a fast tokenizer")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more specific
        raise UserError(f"{path}: not a readable tokenizer, save it again ({first_line(error)})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _frame(tokenizer: Any, path: Path, sides: int) -> Frame:
    """What the tokenizer puts around a text (`sides` 1) or a pair (2), read off an example."""
    example = tokenizer.encode(*["a"] * sides)
    table = np.array([example.ids, example.type_ids], dtype=np.int64).T
    owners = example.sequence_ids  # per token: which side it comes from, None = special
    if any(side not in owners for side in range(sides)) or owners[0] is not None:
        raise UserError(f"{path}: puts no special token before the text, which a classifier reads; use a BERT-like one")
    starts = [owners.index(side) for side in range(sides)]
    ends = [len(owners) - owners[::-1].index(side) for side in range(sides)]
    blocks = [table[end:start] for end, start in zip([0, *ends], [*starts, len(owners)], strict=True)]
    return Frame(blocks, [int(table[start, 1]) for start in starts])
