"""Attentive imitation: a student learns from truth and teacher, and trusts the teacher where it is right.

Source: Saputra, de Gusmao, Almalioglu, Markham, Trigoni, ICCV 2019, arXiv:1908.00858.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def teacher_confidence(teacher_error: Tensor, *, error_range: float) -> Tensor:
    """How far each of the teacher's answers is to be trusted: `Phi = 1 - error / range`, kept within 0 ... 1.

    Args:
        teacher_error: squared error of the teacher on each sample, (N,).
        error_range: largest minus smallest error of the teacher over the whole training set (eta).

    Raises:
        ValueError: the range is not above zero.

    The paper does not subtract the smallest error, so the worst sample of the set would get a confidence at or below
    zero and a negative one would push the student away from the teacher: it is clamped.
    """
    if not error_range > 0:
        raise ValueError(f"the teacher's error range is {error_range}; it must be above 0 (use more than one sample)")
    return (1 - teacher_error / error_range).clamp(0, 1)


def attentive_imitation(
    student: Tensor, target: Tensor, teacher: Tensor, *, alpha: float, error_range: float
) -> Tensor:
    """`mean_i [alpha MSE(S_i, y_i) + (1 - alpha) Phi_i MSE(S_i, T_i)]`, a confidence per sample.

    Args:
        student, target, teacher: (N, ...), the same shape, scale and grid. The teacher gets no gradient.
        alpha: weight of the truth, 0 ... 1; the rest is the teacher's.
        error_range: see `teacher_confidence`.

    Raises:
        ValueError: shapes differ, or alpha is outside 0 ... 1.

    Source: arXiv:1908.00858, with the clamp of `teacher_confidence`.
    """
    _check(student, target, teacher, alpha)
    teacher = teacher.detach()
    trust = teacher_confidence(_per_sample(teacher - target), error_range=error_range)
    truth_term = _per_sample(student - target)
    imitation = trust * _per_sample(student - teacher)
    return (alpha * truth_term + (1 - alpha) * imitation).mean()


def attentive_imitation_per_batch(
    student: Tensor,
    target: Tensor,
    teacher: Tensor,
    *,
    alpha: float,
    loss: Callable[[Tensor, Tensor], Tensor],
    teacher_losses: Sequence[float],
) -> Tensor:
    """The form of the DL4SMLM code, for parity: one confidence per batch, from the teacher's learning curve.

    `alpha l(S, y) + (1 - alpha) Phi l(S, T)` with `Phi = 1 - l(T, y) / (max v - min v)`, v the teacher's mean loss of
    each epoch. Phi has no lower bound, so a teacher worse than that range pushes the student away. New work uses
    `attentive_imitation`.

    Args:
        loss: `(prediction, target) -> number`, e.g. `losses.create_loss("dl4smlm_l1l2", lambda_=50)`.
        teacher_losses: v; at least two different values.
    """
    _check(student, target, teacher, alpha)
    span = max(teacher_losses) - min(teacher_losses)
    if not span > 0:
        raise ValueError(f"the teacher's losses {list(teacher_losses)} have no range; give two epochs or more")
    teacher = teacher.detach()
    trust = 1 - loss(teacher, target) / span
    return alpha * loss(student, target) + (1 - alpha) * trust * loss(student, teacher)


def _per_sample(residual: Tensor) -> Tensor:
    return residual.square().flatten(1).mean(1)


def _check(student: Tensor, target: Tensor, teacher: Tensor, alpha: float) -> None:
    shapes = {tuple(t.shape) for t in (student, target, teacher)}
    if len(shapes) != 1:
        raise ValueError(
            f"student {tuple(student.shape)}, target {tuple(target.shape)} and teacher {tuple(teacher.shape)} "
            "must have one shape; resample the teacher to the student's grid first"
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 (teacher only) and 1 (truth only)")
    if not torch.is_floating_point(student):
        raise ValueError(f"student is {student.dtype}; it must be a floating-point tensor")
