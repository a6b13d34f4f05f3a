"""The main job: every model on the same movies, scored, timed, and put into one leaderboard."""

from .plan import Plan
from .run import run_board

__all__ = ["Plan", "run_board"]
