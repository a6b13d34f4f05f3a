"""Batches of independent frames for training."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ._engine import Floats, Table, bounds_of, each, expose, generator, geometry_of, rows_table, streams_of, threads_for
from ._model import draw
from .emitters import Emitters
from .recipe import Recipe
from .structures import Geometry


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
        background: photons per pixel, float32 (count,), or images (count, height, width) where the recipe has a
            pattern.
        sigma_nm: width of the PSF in focus, float32 (count,).
        pixel_size_nm: of the camera, along x and y.
    """

    photons: Tensor
    frame: Tensor
    x_nm: Tensor
    y_nm: Tensor
    z_nm: Tensor
    emitter_photons: Tensor
    background: Tensor
    sigma_nm: Tensor
    pixel_size_nm: tuple[float, float] = (100.0, 100.0)

    def __len__(self) -> int:
        return len(self.photons)

    def emitters(self) -> Emitters:
        """All rows as a table, on the CPU."""
        frame = self.frame.cpu().numpy()
        light = self.background.cpu()
        if light.ndim == 3:
            column = (self.x_nm.cpu() / self.pixel_size_nm[0]).long().clamp(0, light.shape[2] - 1)
            row = (self.y_nm.cpu() / self.pixel_size_nm[1]).long().clamp(0, light.shape[1] - 1)
            light = light[self.frame.cpu(), row, column]
        else:
            light = light[self.frame.cpu()]
        return Emitters(
            frame=frame,
            x_nm=self.x_nm.cpu().numpy(),
            y_nm=self.y_nm.cpu().numpy(),
            z_nm=self.z_nm.cpu().numpy(),
            photons=self.emitter_photons.cpu().numpy(),
            background=light.numpy(),
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
    return draw_scenes(recipe, count, 1, rng, device=device, size=size, threads=threads)


def draw_scenes(
    recipe: Recipe,
    count: int,
    length: int,
    rng: np.random.Generator,
    *,
    device: torch.device | str,
    size: tuple[int, int] | int | None,
    threads: int | None,
) -> Batch:
    """`count` independent movies of `length` frames each; see `draw_frames` and `windows.draw_movies`."""
    device = torch.device(device)
    if size is not None:
        recipe = recipe.with_(size=size)
    bounds = [(begin // length, end // length) for begin, end in bounds_of(count * length, recipe.size, whole=length)]
    _, *streams = streams_of(rng, len(bounds))

    def work(block: int) -> tuple[Tensor, ...]:
        begin, end = bounds[block]
        placing, noise = streams[block].spawn(2)
        stream = generator(placing)
        scenes = end - begin
        density = draw(recipe.density_um2, scenes, stream)
        background = draw(recipe.background, scenes, stream).repeat(length)
        sigma = draw(recipe.psf.sigma_nm, scenes, stream).repeat(length)
        geometries, table = _scenes_table(recipe, density, length, stream)
        camera = recipe.sensor.build(recipe.camera, recipe.size, stream) if recipe.sensor else recipe.camera
        if recipe.pattern:
            images = np.empty((scenes * length, *recipe.size), np.float32)
            for scene in range(scenes):
                geometry = geometries[min(scene, len(geometries) - 1)]
                field = recipe.pattern.build(recipe.space, recipe.size, geometry, stream)
                part = slice(scene * length, (scene + 1) * length)
                images[part] = background[part, None, None] * field.at(np.arange(length))
        columns = [torch.from_numpy(c).to(device, torch.float32) for c in (table.x, table.y, table.z, table.photons)]
        frame = torch.from_numpy(table.frame).to(device)
        light = torch.from_numpy(images if recipe.pattern else background).to(device, torch.float32)
        wide = torch.from_numpy(sigma).to(device, torch.float32)
        noisy = expose(
            recipe,
            frame=frame,
            position=columns,
            background=light,
            sigma=wide[frame],
            stream=noise,
            device=device,
            camera=camera,
        )
        return camera.to_photons(noisy), frame + begin * length, *columns, light, wide

    parts = each(work, len(bounds), threads_for(threads, len(bounds), device))
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
        pixel_size_nm=recipe.camera.pixel_size_nm,
    )


def _scenes_table(
    recipe: Recipe, density: Floats, length: int, rng: np.random.Generator
) -> tuple[list[Geometry], Table]:
    """Structures (one for all, or one each) and rows of some scenes; frame t of scene m is number m * length + t."""
    blinking = recipe.blinking
    geometries = [geometry_of(recipe, rng) for _ in range(1 if recipe.structure.fixed else len(density))]
    share = np.array([geometry.share_inside for geometry in geometries])
    numbers = rng.poisson(density * recipe.area_um2 * length / (share * blinking.expected_rows(length)))
    scene = np.repeat(np.arange(len(density)), numbers)
    rows = blinking.movie(np.ones(length), len(scene), rng)
    if recipe.structure.fixed:
        x, y, z = geometries[0].place(len(scene), rng)
    else:
        places = [geometry.place(int(n), rng) for geometry, n in zip(geometries, numbers, strict=True)]
        x, y, z = (np.concatenate(column) for column in zip(*places, strict=True))
    table = rows_table(recipe, rows, (x, y, z), rng)
    if recipe.dropout:
        owner = scene[table.molecule]
        table = table.pick(recipe.dropout.kept(table.x, table.y, owner, len(density), recipe.space, rng))
    frame = scene[table.molecule] * length + table.frame
    table = replace(table, frame=frame)
    return geometries, table.pick(table.by_frame(len(density) * length))
