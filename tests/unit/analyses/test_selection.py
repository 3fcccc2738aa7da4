"""What choosing tokens costs."""

import numpy as np
import pytest

from ziggurat.analyses import selection
from ziggurat.analyses.papers import kernel
from ziggurat.errors import UserError
from ziggurat.policies import above, top_share


@pytest.fixture(scope="module")
def rows():
    return selection.selection_costs([16, 1024], [0.1, 0.5], batch_size=4, repeats=5)


def test_there_is_a_row_for_each_length_and_share(rows):
    assert [(row["length"], row["share"]) for row in rows] == [(16, 0.1), (16, 0.5), (1024, 0.1), (1024, 0.5)]
    assert all(row["ratio_low"] <= row["ratio"] <= row["ratio_high"] for row in rows)


def test_a_comparison_is_cheaper_than_any_top_k_on_long_texts(rows):
    for row in rows[2:]:
        assert row["threshold_us"] < row["partition_us"] < row["top_us"]
        assert row["ratio"] > 1 and row["partition_ratio"] > 1


def test_what_is_timed_keeps_the_same_share_of_the_tokens(monkeypatch):
    kept = {}
    monkeypatch.setattr(selection, "_often", lambda rule, *given: kept.setdefault(rule, rule(*given)))
    scores, batch = selection._random_batch(50, 8)
    for call in selection._calls(scores, batch, 0.3).values():
        call()
    assert kept[above].sum() == kept[top_share].sum() == 8 * 15
    places = kept[np.argpartition][:, -15:]
    assert np.array_equal(np.sort(places, axis=1), np.sort(scores.reshape(8, 50).argsort(axis=1)[:, -15:], axis=1))


@pytest.mark.parametrize(("given", "named"), [({"lengths": [1]}, "--lengths"), ({"shares": [1.5]}, "--shares")])
def test_senseless_sizes_are_refused(given, named, tmp_path):
    with pytest.raises(UserError, match=named):
        kernel(tmp_path, **given)
