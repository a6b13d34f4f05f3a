"""Options of a small machine's limits, shared by commands that pick a model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from harness.distillation import Limits


@dataclass(frozen=True)
class LimitOptions:
    """What the small machine allows: the best model within it is named."""

    max_mb: float | None = None
    """Limit of the file's size, MB."""
    max_ms: float | None = None
    """Limit of the time of one 64x64 frame, milliseconds."""
    max_peak_mb: float | None = None
    """Limit of the memory of the whole program that localizes a movie, MB."""
    memory_mb: float | None = None
    """Memory that the machine gives a program for its data, MB: forms are measured within it, one frame at a time, and
    need to run so."""
    threads: int = 1
    """Threads that time and memory are measured with."""

    def limits(self) -> "Limits":
        """Those that were given."""
        from harness.distillation import Limits

        names = ("max_mb", "max_ms", "max_peak_mb", "memory_mb")
        given = {name: getattr(self, name) for name in names}
        return Limits(**{name: value for name, value in given.items() if value is not None})


SmallMachine = Annotated[LimitOptions, tyro.conf.arg(name="")]
