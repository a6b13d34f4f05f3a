"""The measurements: one movie scored, one model timed. Each can be done in any process, in any order."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import leaderboard
from harness import baselines
from harness.board.entries import Entry
from harness.board.pictures import frame_shown, map_picture, picture_path
from harness.board.plan import Plan
from harness.devices import describe_machine
from harness.forms import Form
from harness.io.json_files import read_json, write_json
from harness.localization import localize, photons_of
from harness.preview import write_png
from harness.recording import (
    dataset_record,
    detail_record,
    protocol_for,
    result_record,
    runtime_record,
    score_movie,
    scored_dimensions,
    scores_record,
    settings_record,
)
from harness.timing_figures import FormTimes
from harness.timing_forms import time_model
from harness.timing_process import TimingPlan
from leaderboard import Result, Runtime
from simulators import Recipe, simulate


def score_cell(entry: Entry, form: Form, recipe: Recipe, plan: Plan, pictures: Path, scored: bool) -> Result | None:
    """A model on a movie: its picture is written, its record is given back, without times.

    Args:
        entry: the model.
        form: what runs it.
        recipe: of the movie, which is simulated here.
        plan: that the movie is of.
        pictures: folder.
        scored: whether the record is known already and the picture alone is wanted.
    """
    movie = simulate(recipe, recipe.rng())
    model = entry.open(form)
    read = photons_of(movie.frames, movie.camera)
    picture = model.picture(read, len(movie), frame_shown(movie), pixel_size_nm=movie.camera.pixel_size_nm)
    path = picture_path(pictures, recipe.name, entry.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, map_picture(picture.numpy()))
    if scored:
        return None
    found = localize(model, movie.frames, camera=movie.camera).localizations
    scores = score_movie(movie, found, recipe=recipe, protocol=protocol_for(scored_dimensions(recipe, entry.height)))
    return replace(
        unscored_record(entry, form, recipe, plan),
        runtime=runtime_record(model.info),
        scores=scores_record(scores),
        detail=detail_record(scores, card=model.card),
    )


def unscored_record(entry: Entry, form: Form, recipe: Recipe, plan: Plan, times: FormTimes | None = None) -> Result:
    """What the record of a form says without a score."""
    dimensions = scored_dimensions(recipe, entry.height)
    record = result_record(
        model=entry.record,
        dataset=dataset_record(recipe, dimensions=dimensions),
        runtime=Runtime(name=form.runtime, precision=form.precision),
        settings=settings_record(
            protocol_for(dimensions),
            precision=form.precision,
            choice=entry.choice,
            threshold=entry.level,
            threshold_source="validation frames of its training",
        ),
        agreement=entry.agreement[form.name],
        command=plan.command(recipe, entry.source),
    )
    return record if times is None else with_times(record, times, entry)


def with_times(record: Result, times: FormTimes, entry: Entry) -> Result:
    """The record with the times of its form; the runtime is the one that was timed."""
    return replace(record, runtime=runtime_record(times.info), timing=times.section(size=64, macs=entry.record.macs_64))


def baseline_cell(name: str, plan: Plan, folder: Path) -> list[Result]:
    """A baseline on all movies; its records are read from the folder, or made and written."""
    movies = {recipe.name: (recipe, simulate(recipe, recipe.rng())) for recipe in plan.recipes}
    validation = plan.validation_movies()
    records = folder / "records"
    known = leaderboard.read_results(records, on_error="warn") if records.is_dir() else []
    return baselines.rows(
        movies,
        validation=validation,
        folder=folder,
        known=known,
        names=(name,),
        domain=plan.domain,
        command=plan.command,
    )


def timed_forms(entry: Entry, plan: TimingPlan, folder: Path, step: Any = lambda text: None) -> dict[str, FormTimes]:
    """Times of every form of a model; those measured before on this machine in the same way are read from the folder.

    Raises:
        WorkerLost: a form's process was killed.
    """
    path = folder / f"{entry.stem}.json"
    forms = [asdict(form) for form in entry.forms]
    key = {"plan": asdict(plan), "machine": describe_machine(), "forms": forms}
    known = read_json(path)
    try:
        if known["key"] == key:
            return {form: FormTimes.from_dict(times) for form, times in known["times"].items()}
    except (ValueError, KeyError, TypeError):  # nothing there, or of an older version
        pass
    times = time_model(entry.forms, plan, step=lambda text: step(f"{entry.source}: timing {text}"))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {"key": key, "times": {form: one.to_dict() for form, one in times.items()}})
    return times
