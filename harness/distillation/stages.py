"""The stages of a distillation, each in a folder of its own; what is finished is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.export import export_model
from harness.io.json_files import write_json
from harness.io.movies import open_movie
from harness.localization import localize
from harness.models import describe, load_network, open_model
from harness.ready import ReadyModel
from harness.recording import field_nm
from harness.scoring import report
from harness.thresholding import find_threshold, validation_movies
from harness.training import resolve_config, train
from simulators import Camera, Movie, load_recipe, simulate

from .plan import DistillPlan
from .teaching import Lessons

Say = Callable[[str], None]


def once(path: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The JSON in a file; made by `work` and written, where it is not there yet."""
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    result = work()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result, allow_nan=False)
    return result


def train_student(plan: DistillPlan, folder: Path, *, seed: int, taught: bool, device: str, progress: bool) -> Path:
    """Train the student, by the teacher or alone, unless it was done; one that was stopped goes on."""
    card = folder / "card.json"
    if card.is_file() and not json.loads(card.read_text(encoding="utf-8"))["training"]["stopped"]:
        return folder
    resume = (folder / "last.ckpt").exists()
    given = {"steps": plan.steps, "minutes": plan.minutes, "seed": seed, **plan.training}
    config = resolve_config(plan.model, recipe=plan.recipe, options=dict(plan.options), **given)
    if plan.steps is not None and plan.minutes is None and "minutes" not in plan.training:
        config = config.model_copy(update={"minutes": None})  # a budget of steps is not cut short by the clock
    if not taught:
        train(config, folder, resume=resume, device=device, progress=progress)
        return folder
    network, known = load_network(plan.teacher)
    movie = None
    if plan.movie is not None:
        movie = (open_movie(Path(plan.movie)), Camera(**(plan.camera or {})))
    lessons = Lessons(network, known, plan.settings(), name=plan.teacher, movie=movie, share=plan.unlabelled_share)
    train(config, folder, resume=resume, device=device, progress=progress, teaching=lessons)
    return folder


def test_movie(name: str, *, frames: int, size: tuple[int, int]) -> Movie:
    """The movie of a recipe that models are scored on.

    Args:
        name: of the recipe, or its YAML file.
        frames, size: of the movie; size as (rows, columns), camera pixels.
    """
    recipe = load_recipe(name).with_(frames=frames, size=size)
    return simulate(recipe, recipe.rng())


def score_model(model: ReadyModel, movie: Movie, *, threshold: float) -> dict[str, Any]:
    """Scores of a model on a movie at one threshold, with intervals and counts by blocks of frames."""
    found = localize(model, movie.frames, camera=movie.camera, threshold=threshold).localizations
    one = report(
        truth=movie.emitters, found=found, field_nm=field_nm(movie), n_frames=len(movie), curves=False
    ).to_dict()
    kept = ("efficiency", "jaccard", "recall", "precision", "rmse_lateral_nm", "intervals", "blocks")
    return {"threshold": threshold, "molecules": one["tp"] + one["fn"], **{name: one[name] for name in kept}}


def export_student(folder: Path, output: Path, *, threshold: float | None) -> Path:
    """`model.onnx`, card and runner, with a threshold; unless it was done."""
    if (output / "card.json").is_file():
        return output
    network, card = load_network(folder)
    export_model(network, output, {**card, **describe(network), "threshold": threshold})
    return output


def scores_of(
    plan: DistillPlan, models: Mapping[str, Path | str], folder: Path, movie: Movie, *, device: str, say: Say
) -> dict[str, dict[str, Any]]:
    """Scores of models by name, kept in `folder`; thresholds are those of its validation movies."""
    results = {}
    for name, source in models.items():
        if not (folder / f"{name}.json").is_file():
            say(f"scoring {name} on {plan.test}")

        def work(source: Path | str = source) -> dict[str, Any]:
            model = open_model(source, device=device, precision="float32")
            validation = validation_movies(plan.recipe, movies=plan.validation_movies)
            return score_model(model, movie, threshold=find_threshold(model, validation).threshold)

        results[name] = once(folder / f"{name}.json", work)
    return results
