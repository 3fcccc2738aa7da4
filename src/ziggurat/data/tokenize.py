"""Texts in, token ids out, without padding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from ziggurat.cached import cached_property
from ziggurat.contents import read_bytes
from ziggurat.data.batching import in_batch
from ziggurat.data.frames import Frame, frame_of
from ziggurat.data.packing import PackedBatch, pack
from ziggurat.data.pieces import SPECIAL, mask_id, no_words, piece_kinds
from ziggurat.data.tables import first_line
from ziggurat.errors import UserError

CHUNK = 1024  # texts per call: an encoding takes far more memory than the two numbers per token that we keep
RARE = "\U0002a6d6"  # an ideograph that hardly any vocabulary has
UNSPEAKABLE = re.compile("[\x00\ud800-\udfff]")  # NUL and lone surrogates


@dataclass(frozen=True, eq=False)
class Encoded:
    """Token ids of n texts."""

    tokens: list[np.ndarray]  # (n) arrays of shape (length, 2) int64: token id, segment id
    truncated: np.ndarray  # (n) bool: the text was longer than the model reads
    texts: Sequence[str] | None = None  # (n) what was read, for a tier with a tokenizer of its own; None = unknown
    pairs: Sequence[str] | None = None  # (n) second texts; None = single texts

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, special ones included, (n) int64."""
        return np.array([len(tokens) for tokens in self.tokens], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: np.ndarray) -> Encoded:
        """Only these texts, (m) indices, in this order."""
        texts, pairs = (None if some is None else [some[row] for row in rows] for some in (self.texts, self.pairs))
        return Encoded([self.tokens[row] for row in rows], self.truncated[rows], texts, pairs)

    def joined(self, other: Encoded) -> Encoded:
        """These texts, and the others behind them."""
        texts, pairs = (
            None if mine is None or theirs is None else [*mine, *theirs]
            for mine, theirs in ((self.texts, other.texts), (self.pairs, other.pairs))
        )
        truncated = np.concatenate([self.truncated, other.truncated])
        return Encoded([*self.tokens, *other.tokens], truncated, texts, pairs)


@dataclass(frozen=True)
class Piece:
    """One token as people read it."""

    string: str  # the vocabulary's entry: "river", "##s", "[CLS]"
    side: int | None = None  # 0 = of the text, 1 = of a pair's second text, None = a special token
    start: int = 0  # its characters in that text: from here …
    end: int = 0  # … to before here; of a special token both are 0


