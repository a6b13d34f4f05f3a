"""Movies of one experiment, and batches of independent frames for training.

Random numbers come from streams spawned per block of `BLOCK` frames, so that the same generator gives the
same frames whatever the number of threads. Devices differ from each other; one device repeats itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ._model import draw
from .blinking import Rows
from .camera import Camera
from .emitters import Emitters
from .recipe import Recipe
from .structures import Geometry

BLOCK = 64  # frames that share a stream of random numbers
_BLOCK_PIXELS = 1 << 22

Floats = npt.NDArray[np.float64]
_Result = TypeVar("_Result")


class _OneThreadEach:
    """While pools run, torch works with one thread in each of theirs; after the last one, as before."""

    def __init__(self) -> None:
        self.lock, self.pools, self.before = threading.Lock(), 0, 1

    def __enter__(self) -> None:
        with self.lock:
            if self.pools == 0:
                self.before = torch.get_num_threads()
            self.pools += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.pools -= 1
            if self.pools == 0:
                torch.set_num_threads(self.before)


_one_thread_each = _OneThreadEach()


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Independent simulated frames and their molecules, tensors on one device.

    Molecules outside the field are among the rows, since their light falls into it; mask them where it
    matters.

    Args:
        photons: noisy frames as photons, `Camera.to_photons` of the counts, float32 (count, height, width).
        frame: frame of each row, 0..count-1, int64, rising.
        x_nm: position, nm from the outer corner of the first pixel, float32; `y_nm`, `z_nm` likewise.
        emitter_photons: photons of the row in its frame, float32.
        background: photons per pixel, float32 (count,).
        sigma_nm: width of the PSF in focus, float32 (count,).
    """

    photons: Tensor
    frame: Tensor
    x_nm: Tensor
    y_nm: Tensor
    z_nm: Tensor
    emitter_photons: Tensor
    background: Tensor
    sigma_nm: Tensor

    def __len__(self) -> int:
        return len(self.photons)

    def emitters(self) -> Emitters:
        """All rows as a table, on the CPU."""
        frame = self.frame.cpu().numpy()
        return Emitters(
            frame=frame,
            x_nm=self.x_nm.cpu().numpy(),
            y_nm=self.y_nm.cpu().numpy(),
            z_nm=self.z_nm.cpu().numpy(),
            photons=self.emitter_photons.cpu().numpy(),
            background=self.background.cpu().numpy()[frame],
        )


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Rows in frame order, plain arrays."""

    molecule: npt.NDArray[np.int64]
    frame: npt.NDArray[np.int64]
    x: Floats
    y: Floats
    z: Floats
    photons: Floats


def _streams(rng: np.random.Generator, blocks: int) -> list[np.random.SeedSequence]:
    """One stream for what concerns all frames, then one per block; from the generator's state alone."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is {type(rng).__name__}; give a np.random.Generator, e.g. np.random.default_rng(1)")
    return np.random.SeedSequence(rng.integers(2**32, size=8).tolist()).spawn(blocks + 1)


def _generator(stream: np.random.SeedSequence) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(stream))


def _threads(threads: int | None, blocks: int, device: torch.device) -> int:
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; give 1 or more, or None for all processors")
    if device.type != "cpu":
        return 1
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return min(threads, blocks)


