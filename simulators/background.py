"""Backgrounds that vary over the field and in time, about the recipe's level."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.ndimage import gaussian_filter, map_coordinates

from ._model import NotNegative, Positive, StrictModel
from .structures import Floats, Geometry, Space

Float32 = npt.NDArray[np.float32]

_LATTICE = 64  # cells of gradient noise before it repeats


class Field2D(Protocol):
    """A background that stands: relative to its level, about 1 on average over the field."""

    def at(self, frames: npt.NDArray[np.int64]) -> Float32:
        """(frames, height, width), 0 or more; (1, height, width) where it is the same in all frames."""


class _Pattern(StrictModel):
    """What patterns share.

    Args:
        contrast: largest deviation from the level over the field, as a share of it (in the first frame).
        drift_nm: movement in a random direction, nm per frame; 0 stands still.
        change_frames: frames in which the pattern turns into another one; left out, it stays.
    """

    contrast: Annotated[float, Field(gt=0, le=1)] = 0.5
    drift_nm: NotNegative = 0.0
    change_frames: Positive | None = None


class SmoothBackground(_Pattern):
    """Slowly varying over the field, as uneven illumination.

    Args:
        scale_nm: length over which it varies; left out, twice the longer side of the field.
    """

    kind: Literal["smooth"] = "smooth"
    scale_nm: Positive | None = None

    def build(self, space: Space, shape: tuple[int, int], geometry: Geometry, rng: np.random.Generator) -> Field2D:
        scale = self.scale_nm or 2 * max(space.width_nm, space.height_nm)
        return _Perlin(self, (scale,), space, shape, rng)


class PerlinBackground(_Pattern):
    """Gradient noise on several length scales, each as strong as its length: cells and their surroundings.

    Args:
        scales_nm: lattice spacings.

    Source: Perlin 2002, Improving noise, doi:10.1145/566654.566636.
    """

    kind: Literal["perlin"] = "perlin"
    scales_nm: Annotated[tuple[Positive, ...], Field(min_length=1)] = (800.0, 1600.0, 3200.0)

    def build(self, space: Space, shape: tuple[int, int], geometry: Geometry, rng: np.random.Generator) -> Field2D:
        return _Perlin(self, self.scales_nm, space, shape, rng)


class HazeBackground(StrictModel):
    """Light of the sample itself from out of focus: the structure, blurred.

    Args:
        share: share of the background that is haze; the rest is even.
        blur_nm: standard deviation of the blur.
        drift_nm: movement in a random direction, nm per frame; 0 stands still.
    """

    kind: Literal["haze"] = "haze"
    share: Annotated[float, Field(gt=0, le=1)] = 0.6
    blur_nm: Positive = 500.0
    drift_nm: NotNegative = 0.0

    def build(self, space: Space, shape: tuple[int, int], geometry: Geometry, rng: np.random.Generator) -> Field2D:
        return _Haze(self, space, shape, geometry, rng)


Pattern = Annotated[SmoothBackground | PerlinBackground | HazeBackground, Field(discriminator="kind")]


def perlin_noise(x: Floats, y: Floats, angle: Floats) -> Floats:
    """Gradient noise, -1..1, at positions in cells of a lattice of gradient directions that repeats.

    The gradients at the four corners of a cell, times the way from them, mixed by 6 t^5 - 15 t^4 + 10 t^3, times
    sqrt 2.

    Args:
        x, y: positions in lattice cells; any shapes that go together.
        angle: direction of the gradient at each lattice point, (rows, columns).
    """
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    part_x, part_y = x - column, y - row

    def corner(right: int, down: int) -> Floats:
        turn = angle[(row + down) % angle.shape[0], (column + right) % angle.shape[1]]
        return np.cos(turn) * (part_x - right) + np.sin(turn) * (part_y - down)

    def fade(t: Floats) -> Floats:
        return t * t * t * (t * (6 * t - 15) + 10)

    mix_x, mix_y = fade(part_x), fade(part_y)
    above = corner(0, 0) + mix_x * (corner(1, 0) - corner(0, 0))
    below = corner(0, 1) + mix_x * (corner(1, 1) - corner(0, 1))
    result: Floats = 2**0.5 * (above + mix_y * (below - above))
    return result


class _Perlin:
    def __init__(
        self, what: _Pattern, scales: tuple[float, ...], space: Space, shape: tuple[int, int], rng: np.random.Generator
    ) -> None:
        self.what, self.scales = what, scales
        self.x = (np.arange(shape[1]) + 0.5) * (space.width_nm / shape[1])
        self.y = (np.arange(shape[0])[:, None] + 0.5) * (space.height_nm / shape[0])
        self.seed = int(rng.integers(2**63))
        turn = rng.uniform(0, 2 * np.pi)
        self.velocity = what.drift_nm * np.array([np.cos(turn), np.sin(turn)])

    def at(self, frames: npt.NDArray[np.int64]) -> Float32:
        if not self.what.drift_nm and self.what.change_frames is None:
            frames = np.zeros(1, np.int64)
        parts = {}
        images = []
        for frame in frames.tolist():
            number, part = divmod(frame / (self.what.change_frames or np.inf), 1.0)
            image = 0.0
            # One pattern goes as the next comes; the squares of their weights add up to 1.
            for which, weight in (
                (int(number), np.cos(0.5 * np.pi * part)),
                (int(number) + 1, np.sin(0.5 * np.pi * part)),
            ):
                if weight > 1e-9:
                    if which not in parts:
                        parts[which] = self._parts(which)
                    angle, origin, middle, largest = parts[which]
                    image = image + weight * (self._sum(angle, origin, frame) - middle) / largest
            images.append(image)
        return self._relative(np.stack(images))

    def _relative(self, pattern: Floats) -> Float32:
        return np.maximum(1 + self.what.contrast * pattern, 0).astype(np.float32)

    def _parts(self, number: int) -> tuple[Floats, Floats, float, float]:
        """Gradients and origins of pattern `number`; its mean and largest deviation where it has not moved."""
        rng = np.random.default_rng([self.seed, number])
        angle = rng.uniform(0, 2 * np.pi, (len(self.scales), _LATTICE, _LATTICE))
        origin = rng.uniform(0, _LATTICE, (len(self.scales), 2))
        plain = self._sum(angle, origin, 0.0)
        middle = float(plain.mean())
        return angle, origin, middle, float(np.abs(plain - middle).max()) or 1.0

    def _sum(self, angle: Floats, origin: Floats, frame: float) -> Floats:
        total: Floats = np.zeros((len(self.y), len(self.x)))
        for scale, turns, start in zip(self.scales, angle, origin, strict=True):
            x = (self.x - frame * self.velocity[0]) / scale + start[0]
            y = (self.y - frame * self.velocity[1]) / scale + start[1]
            total += scale * perlin_noise(x, y, turns)
        return total


class _Haze:
    def __init__(
        self,
        what: HazeBackground,
        space: Space,
        shape: tuple[int, int],
        geometry: Geometry,
        rng: np.random.Generator,
    ) -> None:
        self.what, self.shape = what, shape
        self.step = (space.height_nm / shape[0], space.width_nm / shape[1])
        self.margin = [int(np.ceil(space.margin_nm / step)) for step in self.step]
        area = (space.width_nm + 2 * space.margin_nm) * (space.height_nm + 2 * space.margin_nm)
        # Enough molecules that their own number is no noise within the blur.
        wanted = int(np.clip(1000 * area / (4 * np.pi * what.blur_nm**2), 2000, 200_000))
        x, y, _ = geometry.place(wanted, rng)
        sides = [
            np.arange(n + 2 * m + 1) * step - m * step for n, m, step in zip(shape, self.margin, self.step, strict=True)
        ]
        counts = np.histogram2d(y, x, bins=sides)[0]
        self.image = gaussian_filter(counts, [what.blur_nm / step for step in self.step], mode="reflect")
        turn = rng.uniform(0, 2 * np.pi)
        self.velocity = what.drift_nm * np.array([np.sin(turn), np.cos(turn)])
        own = self._view(0)
        self.mean = float(own.mean()) or 1.0

    def at(self, frames: npt.NDArray[np.int64]) -> Float32:
        views = np.stack([self._view(frame) for frame in (frames.tolist() if self.what.drift_nm else [0])])
        return (1 - self.what.share + self.what.share * views / self.mean).astype(np.float32)

    def _view(self, frame: int) -> Floats:
        (height, width), (above, left) = self.shape, self.margin
        if not frame or not self.what.drift_nm:
            view: Floats = self.image[above : above + height, left : left + width]
            return view
        down, right = frame * self.velocity / self.step
        row = np.arange(height)[:, None] + above - down + np.zeros(width)
        column = np.arange(width) + left - right + np.zeros((height, 1))
        moved: Floats = map_coordinates(self.image, [row, column], order=1, mode="reflect")
        return moved
