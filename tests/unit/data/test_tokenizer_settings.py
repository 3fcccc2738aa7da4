"""A folder whose other files say another thing than its tokenizer.json is refused, without transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from ziggurat.data import TextTokenizer
from ziggurat.errors import UserError

CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
URL = AddedToken("<url>", lstrip=True, normalized=False, special=True)
FLAGS = {
    "content": "<url>",
    "lstrip": True,
    "rstrip": False,
    "normalized": False,
    "single_word": False,
    "special": True,
}
SAVED = {  # what transformers says of such a tokenizer
    "tokenizer_class": "BertTokenizer",
    "do_lower_case": False,
    "strip_accents": None,
    "tokenize_chinese_chars": True,
    "cls_token": "[CLS]",
    "mask_token": None,
    "add_bos_token": True,
    "model_max_length": 512,
    "added_tokens_decoder": {"4": FLAGS},
    "extra_special_tokens": ["<url>"],
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A cased WordPiece tokenizer with an added token, and settings that agree with it."""
    vocabulary = {piece: index for index, piece in enumerate(["[UNK]", "[CLS]", "[SEP]", "word"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", URL])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / CONFIG).write_text(json.dumps(SAVED))
    (tmp_path / SPECIAL).write_text(json.dumps({"sep_token": "[SEP]", "additional_special_tokens": [FLAGS]}))
    (tmp_path / ADDED).write_text('{"<url>": 4}')
    return tmp_path


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_settings_that_agree_are_read_past(folder):
    assert TextTokenizer(folder, 16).encode(["word <url>"]).lengths.tolist() == [4]


@pytest.mark.parametrize("name", [CONFIG, SPECIAL, ADDED])
def test_none_of_these_files_has_to_be_there(folder, name):
    (folder / name).unlink()
    assert TextTokenizer(folder, 16).encode(["word <url>"]).lengths.tolist() == [4]


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        (CONFIG, {"do_lower_case": True}, "do_lower_case True"),
        (CONFIG, {"strip_accents": True}, "strip_accents True"),
        (CONFIG, {"tokenize_chinese_chars": False}, "tokenize_chinese_chars False"),
        (CONFIG, {"cls_token": "<url>"}, "cls_token '<url>'"),
        (CONFIG, {"sep_token": "[CLS]", "eos_token": None}, "sep_token '[CLS]'"),
        (CONFIG, {"truncation_side": "left"}, "truncation_side 'left'"),
        (CONFIG, {"split_special_tokens": True}, "split_special_tokens true"),
        (CONFIG, {"mask_token": "[MASK]"}, "that '[MASK]' is one token"),
        (CONFIG, {"extra_special_tokens": {"image_token": "<image>"}}, "that '<image>' is one token"),
        (CONFIG, {"added_tokens_decoder": {"5": FLAGS}}, "that '<url>' is one token, number 5"),
        (CONFIG, {"added_tokens_decoder": {"4": FLAGS | {"lstrip": False}}}, "lstrip False of the token '<url>'"),
        (SPECIAL, {"additional_special_tokens": ["word"]}, "that 'word' is one token"),
        (ADDED, {"<user>": 5}, "that '<user>' is one token, number 5"),
    ],
)
def test_a_file_that_contradicts_the_tokenizer_is_named(folder, name, changes, says):
    edit(folder / name, **changes)
    with pytest.raises(UserError) as caught:
        TextTokenizer(folder, 16)
    assert str(caught.value).startswith(f"{folder / name}: says {says}, and tokenizer.json")


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_settings_of_a_class_that_does_not_read_them_are_none(folder, name):
    edit(folder / CONFIG, tokenizer_class=name, do_lower_case=True)
    assert TextTokenizer(folder, 16).encode(["word"]).lengths.tolist() == [3]


def test_a_prefix_space_that_the_file_does_not_add_is_refused(folder):
    path = folder / "tokenizer.json"
    edit(path, pre_tokenizer=json.loads(pre_tokenizers.ByteLevel(add_prefix_space=True).__getstate__()))
    with pytest.raises(UserError, match="says add_prefix_space False"):
        TextTokenizer(folder, 16)
    edit(folder / CONFIG, add_prefix_space=True)
    assert TextTokenizer(folder, 16).encode(["word"]).lengths.tolist() == [3]


@pytest.mark.parametrize("content", ["{", "[]", "[" * 9999, "\udcff"])
def test_a_broken_file_is_named(folder, content):
    (folder / CONFIG).write_text(content, "utf-8", "surrogateescape")
    with pytest.raises(UserError) as caught:
        TextTokenizer(folder, 16)
    assert str(caught.value).startswith(f"{folder / CONFIG}: not ")
