"""A risk says what one answer lost against the full model, in a range that it keeps."""

from __future__ import annotations

import numpy as np
import pytest

from ziggurat.calibrate import RISKS, difference_risk, risk_by_name, risks_of
from ziggurat.calibrate.risks import bounded_difference
from ziggurat.errors import UserError
from ziggurat.problems import CLASSES, problem_named
from ziggurat.types import ProblemType

PREDICTIONS = np.array([0, 1, 1, 2, 2, 0])
FULL = np.array([0, 0, 1, 1, 2, 1])
LABELS = np.array([0, 0, 2, 2, 0, 2])
#        right twice, harmed, wrong alike, mended, wrong alike, wrong otherwise


def test_each_risk_equals_its_definition():
    assert RISKS["accuracy"].of(PREDICTIONS, FULL, LABELS).tolist() == [0, 1, 0, -1, 0, 0]
    assert RISKS["agreement"].of(PREDICTIONS, FULL).tolist() == [0, 1, 0, 1, 0, 1]
    assert RISKS["harm"].of(PREDICTIONS, FULL, LABELS).tolist() == [0, 1, 0, 0, 0, 0]


def test_the_mean_accuracy_loss_is_the_drop_in_accuracy():
    rng = np.random.default_rng(0)
    for _ in range(50):
        predictions, full, labels = rng.integers(0, 3, (3, 40))
        means = {name: risk.of(predictions, full, labels).mean() for name, risk in RISKS.items()}
        assert means["accuracy"] == pytest.approx((full == labels).mean() - (predictions == labels).mean(), abs=1e-12)
        assert means["accuracy"] <= means["harm"] <= means["agreement"]


def test_losses_are_float64_within_the_risks_range():
    predictions, full, labels = np.random.default_rng(1).integers(0, 3, (3, 500))
    for name, risk in RISKS.items():
        losses = risk.of(predictions, full, labels)
        assert risk.name == name
        assert losses.dtype == np.float64 and losses.shape == (500,)
        assert losses.min() == risk.low and losses.max() == risk.high  # both ends occur: the range is not too wide
        assert risk.binary == (set(losses) == {0.0, 1.0})


def test_agreement_alone_needs_no_labels():
    assert [name for name, risk in RISKS.items() if not risk.needs_labels] == ["agreement"]
    assert np.array_equal(RISKS["agreement"].of(PREDICTIONS, FULL), RISKS["agreement"].of(PREDICTIONS, FULL, LABELS))
    for name in ("accuracy", "harm"):
        with pytest.raises(ValueError, match="labels"):
            RISKS[name].of(PREDICTIONS, FULL)


@pytest.mark.parametrize("full", [FULL[:-1], FULL[:, None], FULL[:1]])
def test_arrays_that_would_broadcast_are_refused(full):
    with pytest.raises(ValueError, match="per example"):
        RISKS["harm"].of(PREDICTIONS, full, LABELS)


def test_a_bounded_difference_keeps_its_sign_and_never_clips():
    assert bounded_difference(np.array([0.5, 0, 1]), np.array([0.25, 1, 0])).tolist() == [0.25, -1, 1]
    for wrong in (1.01, -0.01, np.nan, np.inf):
        for losses in ([0.5, wrong], [wrong, 0.5]):
            with pytest.raises(ValueError, match=r"\[0, 1\]"):
                bounded_difference(np.array(losses), np.array([0.5, 0.5]))
            with pytest.raises(ValueError, match=r"\[0, 1\]"):
                bounded_difference(np.array([0.5, 0.5]), np.array(losses))
    with pytest.raises(ValueError, match="of the full model"):
        bounded_difference(np.zeros(3), np.zeros(2))


def test_a_regression_risk_is_the_difference_of_scaled_errors():
    risk = difference_risk(lambda predictions, labels: np.abs(predictions - labels) / 5)
    losses = risk.of(np.array([1.0, 5.0]), np.array([2.0, 4.0]), np.array([3.0, 4.0]))
    assert losses == pytest.approx([0.2, 0.2])
    assert (risk.low, risk.high, risk.binary) == (-1, 1, False)
    with pytest.raises(ValueError, match="largest"):
        risk.of(np.array([9.0]), np.array([0.0]), np.array([0.0]))


def test_an_unknown_risk_is_refused_with_the_known_ones():
    assert risk_by_name("harm", CLASSES).name == "harm"
    with pytest.raises(UserError, match="accuracy, agreement, harm"):
        risk_by_name("f1", CLASSES)


def test_risks_of_a_number_are_errors_as_shares_of_the_range():
    known = risks_of(problem_named(ProblemType.REGRESSION, ("value",), (0, 5)))
    assert list(known) == ["absolute-error", "squared-error", "agreement", "harm"]
    rng = np.random.default_rng(0)
    said, full, true = rng.uniform(0, 5, (3, 500))
    means = {name: risk.of(said, full, true).mean() for name, risk in known.items()}
    assert means["absolute-error"] == pytest.approx((np.abs(said - true) - np.abs(full - true)).mean() / 5)
    assert means["agreement"] == pytest.approx(np.abs(said - full).mean() / 5)
    # Who goes back and forth between two numbers is at most as far from the truth as they are apart.
    assert means["absolute-error"] <= means["harm"] <= means["agreement"]
    assert not any(risk.binary for risk in known.values())


def test_risks_of_sets_are_of_labels_or_of_whole_answers():
    known = risks_of(problem_named(ProblemType.MULTI_LABEL))
    said, full, true = (np.array(rows) for rows in ([[1, 0], [1, 1]], [[1, 1], [1, 1]], [[1, 1], [0, 1]]))
    found = {name: risk.of(said > 0, full > 0, true).tolist() for name, risk in known.items()}
    assert found == {"hamming": [0.5, 0], "subset-accuracy": [1, 0], "agreement": [1, 0], "harm": [0.5, 0]}
    assert [name for name, risk in known.items() if risk.binary] == ["agreement"]


@pytest.mark.parametrize("problem", [ProblemType.REGRESSION, ProblemType.MULTI_LABEL])
def test_the_first_risk_is_the_default(problem):
    output = problem_named(problem, (), (0, 5))
    assert risk_by_name(None, output).name == next(iter(output.losses))
    with pytest.raises(UserError, match=f"'accuracy' is not known for {problem}; choose one of"):
        risk_by_name("accuracy", output)
