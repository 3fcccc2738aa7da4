"""Which entries of a tokenizer's vocabulary start a word, which continue one, and which are no text at all."""

from __future__ import annotations

from typing import Any

import numpy as np

STARTS, CONTINUES, SPECIAL = 0, 1, 2
SPACES = ("Ġ", "▁")  # how byte-level BPE and SentencePiece write the space before a word


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
