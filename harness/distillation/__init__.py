"""From a teacher to a small student: train, compare, export, quantise, report."""

from .edge import pareto, pick
from .plan import DistillPlan
from .run import distill

__all__ = ["DistillPlan", "distill", "pareto", "pick"]
