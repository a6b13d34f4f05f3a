"""Whether the forms of a model agree."""

from collections.abc import Mapping

from harness.localization import photons_of
from harness.ready import ReadyModel
from harness.recording import field_nm
from harness.scoring import score
from leaderboard import Agreement
from simulators import Movie

AGREEMENT_VERSION = 1
JACCARD_TOLERANCE = 0.5  # points
RMSE_TOLERANCE_NM = 0.5


def agreement_of(models: Mapping[str, ReadyModel], movies: Mapping[str, Movie], *, frames: int) -> dict[str, Agreement]:
    """How far each form's localizations are from those of the first form (float32), on the first frames of the densest
    movie.

    Args:
        models: the forms, by name.
        movies: by name.
        frames: how many; fewer where the movie is shorter.
    """
    movie = max(movies.values(), key=lambda movie: len(movie.emitters) / len(movie))
    counts = movie.frames[:frames]
    truth = movie.emitters.pick(movie.emitters.frame < len(counts))
    pixel = movie.camera.pixel_size_nm
    read = photons_of(counts, movie.camera)
    maps = {form: model.raw(read, len(counts), len(counts)) for form, model in models.items()}
    reference = maps[next(iter(maps))]
    figures = {}
    for form, model in models.items():
        found = model.decode(maps[form], threshold=model.threshold, pixel_size_nm=pixel)
        figures[form] = score(truth=truth, found=found, field_nm=field_nm(movie)).to_dict()
    base = figures[next(iter(figures))]
    scale = float(reference.abs().max()) or 1.0
    return {
        form: Agreement(
            jaccard_delta=figure["jaccard"] - base["jaccard"],
            rmse_delta_nm=_difference(figure["rmse_lateral_nm"], base["rmse_lateral_nm"]),
            max_abs_deviation=float((maps[form] - reference).abs().max()) / scale,
            frames=len(counts),
        )
        for form, figure in figures.items()
    }


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def agrees(agreement: Agreement) -> bool:
    """Whether a form may stand for the model: Jaccard index within 0.5 points, RMSE within 0.5 nm."""
    return (
        abs(agreement.jaccard_delta or 0.0) <= JACCARD_TOLERANCE
        and abs(agreement.rmse_delta_nm or 0.0) <= RMSE_TOLERANCE_NM
    )
