"""Scores of localizations against ground truth, by the rules of the SMLM Challenge.

Source: Sage et al. 2019, doi:10.1038/s41592-019-0364-4, and the challenge's published assessment.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leaderboard.statistics import BLOCK_FRAMES, NO_HIT_EFFICIENCY, Blocks
from simulators.emitters import Emitters, Localizations

from .assessment import Assessment, assess
from .matching import Rule
from .protocol import CHALLENGE_2D, CHALLENGE_3D, RULES_VERSION, Protocol
from .wobble import wobble_settings


@dataclass(frozen=True, kw_only=True)
class Score:
    """Counts over a movie, and what follows from them. All ratios are percent, 0..100, summed over frames
    first.

    Empty cases: a ratio 0/0 is 0 (nothing found where nothing is, too), so `jaccard`, `precision`, `recall`,
    `f1` and the efficiencies are always numbers and can be ranked; without a hit the efficiencies are -100.
    What is measured on hits only (RMSE, bias, MAD, photon correlation) is nan without hits, and `to_dict`
    gives None for it.

    Attributes:
        wobble: rows, largest shift and hash of the wobble table; None without one.
        tp, fp, fn: hits, false alarms, misses; weak emitters and localizations paired with them are in none.
        n_truth, n_found: rows that count, tp + fn and tp + fp.
        n_weak: weak emitters inside the border; n_on_weak: localizations paired with them.
        threshold_photons: emitters at or below are weak; 0 when none is excused.
        rmse_x_nm, rmse_y_nm: sqrt(mean(dx^2)), sqrt(mean(dy^2)); rmse_lateral_nm: sqrt(mean(dx^2 + dy^2));
            rmse_axial_nm: sqrt(mean(dz^2)); rmse_volume_nm: of all three. The last two are nan in 2D.
        bias_x_nm, bias_y_nm, bias_z_nm: mean of found - true.
        mad_lateral_nm: mean |dx| + |dy|; mad_axial_nm: mean |dz|; mad_nm: mean |dx| + |dy| (+ |dz| in 3D).
        efficiency_lateral, efficiency_axial: 100 - sqrt((100 - jaccard)^2 + (alpha RMSE)^2), alpha = 1 and
            0.5 per nm.
        efficiency: the lateral one in 2D, the mean of both in 3D. 100 at best, may be negative.
        photon_correlation: Pearson's r over the hits; nan when a side has no spread or no photons.
        frame: frames in which anything counts, ascending; frame_tp, frame_fp, frame_fn, frame_lateral_nm2
            (sum of dx^2 + dy^2 over hits) and frame_axial_nm2 belong to them, for resampling by blocks of
            frames.
    """

    protocol: Protocol
    field_nm: tuple[float, float]
    wobble: dict[str, Any] | None
    tp: int
    fp: int
    fn: int
    n_weak: int
    n_on_weak: int
    threshold_photons: float
    rmse_x_nm: float
    rmse_y_nm: float
    rmse_lateral_nm: float
    rmse_axial_nm: float
    rmse_volume_nm: float
    bias_x_nm: float
    bias_y_nm: float
    bias_z_nm: float
    mad_lateral_nm: float
    mad_axial_nm: float
    mad_nm: float
    photon_correlation: float
    frame: NDArray[np.int64] = dataclasses.field(repr=False)
    frame_tp: NDArray[np.int64] = dataclasses.field(repr=False)
    frame_fp: NDArray[np.int64] = dataclasses.field(repr=False)
    frame_fn: NDArray[np.int64] = dataclasses.field(repr=False)
    frame_lateral_nm2: NDArray[np.float64] = dataclasses.field(repr=False)
    frame_axial_nm2: NDArray[np.float64] = dataclasses.field(repr=False)

    @property
    def n_truth(self) -> int:
        return self.tp + self.fn

    @property
    def n_found(self) -> int:
        return self.tp + self.fp

    @property
    def jaccard(self) -> float:
        return _percent(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        return _percent(self.tp, self.n_found)

    @property
    def recall(self) -> float:
        return _percent(self.tp, self.n_truth)

    @property
    def f1(self) -> float:
        return _percent(2 * self.tp, self.n_truth + self.n_found)

    @property
    def efficiency_lateral(self) -> float:
        return efficiency(jaccard=self.jaccard, rmse_nm=self.rmse_lateral_nm, alpha_per_nm=1.0)

    @property
    def efficiency_axial(self) -> float:
        if self.protocol.dimensions == 2:
            return math.nan
        return efficiency(jaccard=self.jaccard, rmse_nm=self.rmse_axial_nm, alpha_per_nm=0.5)

    @property
    def efficiency(self) -> float:
        if self.protocol.dimensions == 2:
            return self.efficiency_lateral
        return (self.efficiency_lateral + self.efficiency_axial) / 2

    def blocks(self, *, n_frames: int, block_frames: int = BLOCK_FRAMES) -> Blocks:
        """The counts by blocks of consecutive frames, for intervals and comparisons (`leaderboard.statistics`).

        Args:
            n_frames: frames of the movie; rows of later frames count in the last block.
            block_frames: frames in a block; a shorter last one is a block.
        """
        return Blocks.of_frames(
            frame=np.minimum(self.frame, max(n_frames - 1, 0)),
            tp=self.frame_tp,
            fp=self.frame_fp,
            fn=self.frame_fn,
            lateral_nm2=self.frame_lateral_nm2,
            axial_nm2=self.frame_axial_nm2,
            n_frames=max(n_frames, 1),
            dimensions=self.protocol.dimensions,
            block_frames=block_frames,
        )

    def to_dict(self, *, per_frame: bool = False) -> dict[str, Any]:
        """Plain numbers, strings and lists, ready for JSON; undefined numbers become None.

        Args:
            per_frame: also the lists by frame.
        """
        names = ["tp", "fp", "fn", "n_truth", "n_found", "n_weak", "n_on_weak", "threshold_photons"]
        names += ["jaccard", "precision", "recall", "f1"]
        names += ["rmse_x_nm", "rmse_y_nm", "rmse_lateral_nm", "rmse_axial_nm", "rmse_volume_nm"]
        names += ["bias_x_nm", "bias_y_nm", "bias_z_nm", "mad_lateral_nm", "mad_axial_nm", "mad_nm"]
        names += ["photon_correlation", "efficiency_lateral", "efficiency_axial", "efficiency"]
        result: dict[str, Any] = {name: _plain(getattr(self, name)) for name in names}
        result["protocol"] = dataclasses.asdict(self.protocol)
        result["rules_version"] = RULES_VERSION
        result["field_nm"] = list(self.field_nm)
        result["wobble"] = self.wobble
        if per_frame:
            for field in dataclasses.fields(self):
                if field.name.startswith("frame"):
                    result[field.name] = getattr(self, field.name).tolist()
        return result


def efficiency(*, jaccard: float, rmse_nm: float, alpha_per_nm: float) -> float:
    """100 - sqrt((100 - jaccard)^2 + (alpha rmse)^2); -100 where the RMSE is undefined.

    Args:
        jaccard: percent.
        rmse_nm: nm, nan without hits.
        alpha_per_nm: 1 for lateral, 0.5 for axial errors.

    Example:
        >>> efficiency(jaccard=100, rmse_nm=5, alpha_per_nm=1)
        95.0
    """
    if math.isnan(rmse_nm):
        return NO_HIT_EFFICIENCY
    return 100 - math.hypot(100 - jaccard, alpha_per_nm * rmse_nm)


def score(
    *,
    truth: Emitters,
    found: Localizations,
    field_nm: tuple[float, float],
    protocol: Protocol | None = None,
    dimensions: int | None = None,
    tolerance_nm: float | None = None,
    axial_tolerance_nm: float | None = None,
    volume_tolerance_nm: float | None = None,
    border_nm: float | None = None,
    quantile: float | None = None,
    rule: Rule | None = None,
    wobble: ArrayLike | None = None,
) -> Score:
    """Score localizations against the truth.

    The settings are those of `protocol`, by default the challenge's (`CHALLENGE_2D`, with dimensions=3
    `CHALLENGE_3D`); single ones given here replace them, and the record of the score holds what was used.

    `harness.scoring.assess` tells the steps.

    Args:
        truth: emitters with photons in that frame, unless quantile is 0.
        found: localizations.
        field_nm: width (x) and height (y) of the field in nm, the frame's columns and rows times the pixel
            size.
        wobble: rows (dx, dy, z) in nm: by how much a spot of that z lies off its emitter; the nearest z
            holds.

    Raises:
        ValueError: impossible settings, a truth without photons where the quantile needs them, a malformed
            wobble table.
    """
    if protocol is None:
        protocol = CHALLENGE_3D if dimensions == 3 else CHALLENGE_2D
    given = {
        "dimensions": dimensions,
        "tolerance_nm": tolerance_nm,
        "axial_tolerance_nm": axial_tolerance_nm,
        "volume_tolerance_nm": volume_tolerance_nm,
        "border_nm": border_nm,
        "quantile": quantile,
        "rule": rule,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    if any(getattr(protocol, name) != value for name, value in changed.items()):
        protocol = dataclasses.replace(protocol, name=f"{protocol.name} (changed)", **changed)  # type: ignore[arg-type]
    return summarise(assess(truth=truth, found=found, field_nm=field_nm, protocol=protocol, wobble=wobble))


def summarise(assessment: Assessment) -> Score:
    """The score of an assessment."""
    truth, found, protocol = assessment.truth, assessment.found, assessment.protocol
    t, f = assessment.hit_truth, assessment.hit_found
    axial = protocol.dimensions == 3
    dx, dy = assessment.error("x"), assessment.error("y")
    dz = assessment.error("z") if axial else np.zeros(len(t))
    lateral2, axial2 = dx**2 + dy**2, dz**2

    tp_frames, fp_frames = truth.frame[t], found.frame[assessment.false_alarm]
    fn_frames = truth.frame[assessment.missed]
    frames = np.unique(np.concatenate([tp_frames, fp_frames, fn_frames])).astype(np.int64)

    def by_frame(which: NDArray, weights: NDArray | None = None) -> NDArray:
        return np.bincount(np.searchsorted(frames, which), weights, minlength=len(frames))

    return Score(
        protocol=protocol,
        field_nm=assessment.field_nm,
        wobble=wobble_settings(assessment.wobble),
        tp=len(t),
        fp=int(assessment.false_alarm.sum()),
        fn=int(assessment.missed.sum()),
        n_weak=int(assessment.weak.sum()),
        n_on_weak=int(assessment.on_weak.sum()),
        threshold_photons=assessment.threshold_photons,
        rmse_x_nm=_root_mean(dx**2),
        rmse_y_nm=_root_mean(dy**2),
        rmse_lateral_nm=_root_mean(lateral2),
        rmse_axial_nm=_root_mean(axial2) if axial else math.nan,
        rmse_volume_nm=_root_mean(lateral2 + axial2) if axial else math.nan,
        bias_x_nm=_mean(dx),
        bias_y_nm=_mean(dy),
        bias_z_nm=_mean(dz) if axial else math.nan,
        mad_lateral_nm=_mean(np.abs(dx) + np.abs(dy)),
        mad_axial_nm=_mean(np.abs(dz)) if axial else math.nan,
        mad_nm=_mean(np.abs(dx) + np.abs(dy) + np.abs(dz)),
        photon_correlation=_pearson(truth.photons[t], found.photons[f]),
        frame=frames,
        frame_tp=by_frame(tp_frames),
        frame_fp=by_frame(fp_frames),
        frame_fn=by_frame(fn_frames),
        frame_lateral_nm2=by_frame(tp_frames, lateral2),
        frame_axial_nm2=by_frame(tp_frames, axial2),
    )


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _root_mean(values: NDArray[np.float64]) -> float:
    return math.sqrt(_mean(values)) if len(values) else math.nan


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def _plain(value: float) -> float | int | None:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
