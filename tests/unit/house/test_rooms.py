"""The order of the rooms, and that predicting, measuring and asking for help need no torch."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import ziggurat

SOURCE = Path(ziggurat.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
# A file imports only from its own room or an earlier one. The hall are the files beside the rooms; the front door
# (`ziggurat/__init__.py`, `__main__.py`, `model.py` and the old names) is made of all of them.
ROOMS = (
    "hall",
    "native",
    "data",
    "policies",
    "problems",
    "encoder",
    "small",
    "engine",
    "report",
    "measure",
    "calibrate",
    "explain",
    "training",
    "optimize",
    "bench",
    "analyses",
    "serve",
    "cli",
)
HALL = {"errors", "lazy", "types", "config", "files", "contents", "locks", "recipe", "system"}
FRONT_DOOR = {"__init__", "__main__", "model", "deprecated"}
# Everything else imports where torch and its company are not installed.
NEEDS_TORCH = {
    "encoder.torch": {path.stem for path in (SOURCE / "encoder" / "torch").glob("[!_]*.py")},
    "small": {"standardise", "train_bilstm"},
    "engine.backends": {"torch", "torch_rules"},
    "training": {
        "batches",
        "checks",
        "loop",
        "losses",
        "objectives",
        "own_answers",
        "pipeline",
        "precomputed",
        "stages",
    }
    | {"students", "trials", "unfinished"},
    "training.lengths": {"drop"},
}
ABSENT = ["torch", "transformers", "accelerate", "datasets", "scipy", "matplotlib", "onnx", "onnxruntime", "openvino"]
ABSENT += ["nncf"]


def test_a_public_name_is_the_same_whenever_it_is_asked_for():
    """Importing a room puts it into the package: a name that a room has as well would then be the room."""
    for name in ziggurat.__all__:
        first = getattr(ziggurat, name)
        assert getattr(ziggurat, name) is first and not isinstance(first, ModuleType)
        assert not (SOURCE / name).exists() and not (SOURCE / f"{name}.py").exists()


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The room of a dotted name below `ziggurat`; ValueError where there is none of this name."""
    first = module.split(".")[1]
    room = "hall" if first in HALL else first
    if room not in ROOMS:
        raise ValueError(f"{module} is in no room; give it one in {Path(__file__).name}")
    return room


def imported(path: Path) -> list[str]:
    """Our own modules that a file imports anywhere, inside functions and `if TYPE_CHECKING` too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            separate = node.module == "ziggurat"  # then the names are the modules
            found += [f"ziggurat.{alias.name}" for alias in node.names] if separate else [node.module]
    return [name for name in found if name.split(".")[0] == "ziggurat"]


def test_a_file_imports_only_from_its_own_room_or_an_earlier_one():
    looked_at, edges = 0, set()
    for path in FILES:
        if path.parent == SOURCE and path.stem in FRONT_DOOR:
            continue
        looked_at += 1
        room = room_of(module_name(path))
        for name in imported(path):
            assert ROOMS.index(room_of(name)) <= ROOMS.index(room), f"{path.relative_to(SOURCE)} imports {name}"
            edges.add((room, room_of(name)))
    assert looked_at == len(FILES) - len(FRONT_DOOR) >= 55
    # The walk does see imports: these are known to be there, the last one only inside of functions.
    assert {("engine", "encoder"), ("encoder", "data"), ("cli", "calibrate"), ("cli", "training")} <= edges


def test_the_walk_sees_every_kind_of_import(tmp_path):
    file = tmp_path / "file.py"
    file.write_text(
        "import ziggurat.training.loop as x, os\nfrom ziggurat import bench\n"
        "def f():\n    from ziggurat.cli.app import main\nfrom numpy import array\n"
    )
    assert sorted(imported(file)) == ["ziggurat.bench", "ziggurat.cli.app", "ziggurat.training.loop"]


PROBE = """
import importlib, sys
absent, modules, failing = (argument.split(",") for argument in sys.argv[1:])

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def imports(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        assert error.name.partition(".")[0] in absent, error
        return False
    return True

sys.meta_path.insert(0, Absent())
assert not any(map(imports, absent))
print("cannot:", *[name for name in modules if not imports(name)])
print("can:", *[name for name in failing if imports(name)])
"""


def test_all_but_the_named_modules_import_without_torch():
    modules = [module_name(path) for path in FILES if path.stem != "__main__"]
    heavy = [f"ziggurat.{room}.{name}" for room, names in NEEDS_TORCH.items() for name in sorted(names)]
    light = [name for name in modules if name not in heavy]
    assert set(heavy) < set(modules)
    assert len(light) + len(heavy) == len(FILES) - 1
    assert "ziggurat" in light and len(light) >= 45
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE, *map(",".join, (ABSENT, light, heavy))],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SOURCE.parent)},
    )
    # The second line keeps the exceptions honest: a module that no longer needs torch loses its exception.
    assert result.stdout.split("\n") == ["cannot:", "can:", ""], result.stderr
