"""Scores: matching, localization metrics, image metrics, choice of the threshold."""

from .assessment import Assessment, assess
from .matching import Matches, match
from .metrics import Score, score, summarise
from .protocol import CHALLENGE_2D, CHALLENGE_3D, Protocol
from .thresholds import ThresholdPoint, choose_threshold

__all__ = [
    "CHALLENGE_2D",
    "CHALLENGE_3D",
    "Assessment",
    "Matches",
    "Protocol",
    "Score",
    "ThresholdPoint",
    "assess",
    "choose_threshold",
    "match",
    "score",
    "summarise",
]
