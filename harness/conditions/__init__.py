"""Conditions beside the matched simulation: sweeps, other simulators' movies, real data, pairs of molecules."""

from .cells import CONDITIONS, Cell, dataset_cells, sweep_cells, user_cells
from .pairs import PairsPlan, pair_figures, simulate_pairs
from .study import Study, run_study
from .user_movies import UserMovie, read_user_movie

__all__ = [
    "CONDITIONS",
    "Cell",
    "PairsPlan",
    "Study",
    "UserMovie",
    "dataset_cells",
    "pair_figures",
    "read_user_movie",
    "run_study",
    "simulate_pairs",
    "sweep_cells",
    "user_cells",
]
