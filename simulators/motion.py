"""Movements that all molecules share: drift of the stage, and the sweep of a light sheet."""

from __future__ import annotations

import numpy as np

from ._model import NotNegative, StrictModel
from .blinking import Floats, Rows


class Drift(StrictModel):
    """The stage drifts over a movie: steadily, and at random.

    Training batches ignore it: their movies are short.

    Args:
        steady_nm: displacement along x, y, z over 1,000 frames.
        random_nm: standard deviation, along each of x and y, of the random walk over 1,000 frames.
    """

    steady_nm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    random_nm: NotNegative = 0.0

    def path(self, frames: int, rng: np.random.Generator) -> Floats:
        """Displacement in every frame, (frames, 3), nm; 0 in the first."""
        path = np.arange(frames)[:, None] * (np.array(self.steady_nm) / 1000)
        steps = self.random_nm / 1000**0.5 * rng.standard_normal((frames, 2))
        steps[0] = 0
        path[:, :2] += np.cumsum(steps, 0)
        return path


class Sweep(StrictModel):
    """The plane of a light sheet moves on between frames: a molecule is seen a fixed vector further each time.

    The vector is (0, step, 0) turned about the fixed axes x, y and z, in this order. At one of its appearances, each as
    likely as any other, a molecule is where the structure has it. Rows that leave the range of heights are dropped.

    Args:
        step_nm: length of the vector.
        angles_deg: turns about x, y, z.
    """

    step_nm: NotNegative
    angles_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def vector_nm(self) -> Floats:
        """Displacement from frame to frame, (3,), nm."""
        a, b, c = np.radians(self.angles_deg)
        # The second columns of the three turns' product.
        y = np.array([0.0, np.cos(a), np.sin(a)])
        y = np.array([np.cos(b) * y[0] + np.sin(b) * y[2], y[1], -np.sin(b) * y[0] + np.cos(b) * y[2]])
        y = np.array([np.cos(c) * y[0] - np.sin(c) * y[1], np.sin(c) * y[0] + np.cos(c) * y[1], y[2]])
        return self.step_nm * y

    def displacement(self, rows: Rows, molecules: int, rng: np.random.Generator) -> Floats:
        """Of each row, (rows, 3), nm."""
        held = np.bincount(rows.molecule, minlength=molecules)
        begin = np.cumsum(held) - held
        settled = begin + np.floor(rng.random(molecules) * held).astype(np.int64)
        reference = rows.frame[settled[rows.molecule]] if len(rows.frame) else rows.frame
        return (rows.frame - reference)[:, None] * self.vector_nm
