"""Models at work: photon frames of a movie in, localizations and pictures out, in blocks of bounded memory."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from harness.runtimes import MapRuntime, Runtime
from simulators import Localizations
from zoo import EmitterMaps, ImageNetwork, MapNetwork, SRImage

Network = ImageNetwork | MapNetwork
Read = Callable[[int, int], Tensor]
"""Frames first..last-1 of a movie as photons, (n, H, W) float32."""

TILE = 96  # camera pixels; larger frames are cut for image models, whose maps are many times larger
MAP_TILE = 384  # the same for localization models
FIELD_TILE = 96  # the same where statistics of the field enter, so that the result depends on it; see `card["tile_px"]`
FIELD_REACH = 13  # camera pixels that such a tile looks beyond what it keeps; no surroundings would be enough
FRAMES_AT_ONCE = 32
PIXELS_AT_ONCE = 4 * 64 * 64  # camera pixels in one batch of an image model
MAP_PIXELS_AT_ONCE = 16 * 64 * 64  # and of a localization model
SUPPORT = 3  # camera pixels beyond the receptive field that enlarging may look at
UPSAMPLING = 8  # fine pixels per camera pixel where localizations are shown as an image


@dataclass(frozen=True, kw_only=True)
class Part:
    """What some consecutive frames gave.

    Args:
        first, last: the frames first..last-1.
        localizations: their rows.
        image: sum of their super-resolved images, (sH, sW) float32, nowhere negative.
    """

    first: int
    last: int
    localizations: Localizations
    image: Tensor


@dataclass(frozen=True, kw_only=True)
class ReadyModel(ABC):
    """A model with its weights, ready to run.

    Args:
        name: for people, e.g. `deep_storm.epfl-2d`.
        card: what is known of the weights.
        size_multiple: frames are padded to multiples of this, and the result cropped back.
        receptive_field_px: in camera pixels; None where unknown or where statistics of the whole field enter.
        network: the module, where there is one.
        tile_px: largest side of a field that is treated whole, camera pixels; None: of any size. A property of the
            model where statistics of the field enter (then the card has it), else of the memory.
    """

    name: str
    card: dict[str, Any]
    size_multiple: int = 1
    receptive_field_px: float | None = None
    network: Network | None = None
    tile_px: int | None = None

    @property
    @abstractmethod
    def info(self) -> Any:
        """What really computes."""

    @property
    def threshold(self) -> float:
        """Threshold found on validation data.

        Raises:
            ValueError: the card has none.
        """
        value = self.card.get("threshold")
        if value is None:
            raise ValueError(f"the card of {self.name} holds no threshold; give one, e.g. --threshold 0.2")
        return float(value)

    @property
    @abstractmethod
    def upsampling(self) -> int:
        """Fine pixels per camera pixel in `Part.image`."""

    @abstractmethod
    def parts(self, read: Read, total: int, *, threshold: float, pixel_size_nm: tuple[float, float]) -> Iterator[Part]:
        """All frames of a movie, part after part, none left out."""

    @abstractmethod
    def raw(self, read: Read, total: int, count: int) -> Tensor:
        """The network's own output for the first `count` frames, with the neighbours that they have, on the CPU."""

    @abstractmethod
    def decode(
        self, raw: Tensor, *, threshold: float, pixel_size_nm: tuple[float, float], first_frame: int = 0
    ) -> Localizations:
        """Localizations in `raw`."""

    @abstractmethod
    def repeatable(self, frames: Tensor) -> tuple[Callable[[], Any], int]:
        """A call to be timed: the network's work on some frames in the middle of a movie, and how many get results.

        Args:
            frames: (N, H, W) photons.
        """

    @abstractmethod
    def picture(self, read: Read, total: int, frame: int, *, pixel_size_nm: tuple[float, float]) -> Tensor:
        """One frame's super-resolved image, (sH, sW)."""

    def _whole(self, height: int, width: int) -> bool:
        return self.tile_px is None or max(height, width) <= self.tile_px

    def _tiles(self, height: int, width: int) -> Iterator[Tile]:
        assert self.tile_px is not None
        reach = FIELD_REACH if self.receptive_field_px is None else self.receptive_field_px / 2
        return tiles(height, width, side=self.tile_px, reach=reach, multiple=self.size_multiple)


