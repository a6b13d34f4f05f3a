"""From a teacher to a small student: train, compare, export, quantise, report."""

from .edge import pareto
from .limits import Choice, Limits, kept_rows, pick
from .plan import DistillPlan
from .run import distill

__all__ = ["Choice", "DistillPlan", "Limits", "distill", "kept_rows", "pareto", "pick"]
