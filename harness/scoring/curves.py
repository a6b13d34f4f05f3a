"""Scores as curves: over threshold, height, photons, density of the frame and crowding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simulators.emitters import Emitters, Localizations

from .assessment import Assessment
from .matching import neighbours_within
from .metrics import efficiency, score
from .protocol import Protocol

By = Literal["z", "photons", "density", "crowding"]
CROWDING_NM = 500.0
"""Radius within which other molecules of the same frame crowd one."""


def curve(
    assessment: Assessment,
    by: By,
    *,
    edges: Sequence[float] | None = None,
    bins: int = 10,
    radius_nm: float = CROWDING_NM,
) -> list[dict[str, Any]]:
    """Scores in bins of a quantity.

    Hits and misses are sorted by their emitter, false alarms by the same quantity of their own place:

    - "z": height in nm. False alarms by their own z, where they have one.
    - "photons": of the emitter. False alarms have no share in it, so no Jaccard index is given.
    - "density": emitters per um^2 in the frame, weak ones and those near the border included.
    - "crowding": other emitters of the frame within `radius_nm` of the place, laterally.

    Args:
        assessment: from `assess`.
        by: the quantity.
        edges: of the bins, ascending; a value on an edge belongs to the bin above it, the last edge to the last
            bin; what is outside is left out. None takes whole numbers (0, 1, 2, ... up to `bins` - 1 and more) for
            crowding and equally filled bins of the emitters that count for the others.
        bins: how many, where no edges are given.

    Returns:
        A dict per bin: low, high (None: no end), n_truth, tp, fn, fp, recall, jaccard (percent), rmse_lateral_nm,
        rmse_axial_nm, bias_x_nm, bias_y_nm, bias_z_nm and efficiency_lateral; None where undefined. Empty without
        emitters that count.

    Raises:
        ValueError: an unknown quantity, edges that do not ascend, or photons that are missing.
    """
    of_truth, of_found = _quantity(assessment, by, radius_nm)
    counts = ~assessment.weak
    if edges is not None:
        limits = np.asarray(edges, np.float64)
        if limits.ndim != 1 or len(limits) < 2 or not (np.diff(limits) > 0).all():
            raise ValueError(f"edges {list(edges)} do not ascend; give at least two rising numbers")
    else:
        if not counts.any():
            return []
        if by == "crowding":
            top = int(min(of_truth[counts].max(), bins - 1))
            limits = np.append(np.arange(top + 1, dtype=np.float64), math.inf)
        else:
            limits = np.unique(np.quantile(of_truth[counts], np.linspace(0, 1, bins + 1)))
            if len(limits) == 1:
                limits = np.repeat(limits, 2)
    last = len(limits) - 2

    def place(values: NDArray[np.float64]) -> NDArray[np.int64]:
        where = np.searchsorted(limits, values, side="right") - 1
        return np.where(values == limits[-1], last, np.where(np.isnan(values), -1, where))

    hit, alarm = assessment.hit_truth, assessment.false_alarm
    hit_bin, missed_bin = place(of_truth[hit]), place(of_truth[assessment.missed])
    alarm_bin = place(of_found[alarm]) if of_found is not None else None
    axial = assessment.protocol.dimensions == 3
    errors = {axis: assessment.error(axis) for axis in assessment.axes}
    rows = []
    for number in range(last + 1):
        inside = hit_bin == number
        tp, fn = int(inside.sum()), int((missed_bin == number).sum())
        fp = None if alarm_bin is None else int((alarm_bin == number).sum())
        lateral = _root_mean(errors["x"][inside] ** 2 + errors["y"][inside] ** 2)
        jaccard = None if fp is None or tp + fp + fn == 0 else 100 * tp / (tp + fp + fn)
        row = {
            "low": float(limits[number]),
            "high": _plain(float(limits[number + 1])),
            "n_truth": tp + fn,
            "tp": tp,
            "fn": fn,
            "fp": fp,
            "recall": 100 * tp / (tp + fn) if tp + fn else None,
            "jaccard": jaccard,
            "rmse_lateral_nm": lateral,
            "rmse_axial_nm": _root_mean(errors["z"][inside] ** 2) if axial else None,
            **{
                f"bias_{axis}_nm": float(errors[axis][inside].mean()) if axis in errors and tp else None
                for axis in "xyz"
            },
            "efficiency_lateral": None
            if jaccard is None
            else efficiency(jaccard=jaccard, rmse_nm=math.nan if lateral is None else lateral, alpha_per_nm=1.0),
        }
        rows.append(row)
    return rows


def threshold_curve(
    *,
    truth: Emitters,
    found: Localizations,
    field_nm: tuple[float, float],
    protocol: Protocol,
    thresholds: Sequence[float] | None = None,
    trials: int = 20,
) -> list[dict[str, Any]]:
    """Precision, recall and errors when only localizations of at least a probability are kept.

    These curves need no choice of a threshold. `choose_threshold` is the search for one.

    Args:
        truth, found, field_nm, protocol: as for `score`; `found` with probabilities.
        thresholds: probabilities; None takes `trials` steps, equally many localizations between two of them.

    Returns:
        A dict per threshold, ascending: threshold, tp, fp, fn, precision, recall, jaccard, rmse_lateral_nm and
        efficiency; None where undefined.

    Raises:
        ValueError: probabilities that are missing.
    """
    unknown = int((~np.isfinite(found.probability)).sum())
    if unknown:
        raise ValueError(f"{unknown} of {len(found)} localizations have no probability, over which the curve runs")
    if thresholds is None:
        shares = np.linspace(0, 1, trials, endpoint=False)
        thresholds = np.unique(np.quantile(found.probability, shares)).tolist() if len(found) else [0.0]
    rows = []
    names = ("tp", "fp", "fn", "precision", "recall", "jaccard", "rmse_lateral_nm", "efficiency")
    for threshold in sorted(thresholds):
        kept = found.pick(found.probability >= threshold)
        one = score(truth=truth, found=kept, field_nm=field_nm, protocol=protocol)
        rows.append({"threshold": float(threshold), **{name: _plain(getattr(one, name)) for name in names}})
    return rows


def _quantity(
    assessment: Assessment, by: str, radius_nm: float
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """The quantity for every row of the truth, and of the localizations (None: they have none)."""
    truth, found, everyone = assessment.truth, assessment.found, assessment.neighbours
    if by == "z":
        return truth.z_nm, found.z_nm
    if by == "photons":
        unknown = int((~np.isfinite(truth.photons)).sum())
        if unknown:
            raise ValueError(f"{unknown} of {len(truth)} emitters have no photons, over which the curve runs")
        return truth.photons, None
    if by == "density":
        width, height = assessment.field_nm
        in_field = (everyone.x_nm >= 0) & (everyone.x_nm < width) & (everyone.y_nm >= 0) & (everyone.y_nm < height)
        frames, counts = np.unique(everyone.frame[in_field], return_counts=True)
        area = width * height / 1e6

        def density(frame: NDArray[np.int64]) -> NDArray[np.float64]:
            if not len(frames):
                return np.zeros(len(frame))
            where = np.minimum(np.searchsorted(frames, frame), len(frames) - 1)
            return np.where(frames[where] == frame, counts[where], 0) / area

        return density(truth.frame), density(found.frame)
    if by == "crowding":
        if not radius_nm > 0:
            raise ValueError(f"radius_nm is {radius_nm}; give a positive distance in nm")

        def crowd(table: Emitters) -> NDArray[np.float64]:
            rows, _, _ = neighbours_within(table, everyone, radius_nm)
            return np.bincount(rows, minlength=len(table)).astype(np.float64)

        return crowd(truth) - 1, crowd(found)  # an emitter does not crowd itself
    raise ValueError(f"no curve over {by!r}; there are z, photons, density and crowding")


def _root_mean(values: NDArray[np.float64]) -> float | None:
    return math.sqrt(values.mean()) if len(values) else None


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
