from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from ziggurat.data import TextTokenizer
from ziggurat.data.tokenizer import CHUNK, one_line, pack_rows
from ziggurat.errors import UserError

# The fixtures are the same for every example, so they need not be made anew.
repeatable = settings(
    derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CLS, SEP, WORD, RIVER, STONE = 2, 3, 9, 10, 11
sides = st.sampled_from(["left", "right"])
texts = st.lists(st.sampled_from(["a", "ab", "river", "stone", "towers", "xyz", ","]), max_size=14).map(" ".join)


def ids(encoded) -> list[list[int]]:
    return [tokens[:, 0].tolist() for tokens in encoded.tokens]


def segments(encoded) -> list[list[int]]:
    return [tokens[:, 1].tolist() for tokens in encoded.tokens]


def cut_at(side: str, folder: Path) -> None:
    """Has the folder's `tokenizer.json` say that long texts are cut there; its length is never that of a model."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(5, direction=side)
    tokenizer.save(str(folder / "tokenizer.json"))


def test_a_text_gets_its_special_tokens_and_no_padding(tokenizer_folder):
    encoded = TextTokenizer(tokenizer_folder, 16).encode(["word river", "stone"])
    assert ids(encoded) == [[CLS, WORD, RIVER, SEP], [CLS, STONE, SEP]]
    assert segments(encoded) == [[0, 0, 0, 0], [0, 0, 0]]
    assert encoded.lengths.tolist() == [4, 3]
    assert all(tokens.dtype == np.int64 for tokens in encoded.tokens)


def test_the_second_text_of_a_pair_has_segment_one(tokenizer_folder):
    encoded = TextTokenizer(tokenizer_folder, 16).encode(["word", "word"], ["river stone", ""])
    assert ids(encoded) == [[CLS, WORD, SEP, RIVER, STONE, SEP], [CLS, WORD, SEP, SEP]]
    assert segments(encoded) == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1]]


def test_settings_of_the_file_do_not_truncate_or_pad(tokenizer_folder):
    encoded = TextTokenizer(tokenizer_folder, 64).encode(["word " * 30, "word"])
    assert encoded.lengths.tolist() == [32, 3]
    assert encoded.truncated.tolist() == [False, False]


def test_truncated_means_that_tokens_were_lost(tokenizer_folder):
    encoded = TextTokenizer(tokenizer_folder, 8).encode(["word " * n for n in (5, 6, 7)])
    assert encoded.lengths.tolist() == [7, 8, 8]
    assert encoded.truncated.tolist() == [False, False, True]
    assert ids(encoded)[2] == [CLS, *[WORD] * 6, SEP]


@repeatable
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5), st.integers(5, 20), st.booleans(), sides)
def test_tokens_are_those_of_the_library(tokenizer_folder, library_tokenizer, rows, max_length, paired, side):
    cut_at(side, tokenizer_folder)
    library_tokenizer.enable_truncation(max_length, strategy="longest_first", direction=side)
    expected = library_tokenizer.encode_batch(rows if paired else [text for text, _ in rows])
    firsts, seconds = map(list, zip(*rows, strict=True))
    encoded = TextTokenizer(tokenizer_folder, max_length).encode(firsts, seconds if paired else None)
    assert ids(encoded) == [encoding.ids for encoding in expected]
    assert segments(encoded) == [encoding.type_ids for encoding in expected]
    assert encoded.truncated.tolist() == [bool(encoding.overflowing) for encoding in expected]


def test_more_texts_than_a_chunk_keep_their_order(tokenizer_folder):
    n = CHUNK + 3
    encoded = TextTokenizer(tokenizer_folder, 300).encode(["word " * (i % 200) for i in range(n)])
    assert encoded.lengths.tolist() == [i % 200 + 2 for i in range(n)]


def test_two_huge_texts_take_less_than_a_second(tokenizer_folder):
    tokenizer = TextTokenizer(tokenizer_folder, 128)
    start = time.perf_counter()
    encoded = tokenizer.encode(["word " * 100_000], ["river " * 100_000])
    assert time.perf_counter() - start < 5  # an idle machine needs 0.3 s; left to the library it ends without memory
    assert encoded.lengths.tolist() == [128]
    assert encoded.truncated.all()


@repeatable
@given(st.text(st.characters(categories=None), max_size=40), st.text(st.characters(codec="utf-8"), max_size=9))
def test_any_string_can_be_read(tokenizer_folder, wild, tame):
    encoded = TextTokenizer(tokenizer_folder, 12).encode([wild, f"{tame}\ud800{wild}\x00"])
    assert all(tokens[0] == CLS and tokens[-1] == SEP for tokens in ids(encoded))


def test_surrogates_and_nuls_do_not_change_the_words_around_them(tokenizer_folder):
    encoded = TextTokenizer(tokenizer_folder, 16).encode(["word \ud800 river", "word \x00 river"])
    assert ids(encoded) == [[CLS, WORD, RIVER, SEP]] * 2


@repeatable
@given(texts, texts, st.integers(5, 20), st.booleans(), sides)
def test_pieces_are_the_tokens_of_encode_at_the_librarys_offsets(
    tokenizer_folder, library_tokenizer, first, second, max_length, paired, side
):
    cut_at(side, tokenizer_folder)
    sides = [first, second] if paired else [first]
    tokenizer = TextTokenizer(tokenizer_folder, max_length)
    pieces = tokenizer.pieces(*sides)
    encoded = tokenizer.encode(*([side] for side in sides))
    assert [library_tokenizer.token_to_id(piece.string) for piece in pieces] == ids(encoded)[0]
    library_tokenizer.enable_truncation(max_length, strategy="longest_first", direction=side)
    expected = library_tokenizer.encode(*sides)
    assert [piece.side for piece in pieces] == expected.sequence_ids
    assert [(piece.start, piece.end) for piece in pieces] == expected.offsets


def test_places_of_pieces_are_characters_of_the_users_text(tokenizer_folder):
    text = "Ríver\x00 🙂 \ud800towers"
    pieces = TextTokenizer(tokenizer_folder, 16).pieces(text)
    assert [(piece.string, text[piece.start : piece.end]) for piece in pieces if piece.side is not None] == [
        ("river", "Ríver"),
        ("[UNK]", "🙂"),
        ("tower", "tower"),
        ("##s", "s"),
    ]


def test_no_texts_give_no_rows(tokenizer_folder):
    encoded = TextTokenizer(tokenizer_folder, 16).encode([])
    assert (encoded.tokens, encoded.truncated.shape, encoded.lengths.shape) == ([], (0,), (0,))


def test_texts_and_pairs_must_be_as_many(tokenizer_folder):
    with pytest.raises(ValueError, match="second texts for"):
        TextTokenizer(tokenizer_folder, 16).encode(["word", "river"], ["stone"])


def test_pack_rows_names_its_sequences_by_index(tokenizer_folder):
    encoded = TextTokenizer(tokenizer_folder, 16).encode(["word", "word river", "stone"])
    batch = pack_rows(encoded, np.array([2, 1]))
    assert batch.rows.tolist() == [2, 1]
    assert batch.lengths.tolist() == [3, 4]
    assert batch.states[:, 0].tolist() == [CLS, STONE, SEP, CLS, WORD, RIVER, SEP]


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"tokenizer\.json: no such file"):
        TextTokenizer(tmp_path, 16)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="not a readable tokenizer"):
        TextTokenizer(tmp_path, 16)


def test_a_tokenizer_without_a_first_special_token_is_refused(tmp_path: Path):
    Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="no special token"):
        TextTokenizer(tmp_path, 16)


def test_a_length_without_room_for_text_is_refused(tokenizer_folder):
    with pytest.raises(UserError, match="use 5 or more"):
        TextTokenizer(tokenizer_folder, 4)


@pytest.mark.parametrize(
    "model",
    [models.WordPiece({"a": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[UNK]"), models.Unigram([("a", -1.0)], None)],
    ids=["WordPiece", "Unigram"],
)
def test_a_tokenizer_without_a_token_for_unknown_text_is_refused(tmp_path, model):
    Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="has no token for unknown text"):
        TextTokenizer(tmp_path, 16)


def test_a_frame_of_tokens_that_it_does_not_have_is_refused(tokenizer_folder):
    """The `tokenizers` library would end with a panic, which no `except Exception` of a server catches."""
    path = tokenizer_folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["post_processor"]["single"][0]["SpecialToken"]["id"] = "[CLX]"
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"tokenizer\.json: puts '\[CLX\]' around texts"):
        TextTokenizer(tokenizer_folder, 16)


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, MemoryError])
def test_errors_of_the_library_are_one_line_and_others_pass(stopped):
    class Panic(BaseException):
        """What a panic of Rust is in Python: no Exception."""

    with pytest.raises(UserError, match=r"^here: broken \(no entry found\)$"), one_line(Path("here"), "broken"):
        raise Panic("no entry found\nnote: and more")
    with pytest.raises(stopped), one_line(Path("here"), "broken"):
        raise stopped


@given(st.lists(st.text("ab,- \t\n[CLS]\ud800\u00e9\u4e2d"), max_size=5))
def test_texts_are_read_by_words_as_the_library_reads_them(tiny_checkpoint, texts):
    tokenizer = TextTokenizer(tiny_checkpoint, 64)
    assert tokenizer._words is not None
    found = [table[1:-1, 0].tolist() for table in tokenizer.encode(texts).tokens]
    assert found == [encoding.ids[:62] for encoding in tokenizer.encodings(texts)]
