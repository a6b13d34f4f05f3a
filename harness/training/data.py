"""Batches to train on: simulated without end, cropped from a movie with its table, or pairs from disk.

Each source yields `(frames, target)`. For image networks: photons (N, 1, H, W), and unit spikes (N, 1, sH, sW) or, for
pairs, the images of the target folder. For localization networks: blocks of consecutive frames, photons (B, T, H, W),
and the emitters of the frames that get maps.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.io.movies import MovieReader, open_movie
from harness.io.tables import read_table
from harness.pairs import ImageDataset
from simulators import Batch, Emitters, Recipe, draw_frames
from simulators.windows import draw_movies
from zoo import EmitterMaps, EmitterTargets, ImageNetwork, MapNetwork, SRImage

from .config import TrainConfig
from .teaching import Batches

Pair = tuple[Tensor, Tensor | EmitterTargets]


def spikes_of(batch: Batch, output: SRImage, pixel_size_nm: tuple[float, float], *, min_photons: float) -> Tensor:
    """Unit spikes of the emitters that a network is asked to find, (N, 1, sH, sW)."""
    bright = batch.emitter_photons >= min_photons
    count, height, width = batch.photons.shape
    return output.spikes(
        batch.frame[bright],
        batch.x_nm[bright],
        batch.y_nm[bright],
        count=count,
        height=height,
        width=width,
        pixel_size_nm=pixel_size_nm,
        device=batch.photons.device,
    )


@dataclass
class SimulatedFrames:
    """Frames of a recipe, every one new; each batch is drawn on the device from a generator of its own.

    Batch k of a seed is the same whatever came before, so that a resumed run goes on where it stopped.
    """

    recipe: Recipe
    output: SRImage
    batch_size: int
    size: int
    min_photons: float
    seed: int
    device: torch.device

    def batch(self, number: int) -> Pair:
        """Batch `number` (from 0)."""
        rng = np.random.default_rng([self.seed, number])
        drawn = draw_frames(self.recipe, self.batch_size, rng, device=self.device, size=(self.size, self.size))
        target = spikes_of(drawn, self.output, self.recipe.camera.pixel_size_nm, min_photons=self.min_photons)
        return drawn.photons[:, None], target


@dataclass
class SimulatedMovies:
    """Blocks of consecutive frames of a recipe, every one new; see `SimulatedFrames`.

    A block of N + `before` + `after` frames trains N frames, so that what a network computes for one frame alone serves
    its neighbours too.
    """

    recipe: Recipe
    output: EmitterMaps
    batch_size: int
    block: int
    before: int
    after: int
    size: int
    min_photons: float
    seed: int
    device: torch.device

    def batch(self, number: int) -> tuple[Tensor, EmitterTargets]:
        """Batch `number` (from 0)."""
        frames, target, _ = self.drawn(np.random.default_rng([self.seed, number]))
        return frames, target

    def drawn(self, rng: np.random.Generator) -> tuple[Tensor, EmitterTargets, Batch]:
        """A batch, and all that was drawn for it."""
        length = self.block + self.before + self.after
        size = (self.size, self.size)
        drawn = draw_movies(self.recipe, self.batch_size, length, rng, device=self.device, size=size)
        movie, step = drawn.frame // length, drawn.frame % length - self.before
        asked = (step >= 0) & (step < self.block)
        rows = _Rows(
            frame=(movie * self.block + step)[asked],
            x_nm=drawn.x_nm[asked],
            y_nm=drawn.y_nm[asked],
            z_nm=drawn.z_nm[asked],
            photons=drawn.emitter_photons[asked],
        )
        light = drawn.background.view(self.batch_size, length, *drawn.background.shape[1:])
        target = self.output.encode(
            rows,
            count=self.batch_size * self.block,
            height=self.size,
            width=self.size,
            pixel_size_nm=self.recipe.camera.pixel_size_nm,
            background=light[:, self.before : self.before + self.block].flatten(0, 1),
            min_photons=self.min_photons,
        )
        return drawn.photons.view(self.batch_size, length, *size), target, drawn


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Columns that `encode` asks for."""

    frame: Tensor
    x_nm: Tensor
    y_nm: Tensor
    z_nm: Tensor
    photons: Tensor


