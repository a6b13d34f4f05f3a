"""Movies of one experiment: consecutive frames and what is known about them.

Random numbers come from streams spawned per block of `BLOCK` frames, so that the same generator gives the
same frames whatever the number of threads. Devices differ from each other; one device repeats itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ._engine import (
    Floats,
    Table,
    bounds_of,
    each,
    expose,
    generator,
    geometry_of,
    light_at,
    rows_table,
    streams_of,
    threads_for,
)
from ._model import draw
from .camera import Camera
from .emitters import Emitters
from .recipe import Recipe
from .structures import Geometry


@dataclass(frozen=True, kw_only=True, eq=False)
class Movie:
    """Raw frames with what is known about them.

    Args:
        frames: camera counts, (N, height, width), uint16 or float32.
        emitters: the truth, rows within the field.
        background: photons per pixel, one number per frame, (N,), or images, (N, height, width).
        camera: the camera that gave the counts, with its maps.
        drift_nm: displacement of the sample along x, y, z in every frame, (N, 3); the emitters' positions hold it.
            None if it stood still.

    Raises:
        ValueError: shapes do not fit each other.
    """

    frames: npt.NDArray[Any]
    emitters: Emitters
    background: npt.NDArray[Any]
    camera: Camera
    drift_nm: Floats | None = None

    def __post_init__(self) -> None:
        if self.frames.ndim != 3:
            raise ValueError(f"frames have shape {self.frames.shape}; expected (frames, height, width)")
        background = np.asarray(self.background, dtype=np.float32)
        shape = self.frames.shape if background.ndim >= 2 else self.frames.shape[:1]
        try:
            background = np.broadcast_to(background, shape)
        except ValueError:
            raise ValueError(
                f"background has shape {background.shape}; expected a number, {shape[:1]} or {self.frames.shape}"
            ) from None
        object.__setattr__(self, "background", background)
        if len(self.emitters) and self.emitters.frame.max() >= len(self.frames):
            raise ValueError(
                f"emitters reach frame {self.emitters.frame.max()}, counted from 0, "
                f"but there are {len(self.frames)} frames"
            )

    def __len__(self) -> int:
        return len(self.frames)

    def photons(self) -> npt.NDArray[np.float32]:
        """The frames as photons, float32, same shape."""
        return self.camera.to_photons(self.frames)


def simulate(
    recipe: Recipe,
    rng: np.random.Generator,
    *,
    device: torch.device | str = "cpu",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Movie:
    """Consecutive frames of one experiment: one structure, molecules that blink over frames.

    Molecules are drawn until their rows in the field reach the recipe's density, so even a short movie has
    it. Ranges of density, background and PSF are drawn per block of `BLOCK` frames, the flux per molecule.

    Args:
        recipe: the experiment.
        rng: where randomness comes from; it moves on, so a second call gives another movie. `recipe.rng()`
            starts the movie that the recipe names.
        device: where frames are made.
        threads: on the CPU; all processors if left out. The result does not depend on it.
        progress: called with blocks done and all blocks.

    Returns:
        Movie with uint16 counts (float32 beyond 16 bit); its emitters are those in the field, sorted by
        frame. Its background is (N,) where it is even, images where the recipe has a pattern.

    Raises:
        ValueError: the movie does not fit into memory, or `threads` is less than 1.

    Example:
        >>> from simulators import load_recipe
        >>> movie = simulate(load_recipe("tubes-2d-hd").with_(frames=8, size=40), np.random.default_rng(1))
        >>> movie.frames.shape, movie.frames.dtype.name
        ((8, 40, 40), 'uint16')
    """
    device = torch.device(device)
    dtype = np.dtype(np.uint16 if recipe.camera.max_adu <= 65535 else np.float32)
    _check_memory(recipe, dtype)
    bounds = bounds_of(recipe.frames, recipe.size)
    common, *streams = streams_of(rng, len(bounds))
    shared = generator(common)
    density = draw(recipe.density_um2, len(bounds), shared)
    background = draw(recipe.background, len(bounds), shared)
    sigma = draw(recipe.psf.sigma_nm, len(bounds), shared)
    geometry = geometry_of(recipe, shared)
    path = recipe.drift.path(recipe.frames, shared) if recipe.drift else None
    table = _movie_table(recipe, density, geometry, shared, path)
    field = recipe.pattern.build(recipe.space, recipe.size, geometry, shared) if recipe.pattern else None
    camera = recipe.sensor.build(recipe.camera, recipe.size) if recipe.sensor else recipe.camera
    order = table.by_frame(recipe.frames)
    upto = np.append(0, np.cumsum(np.bincount(table.frame, minlength=recipe.frames)))
    counts = np.empty((recipe.frames, *recipe.size), dtype)
    light = np.repeat(background, [end - begin for begin, end in bounds]).astype(np.float32)
    if field:
        light = np.empty(counts.shape, np.float32)

    def work(block: int) -> None:
        begin, end = bounds[block]
        rows = table.pick(order[upto[begin] : upto[end]])
        if field:
            light[begin:end] = background[block] * field.at(np.arange(begin, end))
        noisy = expose(
            recipe,
            frame=torch.from_numpy(rows.frame - begin),
            position=[torch.from_numpy(column).to(torch.float32) for column in (rows.x, rows.y, rows.z, rows.photons)],
            background=torch.from_numpy(light[begin:end]),
            sigma=float(sigma[block]),
            stream=streams[block],
            device=device,
            camera=camera,
        )
        counts[begin:end] = noisy.cpu().numpy()

    each(work, len(bounds), threads_for(threads, len(bounds), device), progress)
    seen = order[recipe.space.inside(table.x, table.y)[order]]
    emitters = Emitters(
        frame=table.frame[seen],
        x_nm=table.x[seen],
        y_nm=table.y[seen],
        z_nm=table.z[seen],
        photons=table.photons[seen],
        background=light_at(light, table.frame[seen], table.x[seen], table.y[seen], recipe),
        id=table.molecule[seen],
    )
    return Movie(frames=counts, emitters=emitters, background=light, camera=camera, drift_nm=path)


def _check_memory(recipe: Recipe, dtype: np.dtype[Any]) -> None:
    """Refuse a movie that cannot be held, before hours go into it."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return
    needed = recipe.frames * recipe.size[0] * recipe.size[1] * (dtype.itemsize + (4 if recipe.pattern else 0))
    if needed > there:
        raise ValueError(
            f"{recipe.frames} frames of {recipe.size[0]} x {recipe.size[1]} pixels take "
            f"{needed / 2**30:.0f} GiB, this machine has {there / 2**30:.0f}; "
            "make fewer frames, or several movies with different seeds"
        )


