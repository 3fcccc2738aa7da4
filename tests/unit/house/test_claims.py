"""docs/claims.md names the tests that prove each claim: all of them, and none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ROWS = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", (ROOT / "docs" / "claims.md").read_text("utf-8"), re.MULTILINE)
NAMED = {(int(number), test) for number, _, tests in ROWS for test in re.findall(r"`([^`]+)`", tests)}


def named_after_claims():
    """Number and `path::name` of every test that is called after a claim."""
    return {
        (int(number), f"{path.relative_to(ROOT).as_posix()}::{name}")
        for path in (ROOT / "tests").rglob("test_*.py")
        for name, number in re.findall(r"^def (test_claim_(\d+)_\w+)\(", path.read_text("utf-8"), re.MULTILINE)
    }


def test_every_claim_has_one_row_and_a_test():
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 31))
    assert {number for number, _ in NAMED} == set(range(1, 31))


def test_the_tests_that_are_named_are_exactly_those_that_exist():
    assert named_after_claims() == NAMED
    assert len(NAMED) > 40
