"""Attentive imitation: hand-computed cases, the clamp, no gradient into the teacher."""

import pytest
import torch

from distill import attentive_imitation, attentive_imitation_per_batch, teacher_confidence


def constant(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def test_hand_computed():
    student, target, teacher = constant(3.0, 3.0), constant(1.0, 1.0), constant(2.0, 1.0)
    # sample 1: truth 4, imitation 1, teacher error 1, Phi 1 - 1/2; sample 2: truth 4, imitation 4, Phi 1
    expected = (0.25 * 4 + 0.75 * 0.5 * 1 + 0.25 * 4 + 0.75 * 1 * 4) / 2
    found = attentive_imitation(student, target, teacher, alpha=0.25, error_range=2.0)
    assert found.item() == pytest.approx(expected)


def test_a_teacher_beyond_the_range_is_ignored_not_fled():
    assert teacher_confidence(torch.tensor([0.0, 1.0, 5.0]), error_range=2.0).tolist() == [1.0, 0.5, 0.0]


def test_the_published_form_may_flee():
    loss = torch.nn.functional.mse_loss
    student, target, teacher = constant(0.0), constant(0.0), constant(4.0)
    found = attentive_imitation_per_batch(student, target, teacher, alpha=0.0, loss=loss, teacher_losses=[9, 1])
    assert found.item() == pytest.approx((1 - 16 / 8) * 16)


def test_no_gradient_into_the_teacher():
    student, teacher = constant(1.0).clone().requires_grad_(), constant(2.0).clone().requires_grad_()
    attentive_imitation(student, constant(0.0), teacher, alpha=0.5, error_range=10.0).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_bad_input():
    with pytest.raises(ValueError, match="resample"):
        attentive_imitation(constant(1.0), constant(1.0, 2.0), constant(1.0), alpha=0.5, error_range=1.0)
    with pytest.raises(ValueError, match="alpha is 2"):
        attentive_imitation(constant(1.0), constant(1.0), constant(1.0), alpha=2, error_range=1.0)
    with pytest.raises(ValueError, match="above 0"):
        attentive_imitation(constant(1.0), constant(1.0), constant(1.0), alpha=0.5, error_range=0.0)
    with pytest.raises(ValueError, match="two epochs"):
        attentive_imitation_per_batch(
            constant(1.0),
            constant(1.0),
            constant(1.0),
            alpha=0.5,
            loss=torch.nn.functional.mse_loss,
            teacher_losses=[3],
        )
