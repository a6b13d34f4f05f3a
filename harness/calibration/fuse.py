"""Aligning beads in x, y and z, and fusing them into one smooth PSF.

A bead keeps one shift for the whole stack, so that what moves with z (wobble) stays in the PSF. Each bead is laid on a
common grid finer than the camera's by interpolation of fifth order, all are averaged and smoothed over z by cubic
splines (least squares), then each is fitted to the result; a few rounds suffice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import BSpline, make_interp_spline

from simulators import SplinePSF, SplineTable, table_from_samples

from .beads import Bead

Floats = NDArray[np.float64]

ROUNDS = 4
_STEPS = 8  # Gauss-Newton steps of one fit


@dataclass(frozen=True, kw_only=True, eq=False)
class Aligned:
    """Beads and the PSF made of them.

    Args:
        samples: the PSF on the grid, (knots, points, points); at each height its sum over camera pixels is 1.
        knots_nm: heights of the samples.
        light: photons of the fused beads at each knot, relative to the brightest.
        centre_px: (x, y) of each bead in its cut, pixels from the outer corner, (beads, 2).
        shift_nm: height of each bead above the mean of them, (beads,).
    """

    samples: Floats
    knots_nm: Floats
    light: Floats
    centre_px: Floats
    shift_nm: Floats

    def table(self, *, oversampling: int, pixel_size_nm: tuple[float, float]) -> SplineTable:
        """As a spline, its emitter in the middle of the grid and at z = 0."""
        middle = (self.samples.shape[1] - 1) / 2
        step = float(self.knots_nm[1] - self.knots_nm[0])
        return table_from_samples(
            self.samples,
            origin=(middle, middle, -float(self.knots_nm[0]) / step),
            dz_nm=step,
            oversampling=oversampling,
            pixel_size_nm=pixel_size_nm,
        )


def align_and_fuse(
    beads: Sequence[Bead],
    *,
    z_nm: Floats,
    pixel_size_nm: tuple[float, float],
    size_px: int,
    dz_nm: float = 50.0,
    oversampling: int = 2,
    align_z: bool = True,
    start: tuple[Floats, Floats] | None = None,
    rounds: int = ROUNDS,
    progress: Callable[[int], None] | None = None,
) -> Aligned:
    """Positions of all beads to a few nm, and the PSF that they agree on.

    Args:
        beads: cut from one stack.
        z_nm: height of each slice, rising, (Z,).
        pixel_size_nm: (x, y).
        size_px: side of the PSF, camera pixels; at most that of the cuts.
        dz_nm: distance of the spline's knots in z: the smoothing.
        oversampling: points per camera pixel.
        align_z: whether beads may lie at different heights.
        start: (centre_px, shift_nm) from an earlier alignment.
        rounds: how often beads are fused and fitted anew.
        progress: called with the rounds done.
    """
    if start is None:
        centres, shifts = np.array([_centre(bead.photons) for bead in beads]), np.zeros(len(beads))
    else:
        centres, shifts = start[0].copy(), start[1].copy()
    knots = _knots(z_nm, dz_nm)
    grid: dict[str, Any] = {"z_nm": z_nm, "knots": knots, "size_px": size_px, "oversampling": oversampling}
    samples, light = _fuse(beads, centres, shifts, **grid)
    for turn in range(rounds):
        aligned = Aligned(samples=samples, knots_nm=knots, light=light, centre_px=centres, shift_nm=shifts)
        psf = SplinePSF.of(aligned.table(oversampling=oversampling, pixel_size_nm=pixel_size_nm), beyond="clamp")
        places = np.array(
            [
                fit_bead(
                    psf,
                    bead.photons,
                    z_nm=z_nm,
                    start_nm=np.array([*(centre * pixel_size_nm), shift]),
                    pixel_size_nm=pixel_size_nm,
                    align_z=align_z and len(beads) > 1,
                ).place_nm
                for bead, centre, shift in zip(beads, centres, shifts, strict=True)
            ]
        )
        # The PSF must not wander over its grid while the beads follow it: the mean move is taken off.
        moved = places[:, :2] / pixel_size_nm
        centres = moved - (moved - centres).mean(0)
        shifts = places[:, 2] - places[:, 2].mean()
        samples, light = _fuse(beads, centres, shifts, **grid)
        if progress:
            progress(turn + 1)
    return Aligned(samples=samples, knots_nm=knots, light=light, centre_px=centres, shift_nm=shifts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A bead against a PSF.

    Args:
        place_nm: (x, y) from the outer corner of its cut, and its height above the nominal one.
        light: photons in each slice, (Z,).
        background: photons per pixel left in each slice, (Z,).
        model: light x PSF + background, (Z, side, side).
    """

    place_nm: Floats
    light: Floats
    background: Floats
    model: Floats


