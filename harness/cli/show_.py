"""smlm-zoo show"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ._shared import CameraOptions, Output, Plugins, load_plugins, progress_bar, warn_of_range


@dataclass(frozen=True)
class Show:
    """Picture of a movie through one or several models: input | truth (where a table is given) | every model's image.

    One frame, or with --frames the sum of several: what your own structure looks like through each of them. Examples:

        smlm-zoo show decode movie.tif --camera.pixel-size-nm 100 --camera.baseline 100
        smlm-zoo show decode movie.tif --also fid_storm deep_storm --frames 200 --camera.recipe tubes-2d-hd
        smlm-zoo show all movie.tif --frames 50 --camera.pixel-size-nm 100 -o all.png
    """

    model: Annotated[str, tyro.conf.Positional]
    """A shipped model, a folder written by train, export or import, or an ONNX file; `all`: every shipped model for
    two dimensions and cameras with EM gain (epfl-2d)."""
    movie: Annotated[Path, tyro.conf.Positional]
    """A TIFF movie."""
    also: tuple[str, ...] = ()
    """Further models, beside the first."""
    output: Output = Path("smlm-zoo-show.png")
    """PNG to write."""
    frame: int = 0
    """Which frame, from 0; the first one where there are several."""
    frames: int = 1
    """How many frames: the mean of the input, the sum of the images."""
    truth: Path | None = None
    """Table of emitters."""
    camera: CameraOptions = field(default_factory=CameraOptions)
    """How the movie was recorded."""
    device: str = "auto"
    """auto, cpu, cuda."""
    plugin: Plugins = ()
    """Python files that register further models."""

    def run(self) -> int:
        from harness.models import open_model, suited_weights
        from harness.showing import show
        from simulators import load_recipe

        load_plugins(self.plugin)
        first = suited_weights([load_recipe("epfl-2d")]) if self.model == "all" else [self.model]
        models = [open_model(name, device=self.device) for name in (*first, *self.also)]
        camera = self.camera.camera(self.movie)
        warn_of_range(models, self.movie, camera)
        with progress_bar("showing", len(models) * self.frames) as done:
            show(
                models,
                self.movie,
                self.output,
                camera=camera,
                frame=self.frame,
                frames=self.frames,
                truth=self.truth,
                progress=done,
            )
        print(self.output)
        return 0
