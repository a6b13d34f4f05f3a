"""Cramér-Rao bounds: how well any unbiased estimate of an emitter can do, for any PSF and camera.

Model: pixel k holds mu_k = b + sum_i N_i f_k(x_i, y_i, z_i) photons on average; Fisher information
F_ab = sum_k (dc_k/da) (dc_k/db) / var_k, where c_k are the camera's mean counts and var_k their variance at mu_k
(`Camera.mean_counts`, `Camera.variance_counts`). In photo-electrons e_k before amplification var_k is

- ideal: e_k, which is exact for Poisson counts (Ober, Ram, Ward 2004, doi:10.1016/S0006-3495(04)74193-4);
- sCMOS: e_k + r_k^2 with the read noise r_k of each pixel (Huang et al. 2013, doi:10.1038/nmeth.2488);
- EMCCD: 2 e_k + (r / gain)^2, an excess-noise factor of 2 ("half the information"; Robbins and Hadwen 2003,
  doi:10.1109/TED.2003.813462; Mortensen et al. 2010, doi:10.1038/nmeth.1447). The register's exact distribution holds
  slightly more where a pixel has few electrons (Chao, Ward, Ober 2012, doi:10.1007/s11045-011-0150-7).

Rounding to whole counts adds 1/12 count^2 where `Camera.variance_counts` says so. All sums in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .camera import Camera
from .psf import PSF

_CHUNK = 1 << 22  # numbers in one block of derivatives


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Smallest standard deviations, square roots of the Cramér-Rao bound; inf where nothing can be known.

    Args:
        x_sigma_nm: nm, shape of the emitters; likewise y and z. z of an ideal round spot in focus, or of a PSF
            without depth, is inf.
        photons_sigma: photons, likewise.
        background_sigma: photons per pixel, one per region.
    """

    x_sigma_nm: Tensor
    y_sigma_nm: Tensor
    z_sigma_nm: Tensor
    photons_sigma: Tensor
    background_sigma: Tensor


