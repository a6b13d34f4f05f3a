"""The threshold of a model, found on validation movies that are the same for every model, and then frozen."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.io.json_files import read_json, write_json
from harness.localization import photons_of
from harness.ready import ReadyModel
from harness.scoring import CHALLENGE_2D, Protocol, choose_threshold
from simulators import Emitters, Localizations, Movie, Recipe, load_recipe, simulate
from zoo import EmitterMaps

RECIPE = "epfl-2d"
DOMAINS = (RECIPE, "epfl-as", "scmos-2d")
MOVIES, FRAMES, SIZE = 8, 8, (40, 40)
TRIALS = 20
SEED_STEP = 900_001
"""Validation movies have the recipe's seed plus this, plus their number: no test movie and no training frame has it."""
IMAGE_RANGE = (0.01, 1.0)
CARD_KEY = "threshold_choice"


@dataclass(frozen=True, kw_only=True)
class ThresholdChoice:
    """A threshold and everything that it depends on.

    Attributes:
        threshold: the chosen one. efficiency: on the validation movies, at it.
        trials, low, high: the search: equal steps of the logarithm.
        protocol: name and settings of the score.
        movies: name, hash, seed and frames of each validation movie.
        curve: the score at every trial.
    """

    threshold: float
    efficiency: float
    trials: int
    low: float
    high: float
    protocol: dict[str, Any]
    movies: tuple[dict[str, Any], ...]
    curve: tuple[dict[str, Any], ...]

    @property
    def source(self) -> str:
        """In words, for a record."""
        names = sorted({str(movie["name"]) for movie in self.movies})
        frames = sum(int(movie["frames"]) for movie in self.movies)
        return f"{len(self.movies)} validation movies of {', '.join(names)}, {frames} frames, {self.trials} trials"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return json.loads(json.dumps(asdict(self), allow_nan=False))

    @classmethod
    def from_dict(cls, data: Any) -> ThresholdChoice:
        """Inverse of `to_dict`.

        Raises:
            ValueError: keys that are missing or unknown, or values of another kind.
        """
        try:
            choice = cls(
                **{**data, "movies": tuple(map(dict, data["movies"])), "curve": tuple(map(dict, data["curve"]))}
            )
            sound = math.isfinite(choice.threshold) and choice.threshold >= 0
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"no record of a threshold: {error}") from error
        if not sound:
            raise ValueError(f"no record of a threshold: it is {choice.threshold!r}")
        return choice


def optics_of(recipe: Recipe) -> tuple[str, bool]:
    """Its kind of PSF, and whether its camera has EM gain."""
    return recipe.psf.kind, recipe.camera.em_gain is not None


def domain_of(recipes: Sequence[Recipe]) -> str:
    """The domain whose validation movies suit test movies: that with their kind of PSF and of camera (with or without
    EM gain); `epfl-2d` where there is none.

    Raises:
        ValueError: the test movies are of several domains.
    """
    known = {optics_of(load_recipe(name)): name for name in DOMAINS}
    found = {known.get(optics_of(recipe), RECIPE): recipe.name for recipe in recipes}
    if len(found) > 1:
        shown = ", ".join(f"{movie} ({domain})" for domain, movie in sorted(found.items()))
        raise ValueError(
            f"these movies are of several domains, whose thresholds differ: {shown}; make a leaderboard of each, and "
            "bring them together with --add FOLDER/records"
        )
    return next(iter(found), RECIPE)


def validation_recipes(
    recipe: str | Recipe = RECIPE,
    *,
    movies: int = MOVIES,
    frames: int = FRAMES,
    size: tuple[int, int] = SIZE,
) -> list[Recipe]:
    """Recipes of short movies of a domain, each with its own draw of what the recipe leaves open.

    Args:
        recipe: name, file or recipe.
        movies, frames, size: how many, of how many frames, of which height and width in camera pixels.

    Raises:
        ValueError: no such recipe, or nothing to simulate.
    """
    if movies < 1 or frames < 1:
        raise ValueError(f"{movies} movies of {frames} frames; give at least 1 of 1")
    base = load_recipe(recipe) if isinstance(recipe, str) else recipe
    return [base.with_(seed=base.seed + SEED_STEP + number, frames=frames, size=size) for number in range(movies)]


