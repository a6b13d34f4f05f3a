"""Errors against the Cramer-Rao bound of each emitter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulators.emitters import Emitters

from .assessment import Assessment
from .matching import neighbours_within

if TYPE_CHECKING:
    from simulators.camera import Camera
    from simulators.psf import PSF

REGION_PX = 15


def emitter_variances(
    emitters: Emitters, *, psf: PSF, camera: Camera, dimensions: int = 2
) -> dict[str, NDArray[np.float64]]:
    """Cramer-Rao bound of each emitter, as if alone: variances for `crlb_scores`.

    Position, photons and background are unknown, in 3D the height too; the camera's noise is known. Pixels of a
    region of 15 x 15 round the emitter are looked at, beyond the border of the field as well.

    Args:
        emitters: with photons and background.
        psf: the one that made the movie, of one width.
        camera: without maps.
        dimensions: 2 takes the height as known.

    Raises:
        ValueError: photons or background that are missing.
    """
    import torch

    from simulators.crlb import crlb

    for name in ("photons", "background"):
        unknown = int((~np.isfinite(getattr(emitters, name))).sum())
        if unknown:
            raise ValueError(f"{unknown} of {len(emitters)} emitters have no {name}, which the bound depends on")
    size_x, size_y = camera.pixel_size_nm
    column, row = np.floor(emitters.x_nm / size_x), np.floor(emitters.y_nm / size_y)

    def tensor(values: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values))

    bound = crlb(
        psf,
        x_nm=tensor(emitters.x_nm - (column - REGION_PX // 2) * size_x),
        y_nm=tensor(emitters.y_nm - (row - REGION_PX // 2) * size_y),
        z_nm=tensor(emitters.z_nm),
        photons=tensor(emitters.photons),
        background=tensor(emitters.background),
        camera=camera,
        shape=(REGION_PX, REGION_PX),
        known=("z",) if dimensions == 2 else (),
    )
    sigmas = {"x": bound.x_sigma_nm, "y": bound.y_sigma_nm, "photons": bound.photons_sigma}
    if dimensions == 3:
        sigmas["z"] = bound.z_sigma_nm
    return {name: sigma.numpy().astype(np.float64) ** 2 for name, sigma in sigmas.items()}


def crlb_scores(
    assessment: Assessment, crlb: Mapping[str, ArrayLike], *, isolated_nm: float | None = None
) -> dict[str, dict[str, Any]]:
    """Errors over the bound, for each quantity.

    The bound holds for a molecule alone in its frame; with others near it is no floor. A ratio below 1 means that
    more than one frame was used, or that information leaked.

    Args:
        assessment: from `assess`.
        crlb: quantity ("x", "y", "z": nm^2, "photons": photons^2) -> variance for each row of the truth table
            that was given to `assess`.
        isolated_nm: count only hits whose emitter has no other within this distance in its frame; None counts all.

    Returns:
        quantity -> n, rmse, bound (root of the mean variance), ratio (rmse / bound), mean and deviation of
        error / sqrt(CRLB); None where undefined.

    Raises:
        ValueError: an unknown quantity, or variances that are not positive or of another length.
    """
    alone = np.ones(len(assessment.hit_truth), bool)
    if isolated_nm is not None:
        rows, _, _ = neighbours_within(assessment.truth, assessment.neighbours, isolated_nm)
        alone = np.bincount(rows, minlength=len(assessment.truth))[assessment.hit_truth] == 1  # itself only
    rows = assessment.truth_row[assessment.hit_truth[alone]]
    result = {}
    for name, values in crlb.items():
        variance = np.asarray(values, np.float64)
        if name not in ("x", "y", "z", "photons"):
            raise ValueError(f"no bound for {name!r}; there are x, y, z and photons")
        if variance.shape != (len(assessment.neighbours),):
            raise ValueError(
                f"the bound of {name} has shape {variance.shape}; the truth has {len(assessment.neighbours)} rows"
            )
        if name == "photons":
            error = assessment.found.photons[assessment.hit_found] - assessment.truth.photons[assessment.hit_truth]
        else:
            error = assessment.error(name)
        own, error = variance[rows], error[alone]
        known = np.isfinite(error) & ~np.isposinf(own)  # where nothing can be known there is no bound
        own, error = own[known], error[known]
        if not (own > 0).all():
            raise ValueError(f"{int((~(own > 0)).sum())} variances of {name} are not positive")
        if not len(error):
            result[name] = {"n": 0, **dict.fromkeys(("rmse", "bound", "ratio", "mean", "deviation"))}
            continue
        rmse, bound = math.sqrt((error**2).mean()), math.sqrt(own.mean())
        normal = error / np.sqrt(own)
        result[name] = {
            "n": len(error),
            "rmse": rmse,
            "bound": bound,
            "ratio": rmse / bound,
            "mean": float(normal.mean()),
            "deviation": float(normal.std()),
        }
    return result
