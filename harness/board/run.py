"""The main job: every model on the same movies, scored, timed, and put into one leaderboard."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import leaderboard
import zoo
from harness.board.cells import baseline_cell, score_cell, timed_forms, unscored_record, with_times
from harness.board.entries import Entry, file_name, prepare, train_all
from harness.board.pictures import frame_shown, frames_of_failures, picture_path, raw_and_truth, write_sheet
from harness.board.plan import Plan, notes_of
from harness.devices import pick_device
from harness.forms import Form
from harness.models import suited_weights
from harness.thresholding import refuse_test_movies, validation_recipes
from harness.timing_figures import FormTimes, as_one_run
from harness.workers import ATTEMPTS, Job, WorkerLost, run_jobs
from leaderboard import Picture, Result
from simulators import Movie, Recipe, simulate

MEMORY_PER_WORKER = 2e9  # bytes
MOST_WORKERS = 8

Step = Callable[[str, int], None]
"""Told what is done now, and how many cells have become finished."""


class BoardIncomplete(RuntimeError):
    """Some cells failed; all others are measured and on the page."""


def run_board(
    folder: Path,
    plan: Plan,
    *,
    models: Sequence[str] = (),
    train_first: bool = False,
    add: Sequence[Path] = (),
    device: str = "auto",
    workers: int | None = None,
    cluster: str | None = None,
) -> Path:
    """Measure what the plan asks for and write records, tables, plots and the page.

    Three kinds of cells, each independent of the others of its kind: a model is prepared (exported, its threshold
    found), a model is timed, a model is scored on a movie, or a baseline on all. Preparing and scoring run in `workers`
    processes or on a cluster, timing always alone, here. A cell whose result is in the folder already is not measured
    again; one whose process is lost is tried once more.

    Args:
        folder: written: records/, models/, exports/, prepared/, thresholds/, times/, pictures/, results.csv,
            leaderboard.md, plots and index.html.
        plan: from `Plan.make`.
        models: shipped models, folders or ONNX files; default: all weights at hand that suit the movies.
        train_first: train each model of the zoo before, in folder/models.
        add: record files or folders of others.
        device: auto, cpu, cuda.
        workers: processes for preparing and scoring; default: `default_workers`. 1 works in this process.
        cluster: address of a Dask scheduler that prepares and scores instead; its workers must see `folder` under the
            same path.

    Returns:
        Path of index.html.

    Raises:
        ValueError: a model cannot be opened or exported.
        BoardIncomplete: cells failed; raised when everything else is done and the page is written.
    """
    refuse_test_movies(validation_recipes(plan.domain, movies=plan.validation) if plan.validation else (), plan.recipes)
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    sources = list(models)
    if train_first:
        sources = train_all(sources or zoo.list_models(), folder / "models", device)
    sources = sources or suited_weights(plan.recipes)
    if not sources:
        raise ValueError("no weights at hand were trained for such movies; give trained folders, or --train")
    movies = {recipe.name: (recipe, simulate(recipe, recipe.rng())) for recipe in plan.recipes}
    pictures: list[Picture] = []
    for name, (_, movie) in movies.items():
        pictures += raw_and_truth(name, movie, folder / "pictures")
    number = workers if workers is not None else default_workers(device)
    grid = _Grid(folder=folder, plan=plan, device=device, workers=number, cluster=cluster)
    with _progress(len(sources) * (2 + len(movies)) + len(plan.baselines)) as step:
        grid.step = step
        entries = grid.prepared(sources)
        measured = as_one_run([grid.timed(entry) for entry in entries])
        times = {entry.name: forms for entry, forms in zip(entries, measured, strict=True)}
        results = grid.scored(entries, times)
    _add_pictures(pictures, entries, movies, folder / "pictures")
    for name, (_, movie) in movies.items():
        pictures += frames_of_failures(name, movie, results, folder / "pictures")
    for path in add:
        results += leaderboard.read_results(path)
    page = leaderboard.write_all(results, folder, pictures=pictures, title=plan.title, notes=notes_of(plan))[
        "index.html"
    ]
    if grid.failures:
        raise BoardIncomplete(
            f"{len(grid.failures)} cells failed: {'; '.join(grid.failures)}. The others are on {page}; the same "
            "command again does only what is missing"
        )
    return page


def default_workers(device: str = "auto") -> int:
    """As many processes as PyTorch would take threads, each with one, since much of the work (decoding, matching,
    exporting) uses one thread; at most 8, and one for each 2 GB of memory. With a GPU, 1."""
    if pick_device(device).type != "cpu":
        return 1
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        memory = int(4 * MEMORY_PER_WORKER)
    return max(1, min(torch.get_num_threads(), MOST_WORKERS, int(memory / MEMORY_PER_WORKER)))


class _Grid:
    """The cells of a board, and what became of them."""

    def __init__(self, *, folder: Path, plan: Plan, device: str, workers: int, cluster: str | None) -> None:
        self.folder, self.plan, self.device = folder, plan, device
        self.how: dict[str, Any] = {
            "workers": workers,
            "threads": max(1, torch.get_num_threads() // workers),
            "cluster": cluster,
        }
        self.records = folder / "records"
        self.known = leaderboard.read_results(self.records, on_error="warn") if self.records.is_dir() else []
        self.failures: list[str] = []
        self.step: Step = lambda text, finished: None

    def prepared(self, sources: Sequence[str]) -> list[Entry]:
        """The models, in the order of `sources`; those that cannot be prepared for want of a process are left out."""
        jobs = [
            Job(name=source, function=prepare, arguments=(source, self.folder, self.plan, self.device))
            for source in sources
        ]
        found: dict[str, Entry] = {}
        self.step(f"preparing {len(jobs)} models: export, threshold, agreement of forms", 0)
        for outcome in run_jobs(jobs, **self.how):
            if isinstance(outcome.error, ValueError | OSError) and not isinstance(outcome.error, WorkerLost):
                raise outcome.error
            if outcome.error is not None:
                self._failed(f"preparing {outcome.job.name}", outcome.error, 2 + len(self.plan.recipes))
            else:
                found[outcome.job.name] = outcome.value
                self.step(f"{outcome.job.name}: prepared", 1)
        return [found[source] for source in sources if source in found]

    def timed(self, entry: Entry) -> dict[str, FormTimes]:
        """Times of the forms of a model; none where its process was lost each time."""
        mine = self._mine(entry)
        if not self._missing(entry, mine) and all(self._runtime_known(form, mine) for form in entry.forms):
            self.step(f"{entry.source}: timed before", 1)
            return {}
        for attempt in range(ATTEMPTS):
            try:
                plan = self.plan.timing()
                times = timed_forms(entry, plan, self.folder / "times", lambda text: self.step(text, 0))
            except WorkerLost as error:
                if attempt + 1 == ATTEMPTS:
                    self._failed(f"timing {entry.source}", error, 1)
            else:
                self.step(f"{entry.source}: timed", 1)
                return times
        return {}

    def scored(self, entries: Sequence[Entry], times: dict[str, dict[str, FormTimes]]) -> list[Result]:
        """All records of the models, those of before and those of now; each is written as soon as it is known."""
        results: dict[str, Result] = {}
        jobs, chosen = [], {}
        for entry in entries:
            mine, own = self._mine(entry), times[entry.name]
            results |= {result.id: result for result in mine}
            form = min(entry.agreeing, key=lambda form: own[form.name].median) if own else entry.agreeing[0]
            for other in entry.forms:
                if other != form and other.name in own and not self._runtime_known(other, mine):
                    result = self._keep(unscored_record(entry, other, self.plan.recipes[0], self.plan, own[other.name]))
                    results[result.id] = result
            missing = self._missing(entry, mine)
            if len(missing) < len(self.plan.recipes):
                done = len(self.plan.recipes) - len(missing)
                self.step(f"{entry.source}: {done} movies scored before", done)
            for recipe, scored in missing:
                name = f"{entry.source} on {recipe.name}"
                arguments = (entry, form, recipe, self.plan, self.folder / "pictures", scored)
                jobs.append(Job(name=name, function=score_cell, arguments=arguments))
                chosen[name] = (entry, own.get(form.name))
        jobs.sort(key=_work, reverse=True)
        simple = [
            Job(name=f"baseline {name}", function=baseline_cell, arguments=(name, self.plan, self.folder))
            for name in self.plan.baselines
        ]
        for outcome in run_jobs([*simple, *jobs], **self.how):
            if outcome.error is not None:
                self._failed(outcome.job.name, outcome.error, 1)
            elif isinstance(outcome.value, list):
                results |= {result.id: result for result in outcome.value}
                self.step(f"{outcome.job.name}: scored", 1)
            elif outcome.value is None:
                self.step(f"{outcome.job.name}: picture made", 1)
            else:
                entry, measured = chosen[outcome.job.name]
                timed = with_times(outcome.value, measured, entry) if measured is not None else outcome.value
                result = self._keep(timed)
                results[result.id] = result
                efficiency = result.scores.efficiency if result.scores else None
                shown = "unknown" if efficiency is None else f"{efficiency:.1f}"
                self.step(f"{outcome.job.name}: efficiency {shown}", 1)
        return list(results.values())

    def _keep(self, result: Result) -> Result:
        leaderboard.write_result(result, self.records)
        return result

    def _failed(self, what: str, error: Exception, cells: int) -> None:
        self.failures.append(f"{what} ({type(error).__name__}: {error})")
        self.step(f"{what}: FAILED, {error}", cells)

    def _mine(self, entry: Entry) -> list[Result]:
        """Known records of a model's weights on movies of the plan, at its threshold."""
        hashes = {recipe.hash for recipe in self.plan.recipes}
        return [
            result
            for result in self.known
            if result.model.weights_sha256 == entry.record.weights_sha256
            and result.dataset.recipe_hash in hashes
            and result.settings.threshold == entry.level
        ]

    def _missing(self, entry: Entry, mine: Sequence[Result]) -> list[tuple[Recipe, bool]]:
        """Movies that lack a score or a picture, and whether only the picture is missing."""
        scored = {result.dataset.recipe_hash for result in mine if result.scores is not None}
        return [
            (recipe, recipe.hash in scored)
            for recipe in self.plan.recipes
            if recipe.hash not in scored
            or not picture_path(self.folder / "pictures", recipe.name, entry.name).is_file()
        ]

    def _runtime_known(self, form: Form, mine: Sequence[Result]) -> bool:
        """Whether there are times of a form among the records."""
        name = "onnxruntime" if form.runtime == "onnx" else form.runtime
        return any(
            result.timing is not None and (result.runtime.name, result.runtime.precision) == (name, form.precision)
            for result in mine
        )


