"""What every runtime offers."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RuntimeInfo:
    """What really runs: program, provider (never the one asked for, but the one used), arithmetic, threads."""

    name: str
    provider: str
    precision: str
    threads: int


class Runtime(Protocol):
    """A network that is ready to run."""

    info: RuntimeInfo

    def __call__(self, frames: Tensor) -> Tensor:
        """(N, frames_in, H, W) float32 photons -> (N, 1, sH, sW) float32, both on the CPU."""
        ...
