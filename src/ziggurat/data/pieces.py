"""Which entries of a tokenizer's vocabulary start a word, which continue one, and which are no text at all."""

from __future__ import annotations

from typing import Any

import numpy as np

STARTS, CONTINUES, SPECIAL = 0, 1, 2
SPACES = ("Ġ", "▁")  # how byte-level BPE and SentencePiece write the space before a word
MASKS = ("[MASK]", "<mask>")  # how tokenizers name the token for a hidden word
BRACKETS = ("[]", "<>")  # around special tokens and places kept free in a vocabulary: "[unused7]", "<unk>"


def piece_kinds(tokenizer: Any) -> np.ndarray:
    """STARTS, CONTINUES or SPECIAL for each entry of a `tokenizers.Tokenizer`'s vocabulary, (vocabulary) uint8.

    WordPiece marks what continues a word (`##`). Where the space before a word is marked instead (byte-level BPE,
    SentencePiece), a piece without the mark continues, unless nothing in it is a letter or a digit: a comma does not
    belong to the word before. Then a text's first piece looks as if it continued; whoever reads kinds has to know that
    nothing stands before it. Where nothing is marked every piece starts a word. The piece for unknown text starts one
    too, all other special tokens are SPECIAL.
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
    """The token that stands for a hidden word, where there is none the one for unknown text, or None."""
    unknown = getattr(tokenizer.model, "unk_token", None)
    named = (tokenizer.token_to_id(piece) for piece in (*MASKS, unknown) if piece)
    return next((index for index in named if index is not None), None)
