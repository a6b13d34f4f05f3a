"""Distillation: objectives that teach a small student from a large teacher. The trainer calls them like a loss."""

from .alternatives import MODES, combine
from .grids import CommonGrid, common_grid, density, draw, drawn_maps
from .hints import Hints, hint_loss
from .imitation import attentive_imitation, attentive_imitation_per_batch, teacher_confidence
from .maps import emitter_imitation, in_units_of, soft_detection, soft_location
from .objective import CONFIDENCES, Distillation, Settings, TeacherRecord
from .students import STUDENTS, Cost, Student, cost_of, find_student
from .teacher import Tap, Teacher, fingerprint, run_on_blocks

__all__ = [
    "CONFIDENCES",
    "MODES",
    "STUDENTS",
    "CommonGrid",
    "Cost",
    "Distillation",
    "Hints",
    "Settings",
    "Student",
    "Tap",
    "Teacher",
    "TeacherRecord",
    "attentive_imitation",
    "attentive_imitation_per_batch",
    "combine",
    "common_grid",
    "cost_of",
    "density",
    "draw",
    "drawn_maps",
    "emitter_imitation",
    "find_student",
    "fingerprint",
    "hint_loss",
    "in_units_of",
    "run_on_blocks",
    "soft_detection",
    "soft_location",
    "teacher_confidence",
]
