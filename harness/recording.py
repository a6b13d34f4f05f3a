"""From a movie and what was found in it to the sections of a result record: the same for every entry."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import torch
from numpy.typing import ArrayLike

import zoo
from harness.environment import commit, environment, onnxruntime_version, package_version
from harness.ready import ImageModel, MapModel, ReadyModel
from harness.runtimes import RuntimeInfo
from harness.scoring import CHALLENGE_2D, CHALLENGE_3D, Protocol, Report, report
from harness.scoring.bounds import emitter_variances
from harness.scoring.image_quality import score_rendered
from harness.thresholding import ThresholdChoice
from leaderboard import Dataset, Detail, Environment, Model, Result, Runtime, Scores, Settings
from simulators import Emitters, Localizations, Movie, Recipe

ISOLATED_NM = 1000.0
"""Emitters with another one nearer in their frame are not held against the bound."""
DETAILS = ("blocks", "curves", "molecules", "calibration", "crlb", "images", "settings", "worst")
_SHARES = ("precision", "recall", "f1")
_OF_CARD = ("training", "valid_range", "source", "licence", "summary")


def field_nm(movie: Movie) -> tuple[float, float]:
    """Width and height of the field of a movie."""
    height, width = movie.frames.shape[1:]
    size_x, size_y = movie.camera.pixel_size_nm
    return width * size_x, height * size_y


def score_table(
    found: Localizations,
    *,
    truth: Emitters,
    field_nm: tuple[float, float],
    protocol: Protocol = CHALLENGE_2D,
    wobble: ArrayLike | None = None,
    n_frames: int | None = None,
    recipe: Recipe | None = None,
    curves: bool = True,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """The report of a table; where the recipe has a PSF of one width, errors of lone molecules are held against the
    Cramer-Rao bound. Arguments as in `harness.scoring.report`."""
    bound = None
    if recipe is not None and isinstance(getattr(recipe.psf, "sigma_nm", None), int | float):
        bound = emitter_variances(truth, psf=recipe.psf, camera=recipe.camera, dimensions=protocol.dimensions)
    return report(
        truth=truth,
        found=found,
        field_nm=field_nm,
        protocol=protocol,
        wobble=wobble,
        n_frames=n_frames,
        seed=seed,
        resamples=resamples,
        curves=curves,
        crlb=bound,
        isolated_nm=None if bound is None else ISOLATED_NM,
    )


def score_movie(
    movie: Movie,
    found: Localizations,
    *,
    recipe: Recipe | None = None,
    protocol: Protocol = CHALLENGE_2D,
    curves: bool = True,
    images: bool = True,
) -> dict[str, Any]:
    """Everything that the record of a score holds, by the names of `Report.to_dict`, and `images`.

    Args:
        movie: with its truth.
        found: localizations in it.
        recipe: how it was made; with a PSF of one width, errors are held against the Cramer-Rao bound.
        protocol: settings of the score.
        curves, images: whether to make those parts; they take most of the time.
    """
    one = score_table(
        found,
        truth=movie.emitters,
        field_nm=field_nm(movie),
        protocol=protocol,
        n_frames=len(movie),
        recipe=recipe,
        curves=curves,
    )
    pictures = {}
    if images:
        pictures = score_rendered(truth=movie.emitters, found=found, field_nm=field_nm(movie), n_frames=len(movie))
    return {**one.to_dict(), "images": pictures}


def scores_record(scores: dict[str, Any]) -> Scores:
    """The numbers of `score_movie` as a record has them: shares as fractions, intervals as two numbers."""
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


def detail_record(scores: dict[str, Any], *, card: dict[str, Any] | None = None) -> Detail:
    """What belongs to the numbers of `score_movie`: blocks, curves, flags and the rest.

    Args:
        card: of the weights; the record keeps what it says of the training and of where the weights hold.
    """
    return Detail(
        **{name: scores[name] for name in DETAILS},
        flags="; ".join(scores["flags"]),
        card={name: card[name] for name in _OF_CARD if name in card} if card else {},
    )


def settings_record(
    protocol: Protocol,
    *,
    precision: str = "",
    choice: ThresholdChoice | None = None,
    threshold: float | None = None,
    threshold_source: str = "",
    wobble: str = "none",
) -> Settings:
    """What a score depends on.

    Args:
        protocol: settings of the score.
        precision: of the arithmetic.
        choice: the threshold, if it was found on validation movies.
        threshold, threshold_source: another one, and who chose it.
        wobble: the table that was taken off, in words.
    """
    return Settings(
        tolerance_nm=protocol.tolerance_nm,
        border_nm=protocol.border_nm,
        quantile=protocol.quantile,
        threshold=choice.threshold if choice else threshold,
        threshold_source=choice.source if choice else threshold_source,
        threshold_trials=choice.trials if choice else None,
        precision=precision,
        wobble=wobble,
        rule=protocol.rule,
    )


def weights_digest(card: dict[str, Any]) -> str:
    """One SHA-256 for all files that a card names; empty where it names none."""
    files = sorted(str(file["sha256"]) for file in card.get("files", ()))
    return hashlib.sha256("".join(files).encode()).hexdigest() if files else ""


def model_record(model: ReadyModel, **more: Any) -> Model:
    """What a record says of a model.

    Args:
        model: shipped, from a folder or a file.
        more: further values, e.g. `size_bytes`; they replace those found here.
    """
    base, _, tag = model.name.partition(".")
    card = model.card
    config = card.get("training", {}).get("config", {})
    known: dict[str, Any] = {
        "name": base,
        "tag": tag,
        "variant": str(card.get("options", {}).get("variant", "")),
        "options": dict(card.get("options", {})),
        "weights_sha256": weights_digest(card),
        "parameters": None if model.network is None else zoo.count_parameters(model.network),
        "receptive_field_px": model.receptive_field_px,
        "grid_floor_nm": grid_floor(model),
        "context_frames": context_frames(model),
        "trained_on": str(config.get("recipe") or ""),
        "training_seed": config.get("seed"),
    }
    return Model(**{**known, **more})


def context_frames(model: ReadyModel) -> int:
    """Consecutive frames that the localizations of one frame are found from."""
    if isinstance(model, MapModel):
        return model.context or model.frames_before + 1 + model.frames_after
    return model.frames_in if isinstance(model, ImageModel) else 1


def gives_height(model: ReadyModel) -> bool:
    """Whether the model says at which height a molecule is."""
    return isinstance(model, MapModel) and "z" in model.output.channels


def grid_floor(model: ReadyModel) -> float:
    """Lateral RMSE of a perfect map whose emitters are known to a fine pixel only, 100 nm camera pixels."""
    return 100.0 / model.upsampling / 6**0.5 if isinstance(model, ImageModel) else 0.0


def scored_dimensions(recipe: Recipe, height: bool) -> int:
    """3 where the recipe's spots tell z and the model gives it, else 2.

    Args:
        height: from `gives_height`.
    """
    return 3 if height and recipe.psf.kind != "gaussian" else 2


def protocol_for(dimensions: int) -> Protocol:
    """The challenge's rules in 2 or 3 dimensions."""
    return CHALLENGE_3D if dimensions == 3 else CHALLENGE_2D


