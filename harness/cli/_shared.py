"""What several commands share: the camera of a user's movie, printing tables, progress."""

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import tyro

if TYPE_CHECKING:
    from harness.ready import ReadyModel
    from simulators import Camera

ADVICE = (
    "out of its range a model may find little, or much that is not there, and its predicted errors mislead. For one "
    "that suits the movie: smlm-zoo estimate MOVIE --help, then smlm-zoo train MODEL --init WEIGHTS --recipe RECIPE"
)


@dataclass(frozen=True)
class CameraOptions:
    """How the movie was recorded: a recipe's camera, or single constants."""

    recipe: str | None = None
    """Take the camera from this recipe (a name or a YAML file), e.g. tubes-2d-hd."""
    pixel_size_nm: float | None = None
    """Camera pixel in the sample, nm. Default: what the file says."""
    baseline: float | None = None
    """Counts without light."""
    e_per_adu: float | None = None
    """Electrons per count, before EM gain is taken off."""
    em_gain: float | None = None
    """EM gain, for EMCCD cameras."""
    quantum_efficiency: float | None = None
    """Share of the photons that become electrons, 0..1."""
    read_noise_e: float | None = None
    """Standard deviation of the read-out noise, electrons (of EMCCDs after the gain, as data sheets say)."""

    def camera(self, movie: Path) -> "Camera":
        """The camera of a movie.

        Raises:
            ValueError: the pixel size is nowhere to be had.
        """
        from harness.io.movies import open_movie
        from simulators import Camera, load_recipe

        named = {
            key: value
            for key in ("baseline", "e_per_adu", "em_gain", "quantum_efficiency", "read_noise_e")
            if (value := getattr(self, key)) is not None
        }
        if self.recipe is not None:
            base = load_recipe(self.recipe).camera
            if self.pixel_size_nm is not None:
                named["pixel_size_nm"] = self.pixel_size_nm
            return Camera(**{**base.model_dump(), **named})
        pixel: Any = self.pixel_size_nm
        if pixel is None:
            with open_movie(movie) as reader:
                pixel = reader.pixel_size_nm
        if pixel is None:
            raise ValueError(f"{movie} does not say its pixel size; give --camera.pixel-size-nm, e.g. 100")
        return Camera(pixel_size_nm=pixel, **{"baseline": 0.0, "e_per_adu": 1.0, **named})


def command_line(command: Any) -> str:
    """What the user gave, but for the output folder: the line that runs a command's dataclass (plain fields) again."""
    hints = get_type_hints(type(command), include_extras=True)
    first, later = [], []
    for field in fields(command):
        value = getattr(command, field.name)
        words = [str(one) for one in value] if isinstance(value, tuple) else [str(value)]
        option = f"--{field.name.replace('_', '-')}"
        if tyro.conf.Positional in getattr(hints[field.name], "__metadata__", ()):
            first += words
        elif value != field.default and field.name != "output":
            later += [option] if value is True else [option, *words]
    return shlex.join(["smlm-zoo", type(command).__name__.lower(), *first, *later])


Output = Annotated[Path, tyro.conf.arg(aliases=["-o"])]
OptionalOutput = Annotated[Path | None, tyro.conf.arg(aliases=["-o"])]
Plugins = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE.py")]


def load_plugins(files: Iterable[Path]) -> None:
    """Run the users' files that register models."""
    import zoo

    for file in files:
        zoo.load_plugin(file)


def print_table(rows: Sequence[dict[str, Any]], *, title: str | None = None) -> None:
    """Rows as a table as wide as the terminal; a plain one when the output is piped."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table = Table(title=title, title_justify="left", header_style="bold")
    for key, value in rows[0].items() if rows else ():
        table.add_column(key, justify="right" if isinstance(value, int | float) else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    console.print(table, markup=False)


def warn_of_range(models: "Iterable[ReadyModel]", movie: Path, camera: "Camera") -> list[str]:
    """Say on stderr what of a movie is out of the models' ranges, each sentence once, and give the sentences."""
    from harness.io.movies import open_movie
    from harness.ranges import outside_range

    with open_movie(movie) as reader:
        notes = [note for m in models for note in outside_range(m.card, reader, camera, name=m.name)]
    notes = list(dict.fromkeys(notes))
    for note in notes:
        print(f"smlm-zoo: warning: {note}", file=sys.stderr)
    if notes:
        print(f"smlm-zoo: {ADVICE}", file=sys.stderr)
    return notes


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Any]:
    """A bar with the time left, on stderr; gives a function that takes how much is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)


def parse_options(pairs: Iterable[str]) -> dict[str, Any]:
    """`key=value` words as a mapping; values are read as YAML, so that numbers and true/false are such.

    Raises:
        ValueError: a word without `=`.
    """
    import yaml

    options: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise ValueError(f"option {pair!r} is not key=value, e.g. upsampling=4")
        options[key] = yaml.safe_load(value)
    return options
