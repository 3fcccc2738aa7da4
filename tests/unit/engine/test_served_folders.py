"""An open model needs nothing of its folder any more; what a folder cannot be is said when it is opened or answers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.kit.questions import make_contexts, make_questions, save_span_folder
from tests.kit.vouching import vouch
from ziggurat import native
from ziggurat.data import TextTokenizer
from ziggurat.encoder import MANIFEST, WEIGHTS, Manifest, write_cascade
from ziggurat.engine import OpenedModel
from ziggurat.engine import opened as opened_module
from ziggurat.errors import UserError
from ziggurat.small import BilstmTier, save_small

LABELS = ("river", "stone", "tower")
ENGINES = [
    "torch",
    pytest.param("native", marks=pytest.mark.skipif(bool(native.why_missing()), reason="no compiled engine")),
]


@pytest.fixture(scope="module")
def bilstm_folder(tiny_checkpoint, tmp_path_factory) -> Path:
    """A folder of a random BiLSTM model."""
    rng = np.random.default_rng(0)
    shapes = [(54, 5), (2, 5), (2, 24, 12), (2, 24, 19), (7, 13), (3, 8)]
    vocabulary = np.arange(TextTokenizer(tiny_checkpoint, 24).n_ids()).astype(np.int16)
    tier = BilstmTier(vocabulary, *(rng.normal(size=shape).astype(np.float32) for shape in shapes))
    manifest = Manifest(LABELS, False, 24, "none", (), "", kind="bilstm")
    folder = tmp_path_factory.mktemp("bilstm") / "model"
    save_small(tier, manifest, np.array([5], dtype=np.uint64), tiny_checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def folders(model_folder, pair_folder, static_folder, bilstm_folder, pruned_folder, make_checkpoint, tmp_path_factory):
    """One folder of each kind."""
    cascade = tmp_path_factory.mktemp("ladder") / "model"
    write_cascade([static_folder, bilstm_folder, pruned_folder], cascade)
    return {
        "encoder": model_folder,
        "pairs": pair_folder,
        "static": static_folder,
        "bilstm": bilstm_folder,
        "cascade": cascade,
        "spans": save_span_folder(tmp_path_factory.mktemp("spans"), make_checkpoint),
    }


KINDS = ["encoder", "pairs", "static", "bilstm", "cascade", "spans"]


def opened(kind: str, folder: Path, engine: str):
    """What answers as often as it is asked, bit for bit."""
    if kind == "spans":
        answerer = OpenedModel.from_pretrained(folder, "cpu", threads=1, backend=engine)
        pairs = list(zip(make_questions(), make_contexts(), strict=True))
        return lambda: [(a.text, a.score, a.null_score) for a in answerer.answer(pairs, "full")]
    model = OpenedModel.from_pretrained(folder, "cpu", threads=1, backend=engine)
    texts = ["bat kin losh mur", "nend", "polm rand bat zzz"]
    texts = [(text, "ket kish") for text in texts] if kind == "pairs" else texts
    rules = ["full"] + ([model.rule("margin", 0.5)] if kind == "cascade" else [])
    return lambda: [(a.label, a.probabilities.tolist()) for rule in rules for a in model.answer(texts, rule)]


@pytest.mark.parametrize("kind", ["encoder", "cascade"])
def test_a_folder_that_changes_while_it_is_opened_is_noticed(folders, copied, kind, monkeypatch):
    folder = copied(folders[kind])
    read = opened_module.open_tiers

    def replaced(*arguments):
        shutil.rmtree(folder)
        shutil.copytree(folders["spans"], folder)
        return read(*arguments)

    monkeypatch.setattr(opened_module, "open_tiers", replaced)
    with pytest.raises(UserError, match="copy the"):
        opened(kind, folder, "auto")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def write_over(folder: Path) -> None:
    for path in files(folder):
        path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def cut_off(folder: Path) -> None:
    for path in files(folder):
        os.truncate(path, 0)


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_open_model_answers_whatever_happens_to_its_folder(folders, copied, kind, engine):
    folder = copied(folders[kind])
    ask = opened(kind, folder, engine)
    before = ask()
    for spoil in (write_over, cut_off, remove):
        spoil(folder)
        assert ask() == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are POSIX's")
@pytest.mark.parametrize("kind", KINDS)
def test_a_pipe_in_the_place_of_any_file_is_named_at_once(folders, copied, kind):
    folder = copied(folders[kind])
    for path in files(folder):
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        if path.suffix in (".safetensors", ".json"):
            with pytest.raises(UserError) as caught:
                opened(kind, folder, "auto")
            assert str(path.parent) in str(caught.value) and path.name in str(caught.value)
        path.unlink()
        path.write_bytes(content)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("labels", [["stone", "tower"], ["brook", *LABELS]])
@pytest.mark.parametrize("kind", ["encoder", "static", "bilstm", "cascade"])
def test_labels_are_as_many_as_the_weights_have_outputs(folders, copied, kind, engine, labels):
    folder = copied(folders[kind])
    for tier in sorted(folder.glob("tiers/*")):
        vouch(tier, labels=labels)
    vouch(folder, labels=labels)
    with pytest.raises(UserError, match=r"labels|tensor classifier") as caught:
        opened(kind, folder, engine)
    assert str(folder) in str(caught.value)


def test_labels_of_an_earlier_version_are_counted_too(model_folder, copied):
    folder = copied(model_folder)
    values = json.loads((folder / MANIFEST).read_text())
    values = {key: value for key, value in values.items() if key not in ("digest", "files")}
    (folder / MANIFEST).write_text(json.dumps(values | {"format_version": 1, "labels": ["brook", *LABELS]}))
    with pytest.raises(UserError, match=r"labels|tensor classifier"):
        OpenedModel.from_pretrained(folder, "cpu")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["encoder", "spans"])
def test_weights_too_large_for_finite_answers_are_an_error(folders, copied, kind, engine):
    folder = copied(folders[kind])
    tensors = load_file(folder / WEIGHTS)
    tensors["bert.encoder.layer.3.output.dense.weight"][:] = 3e38
    save_file(tensors, folder / WEIGHTS)
    ask = opened(kind, vouch(folder), engine)
    with pytest.raises(UserError, match="weights are broken") as caught:
        ask()
    assert "\n" not in str(caught.value)


def test_so_are_they_in_a_stream_and_for_calibration(folders, copied):
    folder = copied(folders["encoder"])
    tensors = load_file(folder / WEIGHTS)
    tensors["bert.encoder.layer.3.output.dense.weight"][:] = 3e38
    save_file(tensors, folder / WEIGHTS)
    model = OpenedModel.from_pretrained(vouch(folder), "cpu", threads=1)
    with pytest.raises(UserError, match="weights are broken"):
        list(model.stream([["bat kin"]], "full"))
    with pytest.raises(UserError, match="weights are broken"):
        model.every_rung(model.encode(["bat kin"]))


@pytest.mark.parametrize("kind", ["encoder", "static", "bilstm"])
def test_a_tokenizer_with_too_many_ids_is_refused(folders, copied, kind):
    folder = copied(folders[kind])
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["model"]["vocab"]["bat"] = 1_000_000
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="another model's"):
        opened(kind, vouch(folder), "auto")


@pytest.mark.parametrize("kind", ["encoder", "static", "bilstm"])
def test_nor_may_those_of_its_special_tokens_be_others(folders, copied, kind):
    folder = copied(folders[kind])
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [99]
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="special tokens up to 99, the model only"):
        opened(kind, vouch(folder), "auto")


@pytest.mark.parametrize("kind", ["encoder", "bilstm"])
def test_nor_may_its_segments_be_more_than_the_model_has(folders, copied, kind):
    folder = copied(folders[kind])
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    assert values["post_processor"]["pair"][3]["Sequence"]["type_id"] == 1
    values["post_processor"]["pair"][3]["Sequence"]["type_id"] = 7
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="segments up to 7, the model only 2"):
        opened(kind, vouch(folder), "auto")
