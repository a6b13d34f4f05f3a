"""Many independent short movies for training networks that look at neighbouring frames."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ._model import draw
from .movie import BLOCK, Batch, Floats, _each, _expose, _generator, _geometry, _streams, _Table, _threads
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
    device = torch.device(device)
    if size is not None:
        recipe = recipe.with_(size=size)
    per_block = max(1, BLOCK // length)
    bounds = [(begin, min(begin + per_block, count)) for begin in range(0, count, per_block)]
    _, *streams = _streams(rng, len(bounds))

    def work(block: int) -> tuple[Tensor, ...]:
        begin, end = bounds[block]
        placing, noise = streams[block].spawn(2)
        stream = _generator(placing)
        movies = end - begin
        density = draw(recipe.density_um2, movies, stream)
        background = draw(recipe.background, movies, stream).repeat(length)
        sigma = draw(recipe.psf.sigma_nm, movies, stream).repeat(length)
        table = _movies_table(recipe, density, length, stream)
        columns = [torch.from_numpy(c).to(device, torch.float32) for c in (table.x, table.y, table.z, table.photons)]
        frame = torch.from_numpy(table.frame).to(device)
        light = torch.from_numpy(background).to(device, torch.float32)
        wide = torch.from_numpy(sigma).to(device, torch.float32)
        noisy = _expose(
            recipe,
            frame=frame,
            position=columns,
            background=light,
            sigma=wide[frame],
            stream=noise,
            device=device,
        )
        return recipe.camera.to_photons(noisy), frame + begin * length, *columns, light, wide

    parts = _each(work, len(bounds), _threads(threads, len(bounds), device))
    photons, frame, x, y, z, bright, light, wide = (
        column[0] if len(parts) == 1 else torch.cat(column) for column in zip(*parts, strict=True)
    )
    return Batch(
        photons=photons,
        frame=frame,
        x_nm=x,
        y_nm=y,
        z_nm=z,
        emitter_photons=bright,
        background=light,
        sigma_nm=wide,
    )


def _movies_table(recipe: Recipe, density: Floats, length: int, rng: np.random.Generator) -> _Table:
    """Rows of some movies, sorted by frame; frame t of movie m is number m * length + t."""
    blinking = recipe.blinking
    alike = recipe.structure.kind == "uniform"
    geometries = [_geometry(recipe, rng) for _ in range(1 if alike else len(density))]
    share = np.array([geometry.share_inside for geometry in geometries])
    # Molecules that switch on within the movie, and those that are on when it begins.
    mean = density * recipe.area_um2 / (share * blinking.rows_per_molecule) * (length + blinking.mean_on_frames)
    numbers = rng.poisson(mean)
    movie = np.repeat(np.arange(len(density)), numbers)
    start, stop = blinking.spans(np.ones(length), len(movie), rng)
    if alike:
        x, y, z = geometries[0].place(len(movie), rng)
    else:
        places = [geometry.place(int(n), rng) for geometry, n in zip(geometries, numbers, strict=True)]
        x, y, z = (np.concatenate(column) for column in zip(*places, strict=True))
    flux = draw(recipe.photons, len(movie), rng)
    rows = blinking.rows(start, stop, frames=length)
    frame = movie[rows.molecule] * length + rows.frame
    order = np.argsort(frame, kind="stable")
    molecule = rows.molecule[order]
    return _Table(
        molecule=molecule,
        frame=frame[order],
        x=x[molecule],
        y=y[molecule],
        z=z[molecule],
        photons=flux[molecule] * rows.share[order],
    )
