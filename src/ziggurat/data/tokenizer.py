"""Texts in, token ids out, without padding; their special tokens, and the kinds of vocabulary pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from ziggurat.contents import read_bytes
from ziggurat.data.batching import in_batch
from ziggurat.data.encoded import Encoded as Encoded
from ziggurat.data.encoded import pack_rows as pack_rows
from ziggurat.data.frames import Frame, frame_of
from ziggurat.data.packing import place_in_sequence
from ziggurat.data.settings import cut_side, refuse_other_settings
from ziggurat.data.word_cache import WordCache, cache_of
from ziggurat.errors import UserError, first_line
from ziggurat.system import cached_property

STARTS, CONTINUES, SPECIAL = 0, 1, 2
SPACES = ("Ġ", "▁")  # how byte-level BPE and SentencePiece write the space before a word
MASKS = ("[MASK]", "<mask>")  # how tokenizers name the token for a hidden word
BRACKETS = ("[]", "<>")  # around special tokens and places kept free in a vocabulary: "[unused7]", "<unk>"


def piece_kinds(tokenizer: Any) -> np.ndarray:
    """STARTS, CONTINUES or SPECIAL for each entry of a `tokenizers.Tokenizer`'s vocabulary, (vocabulary) uint8.

    WordPiece marks pieces that continue a word (`##`). Byte-level BPE and SentencePiece mark the space before a word
    instead: there a piece without the mark continues the word, unless it has no letter or digit, such as a comma. A
    text's first piece then looks like a continuation; callers must treat it as a start. Without any marks all pieces
    start a word. The piece for unknown text starts one, too; all other special tokens are SPECIAL.
    """
    prefix = getattr(tokenizer.model, "continuing_subword_prefix", None)
    unknown = getattr(tokenizer.model, "unk_token", None)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    spaced = any(piece.startswith(SPACES) for piece in vocabulary)
    kinds = np.full(max(vocabulary.values()) + 1, STARTS, dtype=np.uint8)
    for piece, index in vocabulary.items():
        if prefix:
            continues = piece.startswith(prefix)
        else:
            continues = spaced and not piece.startswith(SPACES) and any(map(str.isalnum, piece))
        kinds[index] = CONTINUES if continues else STARTS
    for index, token in tokenizer.get_added_tokens_decoder().items():
        kinds[index] = SPECIAL if token.special else STARTS
    if unknown in vocabulary:
        kinds[vocabulary[unknown]] = STARTS
    return kinds


def no_words(tokenizer: Any) -> np.ndarray:
    """Which entries of the vocabulary are neither a word nor a part of one, (vocabulary) bool.

    Those without a letter or a digit, as the vocabulary spells them, and those in brackets, such as `[unused7]`.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    wordless = np.zeros(max(vocabulary.values()) + 1, dtype=bool)
    for piece, index in vocabulary.items():
        bracketed = len(piece) > 2 and piece[0] + piece[-1] in BRACKETS
        wordless[index] = bracketed or not any(map(str.isalnum, piece.lstrip("".join(SPACES))))
    return wordless


def mask_id(tokenizer: Any) -> int | None:
    """The mask token's id; if there is none, the id of the token for unknown text; else None."""
    unknown = getattr(tokenizer.model, "unk_token", None)
    named = (tokenizer.token_to_id(piece) for piece in (*MASKS, unknown) if piece)
    return next((index for index in named if index is not None), None)


TOGETHER = 64  # words per group: fewer would cost overhead; threads share the groups
CHUNK = 1024  # texts per call: an encoding takes far more memory than the two numbers per token of the result
RARE = "\U0002a6d6"  # an ideograph that hardly any vocabulary has
_UNREADABLE = "not a readable tokenizer, save it again"
UNSPEAKABLE = re.compile("[\ud800-\udfff]")  # lone surrogates: no UTF-8 can hold them


@dataclass(frozen=True)
class Piece:
    """One token in readable form."""

    string: str  # the vocabulary's entry: "river", "##s", "[CLS]"
    side: int | None = None  # 0 = of the text, 1 = of a pair's second text, None = a special token
    start: int = 0  # its characters in that text: from here …
    end: int = 0  # … to before here; of a special token both are 0


