"""Where a tokenizer.json is made from, where it is taken as it is, and what is refused in one line."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from ziggurat.data import TextTokenizer
from ziggurat.encoder import copy_tokenizer, tokenizer_files
from ziggurat.encoder.tokenizer_files import read_tokenizer
from ziggurat.errors import UserError

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def target(tmp_path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(source: Path, target: Path) -> str:
    with pytest.raises(UserError) as caught:
        copy_tokenizer(source, target, 24)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_copy_of_a_copy_is_the_same_to_the_byte(checkpoint, target, tmp_path):
    """A cascade reads texts once where its tiers' files are equal."""
    copy_tokenizer(checkpoint, target, 24)
    (tmp_path / "again").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(checkpoint / name, target / name)
    copy_tokenizer(target, tmp_path / "again", 24)
    for name in (TOKENIZER, CONFIG):
        assert (tmp_path / "again" / name).read_bytes() == (target / name).read_bytes()


def test_of_a_folder_of_ours_the_file_is_taken_as_it_is(model_folder, target, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    copy_tokenizer(model_folder, target, 17)
    assert (target / TOKENIZER).read_bytes() == (model_folder / TOKENIZER).read_bytes()
    assert json.loads((target / CONFIG).read_text())["model_max_length"] == 17


def test_without_transformers_settings_that_agree_are_enough(checkpoint, target, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    made = copy_tokenizer(checkpoint, target, 24).encode(["bat kin"]).tokens
    assert np.array_equal(made[0], TextTokenizer(checkpoint, 24).encode(["bat kin"]).tokens[0])
    edit(checkpoint / CONFIG, do_lower_case=False)
    assert f"{checkpoint / CONFIG}: says do_lower_case False" in refusal(checkpoint, target)


def test_a_row_that_transformers_reads_otherwise_is_named(checkpoint, monkeypatch):
    """The texts that are always tried cannot know every word of a vocabulary."""
    known = tokenizer_files._ids

    def other(theirs, columns, max_length):
        return [
            ids + ("mush" in text) for ids, text in zip(known(theirs, columns, max_length), columns[0], strict=True)
        ]

    monkeypatch.setattr(tokenizer_files, "_ids", other)
    assert read_tokenizer(checkpoint, 24, ["bat kin"]).max_length == 24
    with pytest.raises(UserError, match="transformers reads 'mush bat' as"):
        read_tokenizer(checkpoint, 24, ["bat kin", "mush bat"])


def test_a_sentencepiece_model_alone_says_what_to_install(checkpoint, target, monkeypatch):
    (checkpoint / TOKENIZER).rename(checkpoint / "sentencepiece.bpe.model")
    for there, wanted in ((False, "pip install sentencepiece protobuf"), (True, "no tokenizer")):
        monkeypatch.setattr(tokenizer_files, "_is_there", lambda module, there=there: there)
        assert wanted in refusal(checkpoint, target)


def test_a_tokenizer_in_python_is_refused(checkpoint, target):
    vocabulary = json.loads((checkpoint / TOKENIZER).read_text())["model"]["vocab"]
    (checkpoint / TOKENIZER).unlink()
    (checkpoint / "vocab.txt").write_text("".join(f"{piece}\n" for piece in sorted(vocabulary, key=vocabulary.get)))
    edit(checkpoint / CONFIG, tokenizer_class="BertJapaneseTokenizer", word_tokenizer_type="basic")
    assert "(BertJapaneseTokenizer) has only a Python implementation" in refusal(checkpoint, target)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (TOKENIZER, "{", f"/{TOKENIZER}: not valid JSON"),  # as where copying stopped
        (TOKENIZER, "[]", f"/{TOKENIZER}: not a JSON object"),
        ("special_tokens_map.json", '{"pad', "/special_tokens_map.json: not valid JSON"),
        (TOKENIZER, '{"model": 3}', ": no tokenizer that transformers can read"),
    ],
)
def test_a_broken_tokenizer_is_refused_and_its_file_named(checkpoint, target, name, content, says):
    (checkpoint / name).write_text(content)
    assert refusal(checkpoint, target).startswith(f"{checkpoint}{says}")


def test_code_of_others_is_not_run(checkpoint, target):
    edit(checkpoint / CONFIG, tokenizer_class="Theirs", auto_map={"AutoTokenizer": ["theirs.Theirs", None]})
    (checkpoint / "theirs.py").write_text("raise SystemExit('ran')\n")
    copy_tokenizer(checkpoint, target, 24)
