"""What some commands cannot do with some models, said before anything is loaded."""

from __future__ import annotations

from ziggurat.encoder.folder import ENCODER, read_manifest, tier_folders
from ziggurat.encoder.hub import local_folder
from ziggurat.errors import UserError


def refuse_small(model: str, command: str) -> None:
    """UserError for a small model alone: it has no layers, and answers at one place."""
    manifest = read_manifest(local_folder(model))
    if manifest.kind != ENCODER:
        raise UserError(
            f"{model}: a {manifest.kind} model alone has neither layers nor exits, which `ziggurat {command}` is "
            "about; give an encoder or a cascade (`ziggurat eval` measures a small model)"
        )


def refuse_cascade(model: str, command: str) -> None:
    """UserError for a cascade: layers of several models stand side by side in it. It names folders that will do."""
    folder = local_folder(model)
    tiers = tier_folders(folder, read_manifest(folder))
    if tiers:
        encoders = [str(tier) for tier in tiers if read_manifest(tier).kind == ENCODER]
        instead = ", ".join([*encoders, "the folder that its last tier was made from"])
        raise UserError(
            f"{model}: a cascade, and `ziggurat {command}` is about one encoder's layers; "
            f"give its encoders by themselves: {instead}"
        )
