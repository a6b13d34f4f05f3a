"""Distillation: objectives that teach a small student from a large teacher. The trainer calls them like a loss."""

from .imitation import attentive_imitation, attentive_imitation_per_batch, teacher_confidence

__all__ = ["attentive_imitation", "attentive_imitation_per_batch", "teacher_confidence"]
