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
    batch: int = 1
    """Frames in the batch."""
    size: int = 64
    """Side of a frame, camera pixels."""
    seconds: float = 5.0
    """Longest time for one form of one model."""
    device: str = "auto"
    """auto, cpu, cuda."""
    plugin: Plugins = ()
    """Python files that register further models."""

    def run(self) -> int:
        import zoo
        from harness.timing import time_forms, time_training

        load_plugins(self.plugin)
        rows = []
        for name in self.model or zoo.list_models():
            if self.train:
                rows += time_training(name, batch=self.batch, size=self.size, seconds=self.seconds, device=self.device)
            else:
                rows += time_forms(name, batch=self.batch, size=self.size, seconds=self.seconds, device=self.device)
        print_table(rows)
        return 0
