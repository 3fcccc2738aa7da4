"""Token ids of texts, word by word: known words are looked up, the `tokenizers` library reads the others.

Texts repeat their words. The library takes tens of microseconds for a text; looking words up takes a fraction of that.
This module only splits texts at spaces; the library tokenises the words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

Read = Callable[[Sequence[str]], Sequence[Sequence[int]]]

MOST_CHARACTERS = 1 << 22  # of all words together, before the cache begins anew: about 40 MiB with their ids

# Parts of a tokenizer that never look past a space.
_NORMALIZERS = frozenset(("BertNormalizer", "Lowercase", "StripAccents", "NFC", "NFD", "NFKC", "NFKD"))
_SPLITTERS = frozenset(("BertPreTokenizer", "Whitespace", "WhitespaceSplit"))
# What could tell a text from its words: spaces of all kinds, control characters, marks that combine, special tokens.
_PROBE = (
    "Plain words, and (some) don't-look-simple ones: $1.35!  Two spaces,\ttabs\nand lines.",
    " leading and trailing ",
    "caf\u00e9 cafe\u0301 \u0301 \u03a3\u039f\u03a6\u039f\u03a3 \u0130stanbul \u4e2d\u6587 \uff21\uff22",
    "\U0001f600 a\u200bb \u00a0 x\u0000y\x1cz",
    "[CLS] [MASK]a [ SEP] [PAD][UNK] <s> ##s",
    "",
)


class WordCache:
    """Token ids by word, for a tokenizer whose tokens of a word do not depend on other words. Thread-safe."""

    def __init__(self, read: Read, most_characters: int = MOST_CHARACTERS) -> None:
        """`read` gives the token ids of each of some words, without special tokens."""
        self._read = read
        self._most = most_characters
        self._words: dict[str, tuple[int, ...]] = {}
        self._characters = 0

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of n texts, concatenated, (n_tokens) int64, and the number of each text, (n) int64."""
        split = [text.split(" ") for text in texts]
        words = list(chain.from_iterable(split))
        found = self._ids(words)
        lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
        ids = np.fromiter(chain.from_iterable(found), dtype=np.int64, count=int(lengths.sum()))
        starts = np.cumsum([0, *map(len, split[:-1])])
        return ids, np.add.reduceat(lengths, starts) if split else lengths

    def _ids(self, words: list[str]) -> list[tuple[int, ...]]:
        """The token ids of each word."""
        known = self._words  # keeps this dictionary while another thread starts a new one
        try:
            return list(map(known.__getitem__, words))
        except KeyError:
            missing = [word for word in dict.fromkeys(words) if word not in known]
        fresh = dict(zip(missing, map(tuple, self._read(missing)), strict=True))
        self._characters += sum(map(len, missing))
        if self._characters > self._most:
            self._words, self._characters = {}, 0
        self._words.update(fresh)
        return [fresh[word] if word in fresh else known[word] for word in words]


def cache_of(tokenizer: Any, read: Read, read_words: Read) -> WordCache | None:
    """A cache for a `tokenizers.Tokenizer` whose tokens of a text are the tokens of its words; None for others.

    This holds for WordPiece with the usual normalizers; difficult texts are checked as well. `read` gives the token ids
    of texts, `read_words` those of words.
    """
    normalizers, splitters = (_types(part) for part in (tokenizer.normalizer, tokenizer.pre_tokenizer))
    added = (token.content for token in tokenizer.get_added_tokens_decoder().values())
    alone = (
        type(tokenizer.model).__name__ == "WordPiece"
        and normalizers <= _NORMALIZERS
        and len(splitters) == 1
        and splitters <= _SPLITTERS
        and not any(map(str.isspace, chain.from_iterable(added)))
    )
    if not alone:
        return None
    cache = WordCache(read_words)
    ids, _ = cache.encode(_PROBE)
    return cache if ids.tolist() == list(chain.from_iterable(read(_PROBE))) else None


def _types(part: Any) -> set[str]:
    """Types of the normalizers or pre-tokenizers in a part."""
    state = {} if part is None else json.loads(part.__getstate__())
    inner = state.get("normalizers") or state.get("pretokenizers") or ([state] if state else [])
    return {str(kind["type"]) for kind in inner}
