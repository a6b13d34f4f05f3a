"""The main job: every model on the same movies, scored, timed, and put into one leaderboard."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import leaderboard
import zoo
from harness import baselines
from harness.board.cells import measure
from harness.board.entries import Entry, file_name, open_entry, trained, with_threshold
from harness.board.pictures import frame_shown, frames_of_failures, picture_path, raw_and_truth, write_sheet
from harness.board.plan import Plan, notes_of
from harness.thresholding import refuse_test_movies, validation_movies
from leaderboard import Picture, Result
from simulators import simulate


def run_board(
    folder: Path,
    plan: Plan,
    *,
    models: Sequence[str] = (),
    train_first: bool = False,
    add: Sequence[Path] = (),
    device: str = "auto",
) -> Path:
    """Measure what the plan asks for and write records, tables, plots and the page.

    A cell (model weights, movie, form) whose record is in the folder already is not measured again.

    Args:
        folder: written: records/, models/, pictures/, results.csv, leaderboard.md, plots and index.html.
        plan: from `Plan.make`.
        models: shipped models, folders or ONNX files; default: every shipped model.
        train_first: train each model of the zoo before, in folder/models.
        add: record files or folders of others.
        device: auto, cpu, cuda.

    Returns:
        Path of index.html.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = list(models)
    if train_first:
        sources = [str(trained(name, folder / "models", device)) for name in sources or zoo.list_models()]
    if not sources:
        sources = zoo.list_weights()
    if not sources:
        raise ValueError("no weights are shipped with this installation; give trained folders, or --train")
    movies = {recipe.name: (recipe, simulate(recipe, recipe.rng())) for recipe in plan.recipes}
    validation = validation_movies(movies=plan.validation) if plan.validation else []
    refuse_test_movies((recipe for recipe, _ in validation), plan.recipes)
    records = folder / "records"
    known = leaderboard.read_results(records, on_error="warn") if records.is_dir() else []
    pictures: list[Picture] = []
    results: dict[str, Result] = {}
    entries: list[Entry] = []
    for name, (_, movie) in movies.items():
        pictures += raw_and_truth(name, movie, folder / "pictures")
    with progress(len(sources) * (1 + len(movies))) as step:
        for source in sources:
            with tempfile.TemporaryDirectory() as scratch:
                step(f"{source}: exporting", 0)
                entry = open_entry(source, Path(scratch), device)
                if validation:
                    step(f"{source}: threshold", 0)
                    entry = with_threshold(entry, folder / "thresholds", validation)
                measured = measure(entry, plan, movies, known, records, folder / "pictures", step)
            for result in measured:
                results[result.id] = result
            entries.append(entry)
        say = partial(step, finished=0)
        for result in baselines.rows(movies, validation=validation, folder=folder, known=known, say=say):
            results[result.id] = result
    for entry in entries:
        shared = sum(other.record.name == entry.record.name for other in entries) > 1
        label = f"{entry.record.name} · {entry.record.tag}" if shared else entry.record.name  # as the tables say
        for name, (_, movie) in movies.items():
            path = picture_path(folder / "pictures", name, entry)
            pictures.append(Picture(dataset=name, model=label, path=path, frame=frame_shown(movie)))
    for name in movies:
        write_sheet([p for p in pictures if p.dataset == name], folder / "pictures" / f"{file_name(name)}.png")
    for name, (_, movie) in movies.items():
        pictures += frames_of_failures(name, movie, results.values(), folder / "pictures")
    everything = list(results.values())
    for path in add:
        everything += leaderboard.read_results(path)
    notes = notes_of(plan)
    return leaderboard.write_all(everything, folder, pictures=pictures, title=plan.title, notes=notes)["index.html"]


@contextmanager
def progress(total: int) -> Iterator[Any]:
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