@dataclass
class MovieFrames:
    """Crops at random places of the first `count` frames of a movie, flipped and turned at random.

    Frames are read when they are needed: the movie may be larger than memory. `emitters` are sorted by frame.
    """

    movie: MovieReader
    to_photons: Callable[[np.ndarray], np.ndarray]
    count: int
    emitters: Emitters
    pixel_size_nm: tuple[float, float]
    output: SRImage
    batch_size: int
    size: int
    min_photons: float
    seed: int
    device: torch.device

    def batch(self, number: int) -> Pair:
        """Batch `number` (from 0)."""
        rng = np.random.default_rng([self.seed, number])
        frames, spikes = [], []
        height, width = self.movie.height, self.movie.width
        rows, columns = min(self.size, height), min(self.size, width)
        for _ in range(self.batch_size):
            index = int(rng.integers(self.count))
            top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
            photons = self.to_photons(self.movie.read(index, index + 1)[0])
            frame = torch.from_numpy(photons[top : top + rows, left : left + columns])
            first, last = np.searchsorted(self.emitters.frame, [index, index + 1])
            found = self.emitters.pick(np.arange(first, last))
            # unknown photons (nan) count as bright enough
            found = found.pick(~(found.photons < self.min_photons))
            target = self.output.spikes(
                torch.zeros(len(found), dtype=torch.int64),
                torch.as_tensor(found.x_nm - left * self.pixel_size_nm[0]),
                torch.as_tensor(found.y_nm - top * self.pixel_size_nm[1]),
                count=1,
                height=rows,
                width=columns,
                pixel_size_nm=self.pixel_size_nm,
                device=torch.device("cpu"),
            )[0, 0]
            if rows == columns and rng.integers(2):
                frame, target = frame.T, target.T
            axes = [axis for axis in (0, 1) if rng.integers(2)]
            frames.append(frame.flip(axes))
            spikes.append(target.flip(axes))
        return torch.stack(frames)[:, None].to(self.device), torch.stack(spikes)[:, None].to(self.device)


@dataclass
class PairedFrames:
    """The first `count` pairs of two folders, in random order, each seen once before any is seen again."""

    dataset: ImageDataset
    count: int
    batch_size: int
    seed: int
    device: torch.device

    def batch(self, number: int) -> Pair:
        """Batch `number` (from 0)."""
        orders: dict[int, np.ndarray] = {}
        picked = []
        for position in range(number * self.batch_size, (number + 1) * self.batch_size):
            epoch, place = divmod(position, self.count)
            if epoch not in orders:
                orders[epoch] = np.random.default_rng([self.seed, epoch]).permutation(self.count)
            picked.append(int(orders[epoch][place]))
        frames, targets = zip(*(self.dataset[index] for index in picked), strict=True)
        return torch.stack(frames).to(self.device), torch.stack(targets).to(self.device)


Source = SimulatedFrames | SimulatedMovies | MovieFrames | PairedFrames


