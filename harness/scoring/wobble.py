"""Wobble: spots move sideways with z, so that the centre of a fit is not where the molecule is.

Source: SMLM Challenge 2016 (Sage et al. 2019, doi:10.1038/s41592-019-0364-4), which lets each entrant correct
by a table measured on the bead stack with the entrant's own localizations.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import LSQUnivariateSpline

from simulators.emitters import Emitters, Localizations

from .matching import match


def check_wobble(wobble: ArrayLike) -> NDArray[np.float64]:
    """The table as (K, 3) float64 rows (dx, dy, z) in nm.

    Raises:
        ValueError: another shape, no row, or numbers that are not finite.
    """
    table = np.asarray(wobble, np.float64)
    if table.ndim != 2 or table.shape[1] != 3 or not len(table) or not np.isfinite(table).all():
        raise ValueError(f"the wobble table has shape {table.shape}; give finite rows (dx, dy, z) in nm")
    return table


def shift_by_wobble(truth: Emitters, wobble: ArrayLike) -> Emitters:
    """The truth moved by the (dx, dy) of the table's row with the nearest z; of two equally near, the earlier
    row.

    Args:
        truth: emitters with z.
        wobble: (K, 3) rows dx, dy, z in nm.

    Raises:
        ValueError: another shape, no row, or numbers that are not finite.
    """
    table = check_wobble(wobble)
    heights, first = np.unique(table[:, 2], return_index=True)
    above = np.clip(np.searchsorted(heights, truth.z_nm), 1, max(len(heights) - 1, 1))
    if len(heights) == 1:
        row = np.zeros(len(truth), np.int64)
    else:
        low, high = truth.z_nm - heights[above - 1], heights[above] - truth.z_nm
        earlier = first[above] < first[above - 1]
        row = np.where((high < low) | ((high == low) & earlier), above, above - 1)
    chosen = table[first[row]]
    return truth.replace(x_nm=truth.x_nm + chosen[:, 0], y_nm=truth.y_nm + chosen[:, 1])


def measure_wobble(
    *,
    found: Localizations,
    beads: Emitters,
    radius_nm: float = 500.0,
    breaks: int = 10,
    step_nm: float = 10.0,
) -> NDArray[np.float64]:
    """The wobble table of a method, from its localizations of a stack of beads.

    In each frame the localizations are paired with the beads, nearest first; the mean of found - true over the
    beads of a frame is fitted against z by cubic splines (least squares, `breaks` breaks at equal steps of z, fewer
    where there are few heights).

    Args:
        found: what the method localized in the bead stack, same frames as `beads`.
        beads: where the beads are: a row per bead and frame with its z.
        radius_nm: largest distance of a localization from its bead.
        breaks: breaks of the splines, ends included.
        step_nm: step of the table in z.

    Returns:
        (K, 3) rows dx, dy, z in nm, from the lowest z with a localization to the highest.

    Raises:
        ValueError: fewer than four heights have a localization.
    """
    pairs = match(truth=beads, found=found, tolerance_nm=radius_nm)
    heights, place = np.unique(beads.z_nm[pairs.truth_index], return_inverse=True)
    if len(heights) < 4:
        raise ValueError(
            f"localizations lie within {radius_nm:g} nm of a bead at {len(heights)} heights; a wobble table needs at "
            "least 4. Were frames, field and coordinates of both tables the same?"
        )
    count = np.bincount(place)
    levels = int(np.floor((heights[-1] - heights[0]) / step_nm + 1e-9))
    z = heights[0] + step_nm * np.arange(levels + 1)
    inner = np.linspace(heights[0], heights[-1], breaks)[1:-1]
    inner = _supported(heights, inner)
    columns = []
    for axis in ("x_nm", "y_nm"):
        error = getattr(found, axis)[pairs.found_index] - getattr(beads, axis)[pairs.truth_index]
        mean = np.bincount(place, error) / count
        columns.append(LSQUnivariateSpline(heights, mean, inner, w=np.sqrt(count), k=3)(z))
    return np.column_stack([*columns, z])


def _supported(heights: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inner breaks with at least one height in every interval, and four more heights than breaks."""
    kept: list[float] = []
    last = heights[0]
    for position in inner[: max(len(heights) - 4, 0)]:
        if np.any((heights > last) & (heights < position)) and np.sum(heights > position) > 1:
            kept.append(float(position))
            last = position
    return np.array(kept)


def read_wobble(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """A wobble table from a CSV of dx, dy, z in nm, with or without a header line.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: other than three columns of finite numbers.
    """
    place = Path(path)
    if not place.is_file():
        raise FileNotFoundError(f"no wobble table at {place}")
    rows = []
    for number, line in enumerate(place.read_text(encoding="utf-8-sig").splitlines()):
        if not line.strip():
            continue
        try:
            rows.append([float(cell) for cell in line.replace(";", ",").split(",")])
        except ValueError:
            if number:
                raise ValueError(f"{place}, line {number + 1}: {line!r} is no row dx, dy, z") from None
    if not rows or {len(row) for row in rows} != {3}:
        raise ValueError(f"{place}: expected rows of three numbers dx, dy, z in nm")
    return check_wobble(rows)


def write_wobble(wobble: ArrayLike, path: str | os.PathLike[str]) -> None:
    """Write a wobble table as CSV; the file appears complete or not at all."""
    from harness.io.atomic import atomic_path

    table = check_wobble(wobble)
    lines = ["dx_nm,dy_nm,z_nm", *(",".join(f"{value:.6g}" for value in row) for row in table)]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def wobble_settings(wobble: ArrayLike | None) -> dict[str, Any] | None:
    """What a record says of the table: rows, largest shift and a hash; None without one."""
    if wobble is None:
        return None
    table = check_wobble(wobble)
    return {
        "rows": len(table),
        "largest_nm": float(np.hypot(table[:, 0], table[:, 1]).max()),
        "sha256": hashlib.sha256(np.ascontiguousarray(table, "<f8").tobytes()).hexdigest(),
    }
