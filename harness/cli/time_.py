"""smlm-zoo time"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from ._shared import Plugins, load_plugins, print_table


@dataclass(frozen=True)
class Time:
    """Time models on one fixed batch of 64x64 frames, or their training step, all forms interleaved.

    Times are medians over interleaved repeats; compare them by ratio within one call.
    """

    model: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Shipped models, names in the zoo, folders or ONNX files; default: every model of the zoo."""
    train: bool = False
    """Time the training step instead: plain float32 against bfloat16 in channels-last, with GFLOP/s."""
    movie: bool = False
    """Time DECODE from movie file to table instead: as its program does it against our forms, with scores."""
    batch: int | None = None
    """Frames in the batch; default 1 (training step of DECODE: 64 windows)."""
    size: int | None = None
    """Side of a frame, camera pixels; default 64 (training step of DECODE: 40)."""
    frames: int = 1000
    """Length of the movie, with --movie."""
    seconds: float = 5.0
    """Longest time for one form of one model."""
    device: str = "auto"
    """auto, cpu, cuda."""
    plugin: Plugins = ()
    """Python files that register further models."""

    def run(self) -> int:
        import zoo
        from harness.timing import time_forms, time_training
        from harness.timing_maps import time_movie_to_table

        load_plugins(self.plugin)
        if self.movie:
            for name in self.model or ("decode",):
                print_table(time_movie_to_table(name, frames=self.frames, size=self.size or 64))
            return 0
        shape = {key: value for key, value in (("batch", self.batch), ("size", self.size)) if value is not None}
        rows = []
        for name in self.model or zoo.list_models():
            timed = time_training if self.train else time_forms
            rows += timed(name, seconds=self.seconds, device=self.device, **shape)
        print_table(rows)
        return 0
