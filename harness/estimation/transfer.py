"""Gain and offset of a camera from a movie: variance against mean, of the background and of fitted spots.

The variance of a pixel's counts is g (mean - offset) + r, with g counts per photo-electron (twice that with EM gain)
and read-noise variance r (photon transfer; Janesick 2007, doi:10.1117/3.725073). A mean-variance line gives g and one
further number: offset and read noise cannot be told apart, so with an unknown offset the read noise counts as part of
it. Nor can excess noise: without `em_gain` photons of an EMCCD come out half. Both are one number for all pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from torch import Tensor

from simulators import Camera, GaussianPSF
from simulators.fitting import Fit, Spots, fit_spots

from .observe import APART, _nearest, columns_of, near_spots

Floats = NDArray[np.float64]

_BINS = 12
_CLEAN = 1.4  # variance round a spot over that of dark pixels; more means neighbours
_ROUNDS = 4
_FREE = ("x_nm", "y_nm", "photons", "background", "sigma_nm")


@dataclass(frozen=True, kw_only=True, eq=False)
class Transfer:
    """A camera found by its noise.

    Args:
        camera: with what was found.
        mean: counts of the groups of pixels, (n,); `variance` theirs, `signal` their share from spots, `pixels` their
            number.
        slope: variance per count.
        slope_error: its standard error.
        lever: largest less smallest mean over the background's mean above the offset; a small one says little.
    """

    camera: Camera
    mean: Floats
    variance: Floats
    signal: Floats
    pixels: Floats
    slope: float
    slope_error: float
    lever: float


def find_camera(
    blocks: Sequence[NDArray[np.generic]],
    *,
    camera: Camera,
    sigma_nm: float,
    gain_known: bool,
    offset_known: bool,
) -> Transfer:
    """Gain, offset, or both, of consecutive frames.

    Args:
        blocks: raw counts, (frames, height, width), at least 2 frames each.
        camera: what is known: pixel size, EM gain, quantum efficiency; and `e_per_adu` and `baseline` as told.
        sigma_nm: width of the spots.
        gain_known: whether `e_per_adu` is; likewise `offset_known` for `baseline`. Not both.

    Raises:
        ValueError: too few frames, no noise, or a variance that does not rise with the mean.
    """
    frames = [np.asarray(block, dtype=np.float64) for block in blocks if len(block) > 1]
    if not frames:
        raise ValueError("gain and offset need at least two consecutive frames; give --camera.baseline and .e-per-adu")
    guess = _first_guess(frames, camera, gain_known=gain_known, offset_known=offset_known)
    for _ in range(_ROUNDS):
        points = [_points(block, guess, sigma_nm) for block in frames]
        mean, variance, signal, pixels = (np.concatenate(part) for part in zip(*points, strict=True))
        found = _line(mean, variance, signal, pixels, guess, gain_known=gain_known, offset_known=offset_known)
        settled = abs(found.camera.e_per_adu / guess.e_per_adu - 1) < 0.02
        guess = found.camera
        if settled:
            break
    return found


def _excess(camera: Camera) -> float:
    """Variance per count is this over e_per_adu."""
    return 1.0 if camera.em_gain is None else 2.0 * camera.em_gain


def _first_guess(frames: list[Floats], camera: Camera, *, gain_known: bool, offset_known: bool) -> Camera:
    step = np.concatenate([np.diff(block, axis=0).reshape(-1) for block in frames])
    spread = np.median(np.abs(step)) / 0.6745
    variance = max(spread**2 / 2 - 1 / 12, 1e-3)
    middle = float(np.median(np.concatenate([block.reshape(-1) for block in frames])))
    if gain_known:
        offset = max(0.0, middle - variance * camera.e_per_adu / _excess(camera))
        return Camera(**{**camera.model_dump(), "baseline": offset, "read_noise_e": 0.0})
    # An offset at half the level is wrong by at most a factor of two for most cameras.
    offset = camera.baseline if offset_known else 0.5 * middle
    slope = variance / max(middle - offset, 1e-3)
    return Camera(**{**camera.model_dump(), "baseline": max(0.0, offset), "e_per_adu": _excess(camera) / slope})


def _points(counts: Floats, camera: Camera, sigma_nm: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean, variance, signal and number of pixels of groups, in counts."""
    photons = torch.from_numpy(camera.to_photons(counts))
    psf = GaussianPSF(sigma_nm=sigma_nm)
    spots = fit_spots(photons, psf=psf, camera=camera, free=_FREE, sigma_nm=sigma_nm)
    per_photon = camera.counts_per_photon
    pixel = max(camera.pixel_size_nm)
    # Background: half the squared step from a frame to the next, by the pixel's level.
    dark = ~near_spots(spots, counts.shape, reach=3.5 * sigma_nm / pixel)
    both = dark[1:] & dark[:-1]
    seen = dark.sum(0)
    # Of the surroundings, since an sCMOS pixel's own offset is no light.
    light, share = (uniform_filter(part.astype(np.float64), 7) for part in (np.where(dark, counts, 0).sum(0), seen))
    level = light / np.maximum(share, 1e-9)
    levels = np.broadcast_to(level, both.shape)[both & (seen >= 10)]
    steps = 0.5 * np.diff(counts, axis=0)[both & (seen >= 10)] ** 2
    groups = [_grouped(levels, steps, np.zeros_like(levels), by_level=False)]
    # Spots that stand alone: squared residual of the fit, by the fitted counts.
    table = columns_of(spots)
    alone = (table["good"] > 0) & (_nearest(table, APART * sigma_nm) > APART * sigma_nm)
    if alone.any():
        alone &= table["chi2"] <= 2 * np.median(table["chi2"][alone])
        fit = spots.fit
        chosen = torch.from_numpy(np.flatnonzero(alone))
        signal, kept = _model(fit, chosen, spots, psf, camera)
        model = signal + fit.background[chosen, None, None].numpy()
        left = (spots.regions[chosen].numpy() - model) ** 2 / kept * per_photon**2
        # Where a neighbour was missed, pixels round the spot are noisier than dark ones. Bright pixels do not choose.
        outer = signal < 0.02 * signal.max((1, 2), keepdims=True)
        round_it = (left * outer).sum((1, 2)) / np.maximum(outer.sum((1, 2)), 1)
        clean = outer.sum((1, 2)) >= 10
        if len(steps) > 1000:
            clean &= round_it < _CLEAN * np.mean(steps)
        model, left, signal = model[clean], left[clean], signal[clean]
        zero = float(camera.mean_counts(np.zeros(1))[0])
        groups.append(
            _grouped((model * per_photon + zero).ravel(), left.ravel(), (signal * per_photon).ravel(), by_level=True)
        )
    mean, variance, signal, pixels = (np.concatenate(part) for part in zip(*groups, strict=True))
    return mean, variance, signal, pixels


