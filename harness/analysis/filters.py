"""Keep the localizations that are trusted: by their predicted errors, by limits, by a kept share.

Source: the sigma filter of Speiser et al. 2021, doi:10.1038/s41592-021-01236-x, as their program applies it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simulators.emitters import Localizations

_AXES = ("x_sigma_nm", "y_sigma_nm", "z_sigma_nm")
LIMITS = ("probability", "photons", "background", *_AXES, "photons_sigma", "background_sigma", "frame", "x_nm", "y_nm")
"""Columns that `within_limits` takes, with z_nm."""


def keep_best_sigma(table: Localizations, fraction: float, *, dimensions: int | None = None) -> NDArray[np.bool_]:
    """Which localizations have the smallest predicted errors.

    The size of a row's error is ``t = sx^2 + (vx / vy) sy^2 [+ (vx / vz) sz^2]``, v being the sample variance
    (n - 1) of each column of sigmas, so that axes whose sigmas spread more do not decide alone. Rows with t
    below the percentile `fraction` of all t stay (linear between order statistics; 1 keeps all).

    Args:
        table: localizations with sigmas, at least two.
        fraction: share to keep, 0..1.
        dimensions: 2 leaves z out, 3 takes it in; None takes it in if any z is known and not 0.

    Returns:
        A mask over the rows.

    Raises:
        ValueError: a share outside 0..1, fewer than two rows, or sigmas that are missing.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}; give the share of localizations to keep, 0..1, e.g. 0.9")
    if fraction == 1:
        weighted_sigma_nm(table, dimensions=dimensions)  # the same checks as for any other share
        return np.ones(len(table), bool)
    t = weighted_sigma_nm(table, dimensions=dimensions) ** 2
    return t < np.quantile(t, fraction)


def weighted_sigma_nm(table: Localizations, *, dimensions: int | None = None) -> NDArray[np.float64]:
    """One error for each row, nm: the root of the t of `keep_best_sigma`. Also good for colouring.

    Raises:
        ValueError: fewer than two rows, or sigmas that are missing.
    """
    names = _AXES[: _dimensions(table, dimensions)]
    if len(table) < 2:
        raise ValueError(f"the table has {len(table)} rows; the spread of the sigmas needs at least 2")
    require(table, names)
    spread = [float(np.var(getattr(table, name), ddof=1)) for name in names]
    t = np.zeros(len(table))
    for name, own in zip(names, spread, strict=True):
        weight = 1.0 if own == spread[0] else (spread[0] / own if own > 0 else 0.0)
        t += weight * getattr(table, name) ** 2
    return np.sqrt(t)


def total_sigma_nm(table: Localizations, *, dimensions: int | None = None) -> NDArray[np.float64]:
    """Plain total error of each row: root of the sum of squares of the sigmas, nm.

    Raises:
        ValueError: sigmas that are missing.
    """
    names = _AXES[: _dimensions(table, dimensions)]
    require(table, names)
    return np.sqrt(sum((getattr(table, name) ** 2 for name in names), np.zeros(len(table))))


def within_limits(table: Localizations, **limits: tuple[float | None, float | None]) -> NDArray[np.bool_]:
    """Which rows lie within limits; both ends belong to the interval, None leaves an end open.

    Args:
        table: localizations.
        limits: column=(low, high), in the units of the table, e.g. ``x_sigma_nm=(None, 40)``.

    Returns:
        A mask over the rows.

    Raises:
        ValueError: an unknown column, limits in the wrong order, or a column with missing values.

    Example:
        >>> table = Localizations(frame=[0, 0], x_nm=[5.0, 6.0], y_nm=1.0, photons=[100.0, 900.0])
        >>> within_limits(table, photons=(500, None)).tolist()
        [False, True]
    """
    kept = np.ones(len(table), bool)
    for name, (low, high) in limits.items():
        if name not in table.columns():
            raise ValueError(f"no column {name!r} to limit; there are {', '.join(table.columns())}")
        if low is None and high is None:
            continue
        lowest, highest = -math.inf if low is None else low, math.inf if high is None else high
        if not lowest <= highest:
            raise ValueError(f"limits of {name}: {low} to {high}; the first must not exceed the second")
        require(table, (name,))
        values = getattr(table, name)
        kept &= (values >= lowest) & (values <= highest)
    return kept


def require(table: Localizations, names: tuple[str, ...]) -> None:
    """Raises:
    ValueError: a column has missing values; says which and how many.
    """
    for name in names:
        unknown = int((~np.isfinite(getattr(table, name))).sum())
        if unknown:
            raise ValueError(f"{unknown} of {len(table)} localizations have no {name}, which this needs")


def _dimensions(table: Localizations, dimensions: int | None) -> int:
    if dimensions not in (None, 2, 3):
        raise ValueError(f"dimensions is {dimensions}; give 2, 3 or None")
    if dimensions is None:
        return 3 if bool((np.isfinite(table.z_nm) & (table.z_nm != 0)).any()) else 2
    return dimensions
