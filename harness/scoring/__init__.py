"""Scores: matching, localization metrics, image metrics, choice of the threshold."""

from .matching import Matches, match
from .metrics import CHALLENGE_2D, CHALLENGE_3D, Protocol, Score, score
from .thresholds import ThresholdPoint, choose_threshold

__all__ = [
    "CHALLENGE_2D",
    "CHALLENGE_3D",
    "Matches",
    "Protocol",
    "Score",
    "ThresholdPoint",
    "choose_threshold",
    "match",
    "score",
]