class Endless(torch.utils.data.IterableDataset[tuple[Tensor, Any]]):
    """Batches `first, first + 1, ...` of a source, as Lightning wants them."""

    def __init__(self, source: Batches, first: int = 0) -> None:
        self.source, self.first = source, first

    def __iter__(self) -> Iterator[tuple[Tensor, Any]]:
        number = self.first
        while True:
            yield self.source.batch(number)
            number += 1


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Frames that are never trained on, with what is to be found in them.

    For localization networks `frames` are blocks (B, T, H, W), and `emitters` count the frames that get maps, block
    after block.
    """

    frames: Tensor
    target: Tensor | EmitterTargets
    emitters: Emitters | None
    pixel_size_nm: tuple[float, float]


def open_sources(
    config: TrainConfig, network: ImageNetwork | MapNetwork, device: torch.device
) -> tuple[Source, Validation]:
    """Training batches and validation frames of a configuration.

    Raises:
        ValueError: a file is missing or does not fit; says which.
    """
    if isinstance(network, MapNetwork):
        return _map_sources(config, network, device)
    output = network.output
    if config.source == "pairs":
        assert config.inputs is not None
        assert config.targets is not None
        dataset = ImageDataset(Path(config.inputs), Path(config.targets))
        if dataset.upsampling != output.upsampling:
            raise ValueError(
                f"targets in {config.targets} are {dataset.upsampling} times the size of the frames, but the model "
                f"enlarges {output.upsampling} times; build it with upsampling={dataset.upsampling}"
            )
        held = max(1, min(config.validation_frames, len(dataset) // 10))
        if len(dataset) <= held:
            raise ValueError(f"{config.inputs} holds {len(dataset)} frames; at least 2 are needed")
        kept = [dataset[index] for index in range(len(dataset) - held, len(dataset))]
        validation = Validation(
            frames=torch.stack([frame for frame, _ in kept]),
            target=torch.stack([target for _, target in kept]),
            emitters=None,
            pixel_size_nm=(config.pixel_size_nm or 100.0,) * 2,
        )
        return PairedFrames(dataset, len(dataset) - held, config.batch_size, config.seed, device), validation
    if config.source == "movie":
        return _movie_sources(config, output, device)
    recipe = config.simulation()
    source = SimulatedFrames(recipe, output, config.batch_size, config.size, config.min_photons, config.seed, device)
    rng = np.random.default_rng([config.seed, 2**31])  # a stream that no training batch uses
    drawn = draw_frames(recipe, config.validation_frames, rng, device="cpu", size=(32, 32))
    pixel = recipe.camera.pixel_size_nm
    validation = Validation(
        frames=drawn.photons[:, None],
        target=spikes_of(drawn, output, pixel, min_photons=config.min_photons),
        emitters=_inside(drawn.emitters(), (32 * pixel[0], 32 * pixel[1])),
        pixel_size_nm=pixel,
    )
    return source, validation


def _map_sources(config: TrainConfig, network: MapNetwork, device: torch.device) -> tuple[Source, Validation]:
    if config.source != "recipe":
        raise ValueError(
            f"{config.model} learns from simulated movies: photons, positions and background of every molecule; give a "
            "recipe that is like your movie, not a movie or pairs"
        )
    recipe = config.simulation()

    def movies(batch_size: int, size: int, where: torch.device) -> SimulatedMovies:
        return SimulatedMovies(
            recipe=recipe,
            output=network.output,
            batch_size=batch_size,
            block=config.block,
            before=network.frames_before,
            after=network.frames_after,
            size=size,
            min_photons=config.min_photons,
            seed=config.seed,
            device=where,
        )

    held = movies(max(1, config.validation_frames // config.block), config.size, torch.device("cpu"))
    frames, target, drawn = held.drawn(np.random.default_rng([config.seed, 2**31]))
    pixel = recipe.camera.pixel_size_nm
    emitters = drawn.emitters()
    length = frames.shape[1]
    step = emitters.frame % length - held.before
    emitters = emitters.replace(frame=np.maximum(emitters.frame // length * held.block + step, 0))
    emitters = emitters.pick((step >= 0) & (step < held.block))
    validation = Validation(
        frames=frames,
        target=target,
        emitters=_inside(emitters, (config.size * pixel[0], config.size * pixel[1])),
        pixel_size_nm=pixel,
    )
    return movies(config.batch_size, config.size, device), validation


def _inside(emitters: Emitters, field_nm: tuple[float, float]) -> Emitters:
    width, height = field_nm
    x, y = emitters.x_nm, emitters.y_nm
    return emitters.pick((x >= 0) & (x < width) & (y >= 0) & (y < height))


def _movie_sources(config: TrainConfig, output: SRImage, device: torch.device) -> tuple[Source, Validation]:
    assert config.movie is not None
    assert config.table is not None
    movie = open_movie(Path(config.movie))
    pixel = config.pixel_size_nm or movie.pixel_size_nm
    if pixel is None:
        raise ValueError(f"{config.movie} does not say its pixel size; give pixel_size_nm")
    pixel_size_nm = (float(pixel), float(pixel)) if isinstance(pixel, int | float) else pixel

    def to_photons(counts: np.ndarray) -> np.ndarray:
        return (counts.astype(np.float32) - np.float32(config.baseline)) * np.float32(config.photons_per_count)

    emitters = read_table(Path(config.table)).sorted()
    if len(emitters) and emitters.frame[-1] >= len(movie):
        raise ValueError(
            f"{config.table} names frame {emitters.frame[-1]} (counted from 0), but {config.movie} has "
            f"{len(movie)} frames"
        )
    held = max(1, min(config.validation_frames, len(movie) // 10))
    if len(movie) <= held:
        raise ValueError(f"{config.movie} has {len(movie)} frames; at least 2 are needed")
    first = len(movie) - held
    kept = emitters.pick(emitters.frame >= first)
    kept = kept.replace(frame=kept.frame - first)
    bright = kept.pick(~(kept.photons < config.min_photons))
    target = output.spikes(
        torch.as_tensor(bright.frame),
        torch.as_tensor(bright.x_nm),
        torch.as_tensor(bright.y_nm),
        count=held,
        height=movie.height,
        width=movie.width,
        pixel_size_nm=pixel_size_nm,
        device=torch.device("cpu"),
    )
    frames = torch.from_numpy(to_photons(movie.read(first, len(movie))))[:, None]
    validation = Validation(frames=frames, target=target, emitters=kept, pixel_size_nm=pixel_size_nm)
    source = MovieFrames(
        movie,
        to_photons,
        first,
        emitters.pick(emitters.frame < first),
        pixel_size_nm,
        output,
        config.batch_size,
        config.size,
        config.min_photons,
        config.seed,
        device,
    )
    return source, validation
