from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
PIECES = ["a", "b", "##a", "##b", "##s", "word", "river", "stone", "tower", ",", "."]


@pytest.fixture
def write(tmp_path):
    """A function that writes a file of text, bytes or JSON lines below tmp_path and returns its path as a string."""

    def write_file(name: str, content: str | bytes | list[Any]) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(record) + "\n" for record in content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write_file


def small_tokenizer() -> Tokenizer:
    """WordPiece with a handful of pieces: [CLS] text [SEP], or [CLS] text [SEP] pair [SEP]."""
    vocabulary = {piece: i for i, piece in enumerate(SPECIAL + PIECES)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=50))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return tokenizer


@pytest.fixture
def library_tokenizer() -> Tokenizer:
    """What is in `tokenizer_folder`, as the `tokenizers` library sees it."""
    return small_tokenizer()


@pytest.fixture
def tokenizer_folder(tmp_path) -> Path:
    """A model folder whose tokenizer.json has truncation and padding switched on, as saved checkpoints often have."""
    tokenizer = small_tokenizer()
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path
