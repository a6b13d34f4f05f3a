"""smlm-zoo leaderboard"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ._shared import OptionalOutput, Plugins, load_plugins


@dataclass(frozen=True)
class Leaderboard:
    """Score and time every model on the same movies and make the tables, plots and the page.

    Without options: test movies from the named recipes at 40x40 pixels, the shipped weights, minutes on two cores. A
    run that was stopped, or killed, goes on where it was. Records of others join with --add.
    """

    model: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Shipped models, folders of train, export or import, or ONNX files; default: all shipped weights that
    were trained for such movies (PSF and camera)."""
    output: OptionalOutput = None
    """Folder to write; default: smlm-zoo-leaderboard."""
    quick: bool = False
    """16 frames of 32x32 pixels of each movie: a check that everything works, not a ranking."""
    full: bool = False
    """Every test recipe at 64x64 pixels, 2000 frames (ld) or 1000: hours."""
    train: bool = False
    """Train every model first, with its own training recipe."""
    dataset: tuple[str, ...] = ()
    """Recipes to test on, instead of the usual ones."""
    add: tuple[Path, ...] = ()
    """Record files or folders of others to show as well."""
    workers: int | None = None
    """Processes that prepare and score, each with its share of the threads; default: one for each core (at most 8, and
    2 GB of memory each), which is fastest in total. Timing always runs alone, with all threads."""
    dask: str | None = None
    """Address of a Dask scheduler (tcp://HOST:8786), or its scheduler file, to prepare and score on its workers; they
    must see the output folder and the models under the same paths. Needs the extra 'cluster'."""
    device: str = "auto"
    """auto, cpu, cuda."""
    plugin: Plugins = ()
    """Python files that register further models."""

    def run(self) -> int:
        from harness.board import BoardIncomplete, Plan, run_board

        load_plugins(self.plugin)
        if self.quick and self.full:
            raise ValueError("--quick and --full exclude each other")
        plan = Plan.make(quick=self.quick, full=self.full, datasets=self.dataset)
        folder = self.output or Path("smlm-zoo-leaderboard")
        try:
            page = run_board(
                folder,
                plan,
                models=self.model,
                train_first=self.train,
                add=self.add,
                device=self.device,
                workers=self.workers,
                cluster=self.dask,
            )
        except BoardIncomplete as error:
            print(f"smlm-zoo: {error}", file=sys.stderr)
            return 1
        print(f"open {page}")
        return 0
