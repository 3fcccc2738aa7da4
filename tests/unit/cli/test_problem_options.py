"""`--problem` and `--label-range`: what they may say, and one line for what they may not."""

import pytest

from ziggurat.cli.training import problem_named, range_of
from ziggurat.errors import UserError
from ziggurat.types import ProblemType


def test_a_problem_has_the_name_that_transformers_gives_it():
    assert problem_named("regression") is ProblemType.REGRESSION
    assert problem_named("multi_label_classification") is ProblemType.MULTI_LABEL
    assert problem_named(None) is None
    assert range_of("0,5") == (0.0, 5.0) and range_of("-1.5,2") == (-1.5, 2.0) and range_of(None) is None


@pytest.mark.parametrize("name", ["multi-label", "spans", ""])
def test_an_unknown_problem_is_refused_with_the_known_ones(name):
    with pytest.raises(UserError, match="choose one of single_label_classification, multi_label_classification, regr"):
        problem_named(name)


@pytest.mark.parametrize("text", ["5", "5,0", "0,5,6", "0,inf", "nan,1", "a,b"])
def test_a_range_is_two_rising_numbers(text):
    with pytest.raises(UserError, match="--label-range"):
        range_of(text)
