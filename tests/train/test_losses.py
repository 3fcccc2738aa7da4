import math

import pytest
import torch

from ziggurat.train.losses import exits_loss, kl_divergence

TEACHER = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
STUDENT = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.3, 0.3, 0.4]]))


def by_hand(first, second):
    pairs = zip(first.exp().flatten().tolist(), second.exp().flatten().tolist(), strict=True)
    return sum(p * math.log(p / q) for p, q in pairs) / len(first)


def test_default_kl_is_teacher_to_student_mean_over_rows():
    assert kl_divergence(TEACHER, STUDENT).item() == pytest.approx(by_hand(TEACHER, STUDENT), rel=1e-5)


def test_reverse_kl_is_the_printed_direction():
    reverse = kl_divergence(TEACHER, STUDENT, reverse=True).item()
    assert reverse == pytest.approx(by_hand(STUDENT, TEACHER), rel=1e-5)
    assert abs(reverse - kl_divergence(TEACHER, STUDENT).item()) > 1e-3


@pytest.mark.parametrize("reverse", [False, True])
def test_teacher_gets_exactly_no_gradient(reverse):
    teacher, student = TEACHER.clone().requires_grad_(), STUDENT.clone().requires_grad_()
    kl_divergence(teacher, student, reverse).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_a_student_that_equals_its_teacher_has_no_loss():
    assert exits_loss([TEACHER, TEACHER + 3.0, TEACHER], torch.tensor([0, 2])).item() == pytest.approx(0.0, abs=1e-6)


def test_exits_weigh_alike_and_the_last_rung_is_no_student():
    loss = exits_loss([STUDENT, TEACHER, TEACHER], torch.tensor([0, 2]))
    assert loss.item() == pytest.approx(by_hand(TEACHER, STUDENT) / 2, rel=1e-5)


def test_unlabelled_rows_take_no_part_in_cross_entropy():
    labels = torch.tensor([0, -1])
    blended = exits_loss([STUDENT, TEACHER], labels, label_weight=0.25)
    expected = 0.75 * by_hand(TEACHER, STUDENT) - 0.25 * math.log(0.5)
    assert blended.item() == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_labels_learns_from_the_teacher_alone():
    blended = exits_loss([STUDENT, TEACHER], torch.tensor([-1, -1]), label_weight=0.25)
    assert blended.item() == pytest.approx(0.75 * by_hand(TEACHER, STUDENT), rel=1e-5)
