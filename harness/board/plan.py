"""What a board measures: the usual plans."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.thresholding import MOVIES
from simulators import Recipe, load_recipe

TIMED_SIZE = 64  # camera pixels
DEFAULT_FRAMES = {"tubes-2d-ld": 400, "tubes-2d-hd": 300, "tubes-2d-uhd": 150}
FULL = ("tubes-2d-hd", "tubes-2d-hd-dim", "tubes-2d-ld", "tubes-2d-uhd")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Args:
        recipes: test movies, complete.
        seconds_per_cell: longest time spent on timing one form of one model.
        title: of the page.
        validation: number of validation movies that thresholds are found on, the same for every model; 0 takes the
            threshold of each model's card.
    """

    recipes: tuple[Recipe, ...]
    seconds_per_cell: float
    title: str
    validation: int = MOVIES

    @staticmethod
    def make(*, quick: bool = False, full: bool = False, datasets: Sequence[str] = ()) -> "Plan":
        """The usual plans: default (minutes), quick (a check), full (hours).

        Args:
            datasets: recipes, by name or file, instead of the plan's own.
        """
        if full:
            names = tuple(datasets) or FULL
            recipes = tuple(load_recipe(name) for name in names)
            recipes = tuple(
                recipe.with_(size=(64, 64), frames=2000 if recipe.name.endswith("-ld") else 1000) for recipe in recipes
            )
            return Plan(recipes=recipes, seconds_per_cell=20.0, title="SMLM Zoo leaderboard, full")
        names = tuple(datasets) or tuple(DEFAULT_FRAMES)
        recipes = tuple(load_recipe(name) for name in names)
        recipes = tuple(
            recipe.with_(size=(40, 40), frames=16 if quick else DEFAULT_FRAMES.get(recipe.name, 200))
            for recipe in recipes
        )
        title = "SMLM Zoo leaderboard, quick check" if quick else "SMLM Zoo leaderboard"
        seconds, validation = (1.0, 1) if quick else (5.0, MOVIES)
        return Plan(recipes=recipes, seconds_per_cell=seconds, title=title, validation=validation)


def notes_of(plan: Plan) -> str:
    frames = ", ".join(f"{r.name} {r.frames} frames of {r.size[0]}x{r.size[1]} pixels" for r in plan.recipes)
    return (
        f"Movies: {frames}. Times are for one frame of {TIMED_SIZE}x{TIMED_SIZE} pixels, network only, on the machine "
        "named in each record. Scores follow the SMLM Challenge: pairs within 250 nm, 450 nm border, the weakest "
        "quarter of the molecules neither asked for nor punished; thresholds were chosen on validation "
        "movies, the same and with as many trials for every model."
    )
