"""The folders of scripts: what they share, that each is listed, and that random models are accepted."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from scripts.shared import ROOT, command, filled, grouped, record, reported_file, stored_rows, table
from ziggurat.errors import UserError
from ziggurat.native import why_missing

compiled = pytest.mark.skipif(why_missing() is not None, reason="the compiled part is missing")
FOLDERS = ("benchmarks", "reproduction", "scripts")


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folders_readme_has_a_line_for_each_script(folder):
    page = (ROOT / folder / "README.md").read_text("utf-8")
    listed = re.findall(r"^\| `(\w+\.py)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py")


def test_a_users_mistake_is_one_line_and_exit_code_2(capsys):
    @command("tool")
    def main(arguments):
        raise UserError(f"{arguments[0]}: wrong; do it otherwise")

    with pytest.raises(SystemExit) as stop:
        main(["--this"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "tool: --this: wrong; do it otherwise\n"


def test_rows_are_stored_with_provenance_and_printed_without(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    assert stored_rows(path) == []

    def rows():
        yield {"what": "first"}
        assert len(stored_rows(path)) == 1  # appended before the next is measured
        yield {"what": "second"}

    record(path, rows())
    assert [row["what"] for row in stored_rows(path)] == ["first", "second"]
    assert all("commit" in row for row in stored_rows(path))
    assert capsys.readouterr().out == '{"what": "first"}\n{"what": "second"}\n'


def test_test_rows_are_reported_else_validation_rows(tmp_path):
    with pytest.raises(UserError, match=r"no test\.jsonl or validation\.jsonl"):
        reported_file(tmp_path)
    for name in ("validation.jsonl", "test.jsonl"):
        (tmp_path / name).touch()
        assert reported_file(tmp_path).name == name


def test_a_table_and_a_section_of_a_page():
    text = table(["name", "a", "b"], [["x", "1", "2"]])
    assert text == "| name | a | b |\n|---|---:|---:|\n| x | 1 | 2 |\n"
    page = "before\n<!-- it:begin -->\nold\n<!-- it:end -->\nafter\n"
    assert filled(page, "it", text) == page.replace("old\n", text)
    rows = [{"a": 1, "b": 2}, {"a": 2, "b": 2}, {"a": 1, "b": 3}]
    assert grouped(rows, "a") == [((1,), [rows[0], rows[2]]), ((2,), [rows[1]])]


@compiled
def test_random_models_are_loaded_and_run(tmp_path, monkeypatch):
    from benchmarks import shapes
    from ziggurat.measure import ModelOptions

    monkeypatch.setattr(shapes, "SHAPES", {1: (32, 2, 64)})
    monkeypatch.setattr(shapes, "VOCABULARY", 1100)
    texts = [shapes.random_text(np.random.default_rng(0), 512)]
    for family in ("Bert", "Roberta"):  # which also number positions otherwise
        folder = shapes.random_model(tmp_path / family / "model", 1, family)
        model = ModelOptions("cpu", "int8", 1, backend="native").open(str(folder))
        assert shapes.engine_call(model, texts)().shape == (1, shapes.CLASSES)


def test_every_make_target_says_what_it_does():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE).group(1).split()
    described = re.findall(r"^([a-z][a-z-]*):.*## ", makefile, re.MULTILINE)
    assert set(named) <= set(described)
    called = re.findall(r"-m (\w+(?:\.\w+)+)|python (\S+\.py)", makefile)
    paths = {Path(script or f"{module.replace('.', '/')}.py") for module, script in called}
    ours = {path for path in paths if path.parts[0] in (*FOLDERS, "tests")}
    assert len(ours) >= 6 and all((ROOT / path).exists() for path in ours)
    tests = re.findall(r"(?<![\w./-])tests/[\w./]*", makefile)
    assert len(tests) >= 10 and [path for path in tests if not (ROOT / path).exists()] == []
