"""Model folders: they come back as they were saved, plain transformers reads them, and a broken one is named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.kit.vouching import vouch
from ziggurat.config import from_mapping
from ziggurat.data import TextTokenizer, pack
from ziggurat.encoder import (
    Manifest,
    copy_tokenizer,
    fingerprint,
    load_hf,
    load_model,
    read_manifest,
    save_model,
    trained_rows,
    write_manifest,
)
from ziggurat.encoder.torch.heads import HEADS
from ziggurat.errors import UserError
from ziggurat.types import OperatingPoint

WEIGHTS, EXTRAS, MANIFEST, CONFIG = "model.safetensors", "ziggurat.safetensors", "ziggurat.json", "config.json"
TOKENIZER = "tokenizer.json"


def every_rung(model, sequences) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack(model(pack(sequences)))


def edit(path: Path, **changes) -> None:
    """Sets keys of a JSON file; None removes one."""
    values = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}), "utf-8")


def refusal(load, *arguments) -> str:
    """The one line with which loading is refused."""
    with pytest.raises(UserError) as caught:
        load(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- a checkpoint of somebody else's -------------------------------------------------------------------------------


def test_a_fine_tuned_classifier_keeps_its_answers(make_bert, make_model, ragged_tokens):
    from_folder = every_rung(make_model(), ragged_tokens)[-1]
    bert = make_bert()
    with torch.no_grad():
        for tokens, logits in zip(ragged_tokens, from_folder, strict=True):
            ids, segments = torch.from_numpy(tokens)[None].unbind(-1)
            assert torch.allclose(bert(ids, token_type_ids=segments).logits[0], logits, atol=1e-5, rtol=1e-5)


def test_another_number_of_classes_gets_a_fresh_classifier(tiny_checkpoint, make_bert):
    bert = make_bert()
    same = load_hf(tiny_checkpoint, 3, "linear", None)
    other = load_hf(tiny_checkpoint, 5, "linear", None)
    assert torch.equal(same.classifier.classes.weight, bert.classifier.weight)
    assert other.classifier.classes.weight.shape == (5, 32)
    assert other.classifier.classes.weight.abs().max() > 0
    assert not other.classifier.classes.bias.any()
    for model in (same, other):
        assert torch.equal(model.classifier.dense.weight, bert.bert.pooler.dense.weight)
        assert torch.equal(model.encoder.layers[3].down.weight, bert.bert.encoder.layer[3].output.dense.weight)


def test_a_backbone_without_classifier_or_pooler_is_taken(make_bert, make_checkpoint, tmp_path):
    from transformers import BertModel

    whole = make_bert()
    bare = make_checkpoint(whole.bert, tmp_path / "bare")
    model = load_hf(bare, 2, "linear", (2,))
    assert torch.equal(model.classifier.dense.weight, whole.bert.pooler.dense.weight)
    headless = BertModel(whole.config, add_pooling_layer=False)
    model = load_hf(make_checkpoint(headless, tmp_path / "headless"), 2, "linear", (2,))
    assert torch.equal(model.encoder.embeddings.word.weight, headless.embeddings.word_embeddings.weight)
    assert model.classifier.dense.weight.abs().max() > 0


def test_what_starts_fresh_follows_the_seed(tiny_checkpoint):
    def load(seed):
        torch.manual_seed(seed)
        return load_hf(tiny_checkpoint, 5, "fastbert", None).state_dict()

    one, again, other = load(1), load(1), load(2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    fresh = {name for name in one if not torch.equal(one[name], other[name])}
    assert fresh and all(name.startswith(("exits.", "classifier.classes.")) for name in fresh)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_float_type_are_loaded_as_float32(make_bert, make_checkpoint, tmp_path, dtype):
    folder = make_checkpoint(make_bert().to(dtype), tmp_path / "half")
    assert load_file(folder / WEIGHTS)["classifier.weight"].dtype == dtype
    model = load_hf(folder, 3, "linear", None)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    expected = make_bert().to(dtype).float().bert.encoder.layer[0].intermediate.dense.weight
    assert torch.equal(model.encoder.layers[0].up.weight, expected)


def test_head_layers_are_sorted_and_counted_once(tiny_checkpoint):
    assert load_hf(tiny_checkpoint, 3, "linear", [3, 1, 3]).head_layers == (1, 3)
    assert load_hf(tiny_checkpoint, 3, "linear", None).head_layers == (1, 2, 3)
    assert load_hf(tiny_checkpoint, 3, "linear", []).head_layers == ()


@pytest.mark.parametrize("layers", [[0], [4], [1, 9], [-1]])
def test_a_head_where_there_is_no_layer_is_refused(tiny_checkpoint, layers):
    assert "heads stand after 1 … 3" in refusal(load_hf, tiny_checkpoint, 3, "linear", layers)


def test_an_unknown_head_is_refused_with_the_list_of_known_ones(tiny_checkpoint):
    message = refusal(load_hf, tiny_checkpoint, 3, "conv", None)
    assert "'conv'" in message and all(kind in message for kind in HEADS)


def test_a_checkpoint_without_config_or_weights_is_refused(tiny_checkpoint, copied, tmp_path):
    assert str(tmp_path / "none") in refusal(load_hf, tmp_path / "none", 3, "linear", None)
    folder = copied(tiny_checkpoint)
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    message = refusal(load_hf, folder, 3, "linear", None)
    assert f"{folder}: no {WEIGHTS}, but pytorch_model.bin, a pickle" in message and "save_pretrained" in message


def test_weights_that_do_not_fit_the_configuration_are_named(tiny_checkpoint, copied):
    folder = copied(tiny_checkpoint)
    edit(folder / CONFIG, intermediate_size=48)
    message = refusal(load_hf, folder, 3, "linear", None)
    assert "bert.encoder.layer.0.intermediate.dense.weight is 64 x 32, config.json wants one of 48 x 32" in message
    edit(folder / CONFIG, intermediate_size=64, num_hidden_layers=5)
    assert "bert.encoder.layer.4." in refusal(load_hf, folder, 3, "linear", None)


def test_an_old_checkpoint_gets_a_tokenizer_file(tiny_checkpoint, tmp_path):
    source, target = tmp_path / "old", tmp_path / "new"
    source.mkdir()
    target.mkdir()
    shutil.copyfile(tiny_checkpoint / CONFIG, source / CONFIG)
    pieces = json.loads((tiny_checkpoint / "tokenizer.json").read_text())["model"]["vocab"]
    (source / "vocab.txt").write_text("".join(f"{piece}\n" for piece in sorted(pieces, key=pieces.get)))
    copy_tokenizer(source, target, 64)
    texts = ["bat kin mush", "unknown, bat"]
    made, known = (TextTokenizer(folder, 16).encode(texts).tokens for folder in (target, tiny_checkpoint))
    assert all(np.array_equal(one, other) for one, other in zip(made, known, strict=True))


def test_a_checkpoint_without_any_tokenizer_is_refused(tiny_checkpoint, tmp_path):
    shutil.copyfile(tiny_checkpoint / CONFIG, tmp_path / CONFIG)
    assert f"{tmp_path}: no tokenizer" in refusal(copy_tokenizer, tmp_path, tmp_path, 64)


# --- a folder of our own -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HEADS)
def test_a_saved_model_comes_back_with_the_same_answers(make_folder, make_model, ragged_tokens, kind):
    folder = make_folder(kind, (1, 3))
    model, manifest = load_model(folder)
    assert torch.equal(every_rung(model, ragged_tokens), every_rung(make_model(kind, (1, 3)), ragged_tokens))
    assert not model.training
    assert (manifest.head_kind, manifest.head_layers, manifest.labels) == (kind, (1, 3), ("river", "stone", "tower"))


def test_a_saved_model_is_an_ordinary_folder_of_transformers(model_folder, make_model, ragged_tokens, texts):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    plain, info = AutoModelForSequenceClassification.from_pretrained(model_folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert plain.config.id2label == {0: "river", 1: "stone", 2: "tower"}
    full = every_rung(make_model(), ragged_tokens)[-1]
    with torch.no_grad():
        for tokens, logits in zip(ragged_tokens, full, strict=True):
            ids, segments = torch.from_numpy(tokens)[None].unbind(-1)
            assert torch.allclose(plain.eval()(ids, token_type_ids=segments).logits[0], logits, atol=1e-5, rtol=1e-5)
    ours = TextTokenizer(model_folder, 24).encode(texts).tokens
    theirs = AutoTokenizer.from_pretrained(model_folder)(texts, truncation=True, max_length=24)
    assert [tokens[:, 0].tolist() for tokens in ours] == theirs["input_ids"]
    assert [tokens[:, 1].tolist() for tokens in ours] == theirs["token_type_ids"]


def test_a_saved_folder_overrules_old_keys_of_its_configuration(tiny_checkpoint, copied, make_model, tmp_path):
    """A base encoder's `num_labels` would rename the classes, its `torch_dtype` round the weights."""
    from transformers import AutoModelForSequenceClassification

    source = copied(tiny_checkpoint)
    edit(source / CONFIG, num_labels=5, torch_dtype="float16", dtype=None, id2label=None, label2id=None)
    manifest = Manifest(("river", "stone", "tower"), False, 24, "fastbert", (1, 2, 3), "")
    save_model(make_model(), manifest, np.array([1], dtype=np.uint64), source, tmp_path / "model")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert plain.config.id2label == {0: "river", 1: "stone", 2: "tower"}
    assert plain.classifier.weight.dtype == torch.float32


