"""From a user's movie to a recipe: camera, width, background, photons, on-time, density; and how alike the two are."""

from .compare import LIMITS, Row, compare
from .estimate import Estimate, estimate
from .observe import Observed, observe
from .page import build_page
from .recipes import Numbers, recipe_of, training_recipe
from .transfer import Transfer, find_camera

__all__ = [
    "LIMITS",
    "Estimate",
    "Numbers",
    "Observed",
    "Row",
    "Transfer",
    "build_page",
    "compare",
    "estimate",
    "find_camera",
    "observe",
    "recipe_of",
    "training_recipe",
]
