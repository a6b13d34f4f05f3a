"""What a comparison says: rows, and how a row is made from two arrays."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Status = Literal["equal", "off", "not covered"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One compared item of a reference file.

    Attributes:
        file: name of the reference file.
        item: what was compared, e.g. "output (torch)".
        status: "equal", "off" or "not covered".
        deviation: largest |ours - theirs| over the largest |theirs| (over 1 where all of theirs are 0); nan
            if not compared.
        tolerance: largest deviation that counts as equal; nan if not compared.
        note: why a row is off or not covered, or what stands behind the comparison.
    """

    file: str
    item: str
    status: Status
    deviation: float = float("nan")
    tolerance: float = float("nan")
    note: str = ""


def compare(file: str, item: str, ours: object, theirs: object, *, tolerance: float, note: str = "") -> Row:
    """A row from two arrays: equal if they have one shape and differ by at most `tolerance` of the largest number."""
    left, right = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if left.shape != right.shape:
        return off(file, item, f"our shape is {left.shape}, the reference's {right.shape}")
    if not left.size:
        return off(file, item, "the reference is empty, so nothing was compared")
    scale = float(np.abs(right).max()) or 1.0
    deviation = float(np.abs(left - right).max()) / scale
    status: Status = "equal" if deviation <= tolerance else "off"  # nan is off
    return Row(file=file, item=item, status=status, deviation=deviation, tolerance=tolerance, note=note)


def off(file: str, item: str, note: str) -> Row:
    return Row(file=file, item=item, status="off", note=note)


def not_covered(file: str, item: str, note: str) -> Row:
    return Row(file=file, item=item, status="not covered", note=note)
