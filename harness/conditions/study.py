"""Models and baselines over all movies of a study: one record per cell, none made twice."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import leaderboard
from harness.baselines import found_threshold, open_baseline
from harness.localization import Localized, localize
from harness.models import open_model
from harness.ready import ReadyModel
from harness.recording import (
    context_frames,
    detail_record,
    field_nm,
    gives_height,
    model_record,
    protocol_for,
    result_record,
    runtime_record,
    score_movie,
    scores_record,
    settings_record,
)
from harness.scoring import Protocol
from harness.scoring.frc import resolution_of_halves
from harness.scoring.image_quality import widefield_agreement
from harness.scoring.images import render
from harness.thresholding import (
    MOVIES,
    ThresholdChoice,
    domain_of,
    frozen_threshold,
    optics_of,
    refuse_test_movies,
    validation_movies,
)
from leaderboard import Dataset, Detail, Model, Result, Scores
from simulators import Localizations, Movie, Recipe, load_recipe

from .cells import CONDITIONS, Cell, centre, dataset_cells, sweep_cells, user_cells
from .pairs import PairsPlan, pair_figures, simulate_pairs
from .user_movies import UserMovie

Say = Callable[[str, int], None]
"""Told what is done now, and how many cells are finished since the last call."""
FRAMES, QUICK_FRAMES = 200, 40


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is measured.

    Args:
        recipe: the domain that models were trained for; thresholds are found on its validation movies.
        cells: movies.
        pairs: the study of two molecules; None leaves it out.
        validation: number of validation movies for the thresholds.
        models: shipped models, folders or ONNX files. baselines: names of `harness.baselines`.
        precision: of the models' arithmetic: float32, bfloat16, or auto for the faster.
        command: repeats the study.
    """

    recipe: Recipe
    cells: tuple[Cell, ...]
    pairs: PairsPlan | None
    validation: int
    models: tuple[str, ...]
    baselines: tuple[str, ...] = field(default=("random", "fit"))
    precision: str = "float32"
    command: str = ""

    @staticmethod
    def make(
        models: Sequence[str],
        *,
        recipe: str = "epfl-2d",
        conditions: Sequence[str] = (),
        datasets: Sequence[str] = (),
        user_movies: Sequence[UserMovie] = (),
        baselines: Sequence[str] = ("random", "fit"),
        frames: int | None = None,
        seeds: int = 1,
        quick: bool = False,
        precision: str = "float32",
        command: str = "",
    ) -> Study:
        """The usual study.

        Args:
            models: see `Study`.
            recipe: name or file of the domain.
            conditions: of `CONDITIONS`; none takes all of them, or only the other movies where there are some.
            datasets: names or files of complete recipes, whose movies get other seeds than the leaderboard's.
            user_movies: of other simulators, or real ones.
            baselines: names of baselines.
            frames: of each simulated movie; default 200, quick 40.
            seeds: movies of each simulated cell.
            quick: fewer values, frames and pairs.
            precision: see `Study`.
            command: see `Study`.

        Raises:
            ValueError: as `sweep_cells`; a dataset of another kind of PSF or camera than the domain's.
        """
        domain = load_recipe(recipe)
        tests = [load_recipe(name) for name in datasets]
        for test in tests:
            if optics_of(test) != optics_of(domain):
                raise ValueError(
                    f"{test.name} has another kind of PSF or camera than {domain.name}, whose validation movies give "
                    f"the thresholds; give --recipe {domain_of([test])}"
                )
        wanted = tuple(conditions) or (() if user_movies or tests else CONDITIONS)
        if "defocus" in wanted and not conditions and domain.psf.kind != "gaussian":
            wanted = tuple(name for name in wanted if name != "defocus")  # it would move the truth as well
        if "pairs" in wanted and not conditions and domain.psf.kind == "spline":
            wanted = tuple(name for name in wanted if name != "pairs")
        number = frames or (QUICK_FRAMES if quick else FRAMES)
        cells = sweep_cells(domain, conditions=wanted, frames=number, seeds=seeds, quick=quick)
        cells += dataset_cells(tests, frames=number, seeds=seeds)
        pairs = None
        if "pairs" in wanted:
            pairs = PairsPlan.quick() if quick else PairsPlan()
        return Study(
            recipe=domain,
            cells=(*cells, *user_cells(user_movies)),
            pairs=pairs,
            validation=2 if quick else MOVIES,
            models=tuple(models),
            baselines=tuple(baselines),
            precision=precision,
            command=command,
        )

    @property
    def size(self) -> int:
        """Number of cells, all models together."""
        ratios = len(self.pairs.ratios) if self.pairs else 0
        return (len(self.models) + len(self.baselines)) * (len(self.cells) + ratios)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A model or baseline, ready for a movie, and what its records say of it."""

    open: Callable[[Movie], ReadyModel]
    record: Model
    threshold: ThresholdChoice | None
    context: int
    height: bool
    precision: str
    command: str


def run_study(study: Study, folder: Path, *, device: str = "auto", say: Say = lambda text, done: None) -> list[Result]:
    """Measure what is not in the folder yet.

    Args:
        study: from `Study.make`.
        folder: written: records/ (one file per cell, as soon as it is measured) and thresholds/.
        device: auto, cpu, cuda.
        say: told of the progress.

    Returns:
        The records of all cells of the study, also those measured before.

    Raises:
        ValueError: a model or baseline that is not there, or nothing to do.
    """
    if not study.models and not study.baselines:
        raise ValueError("no model given; see smlm-zoo models")
    if not study.cells and study.pairs is None:
        raise ValueError(f"nothing to measure; give conditions ({', '.join(CONDITIONS)}) or movies")
    records = folder / "records"
    records.mkdir(parents=True, exist_ok=True)
    known = {
        _key(r.model, r.dataset, r.settings.threshold, r.runtime.precision): r
        for r in leaderboard.read_results(records, on_error="warn")
    }
    validation = validation_movies(study.recipe, movies=study.validation)
    refuse_test_movies((r for r, _ in validation), (cell.recipe for cell in study.cells if cell.recipe is not None))
    movie_of = cache(lambda index: study.cells[index].movie())
    pairs_of = cache(lambda ratio, gaps: _pairs(study, ratio, gaps))
    results: list[Result] = []

    def keep(entry: _Entry, dataset: Dataset, measure: Callable[[], Result], label: str) -> None:
        threshold = entry.threshold.threshold if entry.threshold else None
        one = known.get(_key(entry.record, dataset, threshold, entry.precision))
        if one is None:
            say(f"{entry.record.name}: {label}", 0)
            one = measure()
            leaderboard.write_result(one, records)
        results.append(one)
        say(f"{entry.record.name}: {label}", 1)

    for source in (*study.models, *study.baselines):
        say(f"{source}: threshold", 0)
        entry = _entry(source, study, folder / "thresholds", validation, device)
        for index, cell in enumerate(study.cells):
            movie = movie_of(index)
            dimensions = 3 if cell.dimensions == 3 and entry.height else 2
            dataset = cell.dataset(movie, dimensions=dimensions)
            keep(entry, dataset, partial(_measured, entry, cell, movie, dataset), cell.label)
        for ratio in study.pairs.ratios if study.pairs else ():
            movie, separation, dataset = pairs_of(ratio, 0 if entry.context == 1 else 2)
            keep(entry, dataset, partial(_measured_pairs, entry, study, movie, separation, dataset), dataset.name)
    return results


def _key(model: Model, dataset: Dataset, threshold: float | None, precision: str) -> tuple[Any, ...]:
    return (
        (model.name, model.tag, model.weights_sha256, str(sorted(model.options.items())), model.baseline),
        (dataset.name, dataset.recipe_hash, dataset.condition, dataset.value, dataset.dimensions, dataset.frames),
        None if threshold is None else round(threshold, 9),
        precision,
    )


def _entry(source: str, study: Study, thresholds: Path, validation: list[tuple[Recipe, Movie]], device: str) -> _Entry:
    """A model with the threshold of the validation movies, or a baseline."""
    if source in study.baselines:
        first = open_baseline(source, validation[0][1], domain=study.recipe)
        choice = None
        if first.searched:
            choice = found_threshold(source, validation, domain=study.recipe, folder=thresholds)
        level = choice.threshold if choice else None
        return _Entry(
            open=lambda movie: open_baseline(source, movie, domain=study.recipe, threshold=level),
            record=model_record(first, baseline=True),
            threshold=choice,
            context=1,
            height=first.gives_height,
            precision=first.info.precision,
            command=study.command,
        )
    model = open_model(source, device=device, precision=study.precision)
    record = model_record(model)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", model.name).strip("-.")
    choice = frozen_threshold(model, thresholds / f"{name}-{record.weights_sha256[:8]}.json", validation)
    frozen = replace(model, card={**model.card, "threshold": choice.threshold})
    return _Entry(
        open=lambda movie: frozen,
        record=record,
        threshold=choice,
        context=context_frames(model),
        height=gives_height(model),
        precision=model.info.precision,
        command=study.command,
    )


def _measured(entry: _Entry, cell: Cell, movie: Movie, dataset: Dataset) -> Result:
    model = entry.open(movie)
    there = localize(model, movie.frames, camera=movie.camera)
    if cell.condition == "real":
        return _result(entry, model, dataset, None, Detail(images=_without_truth(movie, there)), protocol_for(2))
    protocol = _protocol(movie, dataset.dimensions)
    figures = score_movie(
        movie,
        there.localizations,
        recipe=cell.recipe,
        protocol=protocol,
        curves=False,
        images=cell.condition == "foreign",
    )
    detail = detail_record(figures, card=model.card)
    return _result(entry, model, dataset, scores_record(figures), detail, protocol)


def _protocol(movie: Movie, dimensions: int) -> Protocol:
    """The challenge's rules; without photons in the truth nobody is weak."""
    protocol = protocol_for(dimensions)
    if len(movie.emitters) and np.isfinite(movie.emitters.photons).all():
        return protocol
    return replace(protocol, name=f"{protocol.name}, all molecules", quantile=0.0)