def fit_bead(
    psf: SplinePSF,
    photons: Floats,
    *,
    z_nm: Floats,
    start_nm: Floats,
    pixel_size_nm: tuple[float, float],
    align_z: bool = True,
) -> Fitted:
    """Place of a bead by least squares (Gauss-Newton); light and background are free in each slice.

    Args:
        psf: what it should look like.
        photons: its cut, (Z, side, side).
        z_nm: nominal height of each slice.
        start_nm: (x, y, height), as in `Fitted.place_nm`.
        pixel_size_nm: (x, y).
        align_z: whether its height is free.
    """
    data = torch.from_numpy(np.ascontiguousarray(photons)).flatten(1)
    place, heights = np.asarray(start_nm, dtype=np.float64).copy(), torch.from_numpy(z_nm)
    limit = np.array([0.5 * pixel_size_nm[0], 0.5 * pixel_size_nm[1], 50.0])
    free = 3 if align_z else 2
    step = limit
    for turn in range(_STEPS + 1):
        x, y = (torch.full_like(heights, float(value)) for value in place[:2])
        unit = psf.values_and_derivatives(
            x, y, heights + float(place[2]), shape=photons.shape[1:], pixel_size_nm=pixel_size_nm
        )
        image, *slopes = (part.flatten(1) for part in unit)
        basis = torch.stack([image, torch.ones_like(image)], dim=2)  # (Z, pixels, 2)
        solved = torch.linalg.lstsq(basis.transpose(1, 2) @ basis, basis.transpose(1, 2) @ data[..., None]).solution
        model = (basis @ solved)[..., 0]
        if turn == _STEPS or np.abs(step).max() < 0.05:
            break
        # What light and background can take up in each slice is no evidence of a shift.
        moves = solved[:, :1] * torch.stack(slopes[:free], dim=2)
        inner = torch.linalg.lstsq(basis.transpose(1, 2) @ basis, basis.transpose(1, 2) @ moves).solution
        moves = (moves - basis @ inner).flatten(0, 1)
        found = torch.linalg.lstsq(moves.T @ moves, moves.T @ (data - model).flatten()[:, None]).solution[:, 0]
        step = np.clip(np.append(found.numpy(), np.zeros(3 - free)), -limit, limit)
        place += step
    return Fitted(
        place_nm=place,
        light=solved[:, 0, 0].numpy(),
        background=solved[:, 1, 0].numpy(),
        model=model.reshape(photons.shape).numpy(),
    )


def _centre(photons: Floats) -> Floats:
    """(x, y) of a cut's light, pixels from its outer corner: the centroid of its mean within a third of its side."""
    mean = np.clip(photons.mean(0), 0, None)
    side = mean.shape[0]
    y, x = np.mgrid[:side, :side] + 0.5
    centre = np.array([side / 2, side / 2])
    for _ in range(10):
        weight = mean * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * (side / 6) ** 2))
        if weight.sum() <= 0:
            break
        centre = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
    return centre


def _knots(z_nm: Floats, dz_nm: float) -> Floats:
    """Multiples of dz within the slices' range."""
    first, last = int(np.ceil(z_nm[0] / dz_nm - 1e-6)), int(np.floor(z_nm[-1] / dz_nm + 1e-6))
    if last - first < 3:
        raise ValueError(
            f"the slices span z {z_nm[0]:g} to {z_nm[-1]:g} nm; at least 4 layers of {dz_nm:g} nm are needed. "
            "Give the true --z-step-nm, or a smaller --dz-nm"
        )
    return np.asarray(np.arange(first, last + 1) * dz_nm, dtype=np.float64)


def _fuse(
    beads: Sequence[Bead],
    centres: Floats,
    shifts: Floats,
    *,
    z_nm: Floats,
    knots: Floats,
    size_px: int,
    oversampling: int,
) -> tuple[Floats, Floats]:
    """Samples at the knots, each height's light 1, and the light of each height relative to the brightest."""
    points = size_px * oversampling + 1
    offset = (np.arange(points) - (points - 1) / 2) / oversampling
    # Without the second and last but one, as the table's not-a-knot ends: loose ends would follow the noise.
    clamped = np.concatenate([[knots[0]] * 4, knots[2:-2], [knots[-1]] * 4])
    rows, values = [], []
    for bead, centre, shift in zip(beads, centres, shifts, strict=True):
        side = bead.photons.shape[1]
        spline = make_interp_spline(np.arange(side), np.eye(side), k=5)
        across, down = (spline(np.clip(c - 0.5 + offset, 0, side - 1)) for c in centre)  # (points, side)
        z = z_nm + shift
        used = (z >= knots[0]) & (z <= knots[-1])
        total = max(float(bead.photons.sum((1, 2)).mean()), 1e-9)
        weight = np.sqrt(total)
        rows.append(weight * BSpline.design_matrix(z[used], clamped, 3).toarray())
        values.append(weight / total * (down @ bead.photons[used] @ across.T).reshape(int(used.sum()), -1))
    design = np.concatenate(rows)
    solved = np.linalg.lstsq(design, np.concatenate(values), rcond=1e-8)[0]
    samples = (BSpline.design_matrix(knots, clamped, 3).toarray() @ solved).reshape(len(knots), points, points)
    # Points at one camera pixel's distance add up to the light; all of them to oversampling^2 times that.
    light = samples[:, :-1, :-1].sum((1, 2)) / oversampling**2
    if not (light > 0).all():
        raise ValueError("the beads have no light at some heights; is the camera's baseline right?")
    return samples / light[:, None, None], light / light.max()