def test_a_finished_folder_can_be_adapted_again(model_folder, make_model, ragged_tokens):
    again = load_hf(model_folder, 3, "linear", None).eval()
    assert torch.equal(every_rung(again, ragged_tokens)[-1], every_rung(make_model(), ragged_tokens)[-1])


def test_saving_writes_nothing_into_the_source_and_no_pickle(model_folder):
    names = {path.name for path in model_folder.iterdir()}
    assert names >= {WEIGHTS, EXTRAS, MANIFEST, CONFIG, "tokenizer.json"}
    assert {name.rpartition(".")[2] for name in names} <= {"json", "safetensors", "txt"}


def test_saving_into_a_folder_that_holds_something_is_refused(tiny_model, tiny_checkpoint, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    manifest = Manifest(("a", "b", "c"), False, 24, "fastbert", (1, 2, 3), "")
    rows = np.zeros(1, dtype=np.uint64)
    assert "is not empty" in refusal(save_model, tiny_model, manifest, rows, tiny_checkpoint, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_saving_leaves_the_model_as_it_was(tiny_model, tiny_checkpoint, tmp_path):
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    manifest = Manifest(("a", "b", "c"), False, 24, "fastbert", (1, 2, 3), "")
    saved = save_model(tiny_model, manifest, np.zeros(1, dtype=np.uint64), tiny_checkpoint, tmp_path / "out")
    assert saved.fingerprint == fingerprint(tmp_path / "out", saved)
    after = tiny_model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_rows_that_trained_come_back(model_folder):
    rows = trained_rows(model_folder)
    assert rows.dtype == np.uint64
    assert sorted(rows.tolist()) == [3, 7, 2**63 + 5]


@pytest.mark.parametrize("labels", [("größer", "klein"), (3, 7), (0, 1)])
def test_a_manifest_comes_back_as_it_was_written(tmp_path, labels):
    points = (
        OperatingPoint("balanced", "entropy", (None, 0.25), "f", target=0.005, confidence=0.95, data="d"),
        OperatingPoint("slow", "agreement", (None, None), "f", temperatures=(1.0, 0.5, 2.25)),
    )
    training = {"recipe": {"name": "x"}, "rows": 3}
    manifest = Manifest(labels, True, 128, "pooler", (2, 4), "f", points, training)
    write_manifest(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert manifest.operating_point("slow") is points[1]
    assert "it has: full, balanced, slow" in refusal(manifest.operating_point, "blanced")
    bare = dataclasses.replace(manifest, operating_points=())
    assert "it has: full; make more" in refusal(bare.operating_point, "balanced")


@pytest.mark.parametrize("change", [{"speed": 3}, {"thresholds": None}, {"fingerprint": None}])
def test_an_operating_point_with_a_wrong_key_is_refused(change):
    values = OperatingPoint("balanced", "entropy", (None, 0.25), "f").to_dict()
    values = {key: value for key, value in (values | change).items() if value is not None or key == "target"}
    assert f"key '{next(iter(change))}'" in refusal(from_mapping, OperatingPoint, values, "point")


@pytest.mark.parametrize(
    ("key", "value"),
    [("labels", 5), ("labels", [1.5]), ("head_layers", None), ("operating_points", [3]), ("max_length", "24")],
)
def test_a_manifest_value_of_the_wrong_type_is_named(key, value, folder):
    vouch(folder, **{key: value})
    assert key in refusal(load_model, folder)


def test_heads_that_do_not_divide_the_width_are_refused(folder):
    edit(folder / CONFIG, num_attention_heads=5)
    vouch(folder)
    assert "5 attention heads" in refusal(load_model, folder)


# --- a broken folder of our own ------------------------------------------------------------------------------------


@pytest.fixture
def folder(model_folder, copied) -> Path:
    """A model folder that may be spoilt."""
    return copied(model_folder)


@pytest.mark.parametrize("name", [WEIGHTS, EXTRAS, MANIFEST, CONFIG])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    message = refusal(load_model, folder)
    assert str(folder) in message and name in message


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert str(tmp_path / "none") in refusal(load_model, tmp_path / "none")


@pytest.mark.parametrize("name", [WEIGHTS, EXTRAS])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_weights_file_is_named(folder, name, share):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * share)])
    message = refusal(load_model, folder)
    assert str(folder / name) in message and "truncated" in message


