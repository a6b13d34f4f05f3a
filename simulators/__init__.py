"""Simulated single-molecule localisation microscopy: types, image formation, recipes.

movie = simulate(load_recipe("tubes-2d-hd"), np.random.default_rng(1))
"""

from .batch import Batch, draw_frames
from .camera import Camera
from .emitters import Emitters, Localizations
from .movie import Movie, simulate
from .psf import PSF, AstigmaticPSF, GaussianPSF, Unit
from .recipe import Recipe, list_recipes, load_recipe, parse_recipe, recipe_hash, save_recipe
from .spline import SplinePSF, SplineTable, read_spline, save_spline, table_from_samples

__all__ = [
    "PSF",
    "AstigmaticPSF",
    "Batch",
    "Camera",
    "Emitters",
    "GaussianPSF",
    "Localizations",
    "Movie",
    "Recipe",
    "SplinePSF",
    "SplineTable",
    "Unit",
    "draw_frames",
    "list_recipes",
    "load_recipe",
    "parse_recipe",
    "read_spline",
    "recipe_hash",
    "save_recipe",
    "save_spline",
    "simulate",
    "table_from_samples",
]
