"""Whether predicted sigmas are as large as the errors that were made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from .assessment import Assessment


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Errors of one quantity against their predicted sigmas. nan where nothing was predicted.

    Attributes:
        axis: "x", "y", "z" or "photons"; the unit of everything below is nm or photons.
        n: hits with a predicted sigma; missing: hits without.
        rmse: root mean square error, bias included. mean_sigma, rms_sigma: of the predictions.
        sigma_over_rmse: mean sigma / RMSE; 1 at best, above 1 the errors are feared too large.
        z_mean, z_std: mean and standard deviation of error / sigma; 0 and 1 at best.
        z_spread: 1.4826 times the median of |error / sigma - median|, which a few gross errors do not move; 1
            at best.
        within_1, within_2: share of the errors within one and two sigma; 0.683 and 0.954 for normal errors.
        expected_error: expected calibration error: mean over the hits of |RMSE - rms sigma| of their bin, equally
            filled bins of rising sigma.
        relative_error: the same with |RMSE - rms sigma| / rms sigma (ENCE), a mean over bins.
        correlation: Spearman's rank correlation of sigma with |error|.
        bins: for each bin n, lowest and highest sigma, rms_sigma, rmse and the standard error of that RMSE
            (normal errors: rmse / sqrt(2 n)).

    Source: expected (normalized) calibration error of regression, Levi et al. 2019, arXiv:1905.11659.
    """

    axis: str
    n: int
    missing: int
    rmse: float
    mean_sigma: float
    rms_sigma: float
    sigma_over_rmse: float
    z_mean: float
    z_std: float
    z_spread: float
    within_1: float
    within_2: float
    expected_error: float
    relative_error: float
    correlation: float
    bins: tuple[dict[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON; undefined numbers become None."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "bins"}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()} | {
            "bins": [dict(one) for one in self.bins]
        }


def calibrate(error: NDArray[np.float64], sigma: NDArray[np.float64], *, axis: str = "", bins: int = 10) -> Calibration:
    """Compare errors with predicted sigmas.

    Args:
        error: found - true, one for each hit.
        sigma: predicted standard errors, same length; rows where it is missing are left out and counted.
        axis: name of the quantity.
        bins: equally filled bins of sigma; fewer where there are fewer than 2 hits for each.

    Raises:
        ValueError: lengths that differ, a sigma that is not positive, or no bins.
    """
    error, sigma = np.asarray(error, np.float64), np.asarray(sigma, np.float64)
    if error.shape != sigma.shape or error.ndim != 1:
        raise ValueError(f"errors have shape {error.shape}, sigmas {sigma.shape}; give one of each per hit")
    if bins < 1:
        raise ValueError(f"bins is {bins}; give at least 1")
    known = np.isfinite(sigma) & np.isfinite(error)
    missing = int((~known).sum())
    error, sigma = error[known], sigma[known]
    n = len(error)
    if (sigma <= 0).any():
        raise ValueError(f"{int((sigma <= 0).sum())} of {n} sigmas of {axis or 'the errors'} are not positive")
    if not n:
        return Calibration(axis=axis, n=0, missing=missing, bins=(), **dict.fromkeys(_NUMBERS, math.nan))
    z = error / sigma
    rmse, rms_sigma = _rms(error), _rms(sigma)
    table = _bins(error, sigma, min(bins, max(n // 2, 1)))
    gaps = np.array([abs(one["rmse"] - one["rms_sigma"]) for one in table])
    counts = np.array([one["n"] for one in table])
    constant = np.ptp(sigma) == 0 or np.ptp(np.abs(error)) == 0
    return Calibration(
        axis=axis,
        n=n,
        missing=missing,
        rmse=rmse,
        mean_sigma=float(sigma.mean()),
        rms_sigma=rms_sigma,
        sigma_over_rmse=float(sigma.mean()) / rmse if rmse > 0 else math.nan,
        z_mean=float(z.mean()),
        z_std=float(z.std()),
        z_spread=1.4826 * float(np.median(np.abs(z - np.median(z)))),
        within_1=float((np.abs(z) <= 1).mean()),
        within_2=float((np.abs(z) <= 2).mean()),
        expected_error=float((gaps * counts).sum() / n),
        relative_error=float(np.mean(gaps / np.array([one["rms_sigma"] for one in table]))),
        correlation=math.nan if constant else float(spearmanr(sigma, np.abs(error)).statistic),
        bins=table,
    )


_NUMBERS = (
    "rmse", "mean_sigma", "rms_sigma", "sigma_over_rmse", "z_mean", "z_std", "z_spread", "within_1", "within_2",
    "expected_error", "relative_error", "correlation",
)  # fmt: skip


def calibrations(assessment: Assessment, *, bins: int = 10) -> dict[str, Calibration]:
    """Calibration of each scored axis, and of the photons where both sides have them.

    Returns:
        axis -> calibration; axes of which no hit has a sigma are left out.
    """
    result = {}
    found = assessment.found.pick(assessment.hit_found)
    columns = {axis: (assessment.error(axis), getattr(found, f"{axis}_sigma_nm")) for axis in assessment.axes}
    columns["photons"] = (found.photons - assessment.truth.photons[assessment.hit_truth], found.photons_sigma)
    for axis, (error, sigma) in columns.items():
        one = calibrate(error, sigma, axis=axis, bins=bins)
        if one.n:
            result[axis] = one
    return result


def _bins(error: NDArray[np.float64], sigma: NDArray[np.float64], count: int) -> tuple[dict[str, float], ...]:
    order = np.argsort(sigma, kind="stable")
    table = []
    for part in np.array_split(order, count):
        rmse = _rms(error[part])
        table.append(
            {
                "n": len(part),
                "sigma_low": float(sigma[part[0]]),
                "sigma_high": float(sigma[part[-1]]),
                "rms_sigma": _rms(sigma[part]),
                "rmse": rmse,
                "rmse_error": rmse / math.sqrt(2 * len(part)),
            }
        )
    return tuple(table)


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))
