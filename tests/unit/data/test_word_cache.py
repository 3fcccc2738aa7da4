"""Words that are looked up give the tokens that the library gives the whole text; other tokenizers are left alone."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers

from ziggurat.data.word_cache import WordCache, cache_of

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[MASK]", "a", "b", "##a", "##b", "ab", ",", "-", "\u4e2d", "e", "##e", "1", "##1"]
VOCABULARY = {piece: index for index, piece in enumerate(PIECES)}
LETTERS = "abAB e\u00e91,-[]MASK \t\n\x00\x1c\u00a0\u0301\u4e2d\u200b\U0001f600"


def wordpiece(normalizer=None, splitter=None):
    made = tokenizers.Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer() if normalizer is None else normalizer
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer() if splitter is None else splitter
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[MASK]"])
    return made


def reader(tokenizer):
    return lambda texts: [found.ids for found in tokenizer.encode_batch(texts, add_special_tokens=False)]


READ = reader(wordpiece())


@given(st.lists(st.text(LETTERS), max_size=6))
def test_words_give_the_tokens_of_the_text(texts):
    cache = WordCache(READ)
    for _ in range(2):  # unknown words, then known ones
        ids, lengths = cache.encode(texts)
        whole = READ(texts)
        assert lengths.tolist() == [len(each) for each in whole]
        assert ids.tolist() == [token for each in whole for token in each] and ids.dtype == np.int64


def test_the_library_reads_a_word_once():
    asked: list[str] = []

    def read(texts):
        asked.extend(texts)
        return READ(texts)

    cache = WordCache(read)
    cache.encode(["ab a", "a b ab"])
    cache.encode(["b ab a"])
    assert sorted(asked) == ["a", "ab", "b"]


def test_the_cache_begins_anew_when_it_is_full():
    asked: list[int] = []

    def read(texts):
        asked.append(len(texts))
        return READ(texts)

    cache = WordCache(read, most_characters=3)
    for text in ("a b", "ab a", "ab a", "b"):
        ids, _ = cache.encode([text])
        assert ids.tolist() == READ([text])[0]
    assert asked == [2, 1, 1, 1]  # "ab" was too much: it stayed, "a" and "b" were read again


def test_threads_that_fill_one_cache_get_the_right_tokens():
    cache = WordCache(READ, most_characters=20)
    texts = [f"{'a' * (number % 7)} b{'e' * (number % 5)}" for number in range(200)]
    whole, wrong = READ(texts), []

    def work(step):
        for start in range(0, 200, step):
            ids, _ = cache.encode(texts[start : start + step])
            if ids.tolist() != [token for each in whole[start : start + step] for token in each]:
                wrong.append(start)

    threads = [threading.Thread(target=work, args=(step,)) for step in (1, 3, 7, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def unigram():
    made = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("\u2581", -1.0)], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return made


def with_spaced_token():
    made = wordpiece()
    made.add_tokens(["a b"])
    return made


OTHERS = {
    "SentencePiece": unigram,
    "bytes": lambda: wordpiece(splitter=pre_tokenizers.ByteLevel()),
    "words that are not split": lambda: wordpiece(splitter=pre_tokenizers.Sequence([])),
    "a replaced space": lambda: wordpiece(normalizers.Sequence([normalizers.Replace(" ", "")])),
    "an added token with a space": with_spaced_token,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_tokenizers_that_look_past_spaces_are_left_alone(kind):
    made = OTHERS[kind]()
    assert cache_of(made, reader(made), reader(made)) is None


@pytest.mark.parametrize("normalizer", [None, normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()])])
def test_wordpiece_is_read_by_words(normalizer):
    made = wordpiece(normalizer)
    assert cache_of(made, reader(made), reader(made)) is not None


def test_a_tokenizer_that_fails_the_probe_is_left_alone():
    made = wordpiece()
    assert cache_of(made, reader(made), lambda words: [[len(word)] for word in words]) is None
