"""Frames to calibrate a quantised network on: they must cover all that it is meant for, the extremes too."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simulators import Recipe, draw_frames
from simulators.windows import draw_movies

QUANTITIES = ("photons", "background", "density_um2")


def corners(recipe: Recipe) -> list[Recipe]:
    """The recipe, and the recipe with photons, background and density at every combination of their extremes.

    Quantities that the recipe fixes stay.
    """
    ends = {
        name: (quantity.low, quantity.high)
        for name in QUANTITIES
        if hasattr(quantity := getattr(recipe, name), "low") and hasattr(quantity, "high")
    }
    combinations: list[dict[str, Any]] = [
        dict(zip(ends, values, strict=True)) for values in itertools.product(*ends.values())
    ]
    return [recipe, *(recipe.with_(**changes) for changes in combinations if changes)]


def calibration_frames(
    recipe: Recipe, rng: np.random.Generator, *, each: int = 2, length: int = 1, size: int = 32
) -> list[Tensor]:
    """Photon frames that cover a recipe's range: `each` blocks of every corner, (each, length, size, size).

    Args:
        recipe: what the network was trained for.
        rng: where randomness comes from.
        each: blocks per corner. length: consecutive frames of a block. size: side, camera pixels.
    """
    batches = []
    for corner in corners(recipe):
        if length == 1:
            frames = draw_frames(corner, each, rng, device="cpu", size=(size, size)).photons[:, None]
        else:
            frames = draw_movies(corner, each, length, rng, size=size).photons.view(each, length, size, size)
        batches.append(frames.to(torch.float32))
    return batches
