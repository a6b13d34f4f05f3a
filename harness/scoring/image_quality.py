"""Scores of super-resolved images: against the truth, and against the widefield image where there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize_scalar

from simulators.emitters import Emitters, Localizations

from .frc import resolution_of_halves, ring_correlation
from .images import (
    least_squares_factor,
    nmse,
    nmse_percent,
    psnr_db,
    render,
    render_planes,
    resample_area,
    snr_db,
    ssim,
)

PIXEL_NM = 10.0
FWHM_NM = 20.0
WINDOW_NM = 5120.0  # of the shell correlation, each side


def score_rendered(
    *,
    truth: Emitters,
    found: Localizations,
    field_nm: tuple[float, float],
    pixel_nm: float = PIXEL_NM,
    fwhm_nm: float = FWHM_NM,
    n_frames: int | None = None,
) -> dict[str, Any]:
    """Image scores of localizations: both tables through the one renderer, Gaussians of peak 1 and fixed width.

    Brightness does not count, and the border is not cut. With a z in both tables, the SNR of the xz and yz projections
    and of the volume is given too, and the Fourier shell correlation with the truth in the middle of the field.

    Args:
        truth, found: positions in nm.
        field_nm: width and height in nm.
        pixel_nm, fwhm_nm: of the rendering; figures of other widths cannot be compared.
        n_frames: frames of the movie, for the halves; None takes the last frame of the table.

    Returns:
        The figures of `compare_images`, and `snr_xz_db`, `snr_yz_db`, `snr_volume_db`, `fsc_truth_nm`, `frc_halves_nm`
        (None where undefined).
    """
    options: dict[str, Any] = {"pixel_nm": pixel_nm, "fwhm_nm": fwhm_nm}
    images = [render(table, field_nm=field_nm, **options) for table in (found, truth)]
    result = compare_images(images[0], images[1], pixel_nm=pixel_nm)
    result |= dict.fromkeys(("snr_xz_db", "snr_yz_db", "snr_volume_db", "fsc_truth_nm", "frc_halves_nm"))
    result["fwhm_nm"] = fwhm_nm
    solid = len(truth) and len(found) and np.isfinite(found.z_nm).all()
    if solid and np.ptp(truth.z_nm) > 0 and np.ptp(found.z_nm) > 0:  # programs without heights write 0
        low = min(truth.z_nm.min(), found.z_nm.min()) - 2 * fwhm_nm
        high = max(truth.z_nm.max(), found.z_nm.max()) + 2 * fwhm_nm
        for axis, length in (("x", field_nm[0]), ("y", field_nm[1])):
            sides = [
                render(
                    table.replace(x_nm=getattr(table, f"{axis}_nm"), y_nm=table.z_nm - low),
                    field_nm=(length, high - low),
                    **options,
                )
                for table in (found, truth)
            ]
            result[f"snr_{axis}z_db"] = _plain(snr_db(sides[0], sides[1]))
        result |= _compare_volumes(found, truth, field_nm=field_nm, z_nm=(low, high), **options)
    if len(found):
        result["frc_halves_nm"] = resolution_of_halves(found, field_nm=field_nm, n_frames=n_frames).resolution_nm
    return result


def _compare_volumes(
    found: Localizations,
    truth: Emitters,
    *,
    field_nm: tuple[float, float],
    z_nm: tuple[float, float],
    pixel_nm: float,
    fwhm_nm: float,
) -> dict[str, float | None]:
    """SNR of the whole volume, plane by plane, and the shell correlation in a window of at most 5.12 um."""
    planes = (
        render_planes(table, field_nm=field_nm, z_nm=z_nm, pixel_nm=pixel_nm, fwhm_nm=fwhm_nm)
        for table in (found, truth)
    )
    most = round(WINDOW_NM / pixel_nm)
    power = error = 0.0
    kept = []
    for estimate, reference in zip(*planes, strict=True):
        power += float((reference.astype(np.float64) ** 2).sum())
        error += float(((reference - estimate).astype(np.float64) ** 2).sum())
        middle = (_middle(reference.shape[0], most), _middle(reference.shape[1], most))
        kept.append([image[middle].copy() for image in (estimate, reference)])
    snr = _plain(10 * math.log10(power / error)) if power > 0 and error > 0 else None
    volumes = [np.stack(volume) for volume in zip(*kept[_middle(len(kept), most)], strict=True)]
    usable = min(volumes[0].shape) >= 16 and all(volume.any() for volume in volumes)
    shell = ring_correlation(volumes[0], volumes[1], pixel_nm=pixel_nm).resolution_nm if usable else None
    return {"snr_volume_db": snr, "fsc_truth_nm": shell}


def _middle(length: int, most: int) -> slice:
    """The middle of so many voxels, at most `most` of them."""
    start = max(0, (length - most) // 2)
    return slice(start, start + most)


def score_image(
    image: ArrayLike,
    *,
    truth: Emitters,
    field_nm: tuple[float, float],
    pixel_nm: float = PIXEL_NM,
    fwhm_nm: float = FWHM_NM,
) -> dict[str, Any]:
    """Image scores of a method that gives an image only.

    Frames are summed, the image is resampled to the pixel of the scores by area and scaled by one least-squares
    factor, no offset; the truth is rendered.

    Args:
        image: (H, W) or frames (N, H, W), over the whole field.
        truth, field_nm, pixel_nm, fwhm_nm: see `score_rendered`.

    Raises:
        ValueError: other than two or three axes, or values that are not finite.
    """
    picture = np.asarray(image, np.float64)
    if picture.ndim == 3:
        picture = picture.sum(0)
    if picture.ndim != 2 or not np.isfinite(picture).all():
        raise ValueError(f"the image is {np.shape(image)}; give finite numbers, (H, W) or (N, H, W)")
    reference = render(truth, field_nm=field_nm, pixel_nm=pixel_nm, fwhm_nm=fwhm_nm)
    picture = resample_area(picture, reference.shape)
    return {**compare_images(picture, reference, pixel_nm=pixel_nm, scale=True), "fwhm_nm": fwhm_nm}


def compare_images(
    estimate: ArrayLike, reference: ArrayLike, *, pixel_nm: float, scale: bool = False
) -> dict[str, Any]:
    """All scores of one image against its reference, both on one grid.

    Args:
        estimate, reference: (H, W).
        pixel_nm: pixel of both.
        scale: multiply the estimate by the least-squares factor first; `nmse` always does, for itself.

    Returns:
        snr_db, nmse (share, least-squares factor), nmse_percent (as it is, percent), ssim (of the square roots),
        psnr_db (good for black pictures of sparse scenes: never show it without the NMSE), frc_truth_nm, factor,
        pixel_nm; None where undefined.
    """
    q, y = np.asarray(estimate, np.float64), np.asarray(reference, np.float64)
    factor = least_squares_factor(q, y) if scale else 1.0
    q = q * factor
    empty = not y.any()
    return {
        "snr_db": None if empty else _plain(snr_db(q, y)),
        "nmse": _plain(nmse(q, y)),
        "nmse_percent": _plain(nmse_percent(q, y)),
        "ssim": _plain(ssim(q, y)) if min(y.shape) >= 11 else None,
        "psnr_db": _plain(psnr_db(q, y)),
        "frc_truth_nm": None
        if empty or not q.any() or min(y.shape) < 16
        else ring_correlation(q, y, pixel_nm=pixel_nm).resolution_nm,
        "factor": factor,
        "pixel_nm": pixel_nm,
    }


def baseline_images(
    mean_frame: ArrayLike, *, field_nm: tuple[float, float], pixel_nm: float = PIXEL_NM
) -> dict[str, NDArray[np.float64]]:
    """Pictures that every table of image scores should show beside the models: what nothing at all scores.

    Args:
        mean_frame: mean of the raw frames, (H, W), background taken off.
        field_nm: width and height of the field.

    Returns:
        "blank": zeros; "mean frame": the mean frame enlarged by cubic splines, negative values as 0.
    """
    from skimage.transform import resize

    shape = math.ceil(field_nm[1] / pixel_nm - 1e-9), math.ceil(field_nm[0] / pixel_nm - 1e-9)
    enlarged = resize(np.asarray(mean_frame, np.float64), shape, order=3, mode="edge", anti_aliasing=False)
    return {"blank": np.zeros(shape), "mean frame": np.maximum(enlarged, 0)}


@dataclass(frozen=True, kw_only=True)
class WidefieldAgreement:
    """How well a super-resolved image, blurred, explains the widefield image.

    Neither number proves structure below the resolution of the widefield image: report them, do not rank by them.

    Attributes:
        rsp: Pearson's correlation, 1 at best. rse: root mean square difference, in units of the widefield image.
        scale, offset: of the super-resolved image. sigma_px: blur, pixels of the super-resolved image.
    """

    rsp: float
    rse: float
    scale: float
    offset: float
    sigma_px: float


def widefield_agreement(
    image: ArrayLike, widefield: ArrayLike, *, largest_sigma_px: float | None = None
) -> WidefieldAgreement:
    """Resolution-scaled Pearson correlation and error of an image without ground truth.

    ``widefield - (scale image + offset) blurred`` has the least sum of squares over scale, offset and the width of a
    Gaussian blur; the blurred image is brought to the widefield grid by area. Nothing is registered: drift or a
    shifted origin count as errors.

    Args:
        image: (H, W), the super-resolved image over the same field.
        widefield: (h, w), e.g. the mean of the raw frames; h <= H, w <= W.
        largest_sigma_px: widest blur tried; None takes 4 widefield pixels.

    Raises:
        ValueError: axes, sizes or values that do not allow it, or an image without contrast.

    Source: Culley et al. 2018, doi:10.1038/nmeth.4605.
    """
    fine, coarse = np.asarray(image, np.float64), np.asarray(widefield, np.float64)
    if fine.ndim != 2 or coarse.ndim != 2 or fine.shape[0] < coarse.shape[0] or fine.shape[1] < coarse.shape[1]:
        raise ValueError(f"image is {fine.shape}, widefield {coarse.shape}; give (H, W) each, the image not smaller")
    if not (np.isfinite(fine).all() and np.isfinite(coarse).all()):
        raise ValueError("the images hold values that are not finite")
    if np.ptp(fine) == 0 or np.ptp(coarse) == 0:
        raise ValueError("an image has the same value everywhere: there is nothing to correlate")
    ratio = fine.shape[0] / coarse.shape[0]
    widest = 4 * ratio if largest_sigma_px is None else largest_sigma_px
    target = coarse - coarse.mean()

    def fit(sigma: float) -> tuple[float, float, float, float]:
        """Error, correlation, scale and offset of a blur."""
        blurred = resample_area(gaussian_filter(fine, sigma), coarse.shape)
        blurred *= coarse.size / fine.size  # means, not sums
        centred = blurred - blurred.mean()
        power = float((centred**2).sum())
        scale = float((centred * target).sum()) / power if power > 0 else 0.0
        error = math.sqrt(float(((target - scale * centred) ** 2).mean()))
        norm = math.sqrt(power * float((target**2).sum()))
        pearson = float((centred * target).sum()) / norm if norm > 0 else math.nan
        return error, pearson, scale, float(coarse.mean() - scale * blurred.mean())

    grid = np.geomspace(widest / 40, widest, 14)
    best = int(np.argmin([fit(sigma)[0] for sigma in grid]))
    bounds = (float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)]))
    sigma = float(
        minimize_scalar(lambda s: fit(s)[0], bounds=bounds, method="bounded", options={"xatol": 0.01 * bounds[0]}).x
    )
    error, pearson, scale, offset = fit(sigma)
    return WidefieldAgreement(rsp=pearson, rse=error, scale=scale, offset=offset, sigma_px=sigma)


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
