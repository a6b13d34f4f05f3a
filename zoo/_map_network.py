"""What the localization networks share: frames in, maps of emitters out, and how much of the movie they look at."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ._blocks import Normalisation, refuse_sizes
from ._emitter_maps import EmitterMaps


class SharesFeatures(nn.Module, ABC):
    """A core that looks at each frame alone first, so that in a movie this serves the neighbours too.

    Args:
        frames: frames of a window.
    """

    def __init__(self, frames: int):
        super().__init__()
        self.frames = frames

    @abstractmethod
    def features(self, frames: Tensor) -> Tensor:
        """Normalised frames (N, H, W) -> what is kept of each, (N, features, h, w)."""

    @abstractmethod
    def combine(self, features: Tensor) -> Tensor:
        """What is kept of the frames of each window, (N, frames x features, h, w) in time order -> (N, C, H, W)."""

    def combine_consecutive(self, features: Tensor) -> Tensor:
        """What is kept of consecutive frames, (T, features, h, w) -> maps of those with neighbours, (T', C, H, W)."""
        outputs = len(features) - self.frames + 1
        return self.combine(torch.cat([features[step : step + outputs] for step in range(self.frames)], dim=1))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, H, W) -> (B, T - frames + 1, C, H, W)."""
        batch, count, height, width = frames.shape
        features = self.features(frames.reshape(batch * count, height, width))
        outputs = count - self.frames + 1
        last = features.is_contiguous(memory_format=torch.channels_last) and not torch.compiler.is_compiling()
        grouped = (features.permute(0, 2, 3, 1) if last else features).unflatten(0, (batch, count))
        steps = [grouped[:, step : step + outputs] for step in range(self.frames)]
        windows = torch.cat(steps, dim=-1 if last else 2).flatten(0, 1)  # as they lie in memory: nothing to rearrange
        return self.combine(windows.permute(0, 3, 1, 2) if last else windows).unflatten(0, (batch, outputs))


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
        refuse_sizes(name, frames, self.size_multiple)
