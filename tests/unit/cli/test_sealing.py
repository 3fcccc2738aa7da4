"""A folder that somebody has edited on purpose is taken as it is, without what vouched for it before."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ziggurat.encoder import MANIFEST, read_manifest, seal_folder, write_manifest
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.measure.information import information


def opened(folder: Path) -> OpenedModel:
    return OpenedModel.from_pretrained(folder, "cpu", threads=1)


def rename(folder: Path) -> None:
    """Another name for a label, in a text editor."""
    path = folder / MANIFEST
    path.write_text(path.read_text("utf-8").replace('"stone"', '"rock"').replace('"river"', '"brook"'), "utf-8")


@pytest.fixture
def edited(model_folder, copied) -> Path:
    """A folder with a certified point whose labels somebody has renamed."""
    folder = copied(model_folder)
    manifest = read_manifest(folder)
    first, *others = manifest.operating_points
    points = dataclasses.replace(first, confidence=0.95), *others
    write_manifest(dataclasses.replace(manifest, operating_points=points), folder)
    rename(folder)
    return folder


def test_an_edited_folder_is_refused_until_it_is_sealed(edited, model_folder, texts):
    with pytest.raises(UserError, match=f"`ziggurat seal {edited}`"):
        opened(edited)
    told = seal_folder(str(edited)).to_dict()
    assert told == {"model": str(edited), "changed": [str(edited / MANIFEST)], "uncertified": ["balanced"]}
    names = {"river": "brook", "stone": "rock", "tower": "tower"}
    before, now = opened(model_folder), opened(edited)
    for point in ("full", "balanced", "fast"):
        said = [answer.label for answer in now.answer(texts, point)]
        assert said == [names[answer.label] for answer in before.answer(texts, point)]
    assert all(point.confidence is None and point.certificate is None for point in now.manifest.operating_points)
    assert now.manifest.fingerprint == before.manifest.fingerprint
    assert seal_folder(str(edited)).to_dict()["changed"] == []


def test_a_folder_that_nobody_has_touched_stays_as_it_is(model_folder, copied):
    folder = copied(model_folder)
    before = (folder / MANIFEST).read_bytes()
    assert seal_folder(str(folder)).to_dict() == {"model": str(folder), "changed": [], "uncertified": []}
    assert (folder / MANIFEST).read_bytes() == before


def test_points_chosen_for_other_weights_are_refused(edited, make_folder, texts):
    other = make_folder("pooler")
    for name in ("ziggurat.safetensors", "config.json"):
        (edited / name).write_bytes((other / name).read_bytes())
    values = json.loads((edited / MANIFEST).read_text())
    (edited / MANIFEST).write_text(json.dumps(values | {"head_kind": "pooler"}))
    assert str(edited / "ziggurat.safetensors") in seal_folder(str(edited)).to_dict()["changed"]
    model = opened(edited)
    assert len(model.answer(texts, "full")) == len(texts)
    with pytest.raises(UserError, match="other weights"):
        model.answer(texts, "balanced")


def test_a_cascade_is_sealed_with_its_tiers(cascade_folder, copied, texts):
    folder = copied(cascade_folder)
    for part in (folder, folder / "tiers" / "1"):
        rename(part)
    told = seal_folder(str(folder)).to_dict()
    assert told["changed"] == [str(folder / "tiers" / "1" / MANIFEST), str(folder / MANIFEST)]
    assert opened(folder).manifest.labels == ("brook", "rock", "tower")


def test_what_fits_to_no_weights_is_said(model_folder, copied):
    folder = copied(model_folder)
    values = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(values | {"max_length": 1000}))
    with pytest.raises(UserError, match="inputs of 1000 tokens"):
        seal_folder(str(folder))


def test_info_tells_nothing_of_another_configuration(model_folder, copied):
    folder = copied(model_folder)
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"gelu"', '"relu"'))
    with pytest.raises(UserError, match=r"config\.json: is not the one"):
        information(str(folder))
