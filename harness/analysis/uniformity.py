"""Positions within the camera pixel: how evenly they fall, and a correction that makes them even.

Molecules do not know of pixels, so true positions fall evenly on the pixel; an estimator that prefers its centre
or its border leaves a pattern.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from simulators.emitters import Localizations

PixelSize = float | tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Uniformity:
    """How even the positions of one axis within the pixel are.

    With n positions in K equal bins, counts n_k, and ``chi2 = sum (n_k - n / K)^2 / (n / K)``:

    Attributes:
        counts: positions in each bin of the pixel, from its low edge.
        chi2_reduced: chi2 / (K - 1); its expected value is 1 for even positions and any n, with standard
            deviation sqrt(2 / (K - 1)). It grows with n for uneven ones.
        p_value: how often even positions give this chi2 or more.
        unevenness: root mean square deviation of the density from its mean, over the mean; estimated
            without bias by ``(chi2 - (K - 1)) / (n - 1)`` for its square, so that it does not depend on n.
            The square's expected value is 0 for even positions (with standard deviation
            sqrt(2 (K - 1)) / n); negative squares are given as 0. A sine of amplitude a gives a / sqrt(2),
            all positions in one bin sqrt(K - 1).
    """

    counts: NDArray[np.int64]
    chi2_reduced: float
    p_value: float
    unevenness: float

    def to_dict(self) -> dict[str, object]:
        """Plain numbers and a list, ready for JSON."""
        return {
            "unevenness": self.unevenness,
            "chi2_reduced": self.chi2_reduced,
            "p_value": self.p_value,
            "counts": self.counts.tolist(),
        }


def subpixel_uniformity(
    table: Localizations, *, pixel_size_nm: PixelSize, bins: int = 20
) -> tuple[Uniformity, Uniformity]:
    """Evenness of x and of y within the camera pixel.

    Rows should be independent: a molecule that is on for several frames counts several times at one place, which
    makes chi2 too large. Group such tables first (`harness.analysis.group`).

    Args:
        table: at least two rows.
        pixel_size_nm: one number or (x, y).
        bins: bins across a pixel.

    Raises:
        ValueError: fewer than two rows or bins, or a pixel size that is not positive.
    """
    if bins < 2:
        raise ValueError(f"bins is {bins}; evenness needs at least 2 bins in a pixel, e.g. 20")
    if len(table) < 2:
        raise ValueError(f"the table has {len(table)} rows; evenness needs at least 2")
    size_x, size_y = _sizes(pixel_size_nm)
    return _evenness(table.x_nm / size_x, bins), _evenness(table.y_nm / size_y, bins)


def _evenness(position_px: NDArray[np.float64], bins: int) -> Uniformity:
    inside = position_px - np.floor(position_px)
    counts = np.bincount(np.minimum((inside * bins).astype(np.int64), bins - 1), minlength=bins)
    n = len(position_px)
    statistic = float(((counts - n / bins) ** 2).sum() / (n / bins))
    square = (statistic - (bins - 1)) / (n - 1)
    return Uniformity(
        counts=counts,
        chi2_reduced=statistic / (bins - 1),
        p_value=float(chi2.sf(statistic, bins - 1)),
        unevenness=float(np.sqrt(max(square, 0.0))),
    )


def uniformize(
    offset: ArrayLike, *, low: float = -1.0, high: float = 1.0, steps: int = 200, limit: float = 0.99
) -> NDArray[np.float64]:
    """Offsets mapped through their own cumulative histogram, so that they fall evenly on a width of 1.

    ``F(offset) - 0.5 + mean(offset)``: F is the share of offsets below, from a histogram of `steps` bins between
    `low` and `high`, linear in between; the mean stays, so that nothing moves as a whole. One value comes back
    unchanged.

    Source: de-biasing of Speiser et al. 2021, doi:10.1038/s41592-021-01236-x, for one bin of sigma.

    Args:
        offset: pixels from the pixel centre; those beyond +-`limit` are taken as +-`limit`.
    """
    values = np.clip(np.asarray(offset, np.float64), -limit, limit)
    if len(values) < 2:
        return values
    counts, edges = np.histogram(values, bins=steps, range=(low, high))
    share = np.concatenate([[0.0], np.cumsum(counts)]) / len(values)
    return np.interp(values, edges, share) - 0.5 + values.mean()


def sigma_groups(x_sigma: NDArray[np.float64], y_sigma: NDArray[np.float64], groups: int) -> NDArray[np.int64]:
    """Number of the group of each row: equally filled groups of rising sx^2 + sqrt(var sx / var sy)^2 sy^2."""
    variance_x, variance_y = float(np.var(x_sigma)), float(np.var(y_sigma))
    t = x_sigma**2 + (variance_x / variance_y if variance_y > 0 else 1.0) * y_sigma**2
    rank = np.empty(len(t), np.int64)
    rank[np.argsort(t, kind="stable")] = np.arange(len(t))
    return rank * groups // max(len(t), 1)


def debias_maps(
    probability: NDArray,
    x_offset: NDArray,
    y_offset: NDArray,
    x_sigma: NDArray,
    y_sigma: NDArray,
    *,
    groups: int = 10,
    least_probability: float = 0.3,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Offsets of a network's maps made even, between the network and the detection.

    Pixels above `least_probability` are split into equally filled groups of sigma, and in each group the offsets of
    each axis are made even by `uniformize`; other pixels stay as they are.

    Args:
        probability, x_offset, y_offset, x_sigma, y_sigma: arrays of one shape; offsets from the pixel centre and
            sigmas in pixels.
        groups: groups of sigma.

    Returns:
        New x and y offsets.

    Raises:
        ValueError: shapes that differ.

    Source: Speiser et al. 2021, doi:10.1038/s41592-021-01236-x.
    """
    shapes = {np.shape(a) for a in (probability, x_offset, y_offset, x_sigma, y_sigma)}
    if len(shapes) != 1:
        raise ValueError(f"the maps have the shapes {sorted(shapes)}; give one shape for all five")
    use = np.asarray(probability) > least_probability
    number = sigma_groups(np.asarray(x_sigma, np.float64)[use], np.asarray(y_sigma, np.float64)[use], groups)
    outcome = []
    for offset in (x_offset, y_offset):
        result = np.array(offset, np.float64)
        values = result[use]
        for one in range(groups):
            values[number == one] = uniformize(values[number == one])
        result[use] = values
        outcome.append(result)
    return outcome[0], outcome[1]


