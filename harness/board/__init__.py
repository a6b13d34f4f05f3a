"""The main job: every model on the same movies, scored, timed, and put into one leaderboard."""

from .plan import Plan
from .run import BoardIncomplete, default_workers, run_board

__all__ = ["BoardIncomplete", "Plan", "default_workers", "run_board"]
