import math

import pytest
import torch

from ziggurat.training import exits_loss, kl_divergence
from ziggurat.training.losses import distillation_loss

TEACHER = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
STUDENT = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.3, 0.3, 0.4]]))

TEACHER_STATES = torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]])
STUDENT_STATES = torch.tensor([[1.5, 2.0], [0.0, 1.0], [3.0, 0.0]])
MEAN_SQUARE = (0.25 + 4.0 + 0.25) / 6


def by_hand(first, second):
    pairs = zip(first.exp().flatten().tolist(), second.exp().flatten().tolist(), strict=True)
    return sum(p * math.log(p / q) for p, q in pairs) / len(first)


def test_claim_20_default_kl_is_teacher_to_student_over_rows():
    assert kl_divergence(TEACHER, STUDENT).item() == pytest.approx(by_hand(TEACHER, STUDENT), rel=1e-5)


def test_reverse_kl_is_the_printed_direction():
    reverse = kl_divergence(TEACHER, STUDENT, reverse=True).item()
    assert reverse == pytest.approx(by_hand(STUDENT, TEACHER), rel=1e-5)
    assert abs(reverse - kl_divergence(TEACHER, STUDENT).item()) > 1e-3


@pytest.mark.parametrize("reverse", [False, True])
def test_claim_20_teacher_gets_exactly_no_gradient(reverse):
    teacher, student = TEACHER.clone().requires_grad_(), STUDENT.clone().requires_grad_()
    kl_divergence(teacher, student, reverse).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_a_student_that_equals_its_teacher_has_no_loss():
    assert exits_loss([TEACHER, TEACHER + 3.0, TEACHER], torch.tensor([0, 2])).item() == pytest.approx(0.0, abs=1e-6)


def test_exits_weigh_alike_and_the_last_rung_is_no_student():
    loss = exits_loss([STUDENT, TEACHER, TEACHER], torch.tensor([0, 2]))
    assert loss.item() == pytest.approx(by_hand(TEACHER, STUDENT) / 2, rel=1e-5)


def test_unlabelled_rows_leave_their_share_to_the_teacher():
    labels = torch.tensor([0, -1])
    blended = exits_loss([STUDENT, TEACHER], labels, label_weight=0.25)
    expected = 0.875 * by_hand(TEACHER, STUDENT) - 0.125 * math.log(0.5)
    assert blended.item() == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_labels_learns_from_the_teacher_alone():
    blended = exits_loss([STUDENT, TEACHER], torch.tensor([-1, -1]), label_weight=0.25)
    assert blended.item() == pytest.approx(by_hand(TEACHER, STUDENT), rel=1e-5)


def test_distillation_is_the_logits_kl_and_the_embeddings_mse():
    loss = distillation_loss(STUDENT, TEACHER, STUDENT_STATES, TEACHER_STATES)
    assert loss.item() == pytest.approx(by_hand(TEACHER, STUDENT) + MEAN_SQUARE, rel=1e-5)
    lighter = distillation_loss(STUDENT, TEACHER, STUDENT_STATES, TEACHER_STATES, embedding_weight=0.1)
    assert loss.item() - lighter.item() == pytest.approx(0.9 * MEAN_SQUARE, rel=1e-5)


def test_claim_20_temperature_softens_both_and_is_squared():
    def softened(logits):
        return torch.log_softmax(logits / 4.0, dim=-1)

    loss = distillation_loss(STUDENT, TEACHER, TEACHER_STATES, TEACHER_STATES, temperature=4.0)
    assert loss.item() == pytest.approx(16 * by_hand(softened(TEACHER), softened(STUDENT)), rel=1e-4)
    assert abs(loss.item() - by_hand(TEACHER, STUDENT)) > 1e-3


def test_distillation_gives_gradients_to_the_student_alone():
    given = [part.clone().requires_grad_() for part in (STUDENT, TEACHER, STUDENT_STATES, TEACHER_STATES)]
    distillation_loss(*given, temperature=2.0).backward()
    student, teacher, student_states, teacher_states = (part.grad for part in given)
    assert teacher is None and teacher_states is None
    assert student.abs().sum() > 0
    assert torch.allclose(student_states, 2 * (STUDENT_STATES - TEACHER_STATES) / 6)


def test_nothing_is_left_to_learn_from_an_equal_teacher():
    loss = distillation_loss(TEACHER + 3.0, TEACHER, STUDENT_STATES, STUDENT_STATES, temperature=3.0)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_half_precision_is_compared_in_float32():
    halves = [part.bfloat16() for part in (STUDENT, TEACHER, STUDENT_STATES, TEACHER_STATES)]
    loss = distillation_loss(*halves)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(distillation_loss(*(part.float() for part in halves)).item(), rel=1e-6)


@pytest.mark.parametrize("part", ["logits", "embeddings"])
def test_a_teacher_of_another_shape_is_refused_and_not_broadcast(part):
    teacher_logits = TEACHER[:1] if part == "logits" else TEACHER
    teacher_states = TEACHER_STATES[:, :1] if part == "embeddings" else TEACHER_STATES
    with pytest.raises(ValueError, match=f"{part} of student"):
        distillation_loss(STUDENT, teacher_logits, STUDENT_STATES, teacher_states)
