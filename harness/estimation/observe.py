"""What a movie shows: its spots one by one, how long they stay, its pixels; real and simulated ones alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from harness.analysis.grouping import link
from simulators import PSF, Camera, GaussianPSF, Localizations
from simulators.detection import spot_sigma_px
from simulators.fitting import Spots, fit_spots

Floats = NDArray[np.float64]
Block = tuple[int, NDArray[np.float32]]  # number of the first frame, photons (frames, height, width)

APART = 5.0  # spot widths: the nearest other candidate of an isolated spot
_FREE = ("x_nm", "y_nm", "photons", "background", "sigma_nm")
_COLUMNS = ("frame", "x_nm", "y_nm", "z_nm", "photons", "background", "sigma_nm", "chi2", "significance")
_PIXELS = 200_000  # that stand for all in histograms


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """Figures of a movie in photons.

    Args:
        frames: that were looked at.
        area_um2: of the field.
        candidates_um2: spots found per frame and square micrometre, those rejected later too.
        spots: columns of the fitted spots that are trusted: `frame, x_nm, y_nm, z_nm, photons, background, sigma_nm,
            chi2, significance, x_error_nm, sigma_error_nm, photons_error`.
        isolated: which of them stand alone and look like the PSF.
        run_length: mean number of consecutive frames with a spot, allowing for runs that the movie cuts off; inf if
            none ends.
        runs: lengths of the runs, frames.
        flux: photons per frame of molecules that are on for all of it: means over the inner frames of runs of 3 or
            more.
        least_photons: what a spot needs to be found, median.
        noise: standard deviation from frame to frame of a pixel away from spots, photons.
        pixels: a sample of all pixels, photons.
        pair: two frames after each other, for pictures: (2, height, width) photons.
    """

    frames: int
    area_um2: float
    candidates_um2: float
    spots: dict[str, Floats]
    isolated: NDArray[np.bool_]
    run_length: float
    runs: NDArray[np.int64]
    flux: Floats
    least_photons: float
    noise: float
    pixels: Floats
    pair: NDArray[np.float32]

    def alone(self, name: str) -> Floats:
        """A column of the isolated spots."""
        return self.spots[name][self.isolated]


def apart(photons: Sequence[NDArray[np.float32]]) -> list[Block]:
    """Blocks that do not touch."""
    firsts = np.cumsum([0, *(len(block) + 1 for block in photons[:-1])])
    return [(int(first), block) for first, block in zip(firsts, photons, strict=True)]


def observe(
    blocks: Iterable[Block],
    *,
    camera: Camera,
    sigma_nm: float,
    psf: PSF | None = None,
    threshold: float = 6.0,
) -> Observed:
    """Find and fit the spots of frames.

    Args:
        blocks: consecutive frames each; only those of one stretch of the movie may touch.
        camera: its noise and pixel size.
        sigma_nm: width that spots are looked for with and that fits begin with.
        psf: if given spots are fitted with it; left out, with a Gaussian of free width.
        threshold: of `simulators.detection.find_candidates`.

    Raises:
        ValueError: no frames.
    """
    model: PSF = psf if psf is not None else GaussianPSF(sigma_nm=sigma_nm)
    free = _FREE if psf is None else None
    width_nm = spot_sigma_px(model, camera.pixel_size_nm) * float(np.sqrt(np.prod(camera.pixel_size_nm)))
    parts: list[dict[str, Floats]] = []
    pixels: list[Floats] = []
    differences: list[float] = []
    stretches: list[list[int]] = []
    candidates, frames, area = 0, 0, 0.0
    pair: NDArray[np.float32] | None = None
    for first, block in blocks:
        spots = fit_spots(
            torch.from_numpy(block),
            psf=model,
            camera=camera,
            threshold=threshold,
            free=free,
            sigma_nm=sigma_nm if psf is None else None,
        )
        parts.append({**columns_of(spots), "frame": spots.frame.numpy() + float(first)})
        pixel_x, pixel_y = camera.pixel_size_nm
        area = block.shape[1] * block.shape[2] * pixel_x * pixel_y * 1e-6
        candidates += len(spots.frame)
        frames += len(block)
        sample = block.reshape(-1)
        pixels.append(sample[:: max(1, sample.size * 8 // _PIXELS)].astype(np.float64))
        if len(block) > 1:
            free_of_spots = ~near_spots(spots, block.shape, reach=3 * width_nm / max(camera.pixel_size_nm))
            steps = np.diff(block, axis=0)[free_of_spots[1:] & free_of_spots[:-1]]
            if steps.size > 100:
                differences.append(float(np.sqrt(np.mean(steps.astype(np.float64) ** 2) / 2)))
        if pair is None or len(pair) < 2 <= len(block):
            pair = block[len(block) // 2 - 1 :][:2].copy() if len(block) > 1 else block[:1].copy()
        if stretches and stretches[-1][1] == first:
            stretches[-1][1] = first + len(block)
        else:
            stretches.append([first, first + len(block)])
    if pair is None:
        raise ValueError("the movie has no frames")
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    nearest = _nearest(table, APART * width_nm)
    good = table.pop("good") > 0
    table = {name: column[good] for name, column in table.items()}
    alone = nearest[good] > APART * width_nm
    if alone.any():
        alone &= table["chi2"] <= max(1.3, 1.5 * float(np.quantile(table["chi2"][alone], 0.25)))
    runs, flux, length = _runs(table, stretches, width_nm)
    every = np.concatenate(pixels)
    with np.errstate(invalid="ignore"):
        least = table["photons"] * threshold / table["significance"]
    return Observed(
        frames=frames,
        area_um2=area,
        candidates_um2=candidates / frames / area,
        spots=table,
        isolated=alone,
        run_length=length,
        runs=runs,
        flux=flux,
        least_photons=float(np.median(least)) if len(least) else float("nan"),
        noise=float(np.median(differences)) if differences else float("nan"),
        pixels=every[:: max(1, len(every) // _PIXELS)],
        pair=pair,
    )


def columns_of(spots: Spots) -> dict[str, Floats]:
    """All fitted spots as arrays, with `good` (0 or 1) and standard errors."""
    fit = spots.fit
    table = {name: np.asarray(getattr(spots if hasattr(spots, name) else fit, name)) for name in _COLUMNS}
    nothing = torch.full_like(fit.x_nm, torch.nan)
    for name, source in (("x_error_nm", "x_nm"), ("sigma_error_nm", "sigma_nm"), ("photons_error", "photons")):
        table[name] = fit.errors.get(source, nothing).numpy()
    table["good"] = spots.good.numpy()
    return {name: column.astype(np.float64) for name, column in table.items()}


def near_spots(spots: Spots, shape: Sequence[int], *, reach: float) -> NDArray[np.bool_]:
    """Pixels (frames, height, width) within `reach` pixels, in row and column, of a candidate."""
    near = np.zeros(shape, dtype=bool)
    far = int(np.ceil(reach))
    rows, columns = (
        part.numpy() + size // 2 for part, size in zip(spots.corner_px, spots.regions.shape[1:], strict=True)
    )
    for frame, row, column in zip(spots.frame.numpy(), rows, columns, strict=True):
        near[frame, max(0, row - far) : row + far + 1, max(0, column - far) : column + far + 1] = True
    return near


def _nearest(table: dict[str, Floats], most: float) -> Floats:
    """Distance to the nearest other row of the same frame, nm; inf beyond `most`."""
    place = np.column_stack([table["x_nm"], table["y_nm"], table["frame"] * (10 * most)])
    if len(place) < 2:
        return np.full(len(place), np.inf)
    distance, _ = cKDTree(place).query(place, k=2, distance_upper_bound=1.01 * most)
    return np.asarray(distance[:, 1], dtype=np.float64)


def _runs(
    table: dict[str, Floats], stretches: list[list[int]], width_nm: float
) -> tuple[NDArray[np.int64], Floats, float]:
    """Lengths of runs, flux of their inner frames, and rows over run ends, which no cut-off biases."""
    if not len(table["frame"]):
        return np.zeros(0, np.int64), np.zeros(0), float("nan")
    radius = float(np.clip(6 * np.median(table["x_error_nm"]), 0.6 * width_nm, 1.2 * width_nm))
    found = Localizations(frame=table["frame"], x_nm=table["x_nm"], y_nm=table["y_nm"], photons=table["photons"])
    group = link(found, radius_nm=radius)
    size = np.bincount(group)
    first = np.full(len(size), np.iinfo(np.int64).max)
    last = np.full(len(size), -1)
    np.minimum.at(first, group, found.frame)
    np.maximum.at(last, group, found.frame)
    ends = ~np.isin(last, [stop - 1 for _, stop in stretches])
    inner = (found.frame > first[group]) & (found.frame < last[group])
    light = np.bincount(group[inner], found.photons[inner], minlength=len(size))
    count = np.bincount(group[inner], minlength=len(size))
    flux = light[count > 0] / count[count > 0]
    length = float(size.sum() / ends.sum()) if ends.any() else float("inf")
    return size.astype(np.int64), flux, length
