"""From a localized movie to its record."""

import platform
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import torch

from harness.board.entries import Entry, runtime_of
from harness.environment import commit, environment, onnxruntime_version, package_version
from harness.ready import ReadyModel
from harness.recording import detail_record
from harness.scoring import CHALLENGE_2D, report
from harness.scoring.bounds import emitter_variances
from harness.scoring.image_quality import score_rendered
from harness.timing import Times
from leaderboard import Agreement, Dataset, Environment, Result, Scores, Settings, Timing
from simulators import Localizations, Movie, Recipe

ISOLATED_NM = 1000.0  # emitters with another one nearer in their frame are not held against the bound
_SHARES = ("precision", "recall", "f1")


def field_of(movie: Movie) -> tuple[float, float]:
    height, width = movie.frames.shape[1:]
    size_x, size_y = movie.camera.pixel_size_nm
    return width * size_x, height * size_y


def scores_of(recipe: Recipe, movie: Movie, found: Localizations) -> dict[str, Any]:
    """Everything that the record of a score holds."""
    field = field_of(movie)
    width = getattr(recipe.psf, "sigma_nm", None)
    bound = None
    if isinstance(width, int | float):  # one PSF for the whole movie
        bound = emitter_variances(movie.emitters, psf=recipe.psf, camera=movie.camera)
    one = report(
        truth=movie.emitters,
        found=found,
        field_nm=field,
        protocol=CHALLENGE_2D,
        n_frames=len(movie),
        crlb=bound,
        isolated_nm=ISOLATED_NM,
    )
    images = score_rendered(truth=movie.emitters, found=found, field_nm=field, n_frames=len(movie))
    return {**one.to_dict(), "images": images}


def result_of(
    entry: Entry,
    model: ReadyModel,
    recipe: Recipe,
    scores: dict[str, Any] | None,
    times: Times,
    agreement: Agreement,
) -> Result:
    machine = environment()
    protocol = CHALLENGE_2D
    return Result(
        model=entry.record,
        dataset=dataset_of(recipe),
        runtime=runtime_of(model),
        scores=None if scores is None else _recorded(scores),
        detail=None if scores is None else detail_record(scores, card=model.card),
        settings=Settings(
            tolerance_nm=protocol.tolerance_nm,
            border_nm=protocol.border_nm,
            quantile=protocol.quantile,
            threshold=model.threshold,
            threshold_source=entry.threshold.source if entry.threshold else "validation frames of its training",
            threshold_trials=entry.threshold.trials if entry.threshold else None,
            precision=model.info.precision,
            rule=protocol.rule,
        ),
        timing=Timing(
            ms_p50=1e3 * times.median,
            ms_min=1e3 * times.best,
            ms_max=1e3 * times.worst,
            batch=1,
            frames_per_second=1 / times.median,
            repeats=len(times.seconds),
        ),
        agreement=agreement,
        environment=Environment(
            machine=f"{machine['cpu']}, {machine['cores']} cores",
            cpu=machine["cpu"],
            gpu=machine.get("gpu", ""),
            os=machine["system"],
            python=platform.python_version(),
            torch=torch.__version__,
            onnxruntime=onnxruntime_version(),
            smlm_zoo=package_version("smlm-zoo"),
            commit=commit(),
        ),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=f"smlm-zoo leaderboard {entry.source} --dataset {recipe.name}",
    )


def _recorded(scores: dict[str, Any]) -> Scores:
    """The numbers of a report as a record has them: shares as fractions, intervals as two numbers."""
    own = {item.name for item in fields(Scores)} & scores.keys() - set(_SHARES)
    ends = {
        f"{stem}_{end}{unit}": scores["intervals"][f"{stem}{unit}"][end]
        for stem, unit in (("efficiency", ""), ("jaccard", ""), ("rmse_lateral", "_nm"))
        for end in ("low", "high")
    }
    lateral = [scores["calibration"][axis]["z_std"] for axis in "xy" if axis in scores["calibration"]]
    return Scores(
        **{name: scores[name] for name in own},
        **{name: scores[name] / 100 for name in _SHARES},
        **ends,
        rmse_over_crlb=_over_bound(scores["crlb"]),
        sigma_z_std=sum(lateral) / len(lateral) if lateral else None,
    )


def _over_bound(crlb: dict[str, dict[str, Any]]) -> float | None:
    """Lateral RMSE over the lateral bound."""
    lateral = [crlb[axis] for axis in "xy" if axis in crlb]
    if len(lateral) < 2 or not all(axis["n"] for axis in lateral):
        return None
    rmse, bound = (sum(axis[name] ** 2 for axis in lateral) for name in ("rmse", "bound"))
    return (rmse / bound) ** 0.5


def dataset_of(recipe: Recipe) -> Dataset:
    height, width = recipe.size
    density = recipe.density_um2
    return Dataset(
        name=recipe.name,
        recipe_hash=recipe.hash,
        frames=recipe.frames,
        height=height,
        width=width,
        seed=recipe.seed,
        density=float(density) if isinstance(density, int | float) else None,
    )
