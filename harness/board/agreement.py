"""Whether the forms of a model agree."""

from harness.board.entries import Entry
from harness.board.records import field_of
from harness.localization import photons_of
from harness.scoring import score
from leaderboard import Agreement
from simulators import Localizations, Movie, Recipe

AGREEMENT_FRAMES = 16
JACCARD_TOLERANCE = 0.5  # points
RMSE_TOLERANCE_NM = 0.5


def agreement_of(
    entry: Entry, movies: dict[str, tuple[Recipe, Movie]]
) -> tuple[dict[str, Agreement], str, dict[str, Localizations]]:
    """How far each form's localizations are from those of the first form (float32), on 16 frames of the densest movie.

    Returns:
        The agreement of each form, the movie's name, and what each form found there.
    """
    name = max(movies, key=lambda name: len(movies[name][1].emitters) / len(movies[name][1]))
    movie = movies[name][1]
    frames = movie.frames[:AGREEMENT_FRAMES]
    truth = movie.emitters.pick(movie.emitters.frame < len(frames))
    part = Movie(frames=frames, emitters=truth, background=movie.background[: len(frames)], camera=movie.camera)
    read = photons_of(frames, part.camera)
    maps = {form: model.raw(read, len(frames), len(frames)) for form, model in entry.forms.items()}
    reference = maps[next(iter(maps))]
    pixel = movie.camera.pixel_size_nm
    found = {
        form: model.decode(maps[form], threshold=model.threshold, pixel_size_nm=pixel)
        for form, model in entry.forms.items()
    }
    field = field_of(part)
    figures = {form: score(truth=truth, found=found[form], field_nm=field).to_dict() for form in entry.forms}
    base = figures[next(iter(figures))]
    scale = float(reference.abs().max()) or 1.0
    agreement = {
        form: Agreement(
            jaccard_delta=figure["jaccard"] - base["jaccard"],
            rmse_delta_nm=_difference(figure["rmse_lateral_nm"], base["rmse_lateral_nm"]),
            max_abs_deviation=float((maps[form] - reference).abs().max()) / scale,
            frames=len(frames),
        )
        for form, figure in figures.items()
    }
    return agreement, name, found


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def agrees(agreement: Agreement) -> bool:
    return (
        abs(agreement.jaccard_delta or 0.0) <= JACCARD_TOLERANCE
        and abs(agreement.rmse_delta_nm or 0.0) <= RMSE_TOLERANCE_NM
    )
