"""What an installation contains and what it takes to make one, read from the files that say so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ziggurat.errors import install

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CMAKE = (ROOT / "CMakeLists.txt").read_text("utf-8")
SETTINGS = PROJECT["tool"]["scikit-build"]
PACKAGE = ROOT / "src" / "ziggurat"
OBJECTS = ROOT / "build" / "native" / "CMakeFiles" / "_core.dir" / "native"


def test_the_wheel_has_the_whole_package_and_no_cpp_sources():
    assert SETTINGS["wheel"]["packages"] == ["src/ziggurat"] and "exclude" not in SETTINGS["wheel"]
    suffixes = {path.suffix for path in PACKAGE.rglob("*") if path.is_file()}
    assert {".py", ".pyi", ".toml", ".typed"} <= suffixes
    assert suffixes & {".cpp", ".h", ".inl"} == set()


def test_the_sdist_has_the_cpp_sources():
    # scikit-build-core puts everything into it that git does not ignore.
    assert "sdist" not in SETTINGS
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "native").rglob("*.cpp")}
    named = set(re.findall(r"kernels/sets/[a-z]\w*\.cpp", CMAKE)) | {"kernels/sets/avx2.cpp", "kernels/sets/avx512.cpp"}
    assert {f"native/{name}" for name in named} <= sources and len(sources) >= 15


def test_messages_name_extras_that_exist_and_no_project_of_an_index():
    """Whoever registers a name there would be installed by our advice."""
    sources = {path: path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    named = {extra for text in sources.values() for extra in re.findall(r"""install\(['"](\w+)['"]\)""", text)}
    assert {"train", "torch", "demo", "bench", "report", "calibrate"} <= named
    assert named <= set(PROJECT["project"]["optional-dependencies"])
    assert install("train") == "pip install '.[train]' in Ziggurat's folder"
    advice = re.compile(r"pip install[^\n]* '?ziggurat\b|ziggurat\[")
    assert [str(path) for path, text in sources.items() if advice.search(text)] == []


def test_git_ignores_nothing_that_the_package_needs():
    # The wheel leaves out what git ignores.
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--", "src", "native"]
    ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    needed = [name for name in ignored if "__pycache__" not in name and "/_core." not in name]
    assert [name for name in needed if ".egg-info/" not in name] == []


def test_a_checkout_on_pythonpath_goes_before_the_installed_package(tmp_path):
    (tmp_path / "ziggurat").mkdir()
    (tmp_path / "ziggurat" / "__init__.py").touch()
    command = [sys.executable, "-c", "import ziggurat; print(ziggurat.__file__)"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert Path(result.stdout.strip()).parent.parent == tmp_path


def test_compiling_needs_no_torch_and_installing_needs_no_compiler():
    names = {re.match(r"[\w-]+", line).group() for line in PROJECT["build-system"]["requires"]}
    assert names == {"scikit-build-core", "nanobind"}
    assert {"if": {"failed": True}, "wheel": {"cmake": False}} in SETTINGS["overrides"]


def lower_bounds() -> dict[str, str]:
    """The least version of each package that an installation may have, by name."""
    extras = PROJECT["project"]["optional-dependencies"]
    lines = [*PROJECT["project"]["dependencies"], *extras["train"], *extras["calibrate"], *extras["report"]]
    found = (re.match(r"([\w-]+)>=([\d.]+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def test_the_oldest_versions_tested_are_the_lower_bounds():
    lines = (ROOT / "constraints-oldest.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    bounds = lower_bounds()
    # torch's older builds for CPUs are not on PyPI.
    assert pinned.keys() == bounds.keys() and len(bounds) >= 12
    for name in bounds.keys() - {"torch"}:
        assert re.fullmatch(rf"{re.escape(bounds[name])}(\.0)*", pinned[name]), name


def test_developers_compile_with_the_nanobind_that_users_get():
    nanobind = [line for line in PROJECT["build-system"]["requires"] if line.startswith("nanobind")]
    assert set(nanobind) <= set(PROJECT["project"]["optional-dependencies"]["build"])


def test_nothing_is_compiled_for_the_building_machine_or_with_other_arithmetic_than_written():
    flags = {flag.strip("()\"'") for flag in CMAKE.split() if flag.startswith("-")}
    assert "-ffp-contract=off" in flags
    assert not [flag for flag in flags if flag.startswith(("-march", "-mtune", "-ffast-math", "-funsafe", "-Ofast"))]
    for_one_file = [line for line in CMAKE.splitlines() if "instruction_set(avx" in line or "set(AVX512 -m" in line]
    assert set(re.findall(r"-m\w+", CMAKE)) == set(re.findall(r"-m\w+", "\n".join(for_one_file))) >= {"-mfma", "-mavx2"}


def symbols(path: Path, kinds: str) -> set[str]:
    """What an object file or archive defines, of these `nm` letters."""
    output = subprocess.run(["nm", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in output.splitlines() if re.match(rf"[0-9a-f]+ [{kinds}] ", line)}


@pytest.mark.skipif(not OBJECTS.is_dir() or shutil.which("nm") is None, reason="nothing compiled by `make native`")
def test_no_function_for_newer_processors_is_linked_into_the_code_for_all():
    # The linker takes the first of several equal inline functions. One that only nanobind and a file for newer
    # processors contain would be the one with newer instructions in it, and crash where there are none.
    sets = [path for path in OBJECTS.glob("kernels/sets/*.o") if path.name[:-6] not in {"scalar", "emulated"}]
    everywhere = [path for path in OBJECTS.rglob("*.o") if path not in sets]
    wide = set().union(*(symbols(path, "WVu") for path in sets))
    narrow = set().union(*(symbols(path, "WVuT") for path in everywhere))
    assert len(everywhere) >= 12
    assert (wide - narrow) & symbols(ROOT / "build" / "native" / "libnanobind-static.a", "WVuT") == set()
