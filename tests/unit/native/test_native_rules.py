"""Exit scores of the compiled engine against the specification in Python, on logits of every kind."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ziggurat import native
from ziggurat.data import pack
from ziggurat.engine import run_batches as run
from ziggurat.engine.backends.torch import load_backend as load_torch
from ziggurat.errors import UserError
from ziggurat.policies import ExitRule

if native.why_missing():
    pytest.skip(native.why_missing(), allow_module_level=True)

from ziggurat.engine.backends.native import load_backend

NAMES = (
    "entropy", "max-probability", "margin", "agreement", "agreement-in-a-row", "top-entropy@2", "top-entropy@7",
    "confident-in-a-row@0.7", "learned", "change", "label-entropy",
)  # fmt: skip
OF_ONE_OUTPUT = ("change", "label-entropy", "learned")  # others ask for classes
TIES = st.sampled_from([-1.0, 0.0, 2.0])
ANY = st.floats(-30, 30, width=32)
HUGE = st.floats(-(2.0**127), 2.0**127, width=32)
TEMPERATURES = st.sampled_from([0.25, 1.0, 3.0])
repeatable = settings(derandomize=True, deadline=None, max_examples=150)


def compiled(rule: ExitRule):
    name, _, parameter = rule.score.partition("@")
    weights = rule.deferral if rule.score == "learned" else None
    return native.core().ExitRule(name, float(parameter or 0), rule.thresholds[None], rule.temperatures, weights)


def weights_for(n_rungs: int, n_classes: int, seed: int) -> np.ndarray:
    """Small ones of even seeds, with which no lead drives the score to 0 or 1, and large ones of odd seeds."""
    return np.random.default_rng(seed).normal(scale=(0.05, 2)[seed % 2], size=(n_rungs - 1, 4 + n_classes))


@st.composite
def cases(draw) -> tuple[ExitRule, int, np.ndarray]:
    """A rule, an asked rung before the last, and what it and the asked ones before it said to some inputs."""
    name = draw(st.sampled_from(NAMES))
    n_rungs, n_classes = (
        draw(st.integers(2, 5)),
        draw(st.sampled_from([1, 2, 3, 60] if name in OF_ONE_OUTPUT else [2, 3, 60])),
    )
    rung = draw(st.integers(0, n_rungs - 2))
    asked = np.array(draw(st.lists(st.booleans(), min_size=n_rungs - 1, max_size=n_rungs - 1)))
    asked[rung] = True
    temperatures = np.array(draw(st.lists(TEMPERATURES, min_size=n_rungs, max_size=n_rungs)))
    rule = ExitRule(
        name,
        np.where(asked, 0.5, np.nan),
        draw(st.sampled_from([None, temperatures])),
        deferral=weights_for(n_rungs, n_classes, draw(st.integers(0, 99))),
    )
    shape = draw(st.integers(1, 6)), int(asked[: rung + 1].sum()), n_classes
    return rule, rung, draw(arrays.arrays("float32", shape, elements=draw(st.sampled_from([TIES, ANY, HUGE]))))


@repeatable
@given(cases())
def test_scores_are_those_of_the_specification(case):
    rule, rung, history = case
    assert np.allclose(compiled(rule).values(rung, history), rule.values(rung, history), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["entropy", "max-probability", "margin", "learned"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_not_sure_of_anything(name, wrong):
    rule = ExitRule(name, np.array([0.0]), deferral=weights_for(2, 3, 0))
    history = np.float32([[[1, wrong, 0]], [[1, 2, 0]]])
    with np.errstate(all="ignore"):
        expected = rule.values(0, history)
    found = compiled(rule).values(0, history)
    assert np.isnan(found).tolist() == [True, False]
    assert abs(found[1] - expected[1]) < 1e-6
    # Python lets nobody go for a score of NaN either, though it makes a number of some infinities.
    if wrong is np.nan:
        assert np.isnan(expected[0])


def test_a_margin_of_one_output_is_refused(make_folder):
    rule = ExitRule("margin", np.array([0.5]))
    with pytest.raises(ValueError, match="at least 2 classes"):
        compiled(rule).values(0, np.zeros((1, 1, 1), dtype=np.float32))


def test_of_equally_likely_classes_the_first_is_predicted():
    weights = np.array([[0.0, 0, 0, 0, -1, 1, 2]])
    rule = ExitRule("learned", np.array([0.5]), deferral=weights)
    hair = 1e-30  # that no probability shows
    history = np.float32([[[3, 3, 3]], [[0, 3, 3]], [[0, 0, 3]], [[0, hair, 0]]])
    expected = 1 / (1 + np.exp([1.0, -1, -2, -1]))
    assert np.allclose(compiled(rule).values(0, history), expected) and np.allclose(rule.values(0, history), expected)


def test_weights_beyond_all_bounds_make_a_score_of_0_or_1():
    weights = np.zeros((1, 6))
    weights[0, 4:] = -1e300, 1e300
    rule = ExitRule("learned", np.array([0.5]), deferral=weights)
    history = np.float32([[[1, 0]], [[0, 1]]])
    assert compiled(rule).values(0, history).tolist() == rule.values(0, history).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("rung", "shape"), [(-1, (1, 1, 3)), (1, (1, 1, 3)), (3, (1, 2, 3)), (2, (1, 1, 3)), (0, (1, 1, 2)), (0, (1, 3))]
)
def test_a_history_that_does_not_fit_is_refused(rung, shape):
    rule = ExitRule("learned", np.array([0.5, np.nan, 0.5]), deferral=weights_for(4, 3, 0))
    with pytest.raises(ValueError, match=r"rung|history|deferral"):
        compiled(rule).values(rung, np.zeros(shape, dtype=np.float32))


@pytest.fixture(scope="module")
def backends(model_folder):
    return load_backend(model_folder, "float32", 1), load_torch(model_folder, "cpu", "float32", None)


def test_a_score_that_was_not_learned_is_refused_as_in_python(backends, ragged_tokens):
    batch, rule, said = pack(ragged_tokens), ExitRule.uniform("learned", 0.5, 4), []
    for backend in backends:
        with pytest.raises(UserError) as refused:
            run(backend, [batch], rule, len(ragged_tokens))
        said.append(str(refused.value))
    with pytest.raises(UserError) as refused:
        backends[0].advance(backends[0].start(batch), rule, 1)
    assert said[0] == said[1] == str(refused.value) and "ziggurat cascade" in said[0]


def test_where_it_is_not_asked_its_weights_are_not_missed(backends, ragged_tokens):
    rule, n = replace(ExitRule.full_depth(4), score="learned"), len(ragged_tokens)
    mine, yours = (run(backend, [pack(ragged_tokens)], rule, n) for backend in backends)
    assert mine.rungs.tolist() == yours.rungs.tolist() == [3] * n


def test_the_learned_score_takes_one_call(backends, ragged_tokens, monkeypatch):
    rule = replace(ExitRule.uniform("learned", 0.5, 4), deferral=weights_for(4, 3, 0))
    batch, backend = pack(ragged_tokens), backends[0]
    monkeypatch.setattr(backend, "layer", None)
    _, done = backend.advance(backend.start(batch), rule, 4)
    assert len(done.rows) == len(ragged_tokens)
    with pytest.raises(ValueError, match="deferral"):
        backend.advance(backend.start(batch), replace(rule, deferral=weights_for(4, 2, 0)), 4)