def validation_movies(
    recipe: str | Recipe = RECIPE,
    *,
    movies: int = MOVIES,
    frames: int = FRAMES,
    size: tuple[int, int] = SIZE,
) -> list[tuple[Recipe, Movie]]:
    """The movies of `validation_recipes`, simulated, each with its recipe."""
    recipes = validation_recipes(recipe, movies=movies, frames=frames, size=size)
    return [(own, simulate(own, own.rng())) for own in recipes]


def refuse_test_movies(validation: Iterable[Recipe], test: Iterable[Recipe]) -> None:
    """Raises:
    ValueError: a validation movie is a test movie.
    """
    shared = {recipe.hash for recipe in validation} & {recipe.hash for recipe in test}
    if shared:
        raise ValueError(
            f"{len(shared)} validation movies are test movies; find thresholds on other movies than they are used on"
        )


def find_threshold(
    model: ReadyModel,
    movies: Sequence[tuple[Recipe, Movie]],
    *,
    trials: int = TRIALS,
    protocol: Protocol = CHALLENGE_2D,
) -> ThresholdChoice:
    """The threshold of largest efficiency over all validation movies together.

    Args:
        model: any model of the zoo; its card's own threshold is not looked at.
        movies: from `validation_movies`; pixel sizes and fields must be equal.
        trials: number of thresholds tried, the same for every model that is compared.
        protocol: settings of the score.

    Raises:
        ValueError: no movies, or movies of different fields.
    """
    if not movies:
        raise ValueError("no validation movies; see harness.thresholding.validation_movies")
    shapes = {(movie.frames.shape[1:], movie.camera.pixel_size_nm) for _, movie in movies}
    if len(shapes) != 1:
        raise ValueError(f"validation movies differ in field or pixel: {sorted(map(str, shapes))}; give equal ones")
    (height, width), pixel = next(iter(shapes))
    starts = np.cumsum([0, *(len(movie) for _, movie in movies)])[:-1].tolist()
    raw = [model.raw(photons_of(movie.frames, movie.camera), len(movie), len(movie)) for _, movie in movies]
    truth = Emitters.concatenate(
        [movie.emitters.replace(frame=movie.emitters.frame + s) for s, (_, movie) in zip(starts, movies, strict=True)]
    )

    def decode(level: float) -> Localizations:
        return Localizations.concatenate(
            [
                model.decode(part, threshold=level, pixel_size_nm=pixel, first_frame=start)
                for part, start in zip(raw, starts, strict=True)
            ]
        )

    output = getattr(model, "output", None)
    usual = output.thresholds if isinstance(output, EmitterMaps) else IMAGE_RANGE
    low, high = getattr(model, "threshold_range", usual)
    field = (width * pixel[0], height * pixel[1])
    threshold, curve = choose_threshold(
        decode, truth=truth, field_nm=field, low=low, high=high, trials=trials, protocol=protocol
    )
    best = next(point for point in curve if point.threshold == threshold)
    points = [
        {name: None if value != value else value for name, value in asdict(point).items()}  # nan is no JSON
        for point in curve
    ]
    return ThresholdChoice(
        threshold=threshold,
        efficiency=best.efficiency,
        trials=trials,
        low=low,
        high=high,
        protocol=asdict(protocol),
        movies=tuple({"name": r.name, "hash": r.hash, "seed": r.seed, "frames": len(m)} for r, m in movies),
        curve=tuple(points),
    )


def frozen_threshold(
    model: ReadyModel,
    path: Path,
    movies: Sequence[tuple[Recipe, Movie]],
    *,
    trials: int = TRIALS,
    protocol: Protocol = CHALLENGE_2D,
) -> ThresholdChoice:
    """The threshold found earlier: written to a file, or shipped in the card of weights; found now, and written, where
    there is none.

    One from other movies, trials or settings counts as none. The card's is that of the network in PyTorch and in
    float32.
    """
    places = [read_json(path)]
    if model.network is not None:
        places.append(model.card.get(CARD_KEY))
    for place in places:
        try:
            known = ThresholdChoice.from_dict(place)
        except ValueError:
            continue
        hashes = [movie.get("hash") for movie in known.movies]
        asked = json.loads(json.dumps(asdict(protocol)))
        if (hashes, known.trials, known.protocol) == ([recipe.hash for recipe, _ in movies], trials, asked):
            return known
    choice = find_threshold(model, movies, trials=trials, protocol=protocol)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, choice.to_dict())
    return choice