def fisher(
    psf: PSF,
    *,
    x_nm: Tensor,
    y_nm: Tensor,
    z_nm: Tensor,
    photons: Tensor,
    background: Tensor,
    camera: Camera,
    shape: tuple[int, int] = (15, 15),
    corner_px: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Fisher information matrices, float64.

    Args:
        psf: any PSF with `values_and_derivatives`.
        x_nm: positions, nm from the outer corner of each region's first pixel: (n,) for emitters alone, or
            (n, k) for n regions of k emitters whose light overlaps; `y_nm`, `z_nm`, `photons` likewise.
        photons: before quantum efficiency.
        background: photons per pixel, one per region, (n,).
        camera: its noise and pixel size.
        shape: (height, width) of the regions, pixels.
        corner_px: (row, column) of each region's first pixel on the camera, (n,) each; needed only where the
            camera has maps, and then the regions must lie on them.

    Returns:
        (n, 5, 5) in the order x, y, z (nm), photons, background; (n, 4k + 1, 4k + 1) for k emitters: x, y, z,
        photons of the first, of the second, ..., then the common background.

    Raises:
        ValueError: shapes that do not fit, photons or background below 0, or a region outside the camera's maps.
    """
    x, y, z, light, dark = _checked(x_nm, y_nm, z_nm, photons, background)
    regions, emitters = x.shape
    gain, floor, slope = _noise(camera, shape, corner_px, regions, x.device)
    size = 4 * emitters + 1
    information = x.new_empty((regions, size, size))
    step = max(1, _CHUNK // (size * shape[0] * shape[1]))
    for begin in range(0, regions, step):
        some = slice(begin, begin + step)
        unit = psf.values_and_derivatives(
            x[some].reshape(-1),
            y[some].reshape(-1),
            z[some].reshape(-1),
            shape=shape,
            pixel_size_nm=camera.pixel_size_nm,
        )
        n = len(x[some])
        image, d_x, d_y, d_z = (part.reshape(n, emitters, *shape) for part in unit)
        bright = light[some][..., None, None]
        mean = (bright * image).sum(1) + dark[some][:, None, None]
        each = torch.stack([bright * d_x, bright * d_y, bright * d_z, image], dim=2).flatten(1, 2)
        slopes = torch.cat([each, torch.ones_like(mean)[:, None]], dim=1)
        here = [part if len(part) == 1 else part[some] for part in (gain, floor, slope)]
        weight = here[0] ** 2 / torch.maximum(here[1] + here[2] * mean, 1e-12 * here[0] ** 2)  # an empty pixel
        flat = slopes.flatten(2)
        information[some] = torch.bmm(flat * weight.expand_as(mean).flatten(1)[:, None], flat.transpose(1, 2))
    return information


def crlb(
    psf: PSF,
    *,
    x_nm: Tensor,
    y_nm: Tensor,
    z_nm: Tensor,
    photons: Tensor,
    background: Tensor,
    camera: Camera,
    shape: tuple[int, int] = (15, 15),
    corner_px: tuple[Tensor, Tensor] | None = None,
    known: Sequence[str] = (),
) -> Bounds:
    """Bounds for each emitter, its four numbers and the background unknown at once; arguments as in `fisher`.

    Args:
        known: what need not be estimated, of "x", "y", "z", "photons", "background"; its bound is 0.

    Example:
        >>> from simulators import Camera, GaussianPSF
        >>> at = torch.tensor([750.0])
        >>> bound = crlb(
        ...     GaussianPSF(sigma_nm=115), x_nm=at, y_nm=at, z_nm=0 * at, photons=0 * at + 1000,
        ...     background=0 * at, camera=Camera.ideal(100),
        ... )
        >>> round(bound.x_sigma_nm.item(), 1), bound.z_sigma_nm.item()   # sqrt((115^2 + 100^2 / 12) / 1000) = 3.7
        (3.8, inf)
    """
    information = fisher(
        psf,
        x_nm=x_nm,
        y_nm=y_nm,
        z_nm=z_nm,
        photons=photons,
        background=background,
        camera=camera,
        shape=shape,
        corner_px=corner_px,
    )
    names = ("x", "y", "z", "photons", "background")
    wrong = [name for name in known if name not in names]
    if wrong:
        raise ValueError(f"known names {', '.join(map(repr, wrong))}; expected some of {', '.join(names)}")
    emitters = (information.shape[1] - 1) // 4
    fixed = torch.tensor([name in known for name in names], device=information.device)
    fixed = torch.cat([fixed[:4].repeat(emitters), fixed[4:]])
    sigma = standard_errors(information, known=fixed)
    columns = sigma[:, :-1].reshape(-1, emitters, 4).unbind(2)
    x, y, z, light = (column.reshape(_tensor(x_nm).shape) for column in columns)
    return Bounds(x_sigma_nm=x, y_sigma_nm=y, z_sigma_nm=z, photons_sigma=light, background_sigma=sigma[:, -1])


def standard_errors(information: Tensor, *, known: Tensor | None = None) -> Tensor:
    """Square roots of the diagonal of the inverse, (n, p), of Fisher matrices (n, p, p).

    A parameter of which the data know nothing (a zero row) is inf and leaves the others alone; where several are
    known only in combination (no inverse) all of the region are inf.

    Args:
        information: symmetric matrices.
        known: parameters that need not be estimated, (p,) bool; they are 0.
    """
    held = torch.diagonal(information, dim1=1, dim2=2)
    free = torch.ones_like(held, dtype=torch.bool) if known is None else (~known).expand_as(held)
    largest = held.amax(1, keepdim=True)
    blind = held <= 1e-30 * largest
    used = free & ~blind
    scale = torch.where(used, held, 1.0).sqrt()
    pair = used[:, :, None] & used[:, None, :]
    eye = torch.eye(held.shape[1], dtype=held.dtype, device=held.device)
    scaled = torch.where(pair, information / (scale[:, :, None] * scale[:, None, :]), eye)
    factor, failed = torch.linalg.cholesky_ex(scaled)
    singular = (failed > 0) | (torch.diagonal(factor, dim1=1, dim2=2).amin(1) < 1e-7)
    inverse = torch.cholesky_inverse(torch.where(singular[:, None, None], eye, factor))
    sigma = torch.diagonal(inverse, dim1=1, dim2=2).sqrt() / scale
    sigma = torch.where(blind | singular[:, None], torch.inf, sigma)
    return torch.where(free, sigma, 0.0)


@dataclass(frozen=True, kw_only=True)
class BoundCurves:
    """Bounds over height and brightness, each float64 (len(z_nm), len(photons)).

    Args:
        z_nm: heights, nm.
        photons: photons per frame.
        x_sigma_nm: smallest standard deviations, nm; likewise y and z.
        photons_sigma: photons.
    """

    z_nm: npt.NDArray[np.float64]
    photons: npt.NDArray[np.float64]
    x_sigma_nm: npt.NDArray[np.float64]
    y_sigma_nm: npt.NDArray[np.float64]
    z_sigma_nm: npt.NDArray[np.float64]
    photons_sigma: npt.NDArray[np.float64]


def crlb_curves(
    psf: PSF,
    *,
    z_nm: npt.ArrayLike,
    photons: npt.ArrayLike,
    background: float,
    camera: Camera,
    shape: tuple[int, int] = (15, 15),
    phases: int = 4,
    known: Sequence[str] = (),
) -> BoundCurves:
    """Bounds of emitters alone, for every pair of a height and a brightness.

    Args:
        z_nm: heights, nm.
        photons: photons per frame, before quantum efficiency.
        background: photons per pixel.
        camera: one without maps; a pixel's own noise has no place in a curve.
        shape: (height, width) of the region, pixels; the emitter lies in its middle pixel.
        phases: the root mean square over `phases` x `phases` places within that pixel is given.
        known: as in `crlb`.

    Raises:
        ValueError: `phases` below 1, or a camera with maps.
    """
    if phases < 1:
        raise ValueError(f"phases is {phases}; give 1 or more")
    if _map_shape(camera) is not None:
        raise ValueError("the camera has a map of read noise; give one number, e.g. its median, for a curve")
    heights, lights = (np.atleast_1d(np.asarray(values, dtype=np.float64)) for values in (z_nm, photons))
    steps = (np.arange(phases) + 0.5) / phases
    across = (shape[1] // 2 + steps) * camera.pixel_size_nm[0]
    down = (shape[0] // 2 + steps) * camera.pixel_size_nm[1]
    grid = np.meshgrid(heights, lights, down, across, indexing="ij")
    z, light, y, x = (torch.from_numpy(np.ascontiguousarray(part).reshape(-1)) for part in grid)
    bound = crlb(
        psf,
        x_nm=x,
        y_nm=y,
        z_nm=z,
        photons=light,
        background=torch.full_like(x, background),
        camera=camera,
        shape=shape,
        known=known,
    )

    def middle(sigma: Tensor) -> npt.NDArray[np.float64]:
        return sigma.reshape(len(heights), len(lights), -1).square().mean(2).sqrt().numpy()

    return BoundCurves(
        z_nm=heights,
        photons=lights,
        x_sigma_nm=middle(bound.x_sigma_nm),
        y_sigma_nm=middle(bound.y_sigma_nm),
        z_sigma_nm=middle(bound.z_sigma_nm),
        photons_sigma=middle(bound.photons_sigma),
    )


def _tensor(column: Tensor | npt.ArrayLike) -> Tensor:
    """A tensor as it is, other numbers on the CPU."""
    return column if isinstance(column, Tensor) else torch.as_tensor(column, device="cpu")


def _checked(*columns: Tensor) -> list[Tensor]:
    """x, y, z, photons as (n, k) and background as (n,), float64; refused where they do not fit."""
    x, y, z, light, dark = (_tensor(column).to(torch.float64) for column in columns)
    if x.ndim not in (1, 2) or any(other.shape != x.shape for other in (y, z, light)):
        shapes = ", ".join(str(tuple(column.shape)) for column in (x, y, z, light))
        raise ValueError(f"x_nm, y_nm, z_nm, photons have shapes {shapes}; expected one shape, (n,) or (n, k)")
    if dark.shape != x.shape[:1]:
        raise ValueError(f"background has shape {tuple(dark.shape)}; expected one number per region, ({len(x)},)")
    for name, column in (("photons", light), ("background", dark)):
        if column.numel() and not bool(column.min() >= 0):
            raise ValueError(f"{name} is negative or nan somewhere; expected 0 or more")
    if x.ndim == 1:
        x, y, z, light = (column[:, None] for column in (x, y, z, light))
    return [x, y, z, light, dark]


def _map_shape(camera: Camera) -> tuple[int, int] | None:
    return camera.map_shape


def _noise(
    camera: Camera,
    shape: tuple[int, int],
    corner_px: tuple[Tensor, Tensor] | None,
    regions: int,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts per photon, and variance of the counts as floor + slope * photons; (1 or n, height, width)."""
    whole = _map_shape(camera) or shape
    zero = torch.zeros(whole, dtype=torch.float64, device=device)
    mean, variance = camera.mean_counts(zero), camera.variance_counts(zero)
    maps = [camera.mean_counts(zero + 1) - mean, variance, camera.variance_counts(zero + 1) - variance]
    if _map_shape(camera) is None:
        return maps[0][None], maps[1][None], maps[2][None]
    if corner_px is None:
        raise ValueError("the camera has maps of its pixels; say where on it the regions lie, corner_px=(row, column)")
    row, column = (torch.as_tensor(part, device=device).to(torch.int64) for part in corner_px)
    if row.shape != (regions,) or column.shape != (regions,):
        raise ValueError(f"corner_px has shapes {tuple(row.shape)}, {tuple(column.shape)}; expected ({regions},) each")
    inside = (row >= 0) & (column >= 0) & (row + shape[0] <= whole[0]) & (column + shape[1] <= whole[1])
    if not bool(inside.all()):
        raise ValueError(
            f"a region of {shape[0]} x {shape[1]} pixels leaves the camera's map of {whole[0]} x {whole[1]}; "
            "move the regions inside or make them smaller"
        )
    rows = row[:, None, None] + torch.arange(shape[0], device=device)[:, None]
    columns = column[:, None, None] + torch.arange(shape[1], device=device)
    return maps[0][rows, columns], maps[1][rows, columns], maps[2][rows, columns]
