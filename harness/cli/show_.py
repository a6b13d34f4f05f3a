"""smlm-zoo show"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ._shared import CameraOptions, Output


@dataclass(frozen=True)
class Show:
    """Picture of one frame of a movie: input | truth (where a table is given) | the model's image."""

    model: Annotated[str, tyro.conf.Positional]
    """A shipped model, a folder written by train, export or import, or an ONNX file."""
    movie: Annotated[Path, tyro.conf.Positional]
    """A TIFF movie."""
    output: Output = Path("smlm-zoo-show.png")
    """PNG to write."""
    frame: int = 0
    """Which frame, from 0."""
    truth: Path | None = None
    """Table of emitters."""
    camera: CameraOptions = field(default_factory=CameraOptions)
    """How the movie was recorded."""
    device: str = "auto"
    """auto, cpu, cuda."""

    def run(self) -> int:
        from harness.models import open_model
        from harness.showing import show

        show(
            open_model(self.model, device=self.device),
            self.movie,
            self.output,
            camera=self.camera.camera(self.movie),
            frame=self.frame,
            truth=self.truth,
        )
        print(self.output)
        return 0