def _work(job: Job) -> float:
    """Of a scoring job: multiply-accumulates, so that the longest come first."""
    entry, _, recipe = job.arguments[:3]
    return float(entry.record.macs_64 or 0) * recipe.frames


def _add_pictures(
    pictures: list[Picture], entries: Sequence[Entry], movies: dict[str, tuple[Recipe, Movie]], folder: Path
) -> None:
    """What every model makes of one frame of each movie, and all of a movie on one sheet."""
    for entry in entries:
        shared = sum(other.record.name == entry.record.name for other in entries) > 1
        label = f"{entry.record.name} · {entry.record.tag}" if shared else entry.record.name  # as the tables say
        for name, (_, movie) in movies.items():
            path = picture_path(folder, name, entry.name)
            if path.is_file():
                pictures.append(Picture(dataset=name, model=label, path=path, frame=frame_shown(movie)))
    for name in movies:
        write_sheet([p for p in pictures if p.dataset == name], folder / f"{file_name(name)}.png")


@contextmanager
def _progress(total: int) -> Iterator[Step]:
    """A progress bar over the cells; gives a function of (what is done now, cells finished)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("simulating movies", total=total)

        def step(text: str, finished: int) -> None:
            bar.update(task, description=text, advance=finished)
            if not console.is_terminal:
                print(text, flush=True)

        yield step
