"""Scores: matching, localization metrics, image metrics, choice of the threshold."""

from .assessment import Assessment, assess
from .calibration import Calibration, calibrations
from .curves import curve, threshold_curve
from .matching import Matches, match
from .metrics import Score, score, summarise
from .molecules import molecule_scores, rmsmd_nm
from .protocol import CHALLENGE_2D, CHALLENGE_3D, Protocol
from .reports import Report, report
from .thresholds import ThresholdPoint, choose_threshold
from .wobble import measure_wobble

__all__ = [
    "CHALLENGE_2D",
    "CHALLENGE_3D",
    "Assessment",
    "Calibration",
    "Matches",
    "Protocol",
    "Report",
    "Score",
    "ThresholdPoint",
    "assess",
    "calibrations",
    "choose_threshold",
    "curve",
    "match",
    "measure_wobble",
    "molecule_scores",
    "report",
    "rmsmd_nm",
    "score",
    "summarise",
    "threshold_curve",
]
