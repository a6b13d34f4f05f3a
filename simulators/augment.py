"""What training takes away from simulated frames."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ._model import StrictModel
from .structures import Floats, Space


class DropoutBox(StrictModel):
    """A box without molecules in frames for training, so that a network does not learn the structure instead of spots.

    Each side of the box lies between two even random places of the field. Movies of `simulate` are left alone; in
    batches the density in the field falls, by a ninth on average for boxes in every scene.

    Args:
        chance: share of the frames (or short movies) that have a box.
    """

    kind: Literal["box"] = "box"
    chance: Annotated[float, Field(gt=0, le=1)] = 1.0

    def kept(
        self,
        x_nm: Floats,
        y_nm: Floats,
        scene: npt.NDArray[np.int64],
        scenes: int,
        space: Space,
        rng: np.random.Generator,
    ) -> npt.NDArray[np.bool_]:
        """Which molecules stay.

        Args:
            scene: number of the frame or short movie of each molecule, 0..scenes-1; each has a box of its own.
        """
        across, down = np.sort(rng.random((2, scenes, 2)), axis=2)
        across[rng.random(scenes) >= self.chance] = 2.0
        boxes = np.concatenate([across * space.width_nm, down * space.height_nm], 1)
        return ~in_box(x_nm, y_nm, boxes[scene].T)


def in_box(x: Floats, y: Floats, box: Floats) -> npt.NDArray[np.bool_]:
    """Which positions lie within (lowest x, highest x, lowest y, highest y), borders excluded."""
    return (x > box[0]) & (x < box[1]) & (y > box[2]) & (y < box[3])
