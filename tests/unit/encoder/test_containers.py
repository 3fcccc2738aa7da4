"""Whatever a checkpoint was saved as: what can be read is read, bit by bit, and one line says what to do else."""

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ziggurat.data import pack
from ziggurat.encoder import answers_of, load_hf, local_folder, read_spec
from ziggurat.encoder.containers import require_checkpoint, scores_become, tensors_of, weight_files
from ziggurat.encoder.hub import checkpoint_folder
from ziggurat.encoder.weights import canonical_names
from ziggurat.errors import UserError
from ziggurat.files import refuse_pointer

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 3145728\n".format("0" * 64)


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    """A fine-tuned classifier. The test's own: change it at will."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


def renamed(folder, rename) -> None:
    """Writes the weights again with other names."""
    tensors = load_file(folder / WEIGHTS)
    save_file({rename(name): tensor for name, tensor in tensors.items()}, folder / WEIGHTS)


def logits(folder, tokens) -> torch.Tensor:
    with torch.no_grad():
        return load_hf(folder, 3, "linear", (2,)).eval()(pack(tokens))[-1]


def refusal(folder) -> str:
    """The one line with which a checkpoint is refused."""
    with pytest.raises(UserError) as caught:
        checkpoint_folder(str(folder))
        answers_of(folder)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(folder))
    return message.removeprefix(str(folder))


def sharded(folder, model) -> None:
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="50KB")


# --- what is read --------------------------------------------------------------------------------------------------


def test_shards_are_read_as_one_file(folder, tiny_checkpoint, make_bert, ragged_tokens):
    sharded(folder, make_bert())
    assert len(weight_files(folder)) > 2 and not (folder / WEIGHTS).exists()
    whole, parts = tensors_of(tiny_checkpoint), tensors_of(folder)
    assert whole.keys() == parts.keys() and all(np.array_equal(whole[name], parts[name]) for name in whole)
    assert checkpoint_folder(str(folder)) == folder and answers_of(folder) == answers_of(tiny_checkpoint)
    assert torch.equal(logits(folder, ragged_tokens), logits(tiny_checkpoint, ragged_tokens))


def test_one_file_goes_before_shards_as_in_transformers(folder, tiny_checkpoint, make_bert):
    sharded(folder, make_bert(initializer_range=0.3))
    shutil.copyfile(tiny_checkpoint / WEIGHTS, folder / WEIGHTS)
    assert [file.name for file in weight_files(folder)] == [WEIGHTS]


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: name.replace("encoder.layer", "encoder._orig_mod.layer"),
        lambda name: name.replace("bert.encoder.", "bert._fsdp_wrapped_module.encoder.module."),
        lambda name: f"model.{name}",
        lambda name: f"net.model.{name}",
        lambda name: f"bert.{name}",
        lambda name: f"_orig_mod.bert.{name}",
        lambda name: name.removeprefix("bert."),
        lambda name: f"auto_model.{name.removeprefix('bert.')}",
        lambda name: name if name.startswith("classifier") else f"bert.{name}",
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
    ],
)
def test_wrapped_and_prefixed_names_are_the_same_tensors(folder, tiny_checkpoint, ragged_tokens, rename):
    renamed(folder, rename)
    assert answers_of(folder) == answers_of(tiny_checkpoint)
    assert torch.equal(logits(folder, ragged_tokens), logits(tiny_checkpoint, ragged_tokens))


def test_a_wrapped_modernbert_is_read_despite_its_own_prefix(tmp_path):
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    sizes = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    plain = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    model = ModernBertForSequenceClassification(ModernBertConfig(**sizes, **plain, num_attention_heads=2))
    names, spec = model.state_dict(), read_spec(model.config.to_dict())
    for wrapped in ({f"model.{name}": tensor for name, tensor in names.items()}, names):
        assert canonical_names(wrapped, spec).keys() == names.keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read(folder, tiny_checkpoint, make_bert, ragged_tokens, dtype):
    make_bert().to(dtype).save_pretrained(folder)
    assert (logits(folder, ragged_tokens) - logits(tiny_checkpoint, ragged_tokens)).abs().max() < 0.2


def test_a_trainers_folder_with_a_model_of_its_own_is_that_model(folder, tiny_checkpoint):
    shutil.copytree(tiny_checkpoint, folder / "checkpoint-10")
    assert checkpoint_folder(str(folder)) == folder


def test_a_trainers_checkpoint_is_a_checkpoint(folder):
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin", "trainer_state.json", "rng_state.pth"):
        (folder / name).write_bytes(b"{}")
    assert checkpoint_folder(str(folder)) == folder


def test_a_folder_of_ours_is_left_to_whoever_opens_it(model_folder, static_folder, cascade_folder):
    for ours in (model_folder, static_folder, cascade_folder):
        assert checkpoint_folder(str(ours)) == ours


# --- what is named -------------------------------------------------------------------------------------------------


def test_a_missing_shard_is_named(folder, make_bert):
    sharded(folder, make_bert())
    lost = sorted(folder.glob("model-*.safetensors"))[1]
    lost.unlink()
    assert refusal(folder).startswith(f"/{lost.name}: not found, one of ")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "../other/model.safetensors"}}))
    assert "has no weight_map of files beside it" in refusal(folder)


def test_shards_without_an_index_are_no_whole_model(folder, make_bert):
    sharded(folder, make_bert())
    (folder / INDEX).unlink()
    assert f"no {INDEX}, the index of model-00001-of-" in refusal(folder)


def test_a_tensor_that_no_shard_holds_is_named(folder, make_bert):
    sharded(folder, make_bert())
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["classifier.more"] = next(iter(index["weight_map"].values()))
    (folder / INDEX).write_text(json.dumps(index))
    assert "no file of weights holds 'classifier.more'" in refusal(folder)


@pytest.mark.parametrize("kept", [[], [CONFIG], [CONFIG, WEIGHTS]])
def test_an_adapter_is_to_be_merged(folder, kept):
    """Beside whole weights it changes them as well: transformers would load both."""
    for name in {CONFIG, WEIGHTS} - set(kept):
        (folder / name).unlink()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "some/base"}')
    (folder / "adapter_model.safetensors").write_bytes(b"")
    said = refusal(folder)
    assert "an adapter (LORA) of some/base, not a whole model; merge it" in said and ".merge_and_unload()" in said


@pytest.mark.parametrize("part", ["lora_A.default.weight", "base_layer.weight", "lora_B.weight"])
def test_an_adapter_saved_within_the_model_is_not_left_out(folder, part):
    tensors = load_file(folder / WEIGHTS)
    tensors[f"bert.encoder.layer.0.attention.self.query.{part}"] = torch.ones(2)
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(UserError, match=r"holds an adapter's parts .*merge_and_unload"):
        answers_of(folder)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("pytorch_model.bin", "but pytorch_model.bin, a pickle, which can run code and is not read; load it in trans"),
        ("pytorch_model-00001-of-00002.bin", "a pickle, which can run code"),
        ("epoch=3.ckpt", "a pickle, which can run code"),
        ("weights.pt", "a pickle, which can run code"),
        ("tf_model.h5", "of TensorFlow; load it in transformers 4"),
        ("flax_model.msgpack", "of Flax; load it in transformers 4"),
        ("model.onnx", "an export to ONNX; give the folder that it was exported from"),
        ("onnx/model_quantized.onnx", "but onnx/model_quantized.onnx, an export to ONNX"),
        ("openvino_model.xml", "an export to OpenVINO"),
        ("model-q4.gguf", "made for llama.cpp"),
        ("model.fp16.safetensors", "if that is the whole model, rename it to model.safetensors"),
    ],
)
def test_weights_of_another_kind_are_named_with_what_to_do(folder, file, says):
    (folder / WEIGHTS).unlink()
    (folder / "training_args.bin").write_bytes(b"")
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(b"")
    said = refusal(folder)
    assert f"no {WEIGHTS}, but " in said and says in said


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "tokenizer.json", "tokenizer_config.json"])
def test_what_is_called_as_a_file_and_is_none_is_not_left_out(folder, name):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../blobs/gone")  # as in a hub's cache whose blobs were deleted
    assert refusal(folder).startswith(f": {name} is a broken link; ")
    (folder / name).unlink()
    (folder / name).mkdir()
    assert refusal(folder).startswith(f": {name} is no file; ")


def test_a_folder_without_weights_or_configuration_is_named(folder, tmp_path):
    (folder / "training_args.bin").write_bytes(b"")
    (folder / WEIGHTS).rename(tmp_path / "kept")
    assert refusal(folder) == f": no {WEIGHTS}; give a folder made by save_pretrained"
    (tmp_path / "kept").rename(folder / WEIGHTS)
    (folder / CONFIG).unlink()
    assert refusal(folder).startswith(f": no {CONFIG} beside the weights; copy it from where")


def test_the_best_checkpoint_of_a_trainers_folder_is_named(tiny_checkpoint, tmp_path):
    run = tmp_path / "run"
    for step in (500, 1000, 1500):
        shutil.copytree(tiny_checkpoint, run / f"checkpoint-{step}")
    said = refusal(run)
    assert "checkpoint-500, checkpoint-1000, checkpoint-1500; give one of them, such as" in said
    state = run / "checkpoint-1500" / "trainer_state.json"
    state.write_text('{"best_model_checkpoint": "/elsewhere/run/checkpoint-1000"}')
    assert f"give {run / 'checkpoint-1000'} (the best, says trainer_state.json)" in refusal(run)
    state.write_text(json.dumps({"best_model_checkpoint": "C:\\run\\checkpoint-500"}))
    assert f"give {run / 'checkpoint-500'} (the best" in refusal(run)
    for lost in ('{"best_model_checkpoint": "checkpoint-7"}', "{broken"):  # that one was removed since
        state.write_text(lost)
        assert "give one of them" in refusal(run)


@pytest.mark.parametrize("modules", [True, False])
def test_a_model_one_level_down_is_named(tiny_checkpoint, tmp_path, modules):
    outer = tmp_path / "outer"
    shutil.copytree(tiny_checkpoint, outer / "0_Transformer")
    if modules:
        (outer / "modules.json").write_text("[]")
    kind = "a sentence-transformers folder" if modules else "a folder"
    assert refusal(outer) == f": {kind} whose model is in 0_Transformer; give {outer / '0_Transformer'}"


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq"])
def test_quantised_weights_are_refused(folder, method):
    config = json.loads((folder / CONFIG).read_text()) | {"quantization_config": {"quant_method": method}}
    (folder / CONFIG).write_text(json.dumps(config))
    assert f"its weights are quantised ({method})" in refusal(folder)


def test_numbers_of_eight_bits_are_refused_as_what_they_are(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors["classifier.weight"] = tensors["classifier.weight"].to(torch.float8_e4m3fn)
    save_file(tensors, folder / WEIGHTS)
    said = refusal(folder)
    assert "numbers of type 'F8_E4M3' are not read; give the weights as floats of 16 or 32 bits" in said


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "tokenizer.json"])
def test_git_lfs_pointers_ask_to_be_pulled(folder, name):
    (folder / name).write_text(POINTER)
    for ask in (local_folder, checkpoint_folder):
        with pytest.raises(UserError, match=f"{name}: a Git LFS pointer, not the file itself; run `git lfs pull`"):
            ask(str(folder))


def test_a_tiers_pointer_is_found_and_a_short_file_is_none(cascade_folder, copied, tmp_path):
    folder = copied(cascade_folder)
    (folder / "tiers" / "1" / WEIGHTS).write_text(POINTER)
    with pytest.raises(UserError, match="a Git LFS pointer"):
        local_folder(str(folder))
    (tmp_path / "short").write_text("version 2")
    refuse_pointer(tmp_path / "short")
    refuse_pointer(tmp_path / "missing")


def test_a_path_to_a_file_names_the_folder(folder, tmp_path):
    with pytest.raises(UserError, match=f"is a file of a model; give its folder, {folder}"):
        local_folder(str(folder / WEIGHTS))
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.write(folder / CONFIG)
    with pytest.raises(UserError, match="is an archive; unpack it and give the folder"):
        local_folder(str(tmp_path / "model.zip"))


@pytest.mark.parametrize(
    ("model_type", "says"),
    [
        ("gpt2", "it is a decoder, and only encoders run"),
        ("t5", "it has a decoder"),
        ("deberta-v2", "disentangled"),
        ("albert", "one set of weights"),
        ("mpnet", "is not supported; supported: bert, roberta"),
    ],
)
def test_another_architecture_is_refused_with_those_that_run(folder, model_type, says):
    config = json.loads((folder / CONFIG).read_text()) | {"model_type": model_type}
    (folder / CONFIG).write_text(json.dumps(config))
    assert f": config.json: model_type '{model_type}' is not supported" in (said := refusal(folder)) and says in said


def test_several_encoders_and_a_name_twice_are_refused(folder):
    tensors = load_file(folder / WEIGHTS)
    twice = {f"{one}.{name}": tensor.clone() for one in ("student", "teacher") for name, tensor in tensors.items()}
    save_file(twice, folder / WEIGHTS)
    with pytest.raises(UserError, match=r"several encoders \(tensors begin with 'student.', 'teacher.'\)"):
        answers_of(folder)
    save_file(tensors | {"module.classifier.bias": torch.ones(3)}, folder / WEIGHTS)
    with pytest.raises(UserError, match=r"holds 'classifier.bias' twice"):
        answers_of(folder)


@pytest.mark.parametrize(
    ("number", "dtype"), [(float("nan"), torch.float32), (float("inf"), torch.float16), (1e300, torch.float64)]
)
def test_weights_that_are_not_numbers_are_told_before_training(folder, number, dtype):
    tensors = load_file(folder / WEIGHTS)
    name = "bert.encoder.layer.2.output.dense.weight"
    tensors[name] = tensors[name].to(dtype)
    tensors[name][1, 2] = number
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(UserError, match=f"^{folder}: tensor {name} has numbers that are not finite"):
        load_hf(folder, 3, "linear", None)


def test_a_missing_tensor_is_told_in_the_checkpoints_words(folder):
    tensors = load_file(folder / WEIGHTS)
    del tensors["bert.encoder.layer.3.output.dense.bias"]
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(UserError, match=r"no tensor 'bert.encoder.layer.3.output.dense.bias', which a bert of 4 "):
        load_hf(folder, 3, "linear", None)


# --- sentence-transformers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "stated", "found"),
    [
        (CONFIG, {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}, "Sigmoid"),
        (CONFIG, {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, None),
        (CONFIG, {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, "Sigmoid"),
        ("config_sentence_transformers.json", {"activation_fn": "torch.nn.modules.activation.Sigmoid"}, "Sigmoid"),
        ("config_sentence_transformers.json", {"prompts": {}}, None),
        (CONFIG, {"sentence_transformers": None}, None),
    ],
)
def test_what_sentence_transformers_puts_on_scores_is_known(folder, file, stated, found):
    before = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(before | stated))
    assert scores_become(folder) == found
    require_checkpoint(folder)