def _movie_table(
    recipe: Recipe,
    density: Floats,
    geometry: Geometry,
    rng: np.random.Generator,
    path: Floats | None,
) -> Table:
    """Molecules, one after the other, until the field holds the wanted number of rows."""
    frames, blinking = recipe.frames, recipe.blinking
    rate = np.repeat(density, [end - begin for begin, end in bounds_of(frames, recipe.size)])
    wanted = float(rate.sum()) * recipe.area_um2
    wanted = np.floor(wanted + rng.random())
    parts: list[Table] = []
    found, molecules = 0.0, 0
    per_molecule = blinking.expected_rows(frames) * geometry.share_inside
    while found < wanted:
        count = int(1.03 * (wanted - found) / per_molecule + 6 * np.sqrt((wanted - found) / per_molecule) + 20)
        rows = blinking.movie(rate, count, rng)
        part = rows_table(recipe, rows, geometry.place(count, rng), rng, path)
        in_field = np.bincount(part.molecule[recipe.space.inside(part.x, part.y)], minlength=count)
        reached = found + np.cumsum(in_field)
        if reached[-1] >= wanted:
            last = int(np.searchsorted(reached, wanted))
            if last and reached[last] - wanted > wanted - reached[last - 1]:
                last -= 1
            part = part.pick(slice(int(np.searchsorted(part.molecule, last, side="right"))))
        parts.append(part.numbered_from(molecules))
        molecules += count
        found = float(reached[-1])
        if found == 0 and molecules > 1e8:
            raise ValueError(f"100 million molecules gave no row in the field of recipe {recipe.name!r}")
    return Table.joined(parts)
