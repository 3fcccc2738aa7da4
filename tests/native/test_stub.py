"""The stub beside the compiled module is what nanobind's generator makes of the module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ziggurat import native

if native.why_missing():
    pytest.skip(native.why_missing(), allow_module_level=True)

STUB = Path(native.__file__).with_name("_core.pyi")


def test_the_stub_is_what_the_module_says(tmp_path):
    pytest.importorskip("nanobind")
    made = tmp_path / "_core.pyi"
    for command in (
        ["nanobind.stubgen", "--quiet", "--module", "ziggurat.native._core", "--output-file", str(made)],
        ["ruff", "format", "--quiet", "--line-length", "120", str(made)],
    ):
        subprocess.run([sys.executable, "-m", *command], check=True)
    assert made.read_text("utf-8") == STUB.read_text("utf-8"), "run `make stub`"


def test_every_signature_names_its_arguments_and_types():
    lines = STUB.read_text("utf-8").splitlines()
    assert not [line for line in lines if "arg0" in line or " arg:" in line or "object" in line.partition(":")[2]]
    assert sum("NDArray[numpy." in line for line in lines) > 50


def test_names_of_the_module_are_those_of_the_room():
    """So that `native.Engine` is the compiled class, with the stub's types."""
    assert all(getattr(native, name) is getattr(native.core(), name) for name in native.__all__)
    assert {name for name in dir(native.core()) if not name.startswith("_")} == set(native.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        native.nothing  # noqa: B018
