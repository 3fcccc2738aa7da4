from __future__ import annotations

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from ziggurat.data import CONTINUES, SPECIAL, STARTS, TextTokenizer
from ziggurat.data.tokenizer import mask_id, no_words, piece_kinds


def kinds_of(tokenizer: Tokenizer) -> dict[str, int]:
    kinds = piece_kinds(tokenizer)
    assert kinds.dtype == np.uint8
    return {piece: int(kinds[index]) for piece, index in tokenizer.get_vocab().items()}


def test_wordpiece_marks_what_continues(tokenizer_folder):
    tokenizer = TextTokenizer(tokenizer_folder, 16)
    kinds = tokenizer.piece_kinds()
    said = {piece: int(kinds[index]) for piece, index in tokenizer._tokenizer.get_vocab().items()}
    assert {piece for piece, kind in said.items() if kind == CONTINUES} == {"##a", "##b", "##s"}
    # [CLS] and [SEP] are no added tokens in this file: it is the frame around a text that makes them special.
    assert {piece for piece, kind in said.items() if kind == SPECIAL} == {"[CLS]", "[SEP]"}


def test_of_special_tokens_only_the_unknown_one_is_text():
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "river": 2, "##s": 3}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[MASK]"])
    tokenizer.add_tokens([AddedToken("##new")])
    expected = {
        "[UNK]": STARTS,
        "[CLS]": SPECIAL,
        "river": STARTS,
        "##s": CONTINUES,
        "[MASK]": SPECIAL,
        "##new": STARTS,
    }
    assert kinds_of(tokenizer) == expected


@pytest.mark.parametrize("space", ["Ġ", "▁"])
def test_a_piece_without_a_space_mark_continues_a_word(space):
    vocabulary = {"<unk>": 0, f"{space}river": 1, "river": 2, "s": 3, ",": 4, f"{space},": 5, "'s": 6, space: 7}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    kinds = kinds_of(tokenizer)
    assert {piece for piece, kind in kinds.items() if kind == CONTINUES} == {"river", "s", "'s"}


def test_where_nothing_is_marked_every_piece_starts_a_word():
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "river": 1, "stone": 2}, unk_token="[UNK]"))
    assert set(kinds_of(tokenizer).values()) == {STARTS}


def test_punctuation_and_what_stands_in_brackets_are_no_words():
    pieces = ["[UNK]", "[unused7]", "<s>", "river", "##s", "7", "[", "<", ",", "##.", "'s", "Ġ,", "é", "<b"]
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    wordless = no_words(tokenizer)
    assert wordless.dtype == bool
    assert [piece for piece, none in zip(pieces, wordless, strict=True) if not none] == [
        "river",
        "##s",
        "7",
        "'s",
        "é",
        "<b",
    ]


@pytest.mark.parametrize(
    ("pieces", "index"),
    [(["[UNK]", "[MASK]"], 1), (["<mask>", "<unk>"], 0), (["river", "[UNK]"], 1), (["river"], None)],
)
def test_the_mask_token_is_found_else_that_for_unknown_text(pieces, index):
    unknown = next((piece for piece in pieces if "unk" in piece.lower()), None)
    model = models.WordPiece(
        {piece: i for i, piece in enumerate(pieces)}, **({"unk_token": unknown} if unknown else {})
    )
    assert mask_id(Tokenizer(model)) == index


def test_a_text_tokenizer_tells_both(tokenizer_folder):
    tokenizer = TextTokenizer(tokenizer_folder, 16)
    vocabulary = tokenizer._tokenizer.get_vocab()
    wordless = tokenizer.no_words()
    assert {piece for piece, index in vocabulary.items() if wordless[index]} == {
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        ",",
        ".",
    }
    assert tokenizer.mask_id() == vocabulary["[UNK]"]