def _model(fit: Fit, chosen: Tensor, spots: Spots, psf: GaussianPSF, camera: Camera) -> tuple[Floats, Floats]:
    """Photons of the fitted spots, (n, height, width), and the share of each pixel's variance that the fit left."""
    shape = (spots.regions.shape[1], spots.regions.shape[2])
    x, y, sigma, photons = (column[chosen] for column in (fit.x_nm, fit.y_nm, fit.sigma_nm, fit.photons))
    step = 1e-3 * sigma
    here, wider = (
        psf.values_and_derivatives(x, y, 0 * x, shape=shape, pixel_size_nm=camera.pixel_size_nm, sigma_nm=width)
        for width in (sigma, sigma + step)
    )
    bright = photons[:, None, None]
    by_width = bright * (wider.image - here.image) / step[:, None, None]
    slopes = torch.stack([bright * here.d_x, bright * here.d_y, here.image, torch.ones_like(by_width), by_width], dim=1)
    slopes = slopes.flatten(2)
    zero = torch.zeros(1, dtype=torch.float64)
    floor, rise = camera.variance_counts(zero), camera.variance_counts(zero + 1) - camera.variance_counts(zero)
    mean = bright * here.image + fit.background[chosen, None, None]
    weight = 1 / (floor + rise * mean).flatten(1)
    information = torch.bmm(slopes * weight[:, None], slopes.transpose(1, 2))
    scale = torch.diagonal(information, dim1=1, dim2=2).sqrt()
    inverse = torch.linalg.pinv(information / (scale[:, :, None] * scale[:, None, :]), hermitian=True)
    scaled = slopes / scale[:, :, None]
    leverage = torch.einsum("npk,npq,nqk->nk", scaled, inverse, scaled) * weight
    return (bright * here.image).numpy(), (1 - leverage).clamp(min=0.2).reshape(mean.shape).numpy()


