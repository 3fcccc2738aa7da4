"""The rooms' faces: every name is there, is defined where the face says, and costs nothing before it is used."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import ziggurat

SOURCE = Path(ziggurat.__file__).parent
FACES = [path.parent.name for path in sorted(SOURCE.glob("*/__init__.py")) if "_HOMES" in path.read_text("utf-8")]
HEAVY = {"torch", "transformers", "numpy", "scipy", "matplotlib"}


@pytest.mark.parametrize("room", FACES)
def test_every_name_of_a_face_is_defined_at_home(room):
    face = import_module(f"ziggurat.{room}")
    assert face.__all__ == sorted(face._HOMES)
    for name, home in face._HOMES.items():
        first = getattr(face, name)
        assert getattr(face, name) is first and not isinstance(first, ModuleType)
        assert home.startswith(f"ziggurat.{room}.")
        assert name not in {path.stem for path in (SOURCE / room).iterdir()}  # else it would be the module
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = face.nonsense


def test_importing_all_faces_loads_nothing_heavy():
    code = f"import sys, {', '.join(f'ziggurat.{room}' for room in FACES)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert HEAVY.isdisjoint(loaded)
