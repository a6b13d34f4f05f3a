"""How truth and teacher are put together, sample by sample.

Source: Saputra et al. 2019, arXiv:1908.00858, where these are compared; the bound after Chen et al. 2017, NeurIPS
(learning efficient object detection models with knowledge distillation).
"""

from __future__ import annotations

import torch
from torch import Tensor

MODES = ("attentive", "sum", "minimum", "bound")


def combine(
    mode: str,
    *,
    truth: Tensor,
    imitation: Tensor,
    alpha: float,
    confidence: Tensor | None = None,
    student_error: Tensor | None = None,
    teacher_error: Tensor | None = None,
) -> Tensor:
    """The loss of a batch.

    - attentive: `truth + mean_i Phi_i I_i`, weighted alpha and 1 - alpha
    - sum: the same with Phi = 1
    - minimum: `mean_i min(E_i, I_i)`, E the student's error; alpha is not used
    - bound: `alpha truth + (1 - alpha) mean_i [E_i > e_i] I_i`, e the teacher's error: the teacher is imitated only
      where the student is worse

    Args:
        mode: one of `MODES`.
        truth: the student's own loss, a number.
        imitation: I, distance of student and teacher on each sample, (n,).
        alpha: weight of the truth, 0 to 1.
        confidence: Phi, (n,), for "attentive".
        student_error, teacher_error: E and e, (n,), in one unit; for "minimum" also that of I.

    Raises:
        ValueError: an unknown mode, alpha outside 0..1, or what the mode needs is missing.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 (teacher only) and 1 (truth only)")
    if mode == "sum":
        return alpha * truth + (1 - alpha) * imitation.mean()
    if mode == "attentive":
        if confidence is None:
            raise ValueError("mode 'attentive' needs the confidence of each sample")
        return alpha * truth + (1 - alpha) * (confidence * imitation).mean()
    if mode == "minimum":
        if student_error is None:
            raise ValueError("mode 'minimum' needs the student's error on each sample")
        return torch.minimum(student_error, imitation).mean()
    if mode == "bound":
        if student_error is None or teacher_error is None:
            raise ValueError("mode 'bound' needs the errors of student and teacher on each sample")
        worse = (student_error.detach() > teacher_error).to(imitation.dtype)
        return alpha * truth + (1 - alpha) * (worse * imitation).mean()
    raise ValueError(f"no mode named {mode!r}; there are: {', '.join(MODES)}")