class TextTokenizer:
    """The `tokenizer.json` of a model folder; its own truncation and padding settings are ignored.

    Texts are cut here and not by the `tokenizers` library, which also builds everything that it cuts off: for two long
    sides of a pair that is each piece of one with each piece of the other, gigabytes for a single request.
    """

    def __init__(self, folder: Path, max_length: int, content: bytes | None = None) -> None:
        """Texts are cut to `max_length` tokens, special ones included; UserError if the folder has no tokenizer.

        `content` is what was read of the file, None = read it now.
        """
        path = self._path = folder / "tokenizer.json"
        self.max_length = max_length
        self._tokenizer = _load(path, content)
        self._frames = [frame_of(self._tokenizer, path, sides) for sides in (1, 2)]
        shortest = max(frame.size + sides for sides, frame in enumerate(self._frames, start=1))
        if max_length < shortest:
            raise UserError(f"max_length {max_length} leaves no room for text; use {shortest} or more")

    def check_fit(self, entries: int) -> None:
        """UserError if it makes token ids that an embedding table of so many entries has not."""
        if self.n_ids() > entries:  # not the vocabulary's size: ids may have gaps
            raise UserError(
                f"{self._path}: the tokenizer has ids up to {self.n_ids() - 1}, the model only {entries} embeddings: "
                "it is another model's; copy the one that the checkpoint was trained with"
            )

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Encoded:
        """Tokens of n texts, or of n pairs; of a pair that is too long the longer side is cut first.

        NUL and lone surrogates, which are not text, are read as U+FFFD (the replacement character).
        """
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"{len(pairs)} second texts for {len(texts)} first ones")
        columns = [column for column in (texts, pairs) if column is not None]
        frame = self._frames[len(columns) - 1]
        room = self.max_length - frame.size
        tokens: list[np.ndarray] = []
        truncated = [np.zeros(0, dtype=bool)]
        for start in range(0, len(texts), CHUNK):
            sides = [self._encodings(column[start : start + CHUNK]) for column in columns]
            lengths = np.array([[len(encoding) for encoding in side] for side in sides])
            kept = _fit(lengths, room)
            tokens += frame.around([_ids(side, most) for side, most in zip(sides, kept.tolist(), strict=True)])
            truncated.append(lengths.sum(axis=0) > room)
        return Encoded(tokens, np.concatenate(truncated), texts, pairs)

    def pieces(self, text: str, pair: str | None = None) -> list[Piece]:
        """The tokens that `encode` makes of one text or pair, in its order, each with its place in the text."""
        sides = [text] if pair is None else [text, pair]
        frame = self._frames[len(sides) - 1]
        encodings = [self._tokenizer.encode(speakable(side), add_special_tokens=False) for side in sides]
        lengths = _fit(np.array([[len(encoding)] for encoding in encodings]), self.max_length - frame.size)[:, 0]
        pieces = self._special(frame.blocks[0])
        for side, (encoding, length) in enumerate(zip(encodings, lengths, strict=True)):
            places = zip(encoding.tokens[:length], encoding.offsets[:length], strict=True)
            pieces += [Piece(string, side, start, end) for string, (start, end) in places]
            pieces += self._special(frame.blocks[side + 1])
        return pieces

    def frame(self, sides: int) -> Frame:
        """The special tokens around a text (`sides` 1) or a pair (2)."""
        return self._frames[sides - 1]

    def encodings(self, texts: Sequence[str]) -> list[Any]:
        """`ids` and `offsets` (characters) of each text, whole and without special tokens, as `tokenizers` has them."""
        return in_batch(self._tokenizer.encode_batch, list(map(speakable, texts)))

    def strings(self, ids: np.ndarray) -> list[str]:
        """The vocabulary's entries of token ids (n)."""
        return [self._tokenizer.id_to_token(int(token)) for token in ids]

    def n_ids(self) -> int:
        """How many ids there are at least: one more than the largest."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def piece_kinds(self) -> np.ndarray:
        """What each vocabulary entry is to a word, (vocabulary) uint8: see `data.pieces`."""
        kinds = piece_kinds(self._tokenizer)
        for block in (block for frame in self._frames for block in frame.blocks):
            kinds[block[:, 0]] = SPECIAL
        return kinds

    def no_words(self) -> np.ndarray:
        """Which vocabulary entries are neither a word nor a part of one, (vocabulary) bool: see `data.pieces`."""
        return no_words(self._tokenizer)

    def mask_id(self) -> int | None:
        """The token for a hidden word, else that for unknown text, else None."""
        return mask_id(self._tokenizer)

    def _special(self, block: np.ndarray) -> list[Piece]:
        return [Piece(string) for string in self.strings(block[:, 0])]

    def _encodings(self, texts: Sequence[str]) -> list[Any]:
        """What the library makes of a few texts, without special tokens."""
        return in_batch(self._tokenizer.encode_batch_fast, list(map(speakable, texts)))


def speakable(text: str) -> str:
    """The text with U+FFFD for each NUL and lone surrogate: what is read of it, as long as before."""
    return UNSPEAKABLE.sub("\ufffd", text)


def pack_rows(encoded: Encoded, indices: np.ndarray) -> PackedBatch:
    """The texts with these indices, (m ≥ 1) int, as one batch whose `rows` are the indices."""
    return pack([encoded.tokens[i] for i in indices], rows=np.asarray(indices, dtype=np.int64))


def _ids(encodings: Sequence[Any], most: Sequence[int]) -> list[list[int]]:
    """The first `most` (n) token ids of each."""
    return [encoding.ids[:length] for encoding, length in zip(encodings, most, strict=True)]


def _fit(lengths: np.ndarray, room: int) -> np.ndarray:
    """How many tokens each side of a text may keep so that their sum is at most `room`: (sides, n) → (sides, n)."""
    if len(lengths) == 1:
        return np.minimum(lengths, room)
    shorter = np.minimum(lengths.min(axis=0), room // 2)
    first = np.where(lengths[0] > lengths[1], room - shorter, shorter)
    return np.where(lengths.sum(axis=0) <= room, lengths, np.stack([first, room - first]))


def _load(path: Path, content: bytes | None) -> Any:
    if content is None:
        content = read_bytes(path, f"{path}: no such file; save the tokenizer with save_pretrained of a fast tokenizer")
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises nothing more specific
        raise UserError(f"{path}: not a readable tokenizer, save it again ({first_line(error)})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    try:
        tokenizer.encode(RARE)
    except Exception as error:
        raise UserError(
            f"{path}: has no token for unknown text; save it again with its special tokens ({first_line(error)})"
        ) from error
    return tokenizer