@dataclass(frozen=True, kw_only=True)
class ImageModel(ReadyModel):
    """A model whose network gives super-resolved images, frame by frame.

    Args:
        runtime: what computes.
        output: meaning of the image.
        frames_in: frames that the network takes at a time.
    """

    runtime: Runtime
    output: SRImage
    frames_in: int = 1

    @property
    def info(self) -> Any:
        return self.runtime.info

    @property
    def upsampling(self) -> int:
        return self.output.upsampling

    def parts(self, read: Read, total: int, *, threshold: float, pixel_size_nm: tuple[float, float]) -> Iterator[Part]:
        blocks = [(first, min(first + FRAMES_AT_ONCE, total)) for first in range(0, total, FRAMES_AT_ONCE)]
        for (first, last), frames in prefetched(blocks, lambda block: read(*block)):
            images = self.image(frames)
            found = self.decode(images, threshold=threshold, pixel_size_nm=pixel_size_nm, first_frame=first)
            yield Part(first=first, last=last, localizations=found, image=images.clamp(min=0).sum((0, 1)))

    def raw(self, read: Read, total: int, count: int) -> Tensor:
        return self.image(read(0, count))

    def decode(
        self, raw: Tensor, *, threshold: float, pixel_size_nm: tuple[float, float], first_frame: int = 0
    ) -> Localizations:
        return self.output.decode(raw, threshold=threshold, pixel_size_nm=pixel_size_nm, first_frame=first_frame)

    def repeatable(self, frames: Tensor) -> tuple[Callable[[], Any], int]:
        return partial(self.runtime, frames[:, None]), len(frames)

    def picture(self, read: Read, total: int, frame: int, *, pixel_size_nm: tuple[float, float]) -> Tensor:
        return self.image(read(frame, frame + 1))[0, 0]

    def image(self, frames: Tensor) -> Tensor:
        """(N, H, W) photons -> (N, 1, sH, sW); any size, in tiles where frames are large.

        Raises:
            ValueError: wrong shape.
        """
        if frames.ndim != 3:
            raise ValueError(f"frames are {tuple(frames.shape)}; (number, height, width) is needed")
        count, height, width = frames.shape
        if self._whole(height, width):
            return self._batched(frames)
        s = self.output.upsampling
        whole = torch.empty(self.output.shape(count, height, width))
        for tile in self._tiles(height, width):
            tile.put(whole, self._batched(tile.cut(frames)), s)
        return whole

    def _batched(self, frames: Tensor) -> Tensor:
        height, width = frames.shape[1:]
        per_batch = max(1, PIXELS_AT_ONCE // (height * width))
        parts = [self.runtime(pad_to(part, self.size_multiple)) for part in frames[:, None].split(per_batch)]
        s = self.output.upsampling
        return torch.cat(parts)[..., : s * height, : s * width]


@dataclass(frozen=True, kw_only=True)
class MapModel(ReadyModel):
    """A model whose network looks at consecutive frames and gives maps of emitters.

    Every frame of a movie gets its maps: at the ends the first and the last frame stand in for the missing
    neighbours; a network with a context looks at windows that overlap by half, and each frame takes its maps from the
    window in which it lies nearest the middle.

    Args:
        runtime: what computes.
        output: meaning of the maps.
        frames_before, frames_after: neighbours that a frame needs.
        context: frames of a window, for networks whose every frame looks at all others; None for others.
    """

    runtime: MapRuntime
    output: EmitterMaps
    frames_before: int = 1
    frames_after: int = 1
    context: int | None = None

    @property
    def info(self) -> Any:
        return self.runtime.info

    @property
    def upsampling(self) -> int:
        return UPSAMPLING

    def parts(self, read: Read, total: int, *, threshold: float, pixel_size_nm: tuple[float, float]) -> Iterator[Part]:
        for first, maps in self._blocks(read, total):
            found = self.output.decode(maps, threshold=threshold, pixel_size_nm=pixel_size_nm, first_frame=first)
            height, width = maps.shape[-2:]
            image = drawn(found, height=height, width=width, pixel_size_nm=pixel_size_nm)
            yield Part(first=first, last=first + len(maps), localizations=found, image=image)

    def raw(self, read: Read, total: int, count: int) -> Tensor:
        seen = min(total, count + self.frames_after if self.context is None else max(count, self.context))
        maps: list[Tensor] = []
        for first, part in self._blocks(read, seen):
            maps.append(part[: count - first].cpu())
            if first + len(part) >= count:
                break
        return torch.cat(maps)

    def decode(
        self, raw: Tensor, *, threshold: float, pixel_size_nm: tuple[float, float], first_frame: int = 0
    ) -> Localizations:
        return self.output.decode(raw, threshold=threshold, pixel_size_nm=pixel_size_nm, first_frame=first_frame)

    def repeatable(self, frames: Tensor) -> tuple[Callable[[], Any], int]:
        if self.context is not None:  # windows overlap by half
            window = frames[torch.arange(self.context) % len(frames)]
            return partial(self.runtime, window), self.context // 2
        stream = self.runtime.stream(before=self.frames_before, after=self.frames_after)
        stream(frames[torch.arange(self.frames_before + self.frames_after + 1) % len(frames)])
        return partial(stream, frames), len(frames)

    def picture(self, read: Read, total: int, frame: int, *, pixel_size_nm: tuple[float, float]) -> Tensor:
        reach = self.context // 2 if self.context is not None else max(self.frames_before, self.frames_after)
        start, stop = max(0, frame - reach), min(total, frame + reach + 1)
        parts = self.parts(
            lambda a, b: read(start + a, start + b),
            stop - start,
            threshold=self.threshold,
            pixel_size_nm=pixel_size_nm,
        )
        found = Localizations.concatenate([part.localizations for part in parts])
        here = found.pick(found.frame == frame - start)
        height, width = read(frame, frame + 1).shape[1:]
        return drawn(here, height=height, width=width, pixel_size_nm=pixel_size_nm)

    def _blocks(self, read: Read, total: int) -> Iterator[tuple[int, Tensor]]:
        """(first frame, maps (n, C, H, W)) over the movie, in order."""
        height, width = read(0, 1).shape[1:]
        per_block = max(1, MAP_PIXELS_AT_ONCE // (height * width))
        if self.context is not None:
            yield from self._windows(read, total, self.context)
        elif self._whole(height, width):
            yield from self._streamed(read, total, per_block)
        else:
            yield from self._cut(read, total, max(8, per_block))

    def _streamed(self, read: Read, total: int, per_block: int) -> Iterator[tuple[int, Tensor]]:
        """Whole frames, each read once; the runtime keeps what neighbours share."""
        stream = self.runtime.stream(before=self.frames_before, after=self.frames_after)
        blocks = [(first, min(first + per_block, total)) for first in range(0, total, per_block)]
        done = 0
        for (first, last), frames in prefetched(blocks, lambda block: read(*block)):
            height, width = frames.shape[1:]
            padded = pad_to(frames, self.size_multiple)
            if first == 0:
                padded = torch.cat([padded[:1]] * self.frames_before + [padded])
            pieces = [padded]
            if last == total and self.frames_after:  # apart: a larger block than all before would need more memory
                pieces.append(torch.cat([padded[-1:]] * self.frames_after))
            for piece in pieces:
                maps = stream(piece)
                if len(maps):
                    yield done, maps[..., :height, :width]
                    done += len(maps)

    def _cut(self, read: Read, total: int, per_block: int) -> Iterator[tuple[int, Tensor]]:
        """Tiles of large fields, in blocks of frames that overlap by the neighbours."""
        blocks = [(first, min(first + per_block, total)) for first in range(0, total, per_block)]

        def load(block: tuple[int, int]) -> Tensor:
            first, last = block[0] - self.frames_before, block[1] + self.frames_after
            frames = read(max(0, first), min(total, last))
            return torch.cat([frames[:1]] * max(0, -first) + [frames] + [frames[-1:]] * max(0, last - total))

        for (first, _), frames in prefetched(blocks, load):
            yield first, self._tiled(frames)

    def _windows(self, read: Read, total: int, context: int) -> Iterator[tuple[int, Tensor]]:
        length = min(context, total)
        starts = list(range(0, total - length + 1, max(1, length // 2)))
        if starts[-1] != total - length:
            starts.append(total - length)
        middles = [(a + b + length) // 2 for a, b in itertools.pairwise(starts)]
        bounds = [0, *middles, total]
        for position, (start, frames) in enumerate(prefetched(starts, lambda start: read(start, start + length))):
            first, last = bounds[position], bounds[position + 1]
            yield first, self._tiled(frames)[first - start : last - start]

    def _tiled(self, frames: Tensor) -> Tensor:
        """Maps of frames that have their neighbours with them, (n, C, H, W)."""
        height, width = frames.shape[1:]
        if self._whole(height, width):
            return self.runtime(pad_to(frames, self.size_multiple))[..., :height, :width]
        whole: Tensor | None = None
        for tile in self._tiles(height, width):
            part = tile.cut(frames)
            maps = self.runtime(pad_to(part, self.size_multiple))
            if whole is None:
                whole = torch.empty(*maps.shape[:2], height, width, device=maps.device)
            tile.put(whole, maps, 1)
        assert whole is not None
        return whole


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A part of a field with its surroundings: rows and columns to keep, and those to look at."""

    top: int
    left: int
    rows: int
    columns: int
    first_row: int
    first_column: int
    last_row: int
    last_column: int

    def cut(self, frames: Tensor) -> Tensor:
        """The part to look at, of (..., H, W)."""
        return frames[..., self.first_row : self.last_row, self.first_column : self.last_column]

    def put(self, whole: Tensor, part: Tensor, s: int) -> None:
        """Write what is to be kept of a part's result, on a grid `s` times finer, into the whole field's."""
        y, x = s * (self.top - self.first_row), s * (self.left - self.first_column)
        rows = slice(s * self.top, s * (self.top + self.rows))
        columns = slice(s * self.left, s * (self.left + self.columns))
        whole[..., rows, columns] = part[..., y : y + s * self.rows, x : x + s * self.columns]


def tiles(height: int, width: int, *, side: int, reach: float, multiple: int) -> Iterator[Tile]:
    """Tiles that cover a field; each looks `reach` camera pixels (and what enlarging needs) beyond what it keeps.

    Where they look far, they are larger than `side`, so that each keeps half of it.
    """
    halo = math.ceil((reach + SUPPORT) / multiple) * multiple
    step = max(multiple, max(side - 2 * halo, side // 2) // multiple * multiple)
    for top in range(0, height, step):
        for left in range(0, width, step):
            yield Tile(
                top=top,
                left=left,
                rows=min(step, height - top),
                columns=min(step, width - left),
                first_row=max(0, top - halo),
                first_column=max(0, left - halo),
                last_row=min(height, top + step + halo),
                last_column=min(width, left + step + halo),
            )


def pad_to(frames: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of (..., H, W) until both sides are multiples."""
    height, width = frames.shape[-2:]
    rows, columns = -height % multiple, -width % multiple
    if not rows and not columns:
        return frames
    grouped = frames if frames.ndim == 4 else frames[None]
    padded = torch.nn.functional.pad(grouped, (0, columns, 0, rows), mode="replicate")
    return padded if frames.ndim == 4 else padded[0]


def drawn(
    rows: Localizations,
    *,
    height: int,
    width: int,
    pixel_size_nm: tuple[float, float],
    upsampling: int = UPSAMPLING,
) -> Tensor:
    """Number of localizations per fine pixel, all frames together, (sH, sW) float32."""
    grid = SRImage(upsampling=upsampling)
    frame = torch.zeros(len(rows), dtype=torch.int64)
    return grid.spikes(frame, rows.x_nm, rows.y_nm, count=1, height=height, width=width, pixel_size_nm=pixel_size_nm)[
        0, 0
    ]


Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def prefetched(items: Iterable[Item], load: Callable[[Item], Loaded]) -> Iterator[tuple[Item, Loaded]]:
    """Each item with what was loaded for it; the next one is loaded while this one is worked on."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for item in items:
            following = (item, pool.submit(load, item))
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()
