"""Join localizations of one molecule in consecutive frames into one row.

Source: the grouping described by Speiser et al. 2021, doi:10.1038/s41592-021-01236-x (their program leaves it
to others): localizations in consecutive frames within a radius, averaged with equal weights, by photons or
by 1 / sigma^2 of each axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.scoring.matching import match
from simulators.emitters import Localizations

from .filters import require

Weights = Literal["none", "photons", "sigma"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Grouped:
    """Localizations joined over frames.

    Attributes:
        localizations: a row for each group, ordered by first frame, then by the first row in the table.
            `frame` is the group's first, `id` its number.
        group: number of the group of each row of the table, int64.
        size: rows in each group.
        last_frame: last frame of each group.
    """

    localizations: Localizations
    group: NDArray[np.int64]
    size: NDArray[np.int64]
    last_frame: NDArray[np.int64]


def link(
    table: Localizations, *, radius_nm: float, gap_frames: int = 0, axial_radius_nm: float | None = None
) -> NDArray[np.int64]:
    """Number of the group of each row.

    Rows of consecutive frames are paired one to one, nearest first, when at most the radius apart; a chain of
    pairs is a group. Then rows that have no successor are paired with rows that have no predecessor two
    frames later, and so on up to the gap. The radius is from one localization to the next of the chain.

    Args:
        table: localizations, rows in any order.
        radius_nm: largest lateral distance of two successive localizations of a molecule.
        gap_frames: frames that a molecule may miss in between.
        axial_radius_nm: largest |dz| as well; None ignores z. With it the nearest in 3D is taken first.

    Returns:
        (N,) numbers from 0, in order of first frame, then of the group's first row.

    Raises:
        ValueError: a radius that is not positive, a negative gap, or an axial radius without z.
    """
    if not radius_nm > 0:
        raise ValueError(f"radius_nm is {radius_nm}; give a positive distance in nm, e.g. 50")
    if axial_radius_nm is not None and not axial_radius_nm > 0:
        raise ValueError(f"axial_radius_nm is {axial_radius_nm}; give a positive distance in nm, or None")
    if gap_frames < 0:
        raise ValueError(f"gap_frames is {gap_frames}; give 0 or the number of frames that may be missing")
    if axial_radius_nm is not None:
        require(table, ("z_nm",))
    n = len(table)
    following = np.full(n, -1)  # row of the successor
    preceded = np.zeros(n, bool)
    for step in range(1, gap_frames + 2):
        ends, starts = np.flatnonzero(following < 0), np.flatnonzero(~preceded)
        earlier = table.pick(ends)
        pairs = match(
            truth=earlier.replace(frame=earlier.frame + step),
            found=table.pick(starts),
            tolerance_nm=radius_nm,
            axial_tolerance_nm=axial_radius_nm,
        )
        following[ends[pairs.truth_index]] = starts[pairs.found_index]
        preceded[starts[pairs.found_index]] = True
    return _number(table, following, preceded)


def _number(table: Localizations, following: NDArray[np.int64], preceded: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Group numbers from the successor of each row: walk all chains at once."""
    heads = np.flatnonzero(~preceded)
    heads = heads[np.argsort(table.frame[heads], kind="stable")]
    group = np.empty(len(table), np.int64)
    rows, numbers = heads, np.arange(len(heads))
    while len(rows):
        group[rows] = numbers
        further = following[rows]
        rows, numbers = further[further >= 0], numbers[further >= 0]
    return group


def group(
    table: Localizations,
    *,
    radius_nm: float,
    gap_frames: int = 0,
    weights: Weights = "none",
    axial_radius_nm: float | None = None,
) -> Grouped:
    """Join what `link` holds for one molecule.

    Photons are summed, background is averaged, probability is the largest. Positions are averaged with the
    chosen weights, and the sigmas are those of the weighted mean of independent measurements: with weights w
    ``sqrt(sum (w s)^2) / sum w``, which is ``1 / sqrt(sum 1 / s^2)`` for weights "sigma". What is missing in a
    row of a group is missing in the group.

    Args:
        table: localizations, rows in any order.
        radius_nm, gap_frames, axial_radius_nm: see `link`.
        weights: "none" (equal), "photons", or "sigma" (1 / sigma^2 of each axis; z without sigmas is averaged
            with those of x).

    Raises:
        ValueError: as `link`; an unknown kind of weights, or weights that are missing or not positive.
    """
    if weights not in ("none", "photons", "sigma"):
        raise ValueError(f"no weights named {weights!r}; there are 'none', 'photons' and 'sigma'")
    of_axis = _weights(table, weights)
    number = link(table, radius_nm=radius_nm, gap_frames=gap_frames, axial_radius_nm=axial_radius_nm)
    count = int(number.max()) + 1 if len(number) else 0

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(number, values, minlength=count).astype(np.float64)

    size = np.bincount(number, minlength=count)
    columns: dict[str, NDArray] = {"id": np.arange(count)}
    for axis, weight in zip("xyz", of_axis, strict=True):
        norm = total(weight)
        columns[f"{axis}_nm"] = total(weight * getattr(table, f"{axis}_nm")) / norm
        columns[f"{axis}_sigma_nm"] = np.sqrt(total((weight * getattr(table, f"{axis}_sigma_nm")) ** 2)) / norm
    columns["photons"] = total(table.photons)
    columns["photons_sigma"] = np.sqrt(total(table.photons_sigma**2))
    columns["background"] = total(table.background) / size
    columns["background_sigma"] = np.sqrt(total(table.background_sigma**2)) / size
    columns["probability"] = np.full(count, -np.inf)
    with np.errstate(invalid="ignore"):  # nan stays nan
        np.maximum.at(columns["probability"], number, table.probability)
    first, last = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
    np.minimum.at(first, number, table.frame)
    np.maximum.at(last, number, table.frame)
    columns["frame"] = first
    return Grouped(localizations=Localizations(**columns), group=number, size=size, last_frame=last)


def _weights(table: Localizations, weights: Weights) -> tuple[NDArray[np.float64], ...]:
    """Weights of x, y and z for each row."""
    if weights == "none":
        same = np.ones(len(table))
        return same, same, same
    names = ("photons",) * 3 if weights == "photons" else ("x_sigma_nm", "y_sigma_nm", "z_sigma_nm")
    if weights == "sigma" and not np.isfinite(table.z_sigma_nm).any():
        names = (*names[:2], "x_sigma_nm")
    require(table, names)
    for name in names:
        low = int((getattr(table, name) <= 0).sum())
        if low:
            raise ValueError(f"{low} of {len(table)} localizations have a {name} that is not positive; filter them out")
    if weights == "photons":
        return table.photons, table.photons, table.photons
    x, y, z = (1 / getattr(table, name) ** 2 for name in names)
    return x, y, z
