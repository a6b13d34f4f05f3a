"""Everything that is said about a table of localizations: one call, one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from leaderboard.statistics import BLOCK_FRAMES, LEVEL, RESAMPLES, Blocks, Interval, intervals
from simulators.emitters import Emitters, Localizations

from .assessment import Assessment, assess
from .bounds import crlb_scores
from .calibration import Calibration, calibrations
from .curves import CROWDING_NM, curve, threshold_curve
from .failures import worst_frames
from .flags import flags
from .metrics import Score, score, summarise
from .molecules import RMSMD_CLIP_NM, molecule_scores, rmsmd_nm
from .protocol import CHALLENGE_2D, RULES_VERSION, Protocol

STRICT_TOLERANCE_NM = 100.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """A score with what is needed to trust it.

    Attributes:
        score: by the protocol.
        every_molecule: the same with quantile 0; strict: the same with a tolerance of 100 nm.
        blocks: counts by blocks of frames; intervals: score name -> interval from them.
        molecules: see `molecule_scores`. rmsmd_nm: see `rmsmd_nm`.
        calibration: axis -> calibration of the predicted sigmas, empty without.
        curves: "z", "photons", "density", "crowding", "threshold" -> rows; those that the tables do not allow are
            left out.
        crlb: see `crlb_scores`; empty without bounds.
        flags: what looks wrong, see `harness.scoring.flags.flags`.
        worst: the frames with most mistakes, see `worst_frames`.
        settings: how the intervals were made.
    """

    score: Score
    every_molecule: Score
    strict: Score
    blocks: Blocks
    intervals: dict[str, Interval]
    molecules: dict[str, Any]
    rmsmd_nm: float
    calibration: dict[str, Calibration]
    curves: dict[str, list[dict[str, Any]]]
    crlb: dict[str, dict[str, Any]]
    flags: list[str]
    worst: list[dict[str, Any]]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, ready for JSON: the score's own entries and the further ones."""
        return {
            **self.score.to_dict(),
            "efficiency_quantile0": self.every_molecule.efficiency,
            "jaccard_quantile0": self.every_molecule.jaccard,
            "efficiency_100nm": self.strict.efficiency,
            "rmsmd_nm": None if np.isnan(self.rmsmd_nm) else self.rmsmd_nm,
            "molecules": self.molecules,
            "intervals": {name: one.to_dict() for name, one in self.intervals.items()},
            "calibration": {axis: one.to_dict() for axis, one in self.calibration.items()},
            "crlb": self.crlb,
            "curves": self.curves,
            "flags": self.flags,
            "worst": self.worst,
            "blocks": self.blocks.to_dict(),
            "settings": self.settings,
        }


def report(
    *,
    truth: Emitters,
    found: Localizations,
    field_nm: tuple[float, float],
    protocol: Protocol = CHALLENGE_2D,
    wobble: ArrayLike | None = None,
    n_frames: int | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    curves: bool = True,
    crlb: Mapping[str, ArrayLike] | None = None,
    isolated_nm: float | None = None,
) -> Report:
    """Score localizations and say how sure the score is.

    Args:
        truth, found, field_nm, protocol, wobble: see `score`.
        n_frames: frames of the movie; None takes the last frame in either table.
        seed: of the bootstrap.
        resamples: resampled movies; 0 leaves the intervals out.
        curves: also the curves; that over the threshold scores the movie 20 times.
        crlb, isolated_nm: see `crlb_scores`.

    Raises:
        ValueError: as `score`.
    """
    whole = assess(truth=truth, found=found, field_nm=field_nm, protocol=protocol, wobble=wobble)
    main = summarise(whole)
    every = summarise(whole.with_quantile(0.0)) if protocol.quantile > 0 else main
    strict = main
    if protocol.tolerance_nm != STRICT_TOLERANCE_NM:
        narrow = replace(protocol, tolerance_nm=STRICT_TOLERANCE_NM)
        strict = score(truth=truth, found=found, field_nm=field_nm, protocol=narrow, wobble=wobble)
    if n_frames is None:
        n_frames = 1 + int(max(truth.frame.max(initial=-1), found.frame.max(initial=-1)))
    blocks = main.blocks(n_frames=n_frames)
    calibrated = calibrations(whole)
    drawn = intervals(blocks, rng=np.random.default_rng(seed), resamples=resamples) if resamples else {}
    return Report(
        score=main,
        every_molecule=every,
        strict=strict,
        blocks=blocks,
        intervals=drawn,
        molecules=molecule_scores(whole),
        rmsmd_nm=rmsmd_nm(whole.truth, whole.found, dimensions=protocol.dimensions),
        calibration=calibrated,
        curves=_curves(whole, found) if curves else {},
        crlb=crlb_scores(whole, crlb, isolated_nm=isolated_nm) if crlb else {},
        flags=flags(whole, main, calibrated, truth=truth, found=found, n_frames=n_frames),
        worst=worst_frames(whole, found=found),
        settings={
            "rules_version": RULES_VERSION,
            "protocol": asdict(protocol),
            "wobble": main.wobble,
            "n_frames": n_frames,
            "block_frames": BLOCK_FRAMES,
            "resamples": resamples,
            "level": LEVEL,
            "seed": seed,
            "rmsmd_clip_nm": RMSMD_CLIP_NM,
            "crowding_radius_nm": CROWDING_NM,
            "isolated_nm": isolated_nm,
        },
    )


def _curves(whole: Assessment, found: Localizations) -> dict[str, list[dict[str, Any]]]:
    result = {}
    if len(whole.truth) and np.ptp(whole.truth.z_nm) > 0:
        result["z"] = curve(whole, "z")
    if len(whole.truth) and np.isfinite(whole.truth.photons).all():
        result["photons"] = curve(whole, "photons")
    result["density"] = curve(whole, "density")
    result["crowding"] = curve(whole, "crowding")
    if len(found) and np.isfinite(found.probability).all() and np.ptp(found.probability) > 0:
        result["threshold"] = threshold_curve(
            truth=whole.neighbours, found=found, field_nm=whole.field_nm, protocol=whole.protocol
        )
    return result
