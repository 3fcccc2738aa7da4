"""A manifest vouches for its folder: what somebody has changed since is one line, before anything is made of it."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path

import pytest

from tests.kit.vouching import vouch
from ziggurat.encoder import (
    CONFIG,
    EXTRAS,
    MANIFEST,
    TOKENIZER,
    WEIGHTS,
    check_fingerprint,
    model_files,
    read_manifest,
    read_model,
    with_deferral,
    with_pruning_values,
    write_cascade,
    write_manifest,
    write_point,
)
from ziggurat.encoder import folder as layout
from ziggurat.encoder.folder import read_point
from ziggurat.encoder.model_files import read_tiers
from ziggurat.errors import UserError
from ziggurat.types import Certificate, OperatingPoint

CERTIFICATE = Certificate(
    criterion="accuracy",
    estimate=0.0,
    rows=3,
    data="d",
    engine="native",
    dtype="float32",
    threads=1,
    batch_size=1,
    profile=None,
    predicted_ms=1.0,
    measured_ms=1.0,
    full_ms=2.0,
    gain=2.0,
    gain_low=2.0,
    gain_high=2.0,
    differs=0.1,
    flops=0.5,
)


@pytest.fixture
def folder(model_folder, copied) -> Path:
    """A model folder with a certificate, that may be spoilt."""
    folder = copied(model_folder)
    manifest = read_manifest(folder)
    first, *others = manifest.operating_points
    points = dataclasses.replace(first, certificate=CERTIFICATE, confidence=0.95), *others
    write_manifest(dataclasses.replace(manifest, operating_points=points), folder)
    return folder


def refusal(read, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        read(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def edit(folder: Path, *where, value) -> None:
    """Sets one value of `ziggurat.json`, as somebody with an editor does."""
    values = json.loads((folder / MANIFEST).read_text("utf-8"))
    holder = values
    for key in where[:-1]:
        holder = holder[key]
    holder[where[-1]] = value
    (folder / MANIFEST).write_text(json.dumps(values, indent=2), "utf-8")


EDITS = {
    "a label": (("labels", 0), "brook"),
    "two labels": (("labels",), ["stone", "river", "tower"]),
    "a threshold": (("operating_points", 0, "thresholds", 1), 0.99),
    "a name": (("operating_points", 0, "name"), "balances"),
    "a certificate": (("operating_points", 0, "certificate", "rows"), 3000),
    "a confidence": (("operating_points", 1, "confidence"), 0.99),
    "where it comes from": (("training", "recipe"), "mine"),
    "the digest": (("digest",), "0" * 64),
    "no digest": (("digest",), None),
    "the digest of a file": (("files", WEIGHTS), "0" * 64),
    "no files": (("files",), {}),
    "the version": (("format_version",), 1),
}


@pytest.mark.parametrize(("where", "value"), EDITS.values(), ids=EDITS)
def test_an_edited_manifest_is_refused_and_says_what_to_do(folder, where, value):
    edit(folder, *where, value=value)
    for read in (read_manifest, read_model):
        message = refusal(read, folder)
        assert f"{folder / MANIFEST}: is not as it was written" in message
        assert "copy the folder again" in message and f"`ziggurat seal {folder}`" in message


def test_key_order_and_white_space_do_not_matter(folder):
    known, values = read_manifest(folder), json.loads((folder / MANIFEST).read_text("utf-8"))
    (folder / MANIFEST).write_text(json.dumps(dict(reversed(values.items()))), "utf-8")
    assert read_manifest(folder) == known


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, EXTRAS, TOKENIZER])
def test_a_flipped_bit_of_any_file_is_named_before_it_is_parsed(folder, name):
    content = (folder / name).read_bytes()
    for at in (9, len(content) // 2, len(content) - 1):
        spoilt = bytearray(content)
        spoilt[at] ^= 1
        (folder / name).write_bytes(spoilt)
        assert str(folder / name) in refusal(read_model, folder)
    assert "is not the one" in refusal(check_fingerprint, folder, read_manifest(folder))


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, EXTRAS, TOKENIZER])
def test_a_copy_that_stopped_half_way_says_which_file(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    assert str(folder / name) in refusal(read_model, folder)
    (folder / name).unlink()
    assert name in refusal(read_model, folder)


@pytest.mark.slow
def test_no_flipped_bit_of_a_manifest_gives_another_one(folder):
    known, content = read_manifest(folder), (folder / MANIFEST).read_bytes()
    rng, refused = random.Random(0), 0
    for _ in range(400):
        spoilt = bytearray(content)
        spoilt[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (folder / MANIFEST).write_bytes(spoilt)
        try:
            assert read_manifest(folder) == known
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 300


def test_a_folder_that_is_replaced_while_it_is_read_is_noticed(folder, make_folder, monkeypatch):
    other = make_folder(head_layers=(1, 2))
    read = model_files.read_tensors

    def replaced(path):
        shutil.copytree(other, folder, dirs_exist_ok=True)
        return read(path)

    monkeypatch.setattr(model_files, "read_tensors", replaced)
    assert f"{folder / EXTRAS}: is not the one" in refusal(read_model, folder)


def test_calibrating_vouches_for_no_file_changed_since(folder, make_folder):
    opened = read_model(folder).manifest
    shutil.copyfile(make_folder("pooler") / EXTRAS, folder / EXTRAS)
    write_manifest(dataclasses.replace(opened, operating_points=()), folder)
    assert read_manifest(folder).fingerprint == opened.fingerprint
    assert f"{folder / EXTRAS}: is not the one" in refusal(read_model, folder)


def test_whatever_makes_a_folder_of_another_refuses_a_spoilt_one(copied, pruned_folder, static_folder, tmp_path):
    folder = copied(pruned_folder)
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    values = read_model(pruned_folder).extras.tensors[layout.PRUNING_VALUES]
    rows = layout.trained_rows(folder)
    for make in (
        lambda: write_cascade([static_folder, folder], tmp_path / "out"),
        lambda: write_cascade([folder, pruned_folder], tmp_path / "out"),
        lambda: with_pruning_values(folder, tmp_path / "out", values, {}),
        lambda: with_deferral(folder, values, rows),
    ):
        assert f"{WEIGHTS}: is not the one" in refusal(make)
    assert not (tmp_path / "out").exists()


# --- folders of earlier versions -----------------------------------------------------------------------------------


@pytest.fixture
def old(folder) -> Path:
    """The folder as version 1 wrote it: a fingerprint, and no digest of anything else."""
    values = json.loads((folder / MANIFEST).read_text("utf-8"))
    values = {key: value for key, value in values.items() if key not in ("digest", "files")}
    (folder / MANIFEST).write_text(json.dumps(values | {"format_version": 1}), "utf-8")
    return folder


def test_a_folder_of_an_earlier_version_is_sealed_when_written(old):
    opened = read_model(old).manifest
    assert opened.fingerprint == read_manifest(old).fingerprint and not read_manifest(old).files
    write_manifest(opened, old)
    assert set(read_manifest(old).files) == {CONFIG, WEIGHTS, EXTRAS, TOKENIZER}
    edit(old, "labels", 0, value="brook")
    assert "is not as it was written" in refusal(read_model, old)


@pytest.mark.parametrize("name", [WEIGHTS, EXTRAS, TOKENIZER])
def test_its_fingerprint_is_still_checked(old, name):
    content = bytearray((old / name).read_bytes())
    content[-3] ^= 1
    (old / name).write_bytes(content)
    assert str(old) in refusal(read_model, old)


# --- what no manifest says, even if it vouches for itself ----------------------------------------------------------

LOOPHOLES = {
    "two labels of one name": {"labels": ["river", "river", "tower"]},
    "a problem that is none": {"problem_type": "guessing"},
    "a tier outside": {"tiers": ["../other"]},
    "a tier anywhere": {"tiers": ["/etc"]},
    "a tier that is the folder": {"tiers": ["."]},
    "a length without room": {"max_length": 0},
    "a length beyond all": {"max_length": 10**30},
    "more than the encoder reads": {"max_length": 65},
    "heads that fall": {"head_layers": [2, 1, 3]},
    "a head behind the last layer": {"head_layers": [1, 2, 4]},
    "a head that is not known": {"head_kind": "x" * 1000},
    "a range that is none": {"training": {"label_range": ["a", "b"]}},
    "a range that falls": {"training": {"label_range": [1.0, 0.0]}},
    "thresholds for no answer that are none": {"no_answer": [float("nan")]},
    "a key that nobody knows": {"surplus": 1},
}


@pytest.mark.parametrize("changes", LOOPHOLES.values(), ids=LOOPHOLES)
def test_what_no_manifest_says_is_one_short_line(folder, changes):
    message = refusal(read_model, vouch(folder, **changes))
    assert str(folder) in message and len(message) < 400


@pytest.mark.parametrize(
    "changes",
    [
        {"thresholds": (float("nan"), 0.1, 0.1)},
        {"temperatures": (1.0, float("inf"), 1.0, 1.0)},
        {"pruning": -1.0},
        {"pruning": float("nan")},
        {"batch_sizes": (0,)},
    ],
)
def test_an_operating_point_that_is_none_is_named(folder, changes, tmp_path):
    manifest = read_manifest(folder)
    point = dataclasses.replace(manifest.operating_points[0], **changes)
    write_manifest(dataclasses.replace(manifest, operating_points=(point,)), folder)
    assert "operating point 'balanced'" in refusal(read_manifest, folder)
    write_point(point, tmp_path / "point.json")
    assert "operating point 'balanced'" in refusal(read_point, tmp_path / "point.json")


# --- tiers and points ----------------------------------------------------------------------------------------------


def test_a_tier_is_as_well_guarded_as_the_last(cascade_folder, copied):
    folder = copied(cascade_folder)
    edit(folder / "tiers" / "1", "labels", 0, value="brook")
    assert f"{folder / 'tiers' / '1' / MANIFEST}: is not as it was written" in refusal(
        list, read_tiers(folder, read_manifest(folder))
    )


def test_a_tier_that_names_classes_in_another_order_is_refused(cascade_folder, copied):
    folder = copied(cascade_folder)
    vouch(folder / "tiers" / "1", labels=["stone", "river", "tower"])
    vouch(folder)
    assert "its labels or inputs are not those of" in refusal(list, read_tiers(folder, read_manifest(folder)))


def test_a_point_in_a_file_of_its_own_is_covered_too(tmp_path):
    path = tmp_path / "point.json"
    point = OperatingPoint("fast", "entropy", (None, 0.25), "f", confidence=0.95, certificate=CERTIFICATE)
    write_point(point, path)
    assert read_point(path) == point
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"thresholds": [None, 0.9]}))
    assert f"{path}: is not as it was written" in refusal(read_point, path)
    del values["digest"]
    path.write_text(json.dumps(values))
    assert "has a certificate but no digest" in refusal(read_point, path)
    path.write_text(json.dumps(values | {"certificate": None, "confidence": None}))
    assert read_point(path).thresholds == (None, 0.25)
