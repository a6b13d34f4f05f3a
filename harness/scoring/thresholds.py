"""The one free number of an image model: the threshold, chosen on validation data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simulators.emitters import Emitters, Localizations

from .metrics import score
from .protocol import CHALLENGE_2D, Protocol


@dataclass(frozen=True, kw_only=True)
class ThresholdPoint:
    """Scores at one threshold; the points of a search make the precision-recall and RMSE-recall curves."""

    threshold: float
    efficiency: float
    jaccard: float
    precision: float
    recall: float
    rmse_lateral_nm: float
    tp: int


def choose_threshold(
    decode: Callable[[float], Localizations],
    *,
    truth: Emitters,
    field_nm: tuple[float, float],
    low: float,
    high: float,
    trials: int = 20,
    protocol: Protocol = CHALLENGE_2D,
) -> tuple[float, list[ThresholdPoint]]:
    """The threshold of largest efficiency, on a grid of equal steps in the logarithm.

    Use validation data, then keep the threshold for every test set. A threshold without a hit never wins
    against one with hits (its efficiency is -100 by definition, and others may lie below that). Of equally
    good ones the larger Jaccard index wins, then the smaller threshold. Without a hit anywhere the smallest
    threshold is returned.

    Args:
        decode: threshold -> localizations of the whole validation movie, e.g.
            ``lambda t: output.decode(maps, threshold=t, pixel_size_nm=100)``.
        truth: emitters of that movie.
        field_nm: width and height of the field in nm.
        low, high: ends of the grid, both tried; 0 < low <= high.
        trials: number of thresholds.
        protocol: settings of the score.

    Returns:
        The threshold and the points of all trials, ascending.

    Raises:
        ValueError: a grid that is empty or not positive.
    """
    if not 0 < low <= high < np.inf or trials < 1:
        raise ValueError(f"thresholds from {low} to {high} in {trials} trials; need 0 < low <= high and trials >= 1")
    curve = []
    for threshold in np.geomspace(low, high, trials).tolist():
        result = score(truth=truth, found=decode(threshold), field_nm=field_nm, protocol=protocol)
        point = ThresholdPoint(
            threshold=threshold,
            efficiency=result.efficiency,
            jaccard=result.jaccard,
            precision=result.precision,
            recall=result.recall,
            rmse_lateral_nm=result.rmse_lateral_nm,
            tp=result.tp,
        )
        curve.append(point)
    best = max(curve, key=lambda p: (p.tp > 0, p.efficiency, p.jaccard, -p.threshold))
    return best.threshold, curve
