"""Sealing: a folder that was edited on purpose is taken as it is now, without its earlier certificates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ziggurat.encoder.folder import MANIFEST, file_digests, fingerprint, read_manifest, seal, tier_folders
from ziggurat.encoder.model_files import read_tiers
from ziggurat.errors import UserError
from ziggurat.system import json_values
from ziggurat.types import OperatingPoint


@dataclass(frozen=True)
class Sealing:
    """What sealing a folder changed."""

    model: str  # the folder, as it was given
    changed: tuple[str, ...]  # paths of the files that were not as they were written
    uncertified: tuple[str, ...]  # names of the operating points that lost their certificates

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(json_values(self))


def seal_folder(model: str) -> Sealing:
    """Writes the digests of a model folder and of its tiers anew; UserError for what no model can be.

    Where anything has changed all certificates are removed, for they were of what was there before. Operating points
    stay; where the weights have changed, using one is a UserError.
    """
    folder = Path(model)
    manifest = read_manifest(folder, edited=True)
    parts = [*tier_folders(folder, manifest), folder]
    changed = [name for part in parts for name in _changed(part)]
    if not changed:
        return Sealing(model, (), ())
    uncertified = tuple(point.name for point in manifest.operating_points if point != _bare(point))
    for part in parts:
        found = read_manifest(part, edited=True)
        points = tuple(map(_bare, found.operating_points))
        seal(part, replace(found, operating_points=points, files={}))
    for _ in read_tiers(folder, read_manifest(folder)):  # UserError where parts do not fit together
        pass
    return Sealing(model, tuple(changed), uncertified)


def _changed(folder: Path) -> list[str]:
    """The files of a folder that are not as they were written."""
    manifest, changed = read_manifest(folder, edited=True), []
    try:
        read_manifest(folder)
    except UserError:
        changed.append(MANIFEST)
    if not manifest.files:  # of an earlier version: its fingerprint is all that there is
        changed += [] if fingerprint(folder, manifest) == manifest.fingerprint else [""]
        return [str(folder / name) for name in changed]
    found = file_digests(folder, manifest)
    changed += [name for name in found if manifest.files.get(name) != found[name]]
    return [str(folder / name) for name in changed]


def _bare(point: OperatingPoint) -> OperatingPoint:
    return replace(point, certificate=None, confidence=None)
