"""A manifest that vouches for whatever its folder holds: what somebody who means harm would write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ziggurat.contents import digest_of, file_digest
from ziggurat.encoder import folder as layout
from ziggurat.errors import UserError


def vouch(folder: Path, **changes: Any) -> Path:
    """Sets keys of `ziggurat.json`, None removes one, and writes digests and fingerprint of what is there now anew."""
    path = folder / layout.MANIFEST
    values = json.loads(path.read_text("utf-8")) | changes
    values = {key: value for key, value in values.items() if value is not None}
    values["files"] = {name: file_digest(folder / name, "missing") for name in values.get("files", ())}
    _write(path, values)
    try:
        found = layout.fingerprint(folder, layout.read_manifest(folder))
    except UserError:  # of such a folder there is none
        return folder
    for holder in (values, *values["operating_points"]):
        holder["fingerprint"] = found
    _write(path, values)
    return folder


def _write(path: Path, values: dict[str, Any]) -> None:
    values.pop("digest", None)
    path.write_text(json.dumps(values | {"digest": digest_of(values)}), "utf-8")
