"""What a board measures: the usual plans."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from harness.baselines import BASELINES
from harness.thresholding import MOVIES, domain_of, validation_movies
from harness.timing_process import TimingPlan
from simulators import Movie, Recipe, load_recipe

TIMED_SIZE = 64  # camera pixels
QUICK_FRAMES, QUICK_SIZE = 16, (32, 32)
DEFAULT_FRAMES = {"tubes-2d-ld": 400, "tubes-2d-hd": 300, "tubes-2d-uhd": 150}
FULL = ("tubes-2d-hd", "tubes-2d-hd-dim", "tubes-2d-ld", "tubes-2d-uhd")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Args:
        recipes: test movies, complete.
        seconds_per_cell: time spent on timing one form of one model, beside its warming up and its search for a batch.
        title: of the page.
        validation: number of validation movies that thresholds are found on, the same for every model; 0 takes the
            threshold of each model's card.
        rounds: turns of each form in timing, even.
        largest_batch: of the search for the batch of largest throughput.
        movie_frames: longest movie that is timed from file to table; 0: none.
        agreement_frames: frames that the forms of a model are compared on.
        baselines: names of `harness.baselines.BASELINES` that are shown beside the models.
        option: of the command, that makes this plan.
    """

    recipes: tuple[Recipe, ...]
    seconds_per_cell: float
    title: str
    validation: int = MOVIES
    rounds: int = 4
    largest_batch: int = 16
    movie_frames: int = 200
    agreement_frames: int = 16
    baselines: tuple[str, ...] = BASELINES
    option: Literal["", "--quick", "--full"] = ""

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
            title = "SMLM Zoo leaderboard, full"
            return Plan(
                recipes=recipes,
                seconds_per_cell=20.0,
                title=title,
                rounds=6,
                largest_batch=64,
                option="--full",
            )
        names = tuple(datasets) or tuple(DEFAULT_FRAMES)
        recipes = tuple(load_recipe(name) for name in names)
        recipes = tuple(
            recipe.with_(size=QUICK_SIZE, frames=QUICK_FRAMES)
            if quick
            else recipe.with_(size=(40, 40), frames=DEFAULT_FRAMES.get(recipe.name, 200))
            for recipe in recipes
        )
        if quick:
            return Plan(
                recipes=recipes,
                seconds_per_cell=0.4,
                title="SMLM Zoo leaderboard, quick check",
                validation=1,
                rounds=2,
                largest_batch=2,
                movie_frames=0,
                agreement_frames=4,
                option="--quick",
            )
        return Plan(
            recipes=recipes,
            seconds_per_cell=1.0,
            title="SMLM Zoo leaderboard",
            movie_frames=100,
        )

    @property
    def domain(self) -> str:
        """The recipe of the validation movies.

        Raises:
            ValueError: the test movies are of several domains.
        """
        return domain_of(self.recipes)

    def command(self, recipe: Recipe, model: str = "") -> str:
        """What repeats a record of this plan."""
        return " ".join(filter(None, ("smlm-zoo leaderboard", model, self.option, f"--dataset {recipe.name}")))

    def validation_movies(self) -> list[tuple[Recipe, Movie]]:
        """Those that thresholds are found on; none where each model's card gives its own."""
        return _validation(self.domain, self.validation) if self.validation else []

    def timing(self, threads: int | None = None) -> TimingPlan:
        """How forms are timed: with as many threads as PyTorch takes, whatever the number of workers."""
        return TimingPlan(
            threads=threads or torch.get_num_threads(),
            size=TIMED_SIZE,
            seconds=self.seconds_per_cell,
            rounds=self.rounds,
            largest_batch=self.largest_batch,
            movie_frames=self.movie_frames,
        )


@cache  # a process prepares several models
def _validation(domain: str, movies: int) -> list[tuple[Recipe, Movie]]:
    return validation_movies(domain, movies=movies)


def notes_of(plan: Plan) -> str:
    """What the page says of the measurements."""
    frames = ", ".join(f"{r.name} {r.frames} frames of {r.size[0]}x{r.size[1]} pixels" for r in plan.recipes)
    solid = any(recipe.psf.kind != "gaussian" for recipe in plan.recipes)
    apart = "250 nm (of models that give z also within 500 nm of height)" if solid else "250 nm"
    return (
        f"Movies: {frames}. Times are for one frame of {TIMED_SIZE}x{TIMED_SIZE} pixels, network only, each form in a "
        "process of its own with nothing beside it, on the machine named in each record. Scores follow the SMLM "
        f"Challenge: pairs within {apart}, 450 nm border, the weakest quarter of the molecules neither asked for nor "
        "punished; thresholds were chosen on validation movies, the same and with as many trials for every model."
    )
