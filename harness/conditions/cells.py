"""The movies of a study: one quantity at a time leaves the centre of the training domain."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.recording import dataset_record, scored_dimensions
from leaderboard import Dataset
from simulators import Movie, Recipe, simulate

from .user_movies import UserMovie

SEED_STEP = 700_001
"""The n-th movie of a cell has the recipe's seed plus n (from 1) times this."""
SIZE = (40, 40)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One quantity and its values.

    Args:
        unit: of the values, for labels.
        values, quick: values tried, and those of a quick study.
        changed: the recipe at a value.
    """

    unit: str
    values: tuple[float, ...]
    quick: tuple[float, ...]
    changed: Callable[[Recipe, float], Recipe]


def _widened(recipe: Recipe, percent: float) -> Recipe:
    psf = recipe.psf.model_dump()
    if not isinstance(psf.get("sigma_nm"), int | float):
        raise ValueError(f"the PSF of recipe {recipe.name!r} has no width to change; leave the condition 'psf' out")
    return recipe.with_(psf={**psf, "sigma_nm": psf["sigma_nm"] * (1 + percent / 100)})


def _lifted(recipe: Recipe, nm: float) -> Recipe:
    low, high = recipe.z_range_nm
    return recipe.with_(z_range_nm=(low + nm, high + nm))


SWEEPS = {
    "density": Sweep(
        unit="emitters per µm² and frame",
        values=(0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
        quick=(0.1, 0.5, 2.0),
        changed=lambda recipe, value: recipe.with_(density_um2=value),
    ),
    "photons": Sweep(
        unit="photons per frame of a molecule on for all of it",
        values=(300.0, 600.0, 1200.0, 2500.0, 5000.0, 10000.0),
        quick=(500.0, 2000.0, 8000.0),
        changed=lambda recipe, value: recipe.with_(photons=value),
    ),
    "background": Sweep(
        unit="photons per pixel",
        values=(10.0, 30.0, 100.0, 200.0, 400.0),
        quick=(10.0, 50.0, 250.0),
        changed=lambda recipe, value: recipe.with_(background=value),
    ),
    "psf": Sweep(
        unit="% wider than in the middle of the domain",
        values=(-20.0, -10.0, 0.0, 10.0, 20.0),
        quick=(-20.0, 0.0, 20.0),
        changed=_widened,
    ),
    "defocus": Sweep(
        unit="nm that all molecules lie higher",
        values=(0.0, 50.0, 100.0, 200.0, 300.0),
        quick=(0.0, 100.0, 300.0),
        changed=_lifted,
    ),
}
CONDITIONS = ("matched", *SWEEPS, "pairs")
"""What can be simulated; "foreign" and "real" come from users' movies."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One movie of a study.

    Args:
        condition: a name of `CONDITIONS`, "foreign" or "real".
        value: of the quantity that is swept.
        source: recipe, complete, or a user's movie.
        dimensions: 3 where the spots tell the height.
    """

    condition: str
    value: float | None
    source: Recipe | UserMovie
    dimensions: int

    @property
    def recipe(self) -> Recipe | None:
        """The recipe, for simulated movies."""
        return self.source if isinstance(self.source, Recipe) else None

    @property
    def label(self) -> str:
        """For people."""
        if self.value is None:
            return f"{self.condition} {self.source.name}"
        return f"{self.condition} {self.value:g}"

    def movie(self) -> Movie:
        """Simulated or read."""
        return simulate(self.source, self.source.rng()) if isinstance(self.source, Recipe) else self.source.load()

    def dataset(self, movie: Movie, *, dimensions: int) -> Dataset:
        """What a record says of it."""
        if isinstance(self.source, Recipe):
            return dataset_record(self.source, condition=self.condition, value=self.value, dimensions=dimensions)
        number, height, width = movie.frames.shape
        size_x, size_y = movie.camera.pixel_size_nm
        area = number * height * width * size_x * size_y * 1e-6
        return Dataset(
            name=self.source.name,
            recipe_hash=self.source.hash,
            frames=number,
            height=height,
            width=width,
            density=len(movie.emitters) / area if self.source.truth is not None else None,
            condition=self.condition,
            dimensions=dimensions,
        )


def centre(recipe: Recipe) -> Recipe:
    """The middle of a domain: each range gives way to its middle, of logarithmic ones the geometric.

    Example:
        >>> from simulators import load_recipe
        >>> round(centre(load_recipe("epfl-2d")).background, 1)  # of 10 to 200
        44.7
    """
    changes: dict[str, Any] = {
        name: _middle(getattr(recipe, name)) for name in ("photons", "density_um2", "background")
    }
    psf = recipe.psf.model_dump()
    if psf.get("sigma_nm") is not None:
        psf["sigma_nm"] = _middle(recipe.psf.sigma_nm)
    return recipe.with_(**changes, psf=psf)


def _middle(value: Any) -> float:
    if isinstance(value, int | float):
        return float(value)
    return math.sqrt(value.low * value.high) if value.scale == "log" else (value.low + value.high) / 2


def sweep_cells(
    recipe: Recipe,
    *,
    conditions: Iterable[str],
    frames: int,
    seeds: int = 1,
    quick: bool = False,
    size: tuple[int, int] = SIZE,
) -> list[Cell]:
    """The simulated movies of a study.

    Args:
        recipe: the domain: "matched" is the domain itself with its ranges, sweeps leave its `centre`.
        conditions: of `CONDITIONS`; "pairs" is not among the cells.
        frames, size: of each movie.
        seeds: movies of each cell, which differ in their seed.
        quick: fewer values.

    Raises:
        ValueError: an unknown condition, no seed, or a PSF without a width for "psf".
    """
    _check_seeds(seeds)
    base = recipe.with_(frames=frames, size=size)
    middle = centre(base)
    dimensions = scored_dimensions(recipe, height=True)
    made: list[tuple[str, float | None, Recipe]] = []
    for condition in conditions:
        if condition not in CONDITIONS:
            raise ValueError(f"no condition named {condition!r}; there are {', '.join(CONDITIONS)}")
        if condition == "matched":
            made.append((condition, None, base))
        elif condition in SWEEPS:
            sweep = SWEEPS[condition]
            made += [(condition, v, sweep.changed(middle, v)) for v in (sweep.quick if quick else sweep.values)]
    return [
        Cell(condition=condition, value=value, source=one.with_(seed=one.seed + SEED_STEP * n), dimensions=dimensions)
        for n in range(1, seeds + 1)
        for condition, value, one in made
    ]


def dataset_cells(recipes: Iterable[Recipe], *, frames: int, seeds: int = 1) -> list[Cell]:
    """Movies of complete recipes with other seeds than theirs, of the recipes' own size.

    Raises:
        ValueError: no seed.
    """
    _check_seeds(seeds)
    return [
        Cell(
            condition="matched",
            value=None,
            source=recipe.with_(frames=frames, seed=recipe.seed + SEED_STEP * n),
            dimensions=scored_dimensions(recipe, height=True),
        )
        for n in range(1, seeds + 1)
        for recipe in recipes
    ]


def _check_seeds(seeds: int) -> None:
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; give at least 1")


def user_cells(movies: Sequence[UserMovie]) -> list[Cell]:
    """Users' movies as cells."""
    return [Cell(condition=m.condition, value=None, source=m, dimensions=m.dimensions) for m in movies]
