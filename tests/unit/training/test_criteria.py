"""How regressions and labels that may all apply are learned, and what a teacher's answer is to their exits."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.kit.training import make_examples
from ziggurat.encoder import EncoderModel
from ziggurat.recipe import PruningConfig, StageConfig
from ziggurat.training import (
    Examples,
    answers_loss,
    collate,
    exits_loss,
    hard,
    heads,
    joint,
    kl_divergence,
    packed,
    regular,
    soft,
)
from ziggurat.training.losses import criterion_of, joint_loss, labelled, micro_f1, negative_square
from ziggurat.types import ProblemType

NUMBERS, SETS = criterion_of(ProblemType.REGRESSION), criterion_of(ProblemType.MULTI_LABEL)


def examples(problem, n, seed):
    """The rows of `make_examples` with other labels: the class as a number 1.5 or 3, or as the first of two labels."""
    rows = make_examples(n, seed)
    numbers = 1.5 + 1.5 * rows.labels
    return Examples(
        rows.encoded, numbers if problem is ProblemType.REGRESSION else np.eye(2, dtype=np.int8)[rows.labels]
    )


def model_for(problem, spec, **changes):
    torch.manual_seed(0)
    outputs = 1 if problem is ProblemType.REGRESSION else 2
    return EncoderModel(spec, outputs, "fastbert", [1, 2], problem=problem, **changes)


def test_losses_are_those_of_transformers():
    logits, labels = torch.tensor([[1.0], [4.0]]), torch.tensor([2.0, 2.0])
    assert NUMBERS.loss(logits, labels).item() == pytest.approx(2.5)
    logits, labels = torch.randn(3, 4), torch.tensor([[0, 1, 1, 0]] * 3, dtype=torch.int8)
    expected = functional.binary_cross_entropy_with_logits(logits, labels.float())
    assert SETS.loss(logits, labels).item() == pytest.approx(expected.item())


def test_a_teacher_of_sets_is_compared_label_by_label():
    teacher, student = torch.randn(3, 4), torch.randn(3, 4)
    zero = torch.zeros(3)
    each = [
        kl_divergence(torch.stack([t, zero], 1), torch.stack([s, zero], 1))
        for t, s in zip(teacher.T, student.T, strict=True)
    ]
    assert SETS.distance(teacher, student, False).item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-5)
    assert SETS.distance(teacher, teacher, False).item() == pytest.approx(0, abs=1e-6)


def test_exits_of_a_regression_learn_the_last_rungs_number():
    every = [torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [4.0]])]
    labels = torch.tensor([float("nan"), 3.0])
    assert labelled(labels).tolist() == [False, True]
    assert exits_loss(every, labels, criterion=NUMBERS).item() == pytest.approx(2.5)
    assert exits_loss(every, labels, 0.5, criterion=NUMBERS).item() == pytest.approx(0.75 * 2.5 + 0.25 * 1)
    assert answers_loss(every[1], every[0], labels, 3.0, criterion=NUMBERS).item() == pytest.approx(2.5)
    rungs = [NUMBERS.loss(logits, torch.tensor([2.0, 4.0])) for logits in every]
    assert joint_loss(rungs).item() == pytest.approx((1 * 2.5 + 0) / 3)
    assert joint_loss(rungs, 0.0).item() == pytest.approx(2.5 / 2)


def test_the_best_state_has_the_best_f1_or_the_least_squares():
    said, true = np.array([[2.0, -1.0], [1.0, 1.0]]), np.array([[1, 1], [0, 1]], dtype=np.int8)
    assert micro_f1(said, true) == pytest.approx(2 * 2 / (3 + 3))
    assert micro_f1(np.stack([said, np.where(true, 1.0, -1.0)], axis=1), true) == pytest.approx((2 / 3 + 1) / 2)
    assert negative_square(np.array([[1.0], [4.0]]), np.array([2.0, 2.0])) == -2.5
    assert negative_square(np.array([[[1.0], [2.0]], [[4.0], [2.0]]]), np.array([2.0, 2.0])) == -1.25


@pytest.mark.parametrize("problem", [ProblemType.REGRESSION, ProblemType.MULTI_LABEL])
def test_stages_learn_it_pruned_and_unpruned(model, run, tmp_path, problem):
    train, select = examples(problem, 96, 1), examples(problem, 40, 2)
    made = model_for(problem, model.spec, pruning=PruningConfig(final=0.3, vocabulary=0.9))
    stages = [("regular", regular, 3), ("soft", soft, 1), ("hard", hard, 1), ("heads", heads, 1), ("joint", joint, 1)]
    for kind, stage, epochs in stages:
        config = StageConfig(kind=kind, epochs=epochs, learning_rate=5e-3, batch_size=8, warmup=0.0, evaluations=1)
        made = stage(made, train, select, config, run.__class__(tmp_path / kind, run.device, 3, False, False))
    batch = collate([select[row] for row in range(len(select))])
    logits = made.eval()(packed(batch["states"], batch["lengths"]), made.token_rule)[-1].detach().numpy()
    metric = criterion_of(problem).metric
    silly = np.full_like(logits, 2.25) if problem is ProblemType.REGRESSION else np.ones_like(logits)
    assert metric(logits, select.labels) > metric(silly, select.labels)
