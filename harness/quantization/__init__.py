"""Smaller numbers: int8 files that run faster, float16 and bfloat16 files that are smaller."""

from .files import half_file, int8_file
from .run import FORMS, TUNED, Tuning, quantize
from .tuning import activation_ranges, rounding, training_of, tune

__all__ = [
    "FORMS",
    "TUNED",
    "Tuning",
    "activation_ranges",
    "half_file",
    "int8_file",
    "quantize",
    "rounding",
    "training_of",
    "tune",
]
