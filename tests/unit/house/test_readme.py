import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text("utf-8")
ANALYSES = (ROOT / "docs" / "analyses.md").read_text("utf-8")
SUPPORT = (ROOT / "docs" / "support.md").read_text("utf-8")


def test_the_results_table_is_made_from_the_rows():
    from benchmarks.tables import readme_page
    from scripts.shared import RESULTS, stored_rows

    assert readme_page(README, stored_rows(RESULTS / "peers.jsonl")) == README


def test_it_is_short_and_names_both_set_up_commands():
    assert len(README.splitlines()) <= 90
    assert re.findall(r"^(make \w+) ", README, re.MULTILINE) == ["make demo", "make test"]


def test_every_analysis_is_described():
    from ziggurat.cli.report.app import ANALYSES as COMMANDS
    from ziggurat.report.columns import COLUMNS

    described = re.findall(r"^\| `(\w+)` \|", ANALYSES, re.MULTILINE)
    assert sorted(described) == sorted(COLUMNS) == sorted(COMMANDS)


def test_every_task_that_has_a_name_is_described():
    from ziggurat.data import TASKS

    described = re.findall(r"^\| `([\w/]+)` \| `([\w/-]+)", SUPPORT, re.MULTILINE)
    assert described == [(task.name, task.hub) for task in TASKS.values()]
