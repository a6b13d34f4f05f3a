"""Where spots may be: local maxima of a smoothed difference, in units of its own noise."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, pi

import torch
from torch import Tensor
from torch.nn import functional

from ._model import lowest
from .camera import Camera
from .crlb import _noise
from .psf import PSF, AstigmaticPSF, GaussianPSF
from .spline import SplinePSF

_WIDER = 2.5  # width of the second smoothing, which takes the background away, over the first
_CHUNK = 1 << 23  # pixels that are filtered at once


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Pixels where spots may be, sorted by frame, row, column.

    Args:
        frame: number of the frame in the stack, (n,) int64.
        row: pixel of the maximum; likewise `column`.
        significance: the difference there over its standard deviation without a spot's own noise.
    """

    frame: Tensor
    row: Tensor
    column: Tensor
    significance: Tensor

    def __len__(self) -> int:
        return len(self.frame)


def z_limits(psf: PSF) -> tuple[float, float]:
    """Heights that a fit may give, nm: a table's range, where an astigmatic spot stays of use, 0 for a round one."""
    if isinstance(psf, SplinePSF):
        return psf.table.z_range_nm
    if isinstance(psf, GaussianPSF):
        return 0.0, 0.0
    if isinstance(psf, AstigmaticPSF):
        far = abs(psf.focal_shift_nm) + 1.5 * psf.defocus_nm
        return -far, far
    return tuple(getattr(psf, "z_range_nm", (-1000.0, 1000.0)))


def spot_sigma_px(psf: PSF, pixel_size_nm: tuple[float, float], sigma_nm: float | None = None) -> float:
    """Width of a Gaussian with half its light within the same radius as the PSF, mean over z; pixels.

    Args:
        psf: any with `values_and_derivatives`.
        pixel_size_nm: (along x, along y).
        sigma_nm: for Gaussian PSFs whose width is a range or unknown.
    """
    if isinstance(psf, GaussianPSF) and (sigma_nm is not None or isinstance(psf.sigma_nm, float)):
        sigma = sigma_nm if sigma_nm is not None else lowest(psf.sigma_nm)
        return sigma / (pixel_size_nm[0] * pixel_size_nm[1]) ** 0.5
    low, high = z_limits(psf)
    z = torch.linspace(0.75 * low, 0.75 * high, 7, dtype=torch.float64, device="cpu")
    size = 31
    middle = torch.full_like(z, size / 2)
    unit = psf.values_and_derivatives(
        middle * pixel_size_nm[0], middle * pixel_size_nm[1], z, shape=(size, size), pixel_size_nm=pixel_size_nm
    )
    light = unit.image.clamp(min=0).mean(0)
    steps = torch.arange(size, dtype=torch.float64, device="cpu") - (size - 1) / 2
    radius = torch.hypot(steps[:, None], steps[None, :])
    order = torch.argsort(radius.flatten())
    inside = torch.cumsum(light.flatten()[order], 0)
    half = int(torch.searchsorted(inside, 0.5 * inside[-1]))
    return max(0.7, float(radius.flatten()[order[half]]) / 1.1774)  # a Gaussian's half light: sigma sqrt(2 ln 2)


