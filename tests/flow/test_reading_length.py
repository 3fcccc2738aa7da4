"""How much of a text is read: all that the checkpoint reads, unless somebody says otherwise."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ziggurat.cli.training import training_text
from ziggurat.encoder import read_manifest
from ziggurat.encoder.tokenizer_files import own_length
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.recipe import Recipe, SmallConfig, StageConfig
from ziggurat.training import TrainOptions, adapt_model, train_model

QUIET = TrainOptions(device="cpu", progress=False, mixed_precision=False)
HEADS = Recipe("heads", "a test", (StageConfig("heads", 0.2, 1e-3),), head_kind="linear")
TRAINED = dataclasses.replace(HEADS, stages=(StageConfig("regular", 0.1, 1e-3), *HEADS.stages))
STATIC = Recipe("static", "a test", small=SmallConfig())


def stating(folder: Path, **settings) -> Path:
    """Sets what the folder's tokenizer was saved with."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path) -> Path:
    """A classifier of 64 positions that was fine-tuned on texts of up to 40 tokens."""
    return stating(Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")), model_max_length=40)


@pytest.fixture
def long_rows(rows_file, tmp_path) -> Path:
    """Labelled rows, of which every fourth has 70 words."""
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    for row in rows[::4]:
        row["text"] = " ".join((row["text"].split() * 70)[:70])
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("settings", "length"),
    [
        ({"model_max_length": 40}, 40),
        ({"model_max_length": 512}, 64),
        ({"model_max_length": 10**30}, 64),
        ({"model_max_length": float("inf")}, 64),
        ({"model_max_length": None}, 64),
        ({"model_max_length": -1}, 64),
    ],
)
def test_a_checkpoint_reads_what_tokenizer_and_positions_allow(checkpoint, settings, length):
    assert own_length(stating(checkpoint, **settings), 64) == length


def test_older_settings_or_none_are_understood(checkpoint):
    (checkpoint / "tokenizer_config.json").write_text('{"max_len": 30}')
    assert own_length(checkpoint, 64) == 30
    (checkpoint / "tokenizer_config.json").unlink()
    assert own_length(checkpoint, 64) == 64


def test_adapt_reads_as_much_as_the_checkpoint(checkpoint, long_rows, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    recipe = dataclasses.replace(HEADS, max_length=16)
    result = adapt_model(str(checkpoint), str(long_rows), tmp_path / "model", recipe, QUIET)
    assert result.max_length == read_manifest(tmp_path / "model").max_length == 40
    assert "reads up to 40 tokens of an input; " in training_text(result)
    texts = [json.loads(line)["text"] for line in long_rows.read_text().splitlines()[:12]]
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    for folder in (checkpoint, tmp_path / "model"):  # both say themselves how much they read
        inputs = AutoTokenizer.from_pretrained(folder)(texts, truncation=True, padding=True, return_tensors="pt")
        with torch.no_grad():
            expected = model(**inputs).logits.softmax(dim=1).numpy()
        answers = OpenedModel.from_pretrained(tmp_path / "model").answer(texts, "full")
        assert np.allclose([answer.probabilities for answer in answers], expected, atol=1e-4)


def test_rows_that_are_cut_are_counted(checkpoint, long_rows, tmp_path):
    result = adapt_model(str(checkpoint), str(long_rows), tmp_path / "model", HEADS, QUIET)
    assert result.cut == read_manifest(tmp_path / "model").training["cut"] > 30
    assert f"{result.cut} of these rows are longer and were cut" in training_text(result)


@pytest.mark.parametrize("stated", [None, 16])
def test_training_reads_what_the_recipe_or_the_encoder_says(checkpoint, rows_file, tmp_path, stated):
    recipe = dataclasses.replace(TRAINED, max_length=stated)
    result = train_model(str(rows_file), tmp_path / "model", recipe, str(checkpoint), QUIET)
    assert result.max_length == (stated or 40)
    again = train_model(str(rows_file), tmp_path / "again", HEADS, str(tmp_path / "model"), QUIET)
    assert again.max_length == (stated or 40)  # what ours reads is what it was trained with


@pytest.mark.parametrize("train", [adapt_model, None], ids=["adapt", "train"])
def test_the_option_wins_over_recipe_and_checkpoint(checkpoint, rows_file, tmp_path, train):
    options = dataclasses.replace(QUIET, max_length=50)
    recipe = dataclasses.replace(HEADS if train else TRAINED, max_length=16)
    if train:
        result = train(str(checkpoint), str(rows_file), tmp_path / "model", recipe, options)
    else:
        result = train_model(str(rows_file), tmp_path / "model", recipe, str(checkpoint), options)
    assert result.max_length == 50


@pytest.mark.parametrize(
    ("length", "says"),
    [
        (65, "--max-length 65: .* reads at most 64 tokens; give 64 or less"),
        (2, "--max-length: max_length 2: must be at least 3"),
        (4, "max_length 4 leaves no room for text"),
    ],
)
def test_an_impossible_length_is_refused_before_writing(checkpoint, rows_file, tmp_path, length, says):
    options = dataclasses.replace(QUIET, max_length=length)
    with pytest.raises(UserError, match=says):
        adapt_model(str(checkpoint), str(rows_file), tmp_path / "model", HEADS, options)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("model")] == []


def test_a_small_model_reads_as_much_as_its_teacher_or_less(checkpoint, rows_file, tmp_path):
    adapt_model(str(checkpoint), str(rows_file), tmp_path / "teacher", HEADS, QUIET)
    lengths = {}
    for asked in (None, 20):
        options = dataclasses.replace(QUIET, max_length=asked)
        out = tmp_path / f"static-{asked}"
        train_model(str(rows_file), out, STATIC, None, options, str(tmp_path / "teacher"))
        lengths[asked] = read_manifest(out).max_length
    assert lengths == {None: 40, 20: 20}
    with pytest.raises(UserError, match="--max-length 41: its teacher reads at most 40 tokens"):
        options = dataclasses.replace(QUIET, max_length=41)
        train_model(str(rows_file), tmp_path / "more", STATIC, None, options, str(tmp_path / "teacher"))
    train_model(str(rows_file), tmp_path / "alone", STATIC, str(checkpoint), QUIET)
    assert read_manifest(tmp_path / "alone").max_length == 40
