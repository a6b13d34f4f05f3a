"""What the localization networks share: frames in, maps of emitters out, and how much of the movie they look at."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ._blocks import Normalisation
from ._emitter_maps import EmitterMaps


@runtime_checkable
class SharesFeatures(Protocol):
    """A core that looks at each frame alone first, so that in a movie this serves the neighbours too."""

    def features(self, frames: Tensor) -> Tensor:
        """Normalised frames (N, H, W) -> what is kept of each, (N, ...)."""
        ...

    def combine_consecutive(self, features: Tensor) -> Tensor:
        """What is kept of consecutive frames, (T, ...) -> maps of those with neighbours, (T', C, H, W)."""
        ...


class MapNetwork(nn.Module):
    """Consecutive photon frames in, maps of emitters for the frames between: normalise, then `core`.

    A subclass sets `core`: normalised (B, T, H, W) -> (B, T - frames_before - frames_after, C, H, W).

    Args:
        output: meaning of the channels.
        frames_before, frames_after: neighbours that a frame needs at least; they get no maps themselves.
        size_multiple: height and width must be multiples of this.
        context: frames that are looked at together, where more neighbours change the result (attention); None where
            `frames_before` and `frames_after` are all that counts.
        normalisation: mode of `Normalisation`.
    """

    core: nn.Module

    def __init__(
        self,
        *,
        output: EmitterMaps,
        frames_before: int = 0,
        frames_after: int = 0,
        size_multiple: int = 1,
        context: int | None = None,
        normalisation: str = "dataset",
    ):
        super().__init__()
        self.output = output
        self.frames_before, self.frames_after = frames_before, frames_after
        self.size_multiple = size_multiple
        self.context = context
        self.normalisation = Normalisation(normalisation)

    @property
    def frames_in(self) -> int:
        """Frames of the shortest input."""
        return self.frames_before + 1 + self.frames_after

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, H, W) photons -> (B, T - frames_before - frames_after, C, H, W).

        Raises:
            ValueError: not four axes, too few frames, empty, or a size that is no multiple of `size_multiple`.
        """
        if not torch.compiler.is_compiling():  # sizes are free in exported and compiled graphs
            self._check(frames)
        return self.core(self.normalisation(frames))

    def _check(self, frames: Tensor) -> None:
        name = getattr(self, "model_name", "this network")
        if frames.ndim != 4 or frames.shape[1] < self.frames_in:
            raise ValueError(
                f"frames are {tuple(frames.shape)}; {name} needs (batch, frames, height, width) with at least "
                f"{self.frames_in} frame{'s' if self.frames_in > 1 else ''}"
            )
        height, width = frames.shape[2:]
        if height < 1 or width < 1:
            raise ValueError(f"frames are {height} x {width} pixels; {name} needs at least one pixel each way")
        multiple = self.size_multiple
        if height % multiple or width % multiple:
            up = [math.ceil(size / multiple) * multiple for size in (height, width)]
            raise ValueError(
                f"frames are {height} x {width} pixels; {name} needs multiples of {multiple}. "
                f"Pad to {up[0]} x {up[1]} and crop the result."
            )
