"""Where molecules are: all over the field, or in the walls of filaments and tubes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from scipy.interpolate import CubicSpline

from ._model import NotNegative, Positive, StrictModel

Floats = npt.NDArray[np.float64]
_POINTS = 600  # along a centre line


@dataclass(frozen=True, kw_only=True)
class Space:
    """The room to fill: the field, from 0 to `width_nm`, `height_nm`, its margin, and a range of z."""

    width_nm: float
    height_nm: float
    margin_nm: float
    z_low_nm: float
    z_high_nm: float

    def inside(self, x_nm: Floats, y_nm: Floats) -> npt.NDArray[np.bool_]:
        """Which positions lie in the field, margin excluded."""
        return (x_nm >= 0) & (x_nm < self.width_nm) & (y_nm >= 0) & (y_nm < self.height_nm)


class Geometry(Protocol):
    """A structure that stands: molecules can be drawn from it.

    `share_inside` is the share of its molecules within the field.
    """

    share_inside: float

    def place(self, count: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
        """x, y, z of `count` molecules, nm."""


class AnyStructure(StrictModel):
    """What every structure can do; `fixed` says that `build` draws nothing, so that one geometry serves all."""

    fixed: ClassVar[bool] = False

    def build(self, space: Space, rng: np.random.Generator) -> Geometry:
        """A geometry in this space."""
        raise NotImplementedError


class UniformStructure(AnyStructure):
    """Molecules anywhere in the field and its margin, at any height of the range."""

    fixed: ClassVar[bool] = True
    kind: Literal["uniform"] = "uniform"

    def build(self, space: Space, rng: np.random.Generator) -> Geometry:
        return _Box(space)


class _Box:
    def __init__(self, space: Space) -> None:
        self.space = space
        m = 2 * space.margin_nm
        self.share_inside = space.width_nm * space.height_nm / ((space.width_nm + m) * (space.height_nm + m))

    def place(self, count: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
        s = self.space
        x = rng.uniform(-s.margin_nm, s.width_nm + s.margin_nm, count)
        y = rng.uniform(-s.margin_nm, s.height_nm + s.margin_nm, count)
        z = rng.uniform(s.z_low_nm, s.z_high_nm, count) if s.z_high_nm > s.z_low_nm else np.full(count, s.z_low_nm)
        return x, y, z


class _WalledStructure(AnyStructure):
    """Molecules uniform in a wall of `wall_nm`, with `outer_radius_nm` around centre lines."""

    outer_radius_nm: NotNegative = 12.5
    wall_nm: NotNegative = 6.0

    @model_validator(mode="after")
    def _wall_fits(self) -> _WalledStructure:
        if self.wall_nm > self.outer_radius_nm:
            raise ValueError(f"wall_nm is {self.wall_nm:g}, thicker than outer_radius_nm {self.outer_radius_nm:g}")
        return self

    def _centre_heights(self, space: Space) -> tuple[float, float]:
        """Lowest and highest centre line that keeps the wall within the range."""
        middle = (space.z_low_nm + space.z_high_nm) / 2
        half = max((space.z_high_nm - space.z_low_nm) / 2 - self.outer_radius_nm, 0.0)
        return middle - half, middle + half


class TubesStructure(_WalledStructure):
    """Three hollow tubes that cross the field: the microtubules of the SMLM challenge.

    Spline centre lines, scaled with the field; two cross each other, the third is led close past both. Each
    enters the field at the lowest height and leaves it at the highest, or the other way round.

    Args:
        outer_radius_nm: outer radius (challenge: 25 nm outside diameter).
        wall_nm: thickness of the wall that holds the molecules (challenge: 6 nm).
        gap_nm: distance at which the third tube passes the other two.

    Source: the challenge's public simulator, as described by Sage et al. 2019, doi:10.1038/s41592-019-0364-4.
    """

    kind: Literal["tubes"] = "tubes"
    gap_nm: Positive = 90.0

    def build(self, space: Space, rng: np.random.Generator) -> Geometry:
        size = np.array([space.width_nm, space.height_nm])
        angle = rng.uniform(0, 2 * np.pi)
        turns = [0.0, rng.uniform(np.radians(60), np.radians(120))]
        flat = [_crossing(angle + turn, rng) * size for turn in turns]
        first, second = (_dense(points) for points in flat)
        # The third tube runs between the directions of the two, past a point of each.
        near = [_beside(first, 0.36, self.gap_nm, rng), _beside(second, 0.64, self.gap_nm, rng)]
        along = near[1] - near[0]
        along /= max(float(np.hypot(*along)), 1e-9)
        reach = 0.8 * float(size.max())
        side = np.array([-along[1], along[0]])
        ends = [near[0] - reach * along, near[1] + reach * along]
        ends = [end + rng.uniform(-0.15, 0.15) * reach * side for end in ends]
        third = _dense(np.array([ends[0], near[0], near[1], ends[1]]))
        low, high = self._centre_heights(space)
        lines = []
        for line in (first, second, third):
            fraction = _progress(line, space)
            if rng.random() < 0.5:
                fraction = 1 - fraction
            lines.append(np.column_stack([line, low + fraction * (high - low)]))
        return _Walls(lines, outer_radius_nm=self.outer_radius_nm, wall_nm=self.wall_nm, space=space)


class FilamentsStructure(_WalledStructure):
    """Any number of bent filaments that cross the field, in random directions and heights.

    Args:
        count: number of filaments.
        bend: sideways deviation of the middle points, as a share of the field.
    """

    kind: Literal["filaments"] = "filaments"
    count: Annotated[int, Field(ge=1, le=10_000)] = 10
    bend: NotNegative = 0.1

    def build(self, space: Space, rng: np.random.Generator) -> Geometry:
        size = np.array([space.width_nm, space.height_nm])
        low, high = self._centre_heights(space)
        lines = []
        for _ in range(self.count):
            through = rng.uniform(0.1, 0.9, 2)
            line = _dense(_crossing(rng.uniform(0, 2 * np.pi), rng, through=through, bend=self.bend) * size)
            fraction = _progress(line, space)
            ends = rng.uniform(low, high, 2)
            lines.append(np.column_stack([line, ends[0] + fraction * (ends[1] - ends[0])]))
        return _Walls(lines, outer_radius_nm=self.outer_radius_nm, wall_nm=self.wall_nm, space=space)


class ReticulumStructure(_WalledStructure):
    """Endoplasmic reticulum: wide hollow tubes that cross the field, flat and bent.

    Args:
        count: number of tubes (challenge: 2).
        bend: sideways deviation of the middle points, as a share of the field.
        outer_radius_nm: outer radius (challenge: 150 nm).
        wall_nm: thickness of the membrane that holds the molecules (challenge: 6 nm).

    Source: the challenge's public simulator, as described by Sage et al. 2019, doi:10.1038/s41592-019-0364-4.
    """

    kind: Literal["er"] = "er"
    outer_radius_nm: NotNegative = 150.0
    count: Annotated[int, Field(ge=1, le=1000)] = 2
    bend: NotNegative = 0.12

    def build(self, space: Space, rng: np.random.Generator) -> Geometry:
        size = np.array([space.width_nm, space.height_nm])
        low, high = self._centre_heights(space)
        lines = []
        first = rng.uniform(0, np.pi)
        for number in range(self.count):
            angle = first + number * np.pi / self.count + rng.uniform(-0.3, 0.3)
            line = _dense(_crossing(angle, rng, bend=self.bend) * size)
            fraction = _progress(line, space)
            ends = rng.uniform(low, high, 2)
            lines.append(np.column_stack([line, ends[0] + fraction * (ends[1] - ends[0])]))
        return _Walls(lines, outer_radius_nm=self.outer_radius_nm, wall_nm=self.wall_nm, space=space)


def _crossing(angle: float, rng: np.random.Generator, through: Floats | None = None, bend: float = 0.1) -> Floats:
    """Five points of a line across the unit square, from outside to outside."""
    middle = np.array([0.5, 0.5]) + rng.uniform(-0.12, 0.12, 2) if through is None else through
    along = np.array([np.cos(angle), np.sin(angle)])
    side = np.array([-along[1], along[0]])
    reach = 0.8 + float(np.hypot(*(middle - 0.5)))
    steps = np.array([-reach, -0.3, 0.0, 0.3, reach])
    aside = rng.uniform(-bend, bend, 5)
    aside[2] = 0
    return middle + steps[:, None] * along + aside[:, None] * side


def _dense(points: Floats) -> Floats:
    """A cubic spline through the points, evenly along its parameter, (n, 2)."""
    chord = np.concatenate([[0.0], np.cumsum(np.maximum(np.hypot(*np.diff(points, axis=0).T), 1e-9))])
    result: Floats = CubicSpline(chord, points, bc_type="natural")(np.linspace(0, chord[-1], _POINTS))
    return result


def _length(line: Floats) -> Floats:
    """Arc length at every point."""
    return np.concatenate([[0.0], np.cumsum(np.sqrt((np.diff(line, axis=0) ** 2).sum(1)))])


def _progress(line: Floats, space: Space) -> Floats:
    """0 where the line enters the field, 1 where it leaves it, in between by arc length."""
    length = _length(line)
    inside = np.flatnonzero(space.inside(line[:, 0], line[:, 1]))
    begin, end = (length[inside[0]], length[inside[-1]]) if len(inside) > 1 else (length[0], length[-1])
    result: Floats = np.clip((length - begin) / (end - begin), 0.0, 1.0)
    return result


def _beside(line: Floats, fraction: float, gap_nm: float, rng: np.random.Generator) -> Floats:
    """A point `gap_nm` to one side of the line."""
    index = int(fraction * (len(line) - 1))
    along = line[index + 1] - line[index - 1]
    along /= np.hypot(*along)
    return line[index] + rng.choice([-1.0, 1.0]) * gap_nm * np.array([-along[1], along[0]])


class _Walls:
    """Hollow walls around centre lines (n, 3), cut to the field and its margin."""

    def __init__(self, lines: list[Floats], *, outer_radius_nm: float, wall_nm: float, space: Space) -> None:
        self.space, self.outer, self.inner = space, outer_radius_nm, outer_radius_nm - wall_nm
        pieces, total = [], 0.0
        low, high = -space.margin_nm, space.margin_nm
        for line in lines:
            centre = (line[1:] + line[:-1]) / 2
            near = (centre[:, 0] >= low) & (centre[:, 0] <= space.width_nm + high)
            near &= (centre[:, 1] >= low) & (centre[:, 1] <= space.height_nm + high)
            step = line[1:] - line[:-1]
            pieces.append((line[:-1][near], step[near]))
        self.start = np.concatenate([piece[0] for piece in pieces])
        self.step = np.concatenate([piece[1] for piece in pieces])
        length = np.sqrt((self.step**2).sum(1))
        self.edges = np.concatenate([[0.0], np.cumsum(length)])
        total = float(self.edges[-1])
        if total > 0:
            # Two directions across each piece: one level, one upright.
            along = self.step / length[:, None]
            flat = np.hypot(along[:, 0], along[:, 1])
            self.side = np.column_stack([-along[:, 1] / flat, along[:, 0] / flat, np.zeros(len(flat))])
            self.up = np.cross(along, self.side)
            fine = self.start[:, None] + np.array([0.125, 0.375, 0.625, 0.875])[None, :, None] * self.step[:, None]
            self.share_inside = float((space.inside(fine[..., 0], fine[..., 1]) * length[:, None]).sum() / (4 * total))
        else:
            self.share_inside = 0.0

    def place(self, count: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
        along = rng.random(count) * self.edges[-1]
        piece = np.clip(np.searchsorted(self.edges, along, side="right") - 1, 0, len(self.step) - 1)
        part = (along - self.edges[piece]) / (self.edges[piece + 1] - self.edges[piece])
        radius = np.sqrt(rng.uniform(self.inner**2, self.outer**2, count))
        turn = rng.uniform(0, 2 * np.pi, count)
        point = self.start[piece] + part[:, None] * self.step[piece]
        point += (radius * np.cos(turn))[:, None] * self.side[piece] + (radius * np.sin(turn))[:, None] * self.up[piece]
        return point[:, 0].copy(), point[:, 1].copy(), point[:, 2].copy()