@pytest.mark.parametrize("name", [MANIFEST, CONFIG])
@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe", b"[1]"])
def test_a_json_file_that_is_none_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    message = refusal(load_model, folder)
    assert str(folder / name) in message and "not " in message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format_version": 3}, "format_version 3 is newer than 2; upgrade"),
        ({"format_version": None}, "no format_version"),
        ({"format_version": "1"}, "no format_version"),
        ({"labels": None}, "'labels'"),
        ({"labelz": 3}, "'labelz'"),
    ],
)
def test_a_manifest_of_another_version_is_refused(folder, change, says):
    vouch(folder, **change)
    message = refusal(load_model, folder)
    assert str(folder / MANIFEST) in message and says in message


@pytest.mark.parametrize(("name", "tensor"), [(WEIGHTS, "classifier.bias"), (EXTRAS, "exits.2.classes.bias")])
def test_edited_weights_are_refused(folder, name, tensor):
    tensors = load_file(folder / name)
    tensors[tensor][0] += 1e-3
    save_file(tensors, folder / name, metadata={"format": "pt"})
    message = refusal(load_model, folder)
    assert str(folder) in message and MANIFEST in message and "not the one" in message


@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        (WEIGHTS, "bert.encoder.layer.2.output.dense.bias", "bert.encoder.layer.2.output.dense.bias"),
        (WEIGHTS, "bert.pooler.dense.weight", "bert.pooler.dense.weight"),
        (EXTRAS, "exits.3.out.weight", "exits.3.out.weight"),
    ],
)
def test_a_tensor_that_is_missing_is_named(folder, name, tensor, says):
    tensors = load_file(folder / name)
    del tensors[tensor]
    save_file(tensors, folder / name)
    vouch(folder)
    assert says in refusal(load_model, folder)


