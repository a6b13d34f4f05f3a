"""Smaller numbers: int8 files that run faster, float16 and bfloat16 files that are smaller."""

from .files import half_file, int8_file
from .run import FORMS, quantize

__all__ = ["FORMS", "half_file", "int8_file", "quantize"]
