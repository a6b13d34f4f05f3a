"""smlm-zoo localize"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ._shared import CameraOptions, OptionalOutput, Plugins, load_plugins, progress_bar, warn_of_range


@dataclass(frozen=True)
class Localize:
    """Find the molecules of a movie: localizations.csv, image.tif, image.png.

    Example: smlm-zoo localize deep_storm movie.tif -o out --camera.pixel-size-nm 100 --camera.baseline 100
    """

    model: Annotated[str, tyro.conf.Positional]
    """A shipped model, a folder written by train, export or import, or an ONNX file."""
    movie: Annotated[Path, tyro.conf.Positional]
    """A TIFF movie, or a folder of single frames."""
    output: OptionalOutput = None
    """Folder to write; default: smlm-zoo-localize-MOVIE."""
    camera: CameraOptions = field(default_factory=CameraOptions)
    """How the movie was recorded."""
    threshold: float | None = None
    """In units of a lone emitter's peak (image networks) or of probability (localization networks); default: found on
    validation data, in the model's card."""
    runtime: Literal["torch", "onnx"] = "torch"
    """What computes."""
    device: str = "auto"
    """auto, cpu, cuda."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic (torch); auto takes the faster one."""
    tile_px: int | None = None
    """Largest side that is treated whole, camera pixels; larger fields are cut into tiles that overlap. Changes results
    only where statistics of the field enter (attention U-Net, DSIR); default: the model card's."""
    plugin: Plugins = ()
    """Python files that register further models."""

    def run(self) -> int:
        from harness.io.movies import open_movie
        from harness.localization import localize_to
        from harness.models import checked_tile, open_model

        load_plugins(self.plugin)
        model = open_model(self.model, runtime=self.runtime, device=self.device, precision=self.precision)
        if self.tile_px is not None:
            model = replace(model, tile_px=checked_tile(self.tile_px, "--tile-px"))
        camera = self.camera.camera(self.movie)
        folder = self.output or Path(f"smlm-zoo-localize-{self.movie.stem}")
        with open_movie(self.movie) as reader:
            frames = len(reader)
        notes = warn_of_range([model], self.movie, camera)
        with progress_bar("localizing", frames) as done:
            result, rows = localize_to(
                model, self.movie, folder, camera=camera, threshold=self.threshold, progress=done, notes=notes
            )
        print(f"{folder}: {rows} localizations in {frames} frames, {frames / result.seconds:.1f} frames/s")
        return 0