class TextTokenizer:
    """The `tokenizer.json` of a model folder. Only the side of its truncation is used; its padding is ignored.

    This class cuts texts itself, because the `tokenizers` library also builds the parts that it cuts off. For a pair of
    two long texts these are all combinations of their parts: gigabytes for a single request.
    """

    def __init__(self, folder: Path, max_length: int, content: bytes | None = None, named: Path | None = None) -> None:
        """Texts are cut to `max_length` tokens, special ones included.

        `content` are the bytes of the file, None = read it now; `named` is the folder's name in errors. UserError if
        the folder has no tokenizer, or its other files have different settings.
        """
        path = self._path = (named or folder) / "tokenizer.json"
        self.max_length = max_length
        self._tokenizer, self._cut_side = _load(folder, content, path)
        with one_line(path, _UNREADABLE):
            self._frames = [frame_of(self._tokenizer, path, sides) for sides in (1, 2)]
        shortest = max(frame.size + sides for sides, frame in enumerate(self._frames, start=1))
        if max_length < shortest:
            raise UserError(f"max_length {max_length} leaves no room for text; use {shortest} or more")

    def check_fit(self, entries: int) -> None:
        """UserError if it has token ids beyond an embedding table of `entries` rows."""
        if self.n_ids() > entries:  # not the vocabulary's size: ids may have gaps
            raise UserError(
                f"{self._path}: the tokenizer has ids up to {self.n_ids() - 1}, the model only {entries} embeddings: "
                "it is another model's; copy the one that the checkpoint was trained with"
            )

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Encoded:
        """Tokens of n texts, or of n pairs; in a pair that is too long, the longer side is cut first.

        Lone surrogates, which are not text, are read as U+FFFD (the replacement character).
        """
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"{len(pairs)} second texts for {len(texts)} first ones")
        columns = [column for column in (texts, pairs) if column is not None]
        frame = self._frames[len(columns) - 1]
        room = self.max_length - frame.size
        tokens: list[np.ndarray] = []
        truncated = [np.zeros(0, dtype=bool)]
        for start in range(0, len(texts), CHUNK):
            sides = [self._flat_ids(column[start : start + CHUNK]) for column in columns]
            lengths = np.stack([side[1] for side in sides])
            fitted = _fit(lengths, room)
            tokens += frame.around_flat([self._cut(*side, n) for side, n in zip(sides, fitted, strict=True)], fitted)
            truncated.append(lengths.sum(axis=0) > room)
        return Encoded(tokens, np.concatenate(truncated), texts, pairs)

    def pieces(self, text: str, pair: str | None = None) -> list[Piece]:
        """The tokens that `encode` makes of one text or pair, in its order, each with its place in the text."""
        sides = [text] if pair is None else [text, pair]
        frame = self._frames[len(sides) - 1]
        encodings = self.encodings(sides)
        lengths = _fit(np.array([[len(encoding)] for encoding in encodings]), self.max_length - frame.size)[:, 0]
        pieces = self._special(frame.blocks[0])
        for side, (encoding, length) in enumerate(zip(encodings, lengths, strict=True)):
            part = self._part(len(encoding), length)
            places = zip(encoding.tokens[part], encoding.offsets[part], strict=True)
            pieces += [Piece(string, side, start, end) for string, (start, end) in places]
            pieces += self._special(frame.blocks[side + 1])
        return pieces

    def frame(self, sides: int) -> Frame:
        """The special tokens around a text (`sides` 1) or a pair (2)."""
        return self._frames[sides - 1]

    def encodings(self, texts: Sequence[str]) -> list[Any]:
        """`ids` and `offsets` (characters) of each text, whole and without special tokens, as `tokenizers` has them."""
        read = list(map(speakable, texts))
        with one_line(self._path, _UNREADABLE):
            return in_batch(self._tokenizer.encode_batch, read)

    def strings(self, ids: np.ndarray) -> list[str]:
        """The vocabulary's entries of token ids (n)."""
        return [self._tokenizer.id_to_token(int(token)) for token in ids]

    def n_ids(self) -> int:
        """The largest id plus one."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def piece_kinds(self) -> np.ndarray:
        """STARTS, CONTINUES or SPECIAL for each vocabulary entry, (vocabulary) uint8: see `piece_kinds`."""
        kinds = piece_kinds(self._tokenizer)
        for block in (block for frame in self._frames for block in frame.blocks):
            kinds[block[:, 0]] = SPECIAL
        return kinds

    def no_words(self) -> np.ndarray:
        """Which vocabulary entries are neither a word nor a part of one, (vocabulary) bool: see `no_words`."""
        return no_words(self._tokenizer)

    def mask_id(self) -> int | None:
        """The token for a hidden word, else that for unknown text, else None."""
        return mask_id(self._tokenizer)

    def _special(self, block: np.ndarray) -> list[Piece]:
        return [Piece(string) for string in self.strings(block[:, 0])]

    @cached_property
    def _words(self) -> WordCache | None:
        """None if words cannot be tokenised one by one."""
        return cache_of(self._tokenizer, self._ids, self._word_ids)

    def _flat_ids(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of a few texts, concatenated, (n_tokens), without special tokens, and the number of each text."""
        if self._words is not None:
            return self._words.encode(texts)
        found = self._ids(texts)
        lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
        return np.fromiter(chain.from_iterable(found), dtype=np.int64, count=int(lengths.sum())), lengths

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The library's token ids of a few texts, without special tokens."""
        read = list(map(speakable, texts))
        with one_line(self._path, _UNREADABLE):
            return [encoding.ids for encoding in in_batch(self._tokenizer.encode_batch_fast, read)]

    def _word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """The library's token ids of some words."""
        read = list(map(speakable, words))
        groups = [read[start : start + TOGETHER] for start in range(0, len(read), TOGETHER)]
        ids: list[list[int]] = [[] for _ in read]
        with one_line(self._path, _UNREADABLE):
            encodings = in_batch(partial(self._tokenizer.encode_batch, is_pretokenized=True), groups)
            for start, encoding in zip(range(0, len(read), TOGETHER), encodings, strict=True):
                for word, token in zip(encoding.word_ids, encoding.ids, strict=True):
                    ids[start + word].append(token)
        return ids

    def _part(self, length: int, most: int) -> slice:
        """The part of a side of `length` tokens that is read, at most `most` tokens."""
        return slice(max(length - most, 0), None) if self._cut_side == "left" else slice(most)

    def _cut(self, ids: np.ndarray, lengths: np.ndarray, fitted: np.ndarray) -> np.ndarray:
        """Cuts concatenated token ids of texts with `lengths` (n) to the lengths `fitted` (n)."""
        if (fitted == lengths).all():
            return ids
        places, first = place_in_sequence(lengths), lengths - fitted if self._cut_side == "left" else 0 * fitted
        keep = (places >= np.repeat(first, lengths)) & (places < np.repeat(first + fitted, lengths))
        return ids[keep]


