"""smlm-zoo threshold"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from ._shared import OptionalOutput, Plugins, load_plugins, print_table


@dataclass(frozen=True)
class Threshold:
    """Find the threshold of models on validation movies.

    All models read the same movies and have the same number of trials. Examples:

        smlm-zoo threshold deep_storm fid_storm
        smlm-zoo threshold run --recipe tubes-2d-hd -o threshold.json
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Shipped models, folders written by train, export or import, or ONNX files."""
    recipe: str = "epfl-2d"
    """Domain of the validation movies: a name or a YAML file; their seeds are used by no other movie."""
    movies: int = 8
    """Number of movies."""
    frames: int = 8
    """Frames of each."""
    trials: int = 20
    """Thresholds tried, in equal steps of the logarithm."""
    device: str = "auto"
    """auto, cpu, cuda."""
    plugin: Plugins = ()
    """Python files that register further models."""
    output: OptionalOutput = None
    """JSON file to write: thresholds, curves, and all that they depend on."""

    def run(self) -> int:
        from harness.io.json_files import write_json
        from harness.models import open_model
        from harness.thresholding import find_threshold, validation_movies

        if not self.models:
            raise ValueError("no model given; see smlm-zoo models")
        load_plugins(self.plugin)
        movies = validation_movies(self.recipe, movies=self.movies, frames=self.frames)
        chosen = {
            name: find_threshold(open_model(name, device=self.device), movies, trials=self.trials)
            for name in self.models
        }
        print_table(
            [
                {
                    "model": name,
                    "threshold": f"{one.threshold:.4g}",
                    "efficiency": f"{one.efficiency:.1f}",
                    "found on": one.source,
                }
                for name, one in chosen.items()
            ]
        )
        if self.output is not None:
            write_json(self.output, {name: one.to_dict() for name, one in chosen.items()}, allow_nan=False)
        return 0