def debias(table: Localizations, *, pixel_size_nm: PixelSize, groups: int = 10, least: int = 200) -> Localizations:
    """Positions of a table made even within the camera pixel, group by group of sigma.

    What `debias_maps` does to a network's maps, for any finished table: the position of a row is taken within its
    pixel, since the table does not say which pixel of a network spoke. Without sigmas all rows are one group. With
    few rows per group this only adds noise, of about 0.3 pixel / sqrt(rows in the group).

    Args:
        table: localizations.
        pixel_size_nm: one number or (x, y).
        groups: equally filled groups of sigma; fewer are made where they would hold less than `least` rows.
        least: rows that a group should hold.

    Returns:
        The table with new x_nm and y_nm; no row moves by more than a pixel.

    Raises:
        ValueError: a pixel size or a number of groups that is not positive, or a table of fewer than `least` rows.
    """
    if groups < 1 or least < 2:
        raise ValueError(f"{groups} groups of at least {least} rows; give at least 1 group and 2 rows")
    if len(table) < least:
        raise ValueError(f"the table has {len(table)} rows; evening out positions needs at least {least}")
    sizes = _sizes(pixel_size_nm)
    known = np.isfinite(table.x_sigma_nm).all() and np.isfinite(table.y_sigma_nm).all()
    groups = min(groups, len(table) // least) if known else 1
    number = (
        sigma_groups(table.x_sigma_nm / sizes[0], table.y_sigma_nm / sizes[1], groups)
        if known
        else np.zeros(len(table), np.int64)
    )
    columns = {}
    for name, size in zip(("x_nm", "y_nm"), sizes, strict=True):
        position = getattr(table, name) / size
        offset = position - np.floor(position) - 0.5
        moved = np.empty(len(table))
        for one in range(groups):
            part = number == one
            moved[part] = uniformize(offset[part], low=-0.5, high=0.5)
        columns[name] = (position - offset + moved) * size
    return table.replace(**columns)


def _sizes(pixel_size_nm: PixelSize) -> tuple[float, float]:
    sizes = pixel_size_nm if isinstance(pixel_size_nm, tuple) else (pixel_size_nm, pixel_size_nm)
    if len(sizes) != 2 or not all(0 < size < np.inf for size in sizes):
        raise ValueError(f"pixel_size_nm is {pixel_size_nm}; give a positive number of nm, or (x, y)")
    return float(sizes[0]), float(sizes[1])
