"""Scores by molecule instead of by row, and of point sets over the whole movie."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from simulators.emitters import Emitters, Localizations

from .assessment import Assessment

RMSMD_CLIP_NM = 250.0
_WORKERS = -1  # threads of the search for neighbours: all cores


def molecule_scores(assessment: Assessment) -> dict[str, Any]:
    """Scores of molecules: one is found when any of its rows is; its position is the mean over its hits.

    A molecule is what shares an `id` in the truth; it counts if any of its rows does (is not weak). False alarms
    belong to no molecule, so there is no precision.

    Returns:
        molecules, molecules_found, recall (percent), rows_per_molecule, hits_per_found, rmse_lateral_nm,
        rmse_axial_nm, bias_x_nm, bias_y_nm of the mean positions against the mean true ones in the same frames;
        None where undefined.

    Source: the assessment of the SMLM Challenge 2016, doi:10.1038/s41592-019-0364-4.
    """
    truth, found, hit = assessment.truth, assessment.found, assessment.hit_truth
    counted = truth.id[~assessment.weak]
    ids = np.unique(counted)
    number = np.searchsorted(ids, truth.id[hit])
    hits = np.bincount(number, minlength=len(ids))
    has = hits > 0
    errors: dict[str, NDArray[np.float64]] = {}
    for axis in assessment.axes:
        total = np.bincount(number, getattr(found, f"{axis}_nm")[assessment.hit_found], minlength=len(ids))
        total -= np.bincount(number, getattr(truth, f"{axis}_nm")[hit], minlength=len(ids))
        errors[axis] = total[has] / hits[has]
    any_found = bool(has.any())
    return {
        "molecules": len(ids),
        "molecules_found": int(has.sum()),
        "recall": 100 * float(has.mean()) if len(ids) else None,
        "rows_per_molecule": len(counted) / len(ids) if len(ids) else None,
        "hits_per_found": float(hits[has].mean()) if any_found else None,
        "rmse_lateral_nm": math.sqrt((errors["x"] ** 2 + errors["y"] ** 2).mean()) if any_found else None,
        "rmse_axial_nm": math.sqrt((errors["z"] ** 2).mean()) if any_found and "z" in errors else None,
        "bias_x_nm": float(errors["x"].mean()) if any_found else None,
        "bias_y_nm": float(errors["y"].mean()) if any_found else None,
    }


def rmsmd_nm(truth: Emitters, found: Localizations, *, dimensions: int = 2, clip_nm: float = RMSMD_CLIP_NM) -> float:
    """Root mean square minimum distance of two point sets over the whole movie, frames left aside.

    Each point of either set to the nearest of the other, clipped, root of the mean square over both sets together:
    one stray localization then counts as much as one miss, not more. `math.inf` does not clip.

    Args:
        truth, found: the point sets, e.g. those of an `Assessment` (inside the border).
        dimensions: 2, or 3 with z.
        clip_nm: largest distance that counts; also that of a point whose other set is empty.

    Returns:
        nm; nan where both sets are empty.

    Raises:
        ValueError: a z that is missing in 3D, or dimensions that are neither 2 nor 3.
    """
    if dimensions not in (2, 3):
        raise ValueError(f"dimensions is {dimensions}; give 2 or 3")
    if dimensions == 3 and not np.isfinite(found.z_nm).all():
        raise ValueError("localizations without z_nm; take dimensions=2 or give every localization a z")
    names = ("x_nm", "y_nm", "z_nm")[:dimensions]
    a, b = (np.column_stack([getattr(table, name) for name in names]) for table in (truth, found))
    if not len(a) and not len(b):
        return math.nan
    if not len(a) or not len(b):
        return clip_nm
    squares = 0.0
    for points, others in ((a, b), (b, a)):
        distance, _ = cKDTree(others).query(points, distance_upper_bound=clip_nm, workers=_WORKERS)
        squares += float((np.minimum(distance, clip_nm) ** 2).sum())  # inf where nothing is near
    return math.sqrt(squares / (len(a) + len(b)))