def _each(
    work: Callable[[int], _Result],
    blocks: int,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[_Result]:
    """work(0), work(1), ... in order; `progress(done, all)` after each."""
    results: list[_Result] = []
    if threads == 1:
        for block in range(blocks):
            results.append(work(block))
            if progress:
                progress(len(results), blocks)
        return results
    with (
        _one_thread_each,
        ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        pending = [pool.submit(work, block) for block in range(blocks)]
        try:
            for future in pending:
                results.append(future.result())
                if progress:
                    progress(len(results), blocks)
        except BaseException:
            for future in pending:
                future.cancel()
            raise
    return results


def _bounds(frames: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """First and last frame of each block; blocks of very large frames are shorter, for the memory's sake."""
    block = max(1, min(BLOCK, _BLOCK_PIXELS // (size[0] * size[1])))
    return [(begin, min(begin + block, frames)) for begin in range(0, frames, block)]


def _geometry(recipe: Recipe, rng: np.random.Generator) -> Geometry:
    geometry = recipe.structure.build(recipe.space, rng)
    if geometry.share_inside <= 0:
        raise ValueError(f"the structure {recipe.structure.kind!r} has no part in the field of recipe {recipe.name!r}")
    return geometry


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
    bounds = _bounds(recipe.frames, recipe.size)
    common, *streams = _streams(rng, len(bounds))
    shared = _generator(common)
    density = draw(recipe.density_um2, len(bounds), shared)
    background = draw(recipe.background, len(bounds), shared)
    sigma = draw(recipe.psf.sigma_nm, len(bounds), shared)
    table = _movie_table(recipe, density, _geometry(recipe, shared), shared)
    edges = np.searchsorted(table.frame, [begin for begin, _ in bounds] + [recipe.frames])
    counts = np.empty((recipe.frames, *recipe.size), dtype)

    def work(block: int) -> None:
        begin, end = bounds[block]
        rows = slice(edges[block], edges[block + 1])
        noisy = _expose(
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

    _each(work, len(bounds), _threads(threads, len(bounds), device), progress)
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


def _movie_table(recipe: Recipe, density: Floats, geometry: Geometry, rng: np.random.Generator) -> _Table:
    """Molecules, one after the other, until the field holds the wanted number of rows."""
    frames, blinking = recipe.frames, recipe.blinking
    rate = np.repeat(density, [end - begin for begin, end in _bounds(frames, recipe.size)])
    wanted = float(rate.sum()) * recipe.area_um2
    wanted = np.floor(wanted + rng.random())
    parts: list[tuple[Rows, Floats, Floats, Floats, Floats]] = []
    found, molecules = 0.0, 0
    per_molecule = blinking.rows_per_molecule * geometry.share_inside
    while found < wanted:
        count = int(1.03 * (wanted - found) / per_molecule + 6 * np.sqrt((wanted - found) / per_molecule) + 20)
        start, stop = blinking.spans(rate, count, rng)
        x, y, z = geometry.place(count, rng)
        flux = draw(recipe.photons, count, rng)
        rows = blinking.rows(start, stop, frames=frames)
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
        return _Table(molecule=whole, frame=whole, x=none, y=none, z=none, photons=none)
    offsets = np.cumsum([0] + [len(part[1]) for part in parts[:-1]])
    molecule = np.concatenate([part[0].molecule + offset for part, offset in zip(parts, offsets, strict=True)])
    frame = np.concatenate([part[0].frame for part in parts])
    share = np.concatenate([part[0].share for part in parts])
    x, y, z, flux = (np.concatenate([part[i] for part in parts]) for i in range(1, 5))
    del molecules
    # Two bytes where they suffice: numpy sorts those by radix.
    order = np.argsort(frame.astype(np.uint16 if recipe.frames < 65536 else np.int64), kind="stable")
    molecule, frame = molecule[order], frame[order]
    return _Table(
        molecule=molecule,
        frame=frame,
        x=x[molecule],
        y=y[molecule],
        z=z[molecule],
        photons=flux[molecule] * share[order],
    )


def draw_frames(
    recipe: Recipe,
    count: int,
    rng: np.random.Generator,
    *,
    device: torch.device | str = "cpu",
    size: tuple[int, int] | int | None = None,
    threads: int | None = None,
) -> Batch:
    """Independent frames for training: each draws its own density, background, PSF and structure.

    Args:
        recipe: the domain; its `frames` and `seed` do not matter here.
        count: number of frames.
        rng: where randomness comes from; it moves on.
        device: where the frames are made and stay.
        size: (height, width) in place of the recipe's.
        threads: on the CPU; all processors if left out. The result does not depend on it.

    Raises:
        ValueError: `count` is less than 1, or `size` does not fit.

    Example:
        >>> from simulators import load_recipe
        >>> batch = draw_frames(load_recipe("epfl-2d"), 4, np.random.default_rng(1), size=32)
        >>> tuple(batch.photons.shape)
        (4, 32, 32)
    """
    if count < 1:
        raise ValueError(f"count is {count}; give 1 frame or more")
    device = torch.device(device)
    if size is not None:
        recipe = recipe.with_(size=size)
    bounds = _bounds(count, recipe.size)
    _, *streams = _streams(rng, len(bounds))

    def work(block: int) -> tuple[Tensor, ...]:
        begin, end = bounds[block]
        placing, noise = streams[block].spawn(2)
        stream = _generator(placing)
        frames = end - begin
        density = draw(recipe.density_um2, frames, stream)
        background = draw(recipe.background, frames, stream)
        sigma = draw(recipe.psf.sigma_nm, frames, stream)
        table = _snapshot_table(recipe, density, stream)
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
        return recipe.camera.to_photons(noisy), frame + begin, *columns, light, wide

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


def _snapshot_table(recipe: Recipe, density: Floats, rng: np.random.Generator) -> _Table:
    """Rows of independent frames; a structure is drawn anew for each."""
    area = recipe.area_um2
    if recipe.structure.kind == "uniform":
        geometry = _geometry(recipe, rng)
        rows = recipe.blinking.snapshots(density * area / geometry.share_inside, rng)
        x, y, z = geometry.place(len(rows.frame), rng)
    else:
        each = [_geometry(recipe, rng) for _ in density]
        rows = recipe.blinking.snapshots(density * area / np.array([g.share_inside for g in each]), rng)
        per_frame = np.bincount(rows.frame, minlength=len(density))
        places = [g.place(int(n), rng) for g, n in zip(each, per_frame, strict=True)]
        x, y, z = (np.concatenate(column) for column in zip(*places, strict=True))
    photons = draw(recipe.photons, len(rows.frame), rng) * rows.share
    return _Table(molecule=rows.molecule, frame=rows.frame, x=x, y=y, z=z, photons=photons)


def _expose(
    recipe: Recipe,
    *,
    frame: Tensor,
    position: list[Tensor],
    background: Tensor,
    sigma: Tensor | float,
    stream: np.random.SeedSequence,
    device: torch.device,
) -> Tensor:
    """Counts of some frames, float32 on the device."""
    x, y, z, photons = (column.to(device) for column in position)
    expected = recipe.psf.expected(
        frame=frame.to(device),
        x_nm=x,
        y_nm=y,
        z_nm=z,
        photons=photons,
        frames=len(background),
        shape=recipe.size,
        pixel_size_nm=recipe.camera.pixel_size_nm,
        sigma_nm=sigma,
    )
    expected += background.to(device)[:, None, None]
    if device.type == "cpu":
        return recipe.camera.expose(expected, _generator(stream))
    generator = torch.Generator(device)
    generator.manual_seed(int(stream.generate_state(1, np.uint64)[0] >> np.uint64(1)))
    return recipe.camera.expose(expected, generator)
