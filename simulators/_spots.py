"""Light of emitters added to frames on the CPU, compiled: for float32 tensors that need no gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ._compiled import compiled

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

_FLAT = 5.6  # standard deviations; beyond, the error function in single precision is 1
_HALF_ROOT = math.sqrt(0.5)
# erf(t) = t p(t^2) / q(t^2) up to |t| = 4, a least-squares fit; misses by at most 2.2e-8.
_P0, _P1, _P2, _P3, _P4, _P5 = 1.12837898, 0.1962488, 0.0534674545, 0.00400363834, 0.000288041265, 1.97483132e-06
_Q1, _Q2, _Q3, _Q4, _Q5 = 0.507252129, 0.116476353, 0.0154444066, 0.00121635812, 3.74808678e-05


def _plain(*columns: Tensor) -> tuple[npt.NDArray[Any], ...]:
    """As arrays; whole numbers in 64 bits."""
    return tuple((c if c.is_floating_point() else c.to(torch.int64)).contiguous().numpy() for c in columns)


def gaussians(
    frame: Tensor,
    x: Tensor,
    y: Tensor,
    wide_x: Tensor,
    wide_y: Tensor,
    photons: Tensor,
    *,
    frames: int,
    shape: tuple[int, int],
    reach: float,
) -> Tensor:
    """Sum of separable pixel-integrated Gaussians, (frames, height, width); all lengths in pixels.

    Args:
        frame: 0..frames-1, not checked here.
        reach: standard deviations; emitters that lie farther outside the frame are left out.
    """
    image = np.zeros((frames, *shape), np.float32)
    _gaussians(image, reach, *_plain(frame, x, y, wide_x, wide_y, photons))
    return torch.from_numpy(image)


# Flat arrays and unsigned numbers: indices that cannot be negative are what vector units need.


@compiled
def _gaussians(
    image: Float32,
    reach: float,
    frame: Int64,
    x: Float32,
    y: Float32,
    wide_x: Float32,
    wide_y: Float32,
    photons: Float32,
) -> None:
    _, height, width = image.shape
    flat = image.reshape(-1)
    across, down = np.empty(width, np.float32), np.empty(height, np.float32)
    edges = np.empty(max(width, height) + 1)
    for i in range(frame.size):
        near_x = -reach * wide_x[i] < x[i] < width + reach * wide_x[i]
        near_y = -reach * wide_y[i] < y[i] < height + reach * wide_y[i]
        if near_x and near_y:
            left, broad = _profile(x[i], wide_x[i], edges, across)
            top, tall = _profile(y[i], wide_y[i], edges, down)
            for row in range(tall):
                share = np.float32(0.25) * photons[i] * down[row]
                start = np.uint64((frame[i] * height + top + row) * width + left)
                for column in range(np.uint64(broad)):
                    flat[start + column] += share * across[column]


@compiled
def _profile(centre: float, wide: float, edges: Floats, out: Float32) -> tuple[int, int]:
    """Into `out` twice the share of the light in each lit pixel along one axis; the first of them and how many."""
    first = max(np.floor(centre - _FLAT * wide), 0.0)
    lit = np.uint64(max(min(np.ceil(centre + _FLAT * wide), np.float64(out.size)) - first, 0.0))
    scale = _HALF_ROOT / wide
    for pixel in range(lit + np.uint64(1)):
        t = min(max((first - centre + pixel) * scale, -4.0), 4.0)
        v = t * t
        p = _P0 + v * (_P1 + v * (_P2 + v * (_P3 + v * (_P4 + v * _P5))))
        q = 1 + v * (_Q1 + v * (_Q2 + v * (_Q3 + v * (_Q4 + v * _Q5))))
        edges[pixel] = t * p / q
    for pixel in range(lit):
        out[pixel] = edges[pixel + np.uint64(1)] - edges[pixel]
    return int(first), int(lit)


def splines(
    knots: Float32,
    voxels: tuple[int, int],
    *,
    row: Tensor,
    column: Tensor,
    key: Tensor,
    fractions: tuple[Tensor, Tensor, Tensor],
    photons: Tensor,
    frame: Tensor,
    frames: int,
    shape: tuple[int, int],
) -> Tensor:
    """Sum of cubic B-splines, (frames, height, width).

    Args:
        knots: (Z + 3, s, s, R, C), and
        voxels: (along y, along x), see `spline.Knots`.
        row: of the frame, for the first row of the spot, any whole number; likewise `column`.
        key: (layer * s + phase along y) * s + phase along x.
        fractions: within the voxel, along x, y, z.
        frame: 0..frames-1, not checked here; likewise `key`.
    """
    image = np.zeros((frames, *shape), np.float32)
    _splines(image, knots, *voxels, *_plain(frame, row, column, key, *fractions, photons))
    return torch.from_numpy(image)


@compiled
def _splines(
    image: Float32,
    knots: Float32,
    voxels_y: int,
    voxels_x: int,
    frame: Int64,
    row: Int64,
    column: Int64,
    key: Int64,
    x: Float32,
    y: Float32,
    z: Float32,
    photons: Float32,
) -> None:
    """Sums over z first, for all the knots of four layers, then y, then x: long loops, whole rows of knots each."""
    _, height, width = image.shape
    _, s, _, lines, long = knots.shape
    flat, values = image.reshape(-1), knots.reshape(-1)
    plane = lines * long
    size = s * s * plane
    layers = np.empty(size, np.float32)
    sheet, spot = np.zeros((s + 1) * plane, np.float32), np.empty(plane, np.float32)
    start = np.empty(4, np.uint64)
    for i in range(frame.size):
        first_y, first_x = key[i] // s % s, key[i] % s
        left, right = max(0, column[i]), min(width, column[i] + (voxels_x - first_x + s - 1) // s)
        top, bottom = max(0, row[i]), min(height, row[i] + (voxels_y - first_y + s - 1) // s)
        if left >= right or top >= bottom:
            continue
        # Only the rows within the frame; knots of each phase lie on a plane of their own.
        seen, skipped = (bottom - top) * long, (top - row[i]) * long
        for phase in range(s * s):
            first = phase * plane + skipped
            for part in range(4):
                start[part] = (key[i] // (s * s) + part) * size + first
            _blend(layers, first, seen + (first_y + 3) // s * long, values, start, z[i], photons[i])
        for phase in range(s):
            for part in range(4):
                at = first_y + part
                start[part] = ((at % s) * s + phase) * plane + skipped + at // s * long
            _blend(sheet, phase * plane, seen, layers, start, y[i], np.float32(1))
        for part in range(4):
            at = first_x + part
            start[part] = (at % s) * plane + at // s
        _blend(spot, 0, seen, sheet, start, x[i], np.float32(1))
        for line in range(bottom - top):
            goal = np.uint64((frame[i] * height + top + line) * width + left)
            source = np.uint64(line * long + left - column[i])
            for pixel in range(np.uint64(right - left)):
                flat[goal + pixel] += spot[source + pixel]


@compiled
def _blend(
    out: Float32, first: int, count: int, values: Float32, start: UInt64, fraction: np.float32, light: np.float32
) -> None:
    """`count` sums of four values, which begin at `start`, times the cubic B-splines at a fraction and the light."""
    t = np.float64(fraction)
    square, rest = t * t, 1 - t
    b0, b3 = rest * rest * rest / 6, square * t / 6
    b1 = 2 / 3 - square + square * t / 2
    w0, w1 = np.float32(light * b0), np.float32(light * b1)
    w2, w3 = np.float32(light * (1 - b0 - b1 - b3)), np.float32(light * b3)
    to, k0, k1, k2, k3 = np.uint64(first), start[0], start[1], start[2], start[3]
    for j in range(np.uint64(count)):
        out[to + j] = w0 * values[k0 + j] + w1 * values[k1 + j] + w2 * values[k2 + j] + w3 * values[k3 + j]
