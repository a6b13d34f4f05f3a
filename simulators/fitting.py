"""Maximum-likelihood fit of single emitters: any PSF, any camera, many regions at a time.

Pixel k of a region holds mu_k = N f_k(x, y, z) + b photons on average; its reading D_k, in photons, has the variance
a mu_k + r_k, where `a` is 1 / QE (with EM gain 2 / QE) and r_k what read noise, spurious charge and rounding add. Then
X_k = (D_k + r_k / a) / a has equal mean and variance, L_k = (mu_k + r_k / a) / a, and is taken as Poisson distributed:

- ideal camera: exact (Smith et al. 2010, doi:10.1038/nmeth.1449; Laurence and Chromy 2010, doi:10.1038/nmeth0510-338);
- sCMOS: the approximation of Huang et al. 2013 (doi:10.1038/nmeth.2488), each pixel with its own variance and gain;
- EMCCD: a quasi-likelihood (Wedderburn 1974, doi:10.1093/biomet/61.3.439), which needs mean and variance only; an
  excess noise of 2 (Robbins and Hadwen 2003, doi:10.1109/TED.2003.813462) makes it the Poisson likelihood of half as
  many electrons. Its scatter is the bound of `simulators.crlb`, which says the same of the noise. The register's exact
  distribution (Mortensen et al. 2010, doi:10.1038/nmeth.1447) holds slightly more where electrons are few.

The likelihood is climbed by Levenberg-Marquardt steps on the Fisher matrix, sum_k dL_k dL_k / L_k, whose inverse at the
end gives the standard errors. All in float64, every region by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ._climb import PARAMETERS, Problem, climb
from ._model import highest, lowest
from .camera import Camera
from .crlb import _noise
from .detection import find_candidates, spot_sigma_px, z_limits
from .emitters import Localizations
from .psf import PSF, AstigmaticPSF, GaussianPSF
from .spline import SplinePSF

_CHUNK = 1 << 22  # numbers in one block of derivatives
_GAUSSIANS = (GaussianPSF, AstigmaticPSF)
_MOST_STEPS = 40  # for candidates; one that needs more is no single spot
_HEIGHTS = 11  # heights tried for a start


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """Estimates of n regions, each column (n,) float64.

    Args:
        x_nm: position, nm from the outer corner of the **region's** first pixel; likewise `y_nm`.
        z_nm: height, nm; what was given (or 0) where it is not fitted.
        photons: before quantum efficiency.
        background: photons per pixel.
        sigma_nm: width of a Gaussian PSF in focus; nan for other PSFs.
        errors: standard errors by name of the column, from the Fisher matrix at the estimate; only those fitted. inf
            where the data know nothing.
        log_likelihood: at the estimate, of the scaled data (see the module).
        chi2: mean of (data - model)^2 / variance over the degrees of freedom; 1 where model and camera are right.
        iterations: steps tried, int64.
        converged: whether the last step was smaller than the tolerance, bool.
    """

    x_nm: Tensor
    y_nm: Tensor
    z_nm: Tensor
    photons: Tensor
    background: Tensor
    sigma_nm: Tensor
    errors: Mapping[str, Tensor]
    log_likelihood: Tensor
    chi2: Tensor
    iterations: Tensor
    converged: Tensor

    def __len__(self) -> int:
        return len(self.x_nm)


def fit_regions(
    regions: Tensor,
    *,
    psf: PSF,
    camera: Camera,
    start: Mapping[str, Tensor] | None = None,
    free: Sequence[str] | None = None,
    corner_px: tuple[Tensor, Tensor] | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
) -> Fit:
    """Fit one emitter in each region.

    Args:
        regions: photons (`Camera.to_photons`), (n, height, width); noise may make them negative.
        psf: any PSF with `values_and_derivatives`.
        camera: its noise and pixel size.
        start: first values by name of the column, (n,) each, of `PARAMETERS`; those left out are estimated.
        free: what to fit, of `PARAMETERS`. Left out: x, y, photons, background, and z where the PSF tells heights (a
            round Gaussian does not; its z is held at 0). "sigma_nm" for Gaussian PSFs.
        corner_px: (row, column) of each region's first pixel on the camera, (n,); only for cameras with maps.
        limits: lowest and highest value by name, instead of: the region for x and y, the PSF's range for z, 1 or more
            photons, 0.001 or more background, a quarter to four times the PSF's width.
        max_iterations: steps tried at most.
        tolerance: a step shorter than this, in standard errors, ends the fit.

    Raises:
        ValueError: shapes or names that do not fit, regions that are not finite, or a width asked of a PSF without one.

    Example:
        >>> at = torch.tensor([520.0], dtype=torch.float64)
        >>> psf, camera = GaussianPSF(sigma_nm=115), Camera.ideal(100)
        >>> unit = psf.values_and_derivatives(at, at, 0 * at, shape=(11, 11), pixel_size_nm=(100, 100))
        >>> fit = fit_regions(1000 * unit.image + 5, psf=psf, camera=camera)
        >>> round(fit.x_nm.item(), 1), round(fit.photons.item()), fit.converged.item()
        (520.0, 1000, True)
    """
    if regions.ndim != 3 or 0 in regions.shape[1:]:
        raise ValueError(f"regions have shape {tuple(regions.shape)}; expected (n, height, width)")
    data = regions.detach().to(torch.float64)
    if not bool(torch.isfinite(data).all()):
        raise ValueError("regions are not finite somewhere; leave out or mend dead pixels before the fit")
    names = _free_names(psf, free)
    low, high = _limits(psf, camera, data, limits)
    start = dict(start or {})
    unknown = sorted(set(start) - set(PARAMETERS))
    if unknown:
        raise ValueError(f"start names {', '.join(map(repr, unknown))}; expected some of {', '.join(PARAMETERS)}")
    for name, column in start.items():
        if column.shape != data.shape[:1]:
            raise ValueError(f"start of {name} has shape {tuple(column.shape)}; expected ({len(data)},)")
    gain, floor, slope = _noise(camera, data.shape[1:], corner_px, len(data), data.device)  # type: ignore[arg-type]
    excess = float((slope[0, 0, 0] / gain[0, 0, 0] ** 2).item())  # photons^2 per photon; the same for all pixels
    offset = floor / gain**2 / excess
    parts = []
    step = max(1, _CHUNK // ((len(names) + 4) * data.shape[1] * data.shape[2]))
    for begin in range(0, max(1, len(data)), step):
        some = slice(begin, begin + step)
        here = offset if len(offset) == 1 else offset[some]
        first = _starts(data[some], {k: v[some].to(data) for k, v in start.items()}, psf, camera, low, high)
        problem = Problem(psf, camera.pixel_size_nm, (data[some] + here) / excess, here, excess, names)
        parts.append(climb(problem, first, low, high, max_iterations, tolerance))
    theta, errors, value, chi2, iterations, converged = (torch.cat(part) for part in zip(*parts, strict=True))
    return Fit(
        **dict(zip(PARAMETERS, theta.unbind(1), strict=True)),
        errors=dict(zip(names, errors.unbind(1), strict=True)),
        log_likelihood=value,
        chi2=chi2,
        iterations=iterations,
        converged=converged,
    )


def localize_frames(
    frames: npt.ArrayLike | Tensor,
    *,
    psf: PSF,
    camera: Camera,
    threshold: float = 6.0,
    first_frame: int = 0,
    region_px: int | None = None,
    free: Sequence[str] | None = None,
    max_chi2: float | None = None,
    device: torch.device | str = "cpu",
) -> Localizations:
    """Find and fit the emitters of frames, each by itself.

    Left out are fits that did not converge, that ran away from their candidate or into a limit, that have no photons
    to speak of (less than three standard errors), and the fainter of two within one width of a spot.

    Args:
        frames: photons (`Camera.to_photons`), (frames, height, width).
        psf, free: as in `fit_regions`.
        camera: its noise, its pixel size, and its maps where it has some, of the frames' size.
        threshold: of `find_candidates`: significance in standard deviations.
        first_frame: number of the first frame in the table.
        region_px: side of the fitted squares; left out, from the PSF's width.
        max_chi2: largest `Fit.chi2`; None keeps all, also spots that overlap.
        device: where it is computed.

    Returns:
        Table sorted by frame, with standard errors; z is nan where it is not fitted, probability always.
    """
    stack = torch.as_tensor(np.asarray(frames) if not isinstance(frames, Tensor) else frames, device=device)
    spots = fit_spots(stack, psf=psf, camera=camera, threshold=threshold, region_px=region_px, free=free)
    keep = spots.good if max_chi2 is None else spots.good & (spots.fit.chi2 <= max_chi2)
    fit, errors = spots.fit, spots.fit.errors

    def column(values: Tensor | None) -> Any:
        return np.full(int(keep.sum()), np.nan) if values is None else values[keep].cpu().numpy()

    return Localizations(
        frame=column(spots.frame) + first_frame,
        x_nm=column(spots.x_nm),
        y_nm=column(spots.y_nm),
        z_nm=column(fit.z_nm if "z_nm" in errors else None),
        photons=column(fit.photons),
        background=column(fit.background),
        x_sigma_nm=column(errors.get("x_nm")),
        y_sigma_nm=column(errors.get("y_nm")),
        z_sigma_nm=column(errors.get("z_nm")),
        photons_sigma=column(errors.get("photons")),
        background_sigma=column(errors.get("background")),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Spots:
    """Candidates of a stack and their fits, sorted by frame, row, column.

    Args:
        frame: number in the stack, (n,) int64.
        x_nm: position in the frame, nm; likewise `y_nm`.
        significance: of the candidate, see `find_candidates`.
        regions: photons that were fitted, (n, height, width), and `corner_px` (row, column) of their first pixels.
        fit: in the regions.
        good: those that `localize_frames` keeps.
    """

    frame: Tensor
    x_nm: Tensor
    y_nm: Tensor
    significance: Tensor
    regions: Tensor
    corner_px: tuple[Tensor, Tensor]
    fit: Fit
    good: Tensor


def fit_spots(
    frames: Tensor,
    *,
    psf: PSF,
    camera: Camera,
    threshold: float = 6.0,
    region_px: int | None = None,
    free: Sequence[str] | None = None,
    sigma_nm: float | None = None,
) -> Spots:
    """What `localize_frames` does, with all that the fits tell; arguments as there.

    Args:
        sigma_nm: width that spots are looked for and begun with, for Gaussian PSFs.
    """
    pixel_x, pixel_y = camera.pixel_size_nm
    sigma_px = spot_sigma_px(psf, camera.pixel_size_nm, sigma_nm)
    found = find_candidates(frames, sigma_px=sigma_px, camera=camera, threshold=threshold)
    height, width = frames.shape[1:]
    side = region_px or 2 * ceil(3 * sigma_px) + 1
    shape = (min(side, height), min(side, width))
    row = (found.row - shape[0] // 2).clamp(0, height - shape[0])
    column = (found.column - shape[1] // 2).clamp(0, width - shape[1])
    rows = row[:, None, None] + torch.arange(shape[0], device=row.device)[:, None]
    columns = column[:, None, None] + torch.arange(shape[1], device=row.device)
    start = {
        "x_nm": (found.column - column + 0.5).to(torch.float64) * pixel_x,
        "y_nm": (found.row - row + 0.5).to(torch.float64) * pixel_y,
    }
    if sigma_nm is not None:
        start["sigma_nm"] = torch.full_like(start["x_nm"], sigma_nm)
    regions = frames[found.frame[:, None, None], rows, columns]
    fit = fit_regions(
        regions,
        psf=psf,
        camera=camera,
        start=start,
        free=free,
        corner_px=(row, column) if camera.map_shape else None,
        max_iterations=_MOST_STEPS,
    )
    moved = torch.hypot((fit.x_nm - start["x_nm"]) / pixel_x, (fit.y_nm - start["y_nm"]) / pixel_y)
    good = fit.converged & (moved <= 1 + 1.5 * sigma_px)
    good &= torch.isfinite(fit.errors["x_nm"]) & torch.isfinite(fit.errors["y_nm"])
    good &= fit.photons > 3 * fit.errors["photons"]
    if "z_nm" in fit.errors:
        low, high = z_limits(psf)
        good &= (fit.z_nm > low) & (fit.z_nm < high)
    x, y = fit.x_nm + column * pixel_x, fit.y_nm + row * pixel_y
    near = sigma_px * (pixel_x * pixel_y) ** 0.5
    good &= ~_fainter_twin(found.frame, x, y, torch.where(good, fit.photons, -1.0), near)
    return Spots(
        frame=found.frame,
        x_nm=x,
        y_nm=y,
        significance=found.significance,
        regions=regions,
        corner_px=(row, column),
        fit=fit,
        good=good,
    )


def _fainter_twin(frame: Tensor, x: Tensor, y: Tensor, photons: Tensor, near: float) -> Tensor:
    """Rows with a brighter one within `near` nm in their frame."""
    from scipy.spatial import cKDTree

    place = torch.stack([x, y, frame * (10 * near)], dim=1).cpu().numpy()
    pairs = cKDTree(place).query_pairs(near, output_type="ndarray") if len(place) else np.zeros((0, 2), np.int64)
    light = photons.cpu().numpy()
    fainter = np.zeros(len(place), dtype=bool)
    fainter[np.where(light[pairs[:, 0]] < light[pairs[:, 1]], pairs[:, 0], pairs[:, 1])] = True
    return torch.from_numpy(fainter).to(frame.device)


# --------------------------------------------------------------------------------------------- start and limits


def _free_names(psf: PSF, free: Sequence[str] | None) -> tuple[str, ...]:
    if free is None:
        low, high = z_limits(psf)
        return tuple(name for name in PARAMETERS[:5] if name != "z_nm" or high > low)
    unknown = sorted(set(free) - set(PARAMETERS))
    if unknown:
        raise ValueError(f"free names {', '.join(map(repr, unknown))}; expected some of {', '.join(PARAMETERS)}")
    if "sigma_nm" in free and not isinstance(psf, _GAUSSIANS):
        raise ValueError(f"a {type(psf).__name__} has no width to fit; leave sigma_nm out, or give a Gaussian PSF")
    return tuple(name for name in PARAMETERS if name in free)


def _limits(
    psf: PSF, camera: Camera, data: Tensor, given: Mapping[str, tuple[float, float]] | None
) -> tuple[Tensor, Tensor]:
    narrow, broad = (lowest(psf.sigma_nm), highest(psf.sigma_nm)) if isinstance(psf, _GAUSSIANS) else (1.0, 1.0)
    z_low, z_high = z_limits(psf)
    if z_low == z_high:
        z_low, z_high = -1500.0, 1500.0
    limits = {
        "x_nm": (0.0, data.shape[2] * camera.pixel_size_nm[0]),
        "y_nm": (0.0, data.shape[1] * camera.pixel_size_nm[1]),
        "z_nm": (z_low, z_high),
        "photons": (1.0, 1e9),
        "background": (1e-3, 1e9),
        "sigma_nm": (narrow / 4, broad * 4),
    }
    for name, pair in (given or {}).items():
        if name not in limits or not pair[0] <= pair[1]:
            raise ValueError(f"limits of {name!r} are {pair}; expected (lowest, highest) of {', '.join(PARAMETERS)}")
        limits[name] = pair
    if isinstance(psf, SplinePSF):  # beyond it there is nothing to fit
        z_low, z_high = psf.table.z_range_nm
        limits["z_nm"] = (max(limits["z_nm"][0], z_low), min(limits["z_nm"][1], z_high))
    low, high = data.new_tensor([limits[name] for name in PARAMETERS]).unbind(1)
    return low, high


def _starts(data: Tensor, given: dict[str, Tensor], psf: PSF, camera: Camera, low: Tensor, high: Tensor) -> Tensor:
    """First values, (n, 6): given, or from the centre of the light and the best of several heights."""
    height, width = data.shape[1:]
    edge = torch.ones((height, width), dtype=torch.bool, device=data.device)
    edge[1:-1, 1:-1] = False
    dark = data[:, edge].median(1).values
    light = (data - dark[:, None, None]).clamp(min=0)
    total = light.sum((1, 2)).clamp(min=1e-9)
    across, down = (torch.arange(size, device=data.device) + 0.5 for size in (width, height))
    values = {
        "x_nm": (light.sum(1) * across).sum(1) / total * camera.pixel_size_nm[0],
        "y_nm": (light.sum(2) * down).sum(1) / total * camera.pixel_size_nm[1],
        **{name: column for name, column in given.items() if name in ("x_nm", "y_nm")},
    }
    wide = (lowest(psf.sigma_nm) * highest(psf.sigma_nm)) ** 0.5 if isinstance(psf, _GAUSSIANS) else torch.nan
    values["sigma_nm"] = given.get("sigma_nm", torch.full_like(total, wide))
    z_low, z_high = z_limits(psf)
    if "z_nm" in given:
        heights = [given["z_nm"]]
    elif z_high > z_low:
        heights = [torch.full_like(total, float(z)) for z in np.linspace(0.85 * z_low, 0.85 * z_high, _HEIGHTS)]
    else:
        heights = [torch.zeros_like(total)]
    more = {"sigma_nm": values["sigma_nm"]} if isinstance(psf, _GAUSSIANS) else {}
    best = torch.full_like(total, torch.inf)
    centred = data - data.mean((1, 2), keepdim=True)
    for z in heights:
        image = psf.values_and_derivatives(
            values["x_nm"], values["y_nm"], z, shape=(height, width), pixel_size_nm=camera.pixel_size_nm, **more
        ).image
        # Least squares of data = photons * image + background.
        slope = image - image.mean((1, 2), keepdim=True)
        photons = (slope * centred).sum((1, 2)) / slope.square().sum((1, 2)).clamp(min=1e-30)
        photons = photons.clamp(min=1.0)
        left = (centred - photons[:, None, None] * slope).square().sum((1, 2))
        here = {"z_nm": z, "photons": photons, "background": (data - photons[:, None, None] * image).mean((1, 2))}
        for name, column in here.items():
            values[name] = torch.where(left < best, column, values.get(name, column))
        best = torch.minimum(best, left)
    values |= {name: given[name] for name in ("photons", "background") if name in given}
    theta = torch.stack([values[name] for name in PARAMETERS], dim=1)
    return theta.clamp(low, high)
