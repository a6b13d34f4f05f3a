"""Two molecules beside each other: how near they may be, and what their neighbourhood does to their positions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.scoring.matching import match
from simulators import Emitters, Localizations, Movie, Recipe
from simulators.known import simulate_known

PITCH_NM = 2000.0  # from one pair to the next
EDGE_NM = 1200.0
JITTER_NM = 100.0
FIELD_PX = 64
LEVEL_Z = 1.959964  # two-sided 95 %
RESAMPLES = 400


@dataclass(frozen=True, kw_only=True)
class PairsPlan:
    """What pairs are looked at.

    Args:
        separations_nm: distances of the two.
        ratios: photons of the dimmer one over those of the brighter one.
        pairs: number of pairs per distance.
        photons: of the brighter one.
        tolerance_nm: largest distance at which a molecule counts as found.
    """

    separations_nm: tuple[float, ...] = (0, 50, 100, 150, 200, 250, 300, 350, 400, 500, 600, 700, 800)
    ratios: tuple[float, ...] = (1.0, 1 / 3)
    pairs: int = 200
    photons: float = 3000.0
    tolerance_nm: float = 250.0

    @staticmethod
    def quick() -> PairsPlan:
        """Enough to see that everything works."""
        return PairsPlan(separations_nm=(0, 100, 200, 300, 400, 600, 800), pairs=45)


def simulate_pairs(
    recipe: Recipe, plan: PairsPlan, *, ratio: float, rng: np.random.Generator, gaps: int = 2
) -> tuple[Movie, NDArray[np.float64]]:
    """A movie of pairs in focus, on for one frame, at random orientations and places within the pixel.

    Pairs stand on a grid of 2 um, nine to a frame of 64 x 64 pixels of 100 nm; all pairs of one distance come before
    those of the next. The truth holds the brighter molecule of a pair, then the dimmer one; `id` is the number of the
    pair.

    Args:
        recipe: camera, PSF (one width) and background (one number).
        plan: distances, number, photons.
        ratio: photons of the second over those of the first.
        rng: where randomness comes from.
        gaps: empty frames between those with pairs, so that models that look at neighbouring frames see none on twice.

    Returns:
        The movie, and the distance of each pair, (pairs,).

    Raises:
        ValueError: the recipe's background or PSF width is a range, or the field holds no pair.
    """
    if not isinstance(recipe.background, int | float) or not isinstance(recipe.psf.sigma_nm, int | float):
        raise ValueError(f"background or PSF width of recipe {recipe.name!r} is a range; give single numbers")
    size_x, size_y = recipe.camera.pixel_size_nm
    columns, rows = (int((FIELD_PX * size - 2 * EDGE_NM) // PITCH_NM) + 1 for size in (size_x, size_y))
    cells = rows * columns
    if cells < 1:
        raise ValueError(f"pixels of {size_x:g} x {size_y:g} nm make the field too small for a pair")
    per_distance = math.ceil(plan.pairs / cells) * cells  # whole frames
    separation = np.repeat(np.asarray(plan.separations_nm, np.float64), per_distance)
    count = len(separation)
    cell = np.arange(count) % cells
    frame = (np.arange(count) // cells) * (1 + gaps) + gaps // 2
    angle = rng.uniform(0, 2 * np.pi, count)
    place = rng.uniform(-JITTER_NM, JITTER_NM, (2, count))
    middle = np.stack([EDGE_NM + PITCH_NM * (cell % columns), EDGE_NM + PITCH_NM * (cell // columns)]) + place
    half = 0.5 * separation * np.stack([np.cos(angle), np.sin(angle)])
    positions = np.stack([middle - half, middle + half], axis=-1)  # (2, pairs, 2 molecules)
    truth = Emitters(
        frame=np.repeat(frame, 2),
        x_nm=positions[0].ravel(),
        y_nm=positions[1].ravel(),
        photons=np.tile([plan.photons, plan.photons * ratio], count),
        background=float(recipe.background),
        id=np.repeat(np.arange(count), 2),
    )
    frames = int(frame[-1]) + 1 + (gaps - gaps // 2)
    return simulate_known(truth, recipe, rng, frames=frames, size=(FIELD_PX, FIELD_PX)), separation


def pair_figures(
    truth: Emitters,
    found: Localizations,
    separation_nm: NDArray[np.float64],
    *,
    tolerance_nm: float,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """One row per distance: how often both were found, and the errors of those found with their partner.

    A pair is found when both molecules have a localization of their own within the tolerance (most matches, then the
    least sum of distances). Errors are taken along the axis of the pair, positive away from the partner, and across.

    Args:
        truth: from `simulate_pairs`: two rows per pair.
        found: localizations.
        separation_nm: distance of each pair.
        tolerance_nm: largest distance of a match.
        rng: of the bootstrap over pairs.

    Returns:
        Rows of separation_nm, pairs, both, one, none (shares), both_low, both_high (Wilson, 95 %), and bias_along_nm,
        rmse_along_nm, rmse_across_nm with _low and _high (bootstrap over pairs, 95 %); None where no pair was found.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    pairs = len(separation_nm)
    if len(truth) != 2 * pairs:
        raise ValueError(f"{len(truth)} molecules for {pairs} pairs; give two rows per pair, from simulate_pairs")
    matches = match(truth=truth, found=found, tolerance_nm=tolerance_nm, rule="optimal")
    flat = np.full((2, 2 * pairs), np.nan)
    flat[0, matches.truth_index] = found.x_nm[matches.found_index] - truth.x_nm[matches.truth_index]
    flat[1, matches.truth_index] = found.y_nm[matches.found_index] - truth.y_nm[matches.truth_index]
    error = flat.reshape(2, pairs, 2)
    hits = np.isfinite(error[0]).sum(1)
    axis = np.diff(np.stack([truth.x_nm, truth.y_nm]).reshape(2, pairs, 2))[..., 0]
    length = np.linalg.norm(axis, axis=0)
    axis = np.where(length > 0, axis / np.where(length > 0, length, 1), np.array([[1.0], [0.0]]))
    outward = np.stack([-axis, axis], axis=-1)  # (2, pairs, 2)
    along = (error * outward).sum(0)
    across = error[0] * outward[1] - error[1] * outward[0]
    rows = []
    for separation in np.unique(separation_nm):
        here = separation_nm == separation
        number, both = int(here.sum()), here & (hits == 2)
        low, high = _wilson(int(both.sum()), number)
        row: dict[str, Any] = {
            "separation_nm": float(separation),
            "pairs": number,
            "both": int(both.sum()) / number,
            "both_low": low,
            "both_high": high,
            "one": int((here & (hits == 1)).sum()) / number,
            "none": int((here & (hits == 0)).sum()) / number,
        }
        a, c = along[both], across[both]
        drawn = rng.integers(0, max(len(a), 1), (RESAMPLES, len(a)))
        for name, values, figure in (
            ("bias_along_nm", a, _mean),
            ("rmse_along_nm", a, _root_mean),
            ("rmse_across_nm", c, _root_mean),
        ):
            row |= dict.fromkeys((name, f"{name[:-3]}_low_nm", f"{name[:-3]}_high_nm"))
            if len(values):
                row[name] = float(figure(values[None])[0])
            if len(values) > 1:
                ends = np.quantile(figure(values[drawn]), (0.025, 0.975))
                row[f"{name[:-3]}_low_nm"], row[f"{name[:-3]}_high_nm"] = map(float, ends)
        rows.append(row)
    return rows


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.mean(axis=(1, 2))


def _root_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt((values**2).mean(axis=(1, 2)))


def _wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share."""
    share, z2 = hits / count, LEVEL_Z**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = LEVEL_Z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)
