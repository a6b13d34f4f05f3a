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

from ._engine import Floats, Table, bounds_of, each, expose, generator, geometry_of, streams_of, threads_for
from ._model import draw
from .blinking import Rows
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
        background: photons per pixel, one number per frame, (N,).
        camera: the camera that gave the counts.

    Raises:
        ValueError: shapes do not fit each other.
    """

    frames: npt.NDArray[Any]
    emitters: Emitters
    background: npt.NDArray[Any]
    camera: Camera

    def __post_init__(self) -> None:
        if self.frames.ndim != 3:
            raise ValueError(f"frames have shape {self.frames.shape}; expected (frames, height, width)")
        background = np.broadcast_to(np.asarray(self.background, dtype=np.float32), (len(self.frames),))
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
        frame.

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
    table = _movie_table(recipe, density, geometry_of(recipe, shared), shared)
    edges = np.searchsorted(table.frame, [begin for begin, _ in bounds] + [recipe.frames])
    counts = np.empty((recipe.frames, *recipe.size), dtype)

    def work(block: int) -> None:
        begin, end = bounds[block]
        rows = slice(edges[block], edges[block + 1])
        noisy = expose(
            recipe,
            frame=torch.from_numpy(table.frame[rows] - begin),
            position=[
                torch.from_numpy(column[rows]).to(torch.float32)
                for column in (table.x, table.y, table.z, table.photons)
            ],
            background=torch.full((end - begin,), float(background[block])),
            sigma=float(sigma[block]),
            stream=streams[block],
            device=device,
        )
        counts[begin:end] = noisy.cpu().numpy()

    each(work, len(bounds), threads_for(threads, len(bounds), device), progress)
    light = np.repeat(background, [end - begin for begin, end in bounds])
    seen = recipe.space.inside(table.x, table.y)
    emitters = Emitters(
        frame=table.frame[seen],
        x_nm=table.x[seen],
        y_nm=table.y[seen],
        z_nm=table.z[seen],
        photons=table.photons[seen],
        background=light[table.frame[seen]],
        id=table.molecule[seen],
    )
    return Movie(frames=counts, emitters=emitters, background=light, camera=recipe.camera)


def _check_memory(recipe: Recipe, dtype: np.dtype[Any]) -> None:
    """Refuse a movie that cannot be held, before hours go into it."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return
    needed = recipe.frames * recipe.size[0] * recipe.size[1] * dtype.itemsize
    if needed > there:
        raise ValueError(
            f"{recipe.frames} frames of {recipe.size[0]} x {recipe.size[1]} pixels take "
            f"{needed / 2**30:.0f} GiB, this machine has {there / 2**30:.0f}; "
            "make fewer frames, or several movies with different seeds"
        )


def _movie_table(recipe: Recipe, density: Floats, geometry: Geometry, rng: np.random.Generator) -> Table:
    """Molecules, one after the other, until the field holds the wanted number of rows."""
    frames, blinking = recipe.frames, recipe.blinking
    rate = np.repeat(density, [end - begin for begin, end in bounds_of(frames, recipe.size)])
    wanted = float(rate.sum()) * recipe.area_um2
    wanted = np.floor(wanted + rng.random())
    parts: list[tuple[Rows, Floats, Floats, Floats, Floats]] = []
    found = 0.0
    per_molecule = blinking.expected_rows(frames) * geometry.share_inside
    while found < wanted:
        count = int(1.03 * (wanted - found) / per_molecule + 6 * np.sqrt((wanted - found) / per_molecule) + 20)
        rows = blinking.movie(rate, count, rng)
        x, y, z = geometry.place(count, rng)
        flux = draw(recipe.photons, count, rng)
        inside = recipe.space.inside(x, y)
        in_field = np.where(inside, np.bincount(rows.molecule, minlength=count), 0)
        reached = found + np.cumsum(in_field)
        if reached[-1] >= wanted:
            last = int(np.searchsorted(reached, wanted))
            if last and reached[last] - wanted > wanted - reached[last - 1]:
                last -= 1
            kept = int(np.searchsorted(rows.molecule, last, side="right"))
            rows = Rows(molecule=rows.molecule[:kept], frame=rows.frame[:kept], share=rows.share[:kept])
        parts.append((rows, x, y, z, flux))
        found = float(reached[-1])
    if not parts:
        none, whole = np.zeros(0), np.zeros(0, np.int64)
        return Table(molecule=whole, frame=whole, x=none, y=none, z=none, photons=none)
    offsets = np.cumsum([0] + [len(part[1]) for part in parts[:-1]])
    molecule = np.concatenate([part[0].molecule + offset for part, offset in zip(parts, offsets, strict=True)])
    frame = np.concatenate([part[0].frame for part in parts])
    share = np.concatenate([part[0].share for part in parts])
    x, y, z, flux = (np.concatenate([part[i] for part in parts]) for i in range(1, 5))
    # Two bytes where they suffice: numpy sorts those by radix.
    order = np.argsort(frame.astype(np.uint16 if recipe.frames < 65536 else np.int64), kind="stable")
    molecule, frame = molecule[order], frame[order]
    return Table(
        molecule=molecule,
        frame=frame,
        x=x[molecule],
        y=y[molecule],
        z=z[molecule],
        photons=flux[molecule] * share[order],
    )