def speakable(text: str) -> str:
    """The text with U+FFFD for each lone surrogate; its length does not change."""
    return UNSPEAKABLE.sub("\ufffd", text)


def _fit(lengths: np.ndarray, room: int) -> np.ndarray:
    """Numbers of tokens to keep of each side, so that their sum is at most `room`: (sides, n) → (sides, n)."""
    if len(lengths) == 1:
        return np.minimum(lengths, room)
    shorter = np.minimum(lengths.min(axis=0), room // 2)
    first = np.where(lengths[0] > lengths[1], room - shorter, shorter)
    return np.where(lengths.sum(axis=0) <= room, lengths, np.stack([first, room - first]))


@contextmanager
def one_line(path: Path, problem: str) -> Iterator[None]:
    """Turns errors inside the `tokenizers` library into a UserError.

    Its panics are no Exceptions: a single text or file would end a server that catches only Exceptions.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise UserError(f"{path}: {problem} ({first_line(error)})") from error


def _load(folder: Path, content: bytes | None, path: Path) -> tuple[Any, str]:
    """The tokenizer without truncation and padding, and the side at which it cuts long texts. Errors name it `path`."""
    if content is None:
        missing = f"{path}: no such file; save the tokenizer with save_pretrained of a fast tokenizer"
        content = read_bytes(folder / path.name, missing)
    with one_line(path, _UNREADABLE):
        tokenizer = tokenizers.Tokenizer.from_buffer(content)
        refuse_other_settings(folder, tokenizer)
        side = cut_side(tokenizer)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    with one_line(path, "has no token for unknown text; save it again with its special tokens"):
        tokenizer.encode(RARE, add_special_tokens=False)
    return tokenizer, side
