"""`ziggurat report`: every analysis from the command line."""

import json
import sys
from pathlib import Path

import pytest

from ziggurat.cli import main

ANALYSES = {
    "methods": ["--no-time", "--curve", "3"],
    "thresholds": ["--taus", "0.2,0.6"],
    "lengths": ["--buckets", "5,9", "--time", "--texts", "2", "--repeats", "1"],
    "quantiles": ["--quantiles", "0.5,0.75", "--threshold", "0.6"],
    "trajectories": ["--buckets", "5,9"],
    "correctness": ["--operating-point", "fast"],
    "sweep": ["--scales", "0.5,1", "--taus", "0.6"],
    "kernel": ["--lengths", "16,32", "--shares", "0.5", "--repeats", "1"],
}


@pytest.fixture
def report(capsys, monkeypatch, pruned_folder, rows_file, tmp_path):
    """A function that runs one analysis and returns what it printed."""

    def run(kind, *extra):
        about = [] if kind == "kernel" else [pruned_folder, "--data", rows_file, "--device", "cpu", "--name", "tiny"]
        arguments = ["ziggurat", "report", kind, *about, "--out", tmp_path / "report", *ANALYSES[kind], *extra]
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        assert not stop.value.code, captured.err
        return captured.out

    return run


@pytest.mark.parametrize("kind", ANALYSES)
def test_each_analysis_is_one_json_object_with_rows_and_paths(kind, report):
    out = report(kind, "--json")
    assert out.count("\n") == 1
    result = json.loads(out)
    assert result["kind"] == kind
    assert len(result["rows"]) >= 2
    assert [Path(path).name for path in result["files"]] == [f"{kind}{end}" for end in (".md", ".csv", ".png", ".svg")]
    assert all(Path(path).stat().st_size > 0 for path in result["files"])


@pytest.mark.parametrize("kind", ["lengths", "kernel"])
def test_people_see_the_table_and_where_the_files_are(kind, report, tmp_path):
    out = report(kind)
    assert "{" not in out
    table = (tmp_path / "report" / f"{kind}.md").read_text().split("\n\n")[1]
    cells = [cell.strip() for cell in table.splitlines()[-1].split("|")[1:-1]]
    assert all(cell in out for cell in cells)
    assert str(tmp_path / "report" / f"{kind}.svg") in out
