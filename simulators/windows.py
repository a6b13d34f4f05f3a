"""Many independent short movies for training networks that look at neighbouring frames."""

from __future__ import annotations

import numpy as np
import torch

from .batch import Batch, draw_scenes
from .recipe import Recipe


def draw_movies(
    recipe: Recipe,
    count: int,
    length: int,
    rng: np.random.Generator,
    *,
    device: torch.device | str = "cpu",
    size: tuple[int, int] | int | None = None,
    threads: int | None = None,
) -> Batch:
    """Independent short movies: molecules stay on over frames, as in `simulate`.

    Each movie draws its own density, background, PSF width and structure, and keeps them. The number of molecules is
    Poisson distributed; its mean gives every frame, the first and the last too, the recipe's density.

    Args:
        recipe: the domain; its `frames` and `seed` do not matter here.
        count: number of movies.
        length: frames of each.
        rng: where randomness comes from; it moves on.
        device: where the frames are made and stay.
        size: (height, width) in place of the recipe's.
        threads: on the CPU; all processors if left out. The result does not depend on it.

    Returns:
        A batch of `count * length` frames; frame t of movie m is number m * length + t.

    Raises:
        ValueError: `count` or `length` is less than 1, or `size` does not fit.

    Example:
        >>> from simulators import load_recipe
        >>> batch = draw_movies(load_recipe("epfl-2d"), 4, 10, np.random.default_rng(1), size=32)
        >>> tuple(batch.photons.shape)
        (40, 32, 32)
    """
    if count < 1 or length < 1:
        raise ValueError(f"count is {count} and length {length}; give 1 movie and 1 frame or more")
    return draw_scenes(recipe, count, length, rng, device=device, size=size, threads=threads)
