"""The trial of the monitor passes, and its peeking monitor gives too many false alarms."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.proof import alarms

pytestmark = pytest.mark.proof


def test_the_monitors_trial_passes_and_a_peeking_test_fails(monkeypatch):
    monkeypatch.setattr(alarms, "QUIET", 3000)
    monkeypatch.setattr(alarms, "CHANGES", (0, 1000))
    kinds = alarms.all_streams(100)
    assert [one.kept for one in kinds] == 6 * [True] + [False]
    assert alarms.proven(kinds)
    assert not alarms.proven(kinds[:-1])
    assert not alarms.proven([replace(one, missed=0.1) for one in kinds])
    assert alarms.table(kinds).count("too many") == 1
