"""Movies of molecules that are given, instead of drawn."""

from __future__ import annotations

import numpy as np
import torch

from .emitters import Emitters
from .movie import Movie
from .recipe import Recipe


def simulate_known(
    emitters: Emitters,
    recipe: Recipe,
    rng: np.random.Generator,
    *,
    frames: int,
    size: tuple[int, int] | None = None,
    background: float | None = None,
) -> Movie:
    """A movie of these molecules, with the PSF and the camera of a recipe.

    Args:
        emitters: the truth.
        recipe: its PSF and, where nothing else is given, its background must be single numbers, not ranges.
        rng: where the noise comes from.
        frames: of the movie.
        size: (height, width) in place of the recipe's.
        background: photons per pixel, in place of the recipe's.

    Raises:
        ValueError: a range where a number is needed.
    """
    light = recipe.background if background is None else background
    width = getattr(recipe.psf, "sigma_nm", 1.0)
    if not isinstance(light, int | float) or not isinstance(width, int | float):
        raise ValueError(f"background or PSF width of recipe {recipe.name!r} is a range; give single numbers")
    columns = (emitters.x_nm, emitters.y_nm, emitters.z_nm, emitters.photons)
    x, y, z, photons = (torch.from_numpy(column).float() for column in columns)
    expected = recipe.psf.expected(
        frame=torch.from_numpy(emitters.frame),
        x_nm=x,
        y_nm=y,
        z_nm=z,
        photons=photons,
        frames=frames,
        shape=size or recipe.size,
        pixel_size_nm=recipe.camera.pixel_size_nm,
    )
    counts = recipe.camera.expose(expected + float(light), rng).numpy()
    return Movie(frames=counts, emitters=emitters, background=np.full(frames, float(light)), camera=recipe.camera)
