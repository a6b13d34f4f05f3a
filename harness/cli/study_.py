"""smlm-zoo study"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ._shared import OptionalOutput, Plugins, command_line, load_plugins, print_table
from ._tables import write_bytes

if TYPE_CHECKING:
    from leaderboard import Result


@dataclass(frozen=True)
class Study:
    """Score models where they were not trained: sweeps, wrong PSF widths, other simulators' movies, real data, pairs.

    Each sweep changes one quantity and leaves the others in the middle of the training domain. Every cell (a model on a
    movie) is a record in the folder; a study that was stopped goes on where it was. Thresholds are found once, on
    validation movies of the domain, and never adapted to a condition.

    A movie that was not simulated here is given as a YAML file with name, movie, truth (left out for real data), camera
    (a recipe's name or constants) and frames. Examples:

        smlm-zoo study --quick
        smlm-zoo study fid_storm decode --condition density psf --seeds 3
        smlm-zoo study --dataset tubes-2d-hd tubes-2d-uhd --seeds 3
        smlm-zoo study decode --movie nairr.yaml cells.yaml -o study
    """

    model: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Shipped models, folders of train, export or import, or ONNX files; default: those shipped for such
    spots and cameras."""
    output: OptionalOutput = None
    """Folder to write: records/, study.csv and one PNG per condition; default: smlm-zoo-study."""
    condition: tuple[str, ...] = ()
    """Of matched, density, photons, background, psf, defocus, pairs; default: all, or none where --dataset or --movie
    is given."""
    dataset: tuple[str, ...] = ()
    """Recipes of test movies, with other seeds than the leaderboard's: do scores and the order of the models hold on
    other draws?"""
    movie: tuple[Path, ...] = ()
    """YAML files of movies of other simulators or of real ones."""
    recipe: str = "epfl-2d"
    """The domain that the models were trained for: a name or a YAML file, e.g. epfl-as for three dimensions."""
    baseline: tuple[str, ...] = ("random", "fit")
    """Shown beside the models: random (points at the true density), fit (single-emitter fit), blank, perfect_target
    (the image networks' target, free of error)."""
    frames: int | None = None
    """Frames of each simulated movie; default: 200, quick 40."""
    seeds: int = 1
    """Movies of each simulated cell; with several, the spread over them is shown instead of the interval of one."""
    quick: bool = False
    """Few values, frames and pairs: a check, not a result."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Arithmetic of the models; auto takes the faster one of this machine."""
    device: str = "auto"
    """auto, cpu, cuda."""
    plugin: Plugins = ()
    """Python files that register further models."""

    def run(self) -> int:
        from harness.conditions import Study as Plan
        from harness.conditions import read_user_movie, run_study
        from harness.models import suited_weights
        from leaderboard.conditions import condition_figures, conditions_frame
        from leaderboard.table import to_csv
        from simulators import load_recipe

        load_plugins(self.plugin)
        plan = Plan.make(
            self.model or suited_weights([load_recipe(self.recipe)]),
            recipe=self.recipe,
            conditions=self.condition,
            datasets=self.dataset,
            user_movies=[read_user_movie(path) for path in self.movie],
            baselines=self.baseline,
            frames=self.frames,
            seeds=self.seeds,
            quick=self.quick,
            precision=self.precision,
            command=command_line(self),
        )
        folder = self.output or Path("smlm-zoo-study")
        with _bar(plan.size) as say:
            results = run_study(plan, folder, device=self.device, say=say)
        write_bytes(to_csv(conditions_frame(results)).encode(), folder / "study.csv")
        for name, picture in condition_figures(results).items():
            write_bytes(picture, folder / name)
            print(f"see {folder / name}")
        _print_scores(results)
        if self.seeds > 1:
            _print_order(results)
        return 0


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    """A progress bar; gives a function of (what is done now, cells finished); lines without a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("simulating movies", total=total)

        def say(text: str, finished: int) -> None:
            bar.update(task, description=text, advance=finished)
            if finished and not console.is_terminal:
                print(text, flush=True)

        yield say


def _print_scores(results: "Sequence[Result]") -> None:
    """Efficiency of every model in every condition; with several seeds the median and the range."""
    from leaderboard.conditions import conditions_frame

    frame = conditions_frame(results)
    for dimensions in (2, 3):
        part = frame[frame.dimensions == dimensions] if len(frame) else frame
        if not len(part):
            continue
        rows: dict[str, dict[str, str]] = {}
        for (model, condition, value, dataset), cell in part.groupby(
            ["model", "condition", "value", "dataset"], dropna=False, sort=False
        ):
            where = f"{condition} {value:g}" if value == value else f"{condition}: {dataset}"
            e = cell.efficiency
            text = f"{e.median():.1f}" + (f" ({e.min():.1f} .. {e.max():.1f})" if len(e) > 1 else "")
            rows.setdefault(where, {"condition": where})[str(model)] = text
        names = list(dict.fromkeys(part.model))
        table = [{"condition": w, **{n: row.get(n, "") for n in names}} for w, row in rows.items()]
        print_table(table, title=f"Efficiency, {dimensions} dimensions")


def _print_order(results: "Sequence[Result]") -> None:
    from leaderboard.conditions import order_over_seeds

    table = order_over_seeds(results)
    if not len(table):
        return
    stable = int(table.stable.sum())
    print(f"order of the models: the same for all seeds in {stable} of {len(table)} conditions")
    for row in table[~table.stable].to_dict("records"):
        where = f"{row['condition']} {row['value']:g}" if row["value"] == row["value"] else row["dataset"]
        print(f"  {where}: {row['changes']} (agreement of the orders {row['agreement']:.2f})")
