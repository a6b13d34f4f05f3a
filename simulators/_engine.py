"""What all ways to make frames share: streams of random numbers, threads, the exposure of a block of frames."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ._model import draw
from .blinking import Rows
from .camera import Camera
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


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows, plain arrays of one length."""

    molecule: npt.NDArray[np.int64]
    frame: npt.NDArray[np.int64]
    x: Floats
    y: Floats
    z: Floats
    photons: Floats

    def pick(self, which: slice | npt.NDArray[Any]) -> Table:
        return Table(**{field.name: getattr(self, field.name)[which] for field in fields(self)})

    def numbered_from(self, first: int) -> Table:
        return replace(self, molecule=self.molecule + first) if first else self

    def by_frame(self, frames: int) -> npt.NDArray[np.intp]:
        """Order of the rows by frame; rows of a frame keep theirs."""
        # Two bytes where they suffice: numpy sorts those by radix.
        return np.argsort(self.frame.astype(np.uint16 if frames < 65536 else np.int64), kind="stable")

    @staticmethod
    def joined(parts: list[Table]) -> Table:
        none: dict[str, npt.NDArray[Any]] = {
            field.name: np.zeros(0, np.int64 if field.name in ("molecule", "frame") else np.float64)
            for field in fields(Table)
        }
        if not parts:
            return Table(**none)
        return Table(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in none})


def rows_table(
    recipe: Recipe,
    rows: Rows,
    places: tuple[Floats, Floats, Floats],
    rng: np.random.Generator,
    path: Floats | None = None,
) -> Table:
    """Rows of molecules at these places: flux drawn, moved by sweep and drift; rows out of the sweep's reach go."""
    flux = draw(recipe.photons, len(places[0]), rng)
    x, y, z = (place[rows.molecule] for place in places)
    table = Table(molecule=rows.molecule, frame=rows.frame, x=x, y=y, z=z, photons=flux[rows.molecule] * rows.share)
    if recipe.sweep:
        moved = recipe.sweep.displacement(rows, len(places[0]), rng)
        table = replace(table, x=x + moved[:, 0], y=y + moved[:, 1], z=z + moved[:, 2])
        if recipe.sweep.vector_nm[2]:
            table = table.pick((table.z >= recipe.z_range_nm[0]) & (table.z <= recipe.z_range_nm[1]))
    if path is not None:
        step = path[table.frame]
        table = replace(table, x=table.x + step[:, 0], y=table.y + step[:, 1], z=table.z + step[:, 2])
    return table


def light_at(
    light: npt.NDArray[Any], frame: npt.NDArray[np.int64], x_nm: Floats, y_nm: Floats, recipe: Recipe
) -> npt.NDArray[Any]:
    """Background of the pixel under each row, the nearest one outside the field; light (frames,) or images."""
    if light.ndim == 1:
        return light[frame]
    pixel_x, pixel_y = recipe.camera.pixel_size_nm
    column = np.clip((x_nm / pixel_x).astype(np.int64), 0, light.shape[2] - 1)
    row = np.clip((y_nm / pixel_y).astype(np.int64), 0, light.shape[1] - 1)
    return light[frame, row, column]


def streams_of(rng: np.random.Generator, blocks: int) -> list[np.random.SeedSequence]:
    """One stream for what concerns all frames, then one per block; from the generator's state alone."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is {type(rng).__name__}; give a np.random.Generator, e.g. np.random.default_rng(1)")
    return np.random.SeedSequence(rng.integers(2**32, size=8).tolist()).spawn(blocks + 1)


def generator(stream: np.random.SeedSequence) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(stream))


def threads_for(threads: int | None, blocks: int, device: torch.device) -> int:
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; give 1 or more, or None for all processors")
    if device.type != "cpu":
        return 1
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return min(threads, blocks)


def each(
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


def bounds_of(frames: int, size: tuple[int, int], *, whole: int = 1) -> list[tuple[int, int]]:
    """First and last frame of each block; blocks of very large frames are shorter, for the memory's sake.

    Args:
        whole: frames that belong together, never split over blocks.
    """
    block = max(1, min(BLOCK, _BLOCK_PIXELS // (size[0] * size[1])) // whole) * whole
    return [(begin, min(begin + block, frames)) for begin in range(0, frames, block)]


def geometry_of(recipe: Recipe, rng: np.random.Generator) -> Geometry:
    geometry = recipe.structure.build(recipe.space, rng)
    if geometry.share_inside <= 0:
        raise ValueError(f"the structure {recipe.structure.kind!r} has no part in the field of recipe {recipe.name!r}")
    return geometry


def expose(
    recipe: Recipe,
    *,
    frame: Tensor,
    position: list[Tensor],
    background: Tensor,
    sigma: Tensor | float,
    stream: np.random.SeedSequence,
    device: torch.device,
    camera: Camera,
) -> Tensor:
    """Counts of some frames, float32 on the device; background (frames,) or (frames, height, width)."""
    x, y, z, photons = (column.to(device) for column in position)
    expected = recipe.psf.expected(
        frame=frame.to(device),
        x_nm=x,
        y_nm=y,
        z_nm=z,
        photons=photons,
        frames=len(background),
        shape=recipe.size,
        pixel_size_nm=camera.pixel_size_nm,
        sigma_nm=sigma,
    )
    light = background.to(device)
    expected += light[:, None, None] if light.ndim == 1 else light
    if device.type == "cpu":
        return camera.expose(expected, generator(stream))
    noise = torch.Generator(device)
    noise.manual_seed(int(stream.generate_state(1, np.uint64)[0] >> np.uint64(1)))
    return camera.expose(expected, noise)
