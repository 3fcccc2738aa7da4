"""Tensors of a safetensors file, read or mapped: the same, and what the library refuses is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ziggurat.encoder import map_tensors
from ziggurat.encoder.weights import read_tensors
from ziggurat.errors import UserError

TENSORS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.array([0.5, -3.0], dtype=np.float16),
    "double": np.array([1 / 3], dtype=np.float64),
    "rows": np.array([[2**40]], dtype=np.int64),
    "ids": np.array([-1, 2], dtype=np.int32),
    "kinds": np.array([1, 2, 0], dtype=np.uint8),
    "mask": np.array([True, False]),
    "nothing": np.zeros((0, 4), dtype=np.float32),
    "number": np.array(2.5, dtype=np.float32),
}
READERS = [map_tensors, lambda path: read_tensors(path).tensors]


@pytest.fixture
def path(tmp_path) -> Path:
    save_file(TENSORS, tmp_path / "a.safetensors", {"format": "pt"})
    return tmp_path / "a.safetensors"


@pytest.mark.parametrize("read", READERS)
def test_numbers_come_back_and_halves_in_float32(path, read):
    found = read(path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        kind = np.float32 if tensor.dtype.kind == "f" else tensor.dtype
        assert found[name].dtype == kind and found[name].shape == tensor.shape
        assert np.array_equal(found[name], tensor.astype(kind))


@pytest.mark.parametrize("read", READERS)
def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path, read):
    torch, save = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch").save_file
    numbers = torch.tensor([1.0, -0.375, 3e38])
    save({"a": numbers.bfloat16()}, tmp_path / "a.safetensors")
    assert np.array_equal(read(tmp_path / "a.safetensors")["a"], numbers.bfloat16().float().numpy())


def test_what_is_read_no_longer_needs_its_file(path):
    found = read_tensors(path)
    path.write_bytes(bytes(path.stat().st_size))
    path.unlink()
    assert np.array_equal(found.tensors["weights"], TENSORS["weights"])
    assert found.metadata == {"format": "pt"}


def test_a_file_that_gets_shorter_while_it_is_read_is_named(path, monkeypatch):
    save_file({"weights": np.ones(100_000, dtype=np.float32)}, path)  # more than is read ahead
    whole, real = path.read_bytes(), np.empty
    monkeypatch.setattr(np, "empty", lambda *a, **k: path.write_bytes(whole[:-8]) and real(*a, **k))
    with pytest.raises(UserError, match=r"a\.safetensors: broken or truncated \(it got shorter"):
        read_tensors(path)


def spoilt(path: Path, change) -> None:
    """The file with another header: `change` gets what it says, by name, and gives what it will say."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(change(json.loads(content[8 : 8 + size]))).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])


def entry(**changes):
    return lambda header: header | {"weights": header["weights"] | changes}


HEADERS = {
    "a list": lambda header: [header],
    "a number": lambda header: 3,
    "nothing": lambda header: {},
    "a tensor that is a list": lambda header: header | {"weights": [1, 2]},
    "a tensor without a place": lambda header: header | {"weights": {"dtype": "F32", "shape": [2, 3]}},
    "a type that is none": entry(dtype="F32x"),
    "a type that is a list": entry(dtype=["F32"]),
    "a shape that is a number": entry(shape=6),
    "a shape of fractions": entry(shape=[2.0, 3.0]),
    "a negative shape": entry(shape=[-2, -3]),
    "a huge shape": entry(shape=[2**40, 2**40]),
    "another shape": entry(shape=[2, 4]),
    "a place that is a text": entry(data_offsets=["0", "24"]),
    "a place behind the end": entry(data_offsets=[2**62, 2**62 + 24]),
    "a place of another": lambda header: header | {"weights": header["weights"] | {"data_offsets": [8, 32]}},
    "one tensor less": lambda header: {name: value for name, value in header.items() if name != "double"},
    "metadata that are a list": lambda header: header | {"__metadata__": [1]},
}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_a_header_that_the_library_refuses_is_one_line(path, read, change):
    spoilt(path, change)
    with pytest.raises((SafetensorError, OverflowError, MemoryError)), safe_open(path, framework="numpy") as file:
        {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: broken or truncated (") and "\n" not in message


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("spoil", [lambda c: c + b"x", lambda c: c[:-1], lambda c: c[:7], lambda c: b"\xff" * 8 + c])
def test_bytes_too_many_or_too_few_are_one_line(path, read, spoil):
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match="broken or truncated"):
        read(path)


@pytest.mark.parametrize("read", READERS)
def test_a_header_of_many_levels_is_one_line(path, read):
    header = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match="nested too deeply"):
        read(path)