def _grouped(mean: Floats, square: Floats, signal: Floats, *, by_level: bool) -> tuple[Floats, Floats, Floats, Floats]:
    """Groups of pixels of like mean, by rank; also by level, so that few bright ones count too."""
    if len(mean) < 50:
        return (np.zeros(0),) * 4
    edges = np.quantile(mean, np.linspace(0, 1, _BINS + 1))
    if by_level:
        edges = np.unique(np.concatenate([edges, np.linspace(mean.min(), mean.max(), _BINS + 1)]))
    which = np.clip(np.searchsorted(edges, mean, side="right") - 1, 0, len(edges) - 2)
    count = np.bincount(which, minlength=len(edges) - 1).astype(np.float64)
    many = count >= 30
    sums = [np.bincount(which, values, minlength=len(edges) - 1)[many] / count[many] for values in (mean, square)]
    rms = np.sqrt(np.bincount(which, signal**2, minlength=len(edges) - 1)[many] / count[many])
    if not by_level:
        return sums[0], sums[1], rms, count[many]
    # Merged spots are few and far off: the median of squares, 0.4549 of the variance for normal residuals.
    order = np.argsort(which, kind="stable")
    middles = [
        np.median(part) for part in np.split(square[order], np.cumsum(count.astype(int))[:-1]) if len(part) >= 30
    ]
    return sums[0], np.array(middles) / 0.4549, rms, count[many] / 2.7


def _line(
    mean: Floats,
    variance: Floats,
    signal: Floats,
    pixels: Floats,
    camera: Camera,
    *,
    gain_known: bool,
    offset_known: bool,
) -> Transfer:
    """variance = g mean + constant + k signal^2; the last is what a PSF unlike the spots adds to residuals."""
    if len(mean) < 2:
        raise ValueError("too few pixels to tell gain and offset; give --camera.baseline and --camera.e-per-adu")
    rounding = 1 / 12
    target = variance - rounding
    slope_known = _excess(camera) / camera.e_per_adu
    columns = [np.ones_like(mean), signal**2] if gain_known else [mean, np.ones_like(mean), signal**2]
    if gain_known:
        target = target - slope_known * mean
    elif offset_known:
        columns[0] = mean - camera.baseline
    scale = np.array([max(float(np.abs(column).max()), 1e-30) for column in columns])
    matrix = np.stack(columns, axis=1) / scale
    used = np.abs(matrix).max(0) > 0
    values, fitted = np.zeros(len(columns)), variance
    for _ in range(5):
        # A variance from n values is known to sqrt(2 / n) of itself: of the line, not of the point.
        weight = np.sqrt(pixels / 2) / np.maximum(fitted, 0.2 * variance)
        values = _solved(matrix, target, weight, used) / scale
        spread = np.linalg.pinv((matrix * weight[:, None]).T @ (matrix * weight[:, None]))[-1, -1]
        if values[-1] * scale[-1] < 2 * np.sqrt(spread):  # no misfit to be seen; it can only add variance
            used[-1] = False
            values = _solved(matrix, target, weight, used) / scale
        fitted = variance - target + matrix @ (values * scale)
    left = (target - matrix @ (values * scale)) * weight
    scatter = max(1.0, float(left @ left) / max(1, len(mean) - int(used.sum())))
    matrix = matrix * weight[:, None] * used
    covariance = np.linalg.pinv(matrix.T @ matrix) * scatter
    slope = slope_known if gain_known else float(values[0])
    error = 0.0 if gain_known else float(np.sqrt(covariance[0, 0]) / scale[0])
    if not slope > 0:
        raise ValueError(
            f"variance does not rise with the mean (slope {slope:.3g}); the frames were processed, or hold no light. "
            "Give --camera.baseline and --camera.e-per-adu"
        )
    constant = float(values[0 if gain_known else 1])
    changes: dict[str, float] = {} if gain_known else {"e_per_adu": _excess(camera) / slope}
    e_per_adu = changes.get("e_per_adu", camera.e_per_adu)
    if offset_known:
        changes["read_noise_e"] = float(np.sqrt(max(constant, 0.0))) * e_per_adu
        offset = camera.baseline
    else:
        offset = -constant / slope
        changes["baseline"] = float(np.clip(offset, 0.0, float(mean.min())))
    return Transfer(
        camera=Camera(**{**camera.model_dump(), **changes}),
        mean=mean,
        variance=variance,
        signal=signal,
        pixels=pixels,
        slope=slope,
        slope_error=error,
        lever=float((mean.max() - mean.min()) / max(mean.min() - offset, 1e-9)),
    )


def _solved(matrix: Floats, target: Floats, weight: Floats, used: NDArray[np.bool_]) -> Floats:
    """Weighted least squares; 0 for what is not used."""
    values = np.zeros(matrix.shape[1])
    values[used] = np.linalg.lstsq(matrix[:, used] * weight[:, None], target * weight, rcond=1e-10)[0]
    return values