def find_candidates(frames: Tensor, *, sigma_px: float, camera: Camera, threshold: float = 6.0) -> Candidates:
    """Local maxima of a difference of two Gaussian smoothings that stand out of its noise.

    The first smoothing is as wide as a spot, the second, which estimates the background, 2.5 times. The noise is that
    of the camera at the local background: variance (`Camera.variance_counts`, in photons) through the squared filter.

    Args:
        frames: photons, (frames, height, width).
        sigma_px: width of a spot, pixels.
        camera: its noise; one with maps must have those of the frames.
        threshold: smallest significance, standard deviations.

    Raises:
        ValueError: frames of another shape, or a width or threshold that is not positive.
    """
    if frames.ndim != 3:
        raise ValueError(f"frames have shape {tuple(frames.shape)}; expected (frames, height, width)")
    if not (sigma_px > 0 and threshold > 0):
        raise ValueError(f"sigma_px is {sigma_px:g}, threshold {threshold:g}; both must be above 0")
    height, width = frames.shape[1:]
    corner = torch.zeros(1, dtype=torch.int64, device=frames.device)
    gain, floor, slope = _noise(camera, (height, width), (corner, corner), 1, frames.device)
    floor, slope = (floor / gain**2).to(torch.float32), (slope / gain**2).to(torch.float32)
    narrow, wide = (_smoothing(s, (height, width), frames.device) for s in (sigma_px, _WIDER * sigma_px))
    # The squared filter, of the map of what does not depend on light; the background hardly changes within it.
    still = sum(
        factor * _filtered(floor, _smoothing(s, (height, width), frames.device)) for factor, s in _squared(sigma_px)
    )
    light = float(sum(factor for factor, _ in _squared(sigma_px))) * slope
    reach = max(1, ceil(sigma_px))
    parts = []
    step = max(1, _CHUNK // (height * width))
    for begin in range(0, len(frames), step):
        some = frames[begin : begin + step].to(torch.float32)
        dark = _filtered(some, wide)
        noise = (still + light * dark.clamp(min=0)).clamp(min=1e-12).sqrt()
        above = (_filtered(some, narrow) - dark) / noise
        top = _largest(_largest(above, reach).transpose(1, 2), reach).transpose(1, 2)
        frame, row, column = ((above == top) & (above > threshold)).nonzero(as_tuple=True)
        parts.append((frame + begin, row, column, above[frame, row, column]))
    if not parts:
        none = torch.zeros(0, dtype=torch.int64, device=frames.device)
        parts = [(none, none, none, none.to(torch.float32))]
    frame, row, column, high = (torch.cat(column) for column in zip(*parts, strict=True))
    return Candidates(frame=frame, row=row, column=column, significance=high)


def _squared(sigma: float) -> list[tuple[float, float]]:
    """The square of the difference of the two Gaussians as Gaussians of sum 1: (factor, width)."""
    terms = []
    for sign, a, b in ((1.0, sigma, sigma), (-2.0, sigma, _WIDER * sigma), (1.0, _WIDER * sigma, _WIDER * sigma)):
        # The product of two centred Gaussians: 1 / s^2 = 1 / a^2 + 1 / b^2, its sum 1 / (2 pi (a^2 + b^2)).
        terms.append((sign / (2 * pi * (a**2 + b**2)), a * b / (a**2 + b**2) ** 0.5))
    return terms


def _smoothing(sigma: float, shape: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrices that smooth along y and x with a Gaussian; beyond the frame its outer pixels go on."""
    matrices = []
    for size in shape:
        reach = ceil(4 * sigma)
        source = torch.arange(-reach, size + reach, dtype=torch.float64, device=device)
        bell = torch.exp(-0.5 * ((source - torch.arange(size, device=device)[:, None]) / sigma) ** 2)
        bell = bell / bell.sum(1, keepdim=True)
        matrix = torch.zeros((size, size), dtype=torch.float64, device=device)
        matrix.index_add_(1, source.clamp(0, size - 1).long(), bell)
        matrices.append(matrix.to(torch.float32))
    return matrices[0], matrices[1]


def _filtered(frames: Tensor, matrices: tuple[Tensor, Tensor]) -> Tensor:
    across = frames @ matrices[1].T
    return (across.transpose(1, 2).contiguous() @ matrices[0].T).transpose(1, 2)


def _largest(values: Tensor, reach: int) -> Tensor:
    """The largest of the neighbours up to `reach` away along the last axis."""
    padded = functional.pad(values, (reach, reach), value=-torch.inf)
    result = values
    for shift in range(2 * reach + 1):
        result = torch.maximum(result, padded[..., shift : shift + values.shape[-1]])
    return result