def dataset_record(
    recipe: Recipe, *, condition: str = "matched", value: float | None = None, dimensions: int = 2
) -> Dataset:
    """What a record says of a simulated movie."""
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
        condition=condition,
        value=value,
        dimensions=dimensions,
    )


def runtime_record(info: RuntimeInfo) -> Runtime:
    """What really computed."""
    return Runtime(name=info.name, provider=info.provider, precision=info.precision, threads=info.threads)


def result_record(
    *,
    model: Model,
    dataset: Dataset,
    runtime: Runtime,
    settings: Settings,
    command: str,
    scores: Scores | None = None,
    detail: Detail | None = None,
    **more: Any,
) -> Result:
    """A record made now, on this machine.

    Args:
        model, dataset, runtime, settings, scores, detail: its sections.
        command: repeats it.
        more: further sections.
    """
    return Result(
        model=model,
        dataset=dataset,
        runtime=runtime,
        settings=settings,
        scores=scores,
        detail=detail if detail is not None else Detail(),
        environment=environment_record(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        **more,
    )


def environment_record() -> Environment:
    """Where it ran, and with which versions."""
    machine = environment()
    return Environment(
        machine=f"{machine['cpu']}, {machine['cores']} cores",
        cpu=machine["cpu"],
        gpu=machine.get("gpu", ""),
        os=machine["system"],
        python=platform.python_version(),
        torch=torch.__version__,
        onnxruntime=onnxruntime_version(),
        smlm_zoo=package_version("smlm-zoo"),
        commit=commit(),
    )


def _over_bound(crlb: dict[str, dict[str, Any]]) -> float | None:
    """Lateral RMSE over the lateral bound."""
    lateral = [crlb[axis] for axis in "xy" if axis in crlb]
    if len(lateral) < 2 or not all(axis["n"] for axis in lateral):
        return None
    rmse, bound = (sum(axis[name] ** 2 for axis in lateral) for name in ("rmse", "bound"))
    return (rmse / bound) ** 0.5
