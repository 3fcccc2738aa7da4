"""`OpenedModel.stream`: the answers of `predict`, under the number of each text, as soon as there are any."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import repeat

import numpy as np
import pytest

from ziggurat.encoder import write_cascade
from ziggurat.engine import Engine, OpenedModel
from ziggurat.errors import UserError
from ziggurat.policies import ExitRule


@pytest.fixture(scope="module", params=["native", "torch"])
def opened(request):
    return lambda folder: OpenedModel.from_pretrained(folder, "cpu", backend=request.param)


@pytest.fixture(scope="module")
def short_cascade_folder(make_static, pruned_folder, tmp_path_factory):
    """A cascade whose first tier has a tokenizer of its own, that reads six tokens."""
    folder = tmp_path_factory.mktemp("short") / "model"
    write_cascade([make_static(max_length=6), pruned_folder], folder)
    return folder


@pytest.fixture(scope="module")
def pair_cascade_folder(make_static, pair_folder, tmp_path_factory):
    """A cascade for pairs of texts, with a tokenizer of its own for its first tier."""
    folder = tmp_path_factory.mktemp("pairs") / "model"
    write_cascade([make_static(pairs=True, max_length=6), pair_folder], folder)
    return folder


@pytest.fixture(scope="module")
def deep_cascade_folder(model_folder, pruned_folder, tmp_path_factory):
    """A cascade of two encoders, of which the second prunes."""
    folder = tmp_path_factory.mktemp("deep") / "model"
    write_cascade([model_folder, pruned_folder], folder)
    return folder


@pytest.fixture(params=["cascade", "short cascade", "pair cascade", "deep cascade", "model", "static"])
def case(request, opened, texts):
    """A model and texts for it."""
    name = f"{request.param.replace(' ', '_')}_folder"
    read = list(zip(texts, reversed(texts), strict=True)) if "pair" in name else texts
    return opened(request.getfixturevalue(name)), read


def in_arrivals(texts, seed):
    """Some at a time, none at times."""
    edges = np.sort(np.random.default_rng(seed).integers(0, len(texts) + 1, 5)).tolist()
    return [texts[first:last] for first, last in zip([0, *edges], [*edges, len(texts)], strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(("score", "threshold"), [("margin", 0.35), ("agreement", 1)])
@pytest.mark.parametrize(("linger", "size"), [(1e9, 3), (1e9, 100), (1e-9, 100), (1e-9, 4)])
def test_claim_28_texts_in_parts_are_answered_as_together(case, score, threshold, linger, size):
    classifier, texts = case
    # Of a single small model there is one rung, which needs no threshold and cannot count.
    rule = classifier.rule(score, threshold) if len(classifier.rungs) > 1 else "full"
    sizes = [size] * len(classifier.tiers)
    found = list(classifier.stream(in_arrivals(texts, size), rule, linger, sizes))
    assert sorted(number for number, _ in found) == list(range(len(texts)))
    expected = classifier.answer(texts, rule)
    for number, answer in found:
        alone = expected[number]
        assert answer.label == alone.label
        assert np.allclose(answer.probabilities, alone.probabilities, atol=1e-5)
        assert replace(answer.trace, microseconds=0) == replace(alone.trace, microseconds=0)
        assert answer.trace.microseconds >= 0


def test_what_is_sure_is_answered_before_the_rest_has_arrived(opened, cascade_folder, texts):
    classifier = opened(cascade_folder)
    rule = classifier.rule("margin", 0.35)
    sure = [number for number, answer in enumerate(classifier.answer(texts, rule)) if answer.trace.rung == 0]
    assert 0 < len(sure) < len(texts)
    endless = classifier.stream(repeat(texts), rule, 1e9, [32, 1000])
    assert [next(endless)[0] for _ in range(len(sure) + 1)] == [*sure, len(texts) + sure[0]]


def test_a_passed_deadline_is_served_at_the_next_arrival(opened, cascade_folder, texts, monkeypatch):
    classifier, now = opened(cascade_folder), [0.0]
    monkeypatch.setattr("ziggurat.engine.opened.Engine", partial(Engine, clock=lambda: now[0]))
    rule = ExitRule("margin", np.array([2.0, 0, 0, 0]))  # the first tier lets nobody go
    seen = []

    def arriving():
        for number, text in enumerate(texts[:4]):
            seen.append([])
            now[0] = float(number)
            yield [text]

    for number, answer in classifier.stream(arriving(), rule, linger=2.0):
        seen[-1].append((number, answer.trace.microseconds))
    assert seen == [[], [], [(0, 2e6), (1, 1e6), (2, 0)], [(3, 0)]]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"linger": float("nan")}, "linger nan s"),
        ({"linger": -0.5}, "linger -0.5 s"),
        ({"batch_sizes": [8]}, "one of at least 1 for each tier"),
        ({"batch_sizes": []}, "one of at least 1 for each tier"),
        ({"batch_sizes": [8, 0]}, "batch size 0: must be at least 1"),
        ({"at": "per input"}, "the same thresholds"),
        ({"at": "no such"}, "no such"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_arrives(opened, cascade_folder, texts, wrong, reason):
    classifier = opened(cascade_folder)
    if wrong.get("at") == "per input":
        wrong = {"at": classifier.rule("margin", [0.3] * len(texts))}
    with pytest.raises(UserError, match=reason) as refused:
        classifier.stream([texts], **({"at": "full"} | wrong))
    assert "\n" not in str(refused.value)


def test_a_text_that_is_not_one_is_refused_where_it_arrives(opened, cascade_folder, texts):
    answers = opened(cascade_folder).stream([texts[:2], "bat kin"], "full", batch_sizes=[1, 1])
    assert [next(answers)[0] for _ in range(2)] == [0, 1]
    with pytest.raises(UserError, match="one string was given"):
        next(answers)
