"""The measurements of one model."""

from pathlib import Path
from typing import Any

import leaderboard
from harness.board.agreement import AGREEMENT_FRAMES, agreement_of, agrees
from harness.board.entries import Entry, form_key, runtime_of
from harness.board.pictures import frame_shown, map_picture, picture_path
from harness.board.plan import TIMED_SIZE, Plan
from harness.board.records import result_of, scores_of
from harness.localization import localize, photons_of
from harness.preview import write_png
from harness.timing import time_models
from leaderboard import Result
from simulators import Movie, Recipe


def measure(
    entry: Entry,
    plan: Plan,
    movies: dict[str, tuple[Recipe, Movie]],
    known: list[Result],
    records: Path,
    pictures: Path,
    step: Any,
) -> list[Result]:
    """Records of one model: times of every form, agreement of the forms, scores of the fastest that agrees.

    Each record is written as soon as it is known. What is in `known` for this plan is not measured again.
    """
    hashes = {recipe.hash: name for name, (recipe, _) in movies.items()}
    mine = [
        result
        for result in known
        if result.model.weights_sha256 == entry.record.weights_sha256 and result.dataset.recipe_hash in hashes
    ]
    scored = {hashes[result.dataset.recipe_hash] for result in mine if result.scores is not None}
    timed = {form_key(result.runtime) for result in mine}
    wanted = {form: form_key(runtime_of(model)) for form, model in entry.forms.items()}
    missing = [name for name in movies if name not in scored or not picture_path(pictures, name, entry).is_file()]
    if not missing and set(wanted.values()) <= timed:
        step(f"{entry.source}: measured before", 1 + len(movies))
        return mine
    step(f"{entry.source}: timing {len(entry.forms)} forms", 0)
    times = time_models(
        entry.forms,
        size=TIMED_SIZE,
        seconds=plan.seconds_per_cell,
        least=1 if plan.seconds_per_cell <= 1 else 3,
    )
    agreement, compared, found_there = agreement_of(entry, movies)
    agreeing = [form for form in entry.forms if agrees(agreement[form])]
    chosen = min(agreeing, key=lambda form: times[form].median)
    step(f"{entry.source}: scoring in {chosen}", 1)

    def keep(form: str, recipe: Recipe, scores: dict[str, Any] | None) -> None:
        result = result_of(entry, entry.forms[form], recipe, scores, times[form], agreement[form])
        leaderboard.write_result(result, records)
        mine.append(result)

    first_recipe = next(iter(movies.values()))[0]
    for form in entry.forms:
        if form != chosen and wanted[form] not in timed:
            keep(form, first_recipe, None)
    if len(missing) < len(movies):
        step(f"{entry.source}: {len(movies) - len(missing)} movies scored before", len(movies) - len(missing))
    for name in missing:
        recipe, movie = movies[name]
        model = entry.forms[chosen]
        frame = frame_shown(movie)
        read = photons_of(movie.frames, movie.camera)
        picture = model.picture(read, len(movie), frame, pixel_size_nm=movie.camera.pixel_size_nm)
        write_png(picture_path(pictures, name, entry), map_picture(picture.numpy()))
        if name not in scored:
            whole = name == compared and len(movie) <= AGREEMENT_FRAMES  # then it was localized just now
            found = found_there[chosen] if whole else localize(model, movie.frames, camera=movie.camera).localizations
            scores = scores_of(recipe, movie, found)
            keep(chosen, recipe, scores)
            step(f"{entry.source} on {name}: efficiency {scores['efficiency']:.1f}", 1)
        else:
            step(f"{entry.source} on {name}: picture made", 1)
    return mine
