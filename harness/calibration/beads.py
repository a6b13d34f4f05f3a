"""Where beads are in a z-stack, and their light without the background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Bead:
    """One bead cut out of the stack.

    Args:
        photons: background taken off, (Z, side, side).
        background: photons per pixel of each slice that were taken off, (Z,).
        corner_px: (row, column) of the cut's first pixel in the stack.
        centre_px: (x, y) of the bead from the outer corner of the stack's first pixel, roughly.
    """

    photons: Floats
    background: Floats
    corner_px: tuple[int, int]
    centre_px: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A spot that was not taken: where (x, y) in pixels from the outer corner, and why."""

    centre_px: tuple[float, float]
    why: str


def find_beads(photons: Floats, *, side_px: int, threshold: float = 0.25) -> tuple[list[Bead], list[Rejected]]:
    """Bright spots of the stack's mean that stand alone.

    Args:
        photons: the stack, (Z, height, width).
        side_px: side of the squares to cut, pixels; a stack that is no larger is one bead.
        threshold: spots dimmer than this share of the third brightest are no beads.

    Returns:
        The beads, brightest first, and the spots that stand too near to the border or to another.

    Raises:
        ValueError: the stack is smaller than a cut can be, or holds no bead that stands alone.
    """
    slices, height, width = photons.shape
    if min(height, width) < 9 or slices < 4:
        raise ValueError(f"the stack is {slices} slices of {height} x {width}; at least 4 of 9 x 9 are needed")
    side = min(side_px, height, width)
    mean = photons.mean(0)
    if side == min(height, width):
        weight = np.clip(mean - np.median(mean), 0, None)
        y, x = ndimage.center_of_mass(weight)
        corner = tuple(int(np.clip(round(c - side / 2 + 0.5), 0, n - side)) for c, n in ((y, height), (x, width)))
        dark = _dark_border(photons)
        cut = _cut(photons, corner[0], corner[1], side, dark)
        return [Bead(photons=cut, background=dark, corner_px=(corner[0], corner[1]), centre_px=(x + 0.5, y + 0.5))], []
    # A blur of a fifth of the cut joins the lobes of one PSF and keeps beads apart that are a cut away.
    blur = side / 5
    steps = np.median(np.abs(np.diff(photons, axis=0))) / 0.6745 / np.sqrt(2)  # a pixel's noise in a slice
    noise = steps / np.sqrt(slices) / (2 * np.sqrt(np.pi) * blur)
    peaks = _peaks(ndimage.gaussian_filter(mean, blur, mode="nearest"), noise, threshold, reach=max(3, side // 6))
    dark = _dark_between(photons, peaks, side)
    beads, rejected = [], []
    for y, x in peaks:
        row, column = round(y - (side - 1) / 2), round(x - (side - 1) / 2)
        where = (x + 0.5, y + 0.5)
        near = [np.hypot(y - v, x - u) for v, u in peaks if (v, u) != (y, x)]
        if row < 0 or column < 0 or row + side > height or column + side > width:
            rejected.append(Rejected(centre_px=where, why="nearer to the border than half a cut"))
        elif near and min(near) < side:
            rejected.append(Rejected(centre_px=where, why=f"another spot {min(near):.0f} pixels away"))
        else:
            cut = _cut(photons, row, column, side, dark)
            beads.append(Bead(photons=cut, background=dark, corner_px=(row, column), centre_px=where))
    if not beads:
        reasons = "; ".join(f"({s.centre_px[0]:.0f}, {s.centre_px[1]:.0f}): {s.why}" for s in rejected[:5])
        raise ValueError(
            f"no bead stands alone in the stack ({len(rejected)} spots{': ' + reasons if reasons else ''}); "
            "give a smaller --size-px, or a lower --threshold if beads are dim"
        )
    return beads, rejected


def _peaks(smooth: Floats, noise: float, threshold: float, reach: int) -> list[tuple[int, int]]:
    """Local maxima (row, column), brightest first, above the threshold and well above the noise."""
    above = smooth - np.median(smooth)
    size = 2 * reach + 1
    top = (ndimage.maximum_filter(above, size) == above) & (above > 8 * noise)
    rows, columns = np.nonzero(top)
    order = np.argsort(-above[rows, columns], kind="stable")
    heights = above[rows, columns][order]
    if not len(heights):
        return []
    bright = heights >= threshold * heights[min(2, len(heights) - 1)]
    return [(int(rows[i]), int(columns[i])) for i, good in zip(order, bright, strict=True) if good]


def _cut(photons: Floats, row: int, column: int, side: int, dark: Floats) -> Floats:
    return photons[:, row : row + side, column : column + side] - dark[:, None, None]


def _dark_between(photons: Floats, peaks: list[tuple[int, int]], side: int) -> Floats:
    """Median of each slice's pixels away from all spots."""
    y, x = np.mgrid[: photons.shape[1], : photons.shape[2]]
    free = np.ones(photons.shape[1:], dtype=bool)
    for row, column in peaks:
        free &= np.hypot(y - row, x - column) > 0.7 * side
    if free.sum() < 200:
        return _dark_border(photons)
    # The mean without outliers: a median of counts would be whole and jump.
    values = np.sort(photons[:, free], axis=1)
    cut = values.shape[1] // 10
    return values[:, cut : values.shape[1] - cut].mean(1)


def _dark_border(photons: Floats) -> Floats:
    """One number for the whole stack: the dimmest border of any slice, since a bead's wings reach it in others."""
    edge = np.ones(photons.shape[1:], dtype=bool)
    edge[1:-1, 1:-1] = False
    quarter = np.quantile(photons[:, edge], 0.25, axis=1)
    return np.full(len(photons), np.quantile(quarter, 0.1))
