"""Batches for teacher and student: blocks with the neighbours that either needs, and movies without a truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.io.movies import MovieReader
from harness.localization import photons_of
from harness.training.data import spikes_of
from harness.training.teaching import Batches
from simulators import Batch, Camera, Recipe
from simulators.windows import draw_movies
from zoo import SRImage

LABELLED_AT = 1_000_000_007
"""Batches from this number on are for measuring the teacher; no training comes so far."""


@dataclass
class SimulatedBlocks:
    """Consecutive simulated frames for an image network whose teacher looks at neighbours; see `SimulatedFrames`.

    Frames are (B, T, H, W) with `before` and `after` neighbours, targets the unit spikes of the others,
    (B n, 1, sH, sW).
    """

    recipe: Recipe
    output: SRImage
    batch_size: int
    block: int
    before: int
    after: int
    size: int
    min_photons: float
    seed: int
    device: torch.device

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Batch `number` (from 0)."""
        rng = np.random.default_rng([self.seed, number])
        length = self.block + self.before + self.after
        drawn: Batch = draw_movies(
            self.recipe, self.batch_size, length, rng, device=self.device, size=(self.size, self.size)
        )
        every = spikes_of(drawn, self.output, self.recipe.camera.pixel_size_nm, min_photons=self.min_photons)
        asked = every.unflatten(0, (self.batch_size, length))[:, self.before : self.before + self.block]
        return drawn.photons.view(self.batch_size, length, self.size, self.size), asked.flatten(0, 1)


@dataclass
class MovieBlocks:
    """Crops of a movie without a truth, flipped and turned at random: frames (B, T, H, W), target None.

    Args:
        camera: turns counts into photons.
        length: consecutive frames of a crop.
        multiple: sides are cut to multiples of this where the movie is smaller than `size`.
    """

    movie: MovieReader
    camera: Camera
    batch_size: int
    length: int
    size: int
    multiple: int
    seed: int
    device: torch.device

    def __post_init__(self) -> None:
        smallest = min(self.movie.height, self.movie.width) // self.multiple * self.multiple
        if len(self.movie) < self.length or not smallest:
            raise ValueError(
                f"the movie has {len(self.movie)} frames of {self.movie.height} x {self.movie.width} pixels; crops of "
                f"{self.length} consecutive frames with sides of {self.multiple} pixels are needed"
            )
        self.side = min(self.size, smallest)

    def batch(self, number: int) -> tuple[Tensor, None]:
        """Batch `number` (from 0)."""
        rng = np.random.default_rng([self.seed, 77, number])
        read = photons_of(self.movie, self.camera)
        crops = []
        for _ in range(self.batch_size):
            first = int(rng.integers(len(self.movie) - self.length + 1))
            top = int(rng.integers(self.movie.height - self.side + 1))
            left = int(rng.integers(self.movie.width - self.side + 1))
            crop = read(first, first + self.length)[:, top : top + self.side, left : left + self.side]
            crop = crop.rot90(int(rng.integers(4)), (1, 2))
            crops.append(crop.flip(2) if rng.integers(2) else crop)
        return torch.stack(crops).to(self.device), None


@dataclass
class Mixed:
    """Labelled batches with a share of unlabelled ones among them, evenly spread."""

    labelled: Batches
    unlabelled: Batches
    share: float

    def batch(self, number: int) -> tuple[Tensor, object]:
        """Batch `number` (from 0)."""
        if number < LABELLED_AT and int((number + 1) * self.share) > int(number * self.share):
            return self.unlabelled.batch(number)
        return self.labelled.batch(number)
