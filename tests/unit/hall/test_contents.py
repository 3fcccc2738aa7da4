"""What is no regular file is not waited for, and whatever is wrong with one, or with JSON in it, is one line."""

from __future__ import annotations

import os
import sys

import pytest

from ziggurat.contents import DEEPEST, digest_of, file_digest, loads, read_bytes, read_json
from ziggurat.errors import UserError

posix = pytest.mark.skipif(sys.platform == "win32", reason="pipes, devices and links are POSIX's")


def refusal(read, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        read(*arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


def a_pipe(path):
    os.mkfifo(path)


def a_device(path):
    path.symlink_to("/dev/zero")


def a_folder(path):
    path.mkdir()


def a_loop(path):
    path.symlink_to(path.name)


PLACES = {
    a_pipe: "a pipe or a device",
    a_device: "a pipe or a device",
    a_folder: "is a folder",
    a_loop: "leads to itself",
}


@posix
@pytest.mark.parametrize("make", PLACES)
@pytest.mark.parametrize("read", [read_bytes, read_json, file_digest])
def test_what_is_no_file_is_named_at_once(tmp_path, make, read):
    make(tmp_path / "config.json")
    assert PLACES[make] in refusal(read, tmp_path / "config.json", "missing")


@posix
def test_a_file_that_others_may_not_read_is_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{}")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")
    assert "you may not read it" in refusal(read_json, path, "missing")


@posix
def test_links_to_files_are_followed_and_dangling_ones_missing(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "a1").write_text('{"a": 1}')
    (tmp_path / "snapshot").symlink_to("blobs")
    (tmp_path / "config.json").symlink_to("snapshot/a1")
    assert read_json(tmp_path / "config.json", "missing") == {"a": 1}
    (tmp_path / "blobs" / "a1").unlink()
    assert refusal(read_json, tmp_path / "config.json", "copy it") == "copy it"
    assert refusal(read_json, tmp_path / "config.json" / "below", "copy it") == "copy it"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1),
    ],
)
def test_what_is_no_json_object_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    assert f"{tmp_path / 'config.json'}: not " in refusal(read_json, tmp_path / "config.json", "missing")


def test_json_as_deep_as_is_read(tmp_path):
    text = b'{"a":' * DEEPEST + b"1" + b"}" * DEEPEST
    value = loads(text)
    for _ in range(DEEPEST):
        value = value["a"]
    assert value == 1


def test_a_digest_is_of_values_and_not_of_how_they_are_laid_out():
    known = digest_of({"a": [1, 2.5, "\ud800", None], "b": {"c": True}})
    assert digest_of({"b": {"c": True}, "a": [1, 2.5, "\ud800", None]}) == known
    for other in ([1, 2.5, "x", None], [1.0, 2.5, "\ud800", None], [2.5, 1, "\ud800", None]):
        assert digest_of({"a": other, "b": {"c": True}}) != known
