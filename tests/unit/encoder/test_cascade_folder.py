"""A cascade is a model folder: the last tier's, the first tiers inside. What does not belong together is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

from ziggurat.encoder import (
    EXTRAS,
    MANIFEST,
    WEIGHTS,
    check_fingerprint,
    read_manifest,
    read_model,
    trained_rows,
    write_cascade,
)
from ziggurat.errors import UserError
from ziggurat.small.folder import small_of


def refusal(*arguments) -> str:
    with pytest.raises(UserError) as caught:
        write_cascade(*arguments)
    return str(caught.value)


def test_the_last_tier_is_the_folder_and_the_first_are_inside(cascade_folder, pruned_folder, static_folder):
    cascade, last = read_manifest(cascade_folder), read_manifest(pruned_folder)
    assert cascade.tiers == ("tiers/1",)
    assert cascade.operating_points == ()
    assert cascade.fingerprint != last.fingerprint
    assert {name for name, digest in cascade.files.items() if digest != last.files[name]} == {EXTRAS}
    assert dataclasses.replace(cascade, tiers=(), operating_points=last.operating_points) == dataclasses.replace(
        last, fingerprint=cascade.fingerprint, files=cascade.files
    )
    assert (cascade_folder / WEIGHTS).read_bytes() == (pruned_folder / WEIGHTS).read_bytes()
    assert read_manifest(cascade_folder / "tiers" / "1") == read_manifest(static_folder)
    check_fingerprint(cascade_folder, cascade)


def test_plain_transformers_loads_the_last_tier(cascade_folder, pruned_folder):
    from transformers import AutoModelForSequenceClassification

    ours, theirs = (AutoModelForSequenceClassification.from_pretrained(f) for f in (cascade_folder, pruned_folder))
    assert all((a == b).all() for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_rows_that_trained_any_tier_trained_the_cascade(cascade_folder, pruned_folder, static_folder):
    both = np.union1d(trained_rows(pruned_folder), trained_rows(static_folder))
    assert len(both) > len(trained_rows(static_folder))
    assert sorted(trained_rows(cascade_folder)) == sorted(both)


def test_another_first_tier_is_another_fingerprint(make_static, static_folder, pruned_folder, tmp_path):
    first = write_cascade([static_folder, pruned_folder], tmp_path / "first")
    again = write_cascade([static_folder, pruned_folder], tmp_path / "again")
    other = write_cascade([make_static(max_length=12), pruned_folder], tmp_path / "other")
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_a_cascade_brings_its_tiers_into_a_longer_one(cascade_folder, make_static, tmp_path):
    longer = write_cascade([make_static(max_length=9), cascade_folder], tmp_path / "longer")
    assert longer.tiers == ("tiers/1", "tiers/2")
    folders = [tmp_path / "longer" / name for name in longer.tiers]
    assert [read_manifest(folder).max_length for folder in folders] == [9, 24]
    assert not any((folder / "tiers").exists() for folder in folders)


def test_one_model_is_no_cascade(pruned_folder, tmp_path):
    assert "at least two models" in refusal([pruned_folder], tmp_path / "out")
    assert "at least two models" in refusal([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tiers_that_answer_another_question_are_refused_by_name(make_static, static_folder, pruned_folder, tmp_path):
    other = make_static(labels=("river", "stone", "hill"))
    message = refusal([other, pruned_folder], tmp_path / "out")
    assert str(other) in message and "hill" in message and "\n" not in message
    pairs = make_static(pairs=True)
    assert "pairs of texts" in refusal([pairs, pruned_folder], tmp_path / "out")
    assert "must be an encoder" in refusal([pruned_folder, static_folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_full_is_kept(static_folder, pruned_folder, tmp_path):
    (tmp_path / "mine").write_text("notes")
    assert "not empty" in refusal([static_folder, pruned_folder], tmp_path)
    assert (tmp_path / "mine").read_text() == "notes"


def test_a_tier_that_is_missing_or_newer_is_named(copied, cascade_folder, pruned_folder, tmp_path):
    folder = copied(cascade_folder)
    tier = folder / "tiers" / "1"
    manifest = json.loads((tier / MANIFEST).read_text())
    (tier / MANIFEST).write_text(json.dumps(manifest | {"format_version": 99}))
    assert "newer" in refusal([folder, pruned_folder], tmp_path / "out")
    shutil.rmtree(tier)
    assert f"{tier}: no {MANIFEST}" in refusal([folder, pruned_folder], tmp_path / "out")
    assert f"no {MANIFEST}" in refusal([tmp_path / "nowhere", pruned_folder], tmp_path / "out")


def test_a_small_model_of_a_kind_from_the_future_is_refused(static_folder):
    files = read_model(static_folder)
    with pytest.raises(UserError, match="'quantum' is not known"):
        small_of(dataclasses.replace(files, manifest=dataclasses.replace(files.manifest, kind="quantum")))


def test_only_a_models_own_files_are_copied(copied, static_folder, pruned_folder, tmp_path):
    folder = copied(static_folder)
    (tmp_path / "secret").write_text("secret")
    (folder / "notes").symlink_to(tmp_path / "secret")
    (folder / "all").symlink_to("/")
    (folder / "again").symlink_to(folder)
    (folder / "answers.jsonl").write_text("{}")
    os.mkfifo(folder / "pipe")
    write_cascade([folder, pruned_folder], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out" / "tiers" / "1").iterdir()} == {
        path.name for path in static_folder.iterdir()
    }


def test_a_link_out_of_the_folder_is_refused_but_the_hubs_is_not(copied, static_folder, pruned_folder, tmp_path):
    folder = copied(static_folder)
    (tmp_path / "elsewhere").write_text("{}")
    (folder / "tokenizer_config.json").unlink(missing_ok=True)
    (folder / "tokenizer_config.json").symlink_to(tmp_path / "elsewhere")
    assert "tokenizer_config.json: is a link out of" in refusal([folder, pruned_folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    cached = tmp_path / "models--a--b" / "snapshots" / "0123"
    (tmp_path / "models--a--b" / "blobs").mkdir(parents=True)
    cached.mkdir(parents=True)
    for path in static_folder.iterdir():
        shutil.copyfile(path, tmp_path / "models--a--b" / "blobs" / path.name)
        (cached / path.name).symlink_to(f"../../blobs/{path.name}")
    write_cascade([cached, pruned_folder], tmp_path / "out")
    tier = tmp_path / "out" / "tiers" / "1"
    assert (tier / WEIGHTS).read_bytes() == (static_folder / WEIGHTS).read_bytes()
    assert not any(path.is_symlink() for path in tier.iterdir())