def _without_truth(movie: Movie, there: Localized) -> dict[str, Any]:
    """What can be said of a real movie: none of it proves that a structure is there."""
    found = there.localizations
    figures: dict[str, Any] = {"found_per_frame": len(found) / len(movie), "frc_halves_nm": None}
    if len(found):
        field = field_nm(movie)
        halves = resolution_of_halves(found, field_nm=field, n_frames=len(movie))
        figures["frc_halves_nm"] = float(halves.resolution_nm) if np.isfinite(halves.resolution_nm) else None
        agreement = widefield_agreement(render(found, field_nm=field).astype("float64"), movie.frames.mean(0))
        figures |= {"rsp": agreement.rsp, "rse": agreement.rse}
    return figures


def _pairs(study: Study, ratio: float, gaps: int) -> tuple[Movie, Any, Dataset]:
    assert study.pairs is not None
    base = centre(study.recipe).with_(z_range_nm=(0.0, 0.0), photons=study.pairs.photons)
    movie, separation = simulate_pairs(base, study.pairs, ratio=ratio, rng=base.rng(), gaps=gaps)
    number, height, width = movie.frames.shape
    return (
        movie,
        separation,
        Dataset(
            name=f"pairs 1:{1 / ratio:g}",
            recipe_hash=hashlib.sha256(f"{base.hash} {study.pairs}".encode()).hexdigest()[:16],
            frames=number,
            height=height,
            width=width,
            seed=base.seed,
            condition="pairs",
            value=ratio,
        ),
    )


def _measured_pairs(entry: _Entry, study: Study, movie: Movie, separation: Any, dataset: Dataset) -> Result:
    assert study.pairs is not None
    model = entry.open(movie)
    found: Localizations = localize(model, movie.frames, camera=movie.camera).localizations
    rows = pair_figures(
        movie.emitters,
        found,
        separation,
        tolerance_nm=study.pairs.tolerance_nm,
        rng=np.random.default_rng(0),
    )
    protocol = replace(
        protocol_for(2),
        name="pairs",
        tolerance_nm=study.pairs.tolerance_nm,
        border_nm=0.0,
        quantile=0.0,
        rule="optimal",
    )
    return _result(entry, model, dataset, None, Detail(curves={"pairs": rows}), protocol)


def _result(
    entry: _Entry, model: ReadyModel, dataset: Dataset, scores: Scores | None, detail: Detail, protocol: Protocol
) -> Result:
    return result_record(
        model=entry.record,
        dataset=dataset,
        runtime=runtime_record(model.info),
        scores=scores,
        detail=detail,
        settings=settings_record(protocol, precision=model.info.precision, choice=entry.threshold),
        command=entry.command,
    )
