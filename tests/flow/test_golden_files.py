"""The comparison with golden outputs sees what changes, and nothing else."""

from golden_files import differences, masked

GOLDEN = {"label": "a", "score": 0.5, "rows": [{"n": 1, "seconds": 2.0}], "versions": {"numpy": "2"}, "none": None}


def test_each_change_is_a_line():
    found = {"label": "b", "score": 0.51, "rows": [{"n": 1.0, "more": 1}], "versions": {"numpy": "2"}}
    assert [*differences(GOLDEN, found)] == [
        'label: is "b", was "a"',
        "score: is 0.51, was 0.5",
        "rows[0].n: is 1.0, was 1",
        "rows[0].seconds: is gone, was 2.0",
        "rows[0].more: is new, 1",
        "none: is gone, was null",
    ]
    assert [*differences([1, 2], [1])] == [": 1 items, were 2"]


def test_rounding_is_no_change():
    assert not [*differences(GOLDEN, GOLDEN | {"score": 0.5 + 1e-6})]
    assert [*differences({"n": 100}, {"n": 101})] and not [
        *differences({"a": {"settings": 100}}, {"a": {"settings": 101}})
    ]


def test_volatile_values_keep_their_type():
    hidden = masked(GOLDEN)
    assert hidden["rows"] == [{"n": 1, "seconds": "<number>"}] and hidden["versions"] == "<dict>"
    assert hidden["score"] == 0.5 and hidden["none"] is None
    assert masked(GOLDEN, rough=True)["score"] == "<number>"