@pytest.mark.parametrize("change", [{"labels": ["a", "b"]}, {"head_layers": [1, 2]}, {"head_kind": "linear"}])
def test_a_manifest_that_does_not_fit_the_weights_is_refused(folder, change):
    vouch(folder, **change)
    assert f"{folder}: tensor " in refusal(load_model, folder)


def test_a_manifest_with_a_head_that_is_not_known_is_refused(folder):
    vouch(folder, head_kind="conv")
    assert "head kind 'conv' is not known; known: fastbert" in refusal(load_model, folder)


def test_a_fingerprint_covers_all_that_changes_an_answer(model_folder, folder):
    manifest = read_manifest(folder)
    known = fingerprint(model_folder, manifest)
    (folder / "notes.txt").write_text("a note")
    edit(folder / CONFIG, transformers_version="0.0.0")
    assert fingerprint(folder, dataclasses.replace(manifest, operating_points=())) == manifest.fingerprint == known
    assert fingerprint(folder, dataclasses.replace(manifest, max_length=12)) != known
    edit(folder / CONFIG, layer_norm_eps=0.1)
    assert fingerprint(folder, manifest) != known
    edit(folder / CONFIG, layer_norm_eps=1e-12)
    for name in (WEIGHTS, EXTRAS, TOKENIZER):
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)
        assert fingerprint(folder, manifest) != known
        content[-1] ^= 1
        (folder / name).write_bytes(content)
