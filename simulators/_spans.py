"""Frames that spans of time cover, compiled."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._compiled import compiled

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@compiled
def cover(
    molecule: Ints,
    start: Floats,
    stop: Floats,
    frames: int,
    minimum: float,
    owner: Ints,
    frame: Ints,
    share: Floats,
) -> int:
    """As `blinking.rows_of_spans`, into the last three arrays, which are long enough; returns the number of rows."""
    found = 0
    for i in range(molecule.size):
        first = np.int64(max(np.floor(start[i]), 0.0))
        last = np.int64(min(np.floor(stop[i]), frames - 1.0))
        for number in range(first, last + 1):
            lit = min(stop[i], number + 1.0) - max(start[i], np.float64(number))
            if found and owner[found - 1] == molecule[i] and frame[found - 1] == number:
                share[found - 1] += lit  # of the span before
                continue
            owner[found], frame[found], share[found] = molecule[i], number, lit
            found += 1
    kept = 0
    for row in range(found):
        if share[row] >= minimum and share[row] > 0:
            owner[kept], frame[kept], share[kept] = owner[row], frame[row], share[row]
            kept += 1
    return kept
