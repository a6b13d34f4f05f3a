"""What a network's tensor means: targets out of emitters, localizations out of maps.

Conventions: x along columns, y along rows, nm, origin at the outer corner of pixel [0, 0]. With a fine pixel
of p nm, an emitter at x falls into fine column floor(x / p), and fine column j stands for x = (j + 1/2) p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from simulators import Localizations

_CHUNK_PIXELS = 1 << 22  # fine pixels decoded at a time; bounds the memory of dense maps
_KINDS = ("spikes", "heatmap")


def pixel_size_pair(pixel_size_nm: float | tuple[float, float]) -> tuple[float, float]:
    """Camera pixel size as (x, y) in nm, from one number or a pair.

    Raises:
        ValueError: not one or two positive finite numbers.
    """
    pair = (pixel_size_nm, pixel_size_nm) if isinstance(pixel_size_nm, (int, float)) else tuple(pixel_size_nm)
    if len(pair) != 2 or not all(math.isfinite(size) and size > 0 for size in pair):
        raise ValueError(f"pixel_size_nm is {pixel_size_nm!r}; give one positive number, or a pair (x, y), in nm")
    return float(pair[0]), float(pair[1])


@dataclass(frozen=True, kw_only=True)
class SRImage:
    """A super-resolved image: one channel on a grid `upsampling` times finer than the camera's.

    Args:
        upsampling: fine pixels per camera pixel along each axis.
        target_scale: value of a lone emitter's spike in the target of `encode`.
        kind: "spikes" when the network gives spikes (the loss blurs them), "heatmap" when it gives blurred
            spots.
        heatmap_sigma: width of those spots, fine pixels; used for "heatmap" only.
        offset_px: (x, y) in fine pixels, added to index + 1/2 by `decode`; 0 for networks trained on our own
            targets, a stored number for imported weights whose program counted differently.

    Raises:
        ValueError: upsampling below 1, a scale that is not positive, an unknown kind.
    """

    upsampling: int = 8
    target_scale: float = 100.0
    kind: str = "spikes"
    heatmap_sigma: float = 1.0
    offset_px: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.upsampling < 1 or int(self.upsampling) != self.upsampling:
            raise ValueError(f"upsampling is {self.upsampling!r}; it must be a whole number of at least 1")
        if not self.target_scale > 0:
            raise ValueError(f"target_scale is {self.target_scale!r}; it must be positive")
        if self.kind not in _KINDS:
            raise ValueError(f"kind is {self.kind!r}; known are: {', '.join(_KINDS)}")
        if not self.heatmap_sigma > 0:
            raise ValueError(f"heatmap_sigma is {self.heatmap_sigma!r}; it must be positive, in fine pixels")
        object.__setattr__(self, "offset_px", tuple(float(shift) for shift in self.offset_px))

    @property
    def lone_peak(self) -> float:
        """Highest value of a lone emitter in an ideal map: the unit of `decode`'s threshold."""
        return self.target_scale * self._spot()[0]

    @property
    def lone_sum(self) -> float:
        """Sum over the 3x3 window round a lone emitter in an ideal map: the unit of `decode`'s
        probability."""
        return self.target_scale * self._spot()[1]

    def _spot(self) -> tuple[float, float]:
        if self.kind == "spikes":
            return 1.0, 1.0
        # 7x7 Gaussian cut and renormalised to sum 1, as the losses blur; wider spots get a wider window.
        radius = max(3, math.ceil(3 * self.heatmap_sigma))
        profile = [math.exp(-0.5 * (i / self.heatmap_sigma) ** 2) for i in range(-radius, radius + 1)]
        total = sum(profile)
        return (profile[radius] / total) ** 2, (sum(profile[radius - 1 : radius + 2]) / total) ** 2

    def shape(self, n: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Shape of the output for `n` frames of `height` x `width` camera pixels."""
        return n, 1, self.upsampling * height, self.upsampling * width

    def spikes(
        self,
        frame: Any,
        x_nm: Any,
        y_nm: Any,
        *,
        count: int,
        height: int,
        width: int,
        pixel_size_nm: float | tuple[float, float],
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Number of emitters per fine pixel, float32, (count, 1, sH, sW).

        Two emitters in one fine pixel give 2. Emitters outside the field or the range of frames are left out.

        Args:
            frame: frame of each emitter, from 0; array or tensor, (emitters,).
            x_nm, y_nm: positions in nm from the outer corner of pixel [0, 0], (emitters,).
            count: frames of the result.
            height, width: field in camera pixels.
            pixel_size_nm: camera pixel, one number or (x, y).
            device: of the result; default: the positions' own.

        Example: pixel 100 nm, upsampling 8: an emitter at x = y = 6.3 nm falls into fine pixel [0, 0], whose
        centre is 6.25 nm.
        """
        size_x, size_y = pixel_size_pair(pixel_size_nm)
        x = torch.as_tensor(x_nm, device=device)
        y = torch.as_tensor(y_nm, device=x.device)
        index = torch.as_tensor(frame, device=x.device).to(torch.int64)
        rows, columns = self.upsampling * height, self.upsampling * width
        column = torch.floor(x * (self.upsampling / size_x)).to(torch.int64)
        row = torch.floor(y * (self.upsampling / size_y)).to(torch.int64)
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows) & (index >= 0) & (index < count)
        flat = ((index * rows + row) * columns + column)[inside]
        image = torch.zeros(count * rows * columns, device=x.device)
        image.index_add_(0, flat, torch.ones_like(flat, dtype=image.dtype))
        return image.view(count, 1, rows, columns)

    def encode(
        self,
        emitters: Any,
        *,
        count: int,
        height: int,
        width: int,
        pixel_size_nm: float | tuple[float, float],
        first_frame: int = 0,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Training target: `spikes` times `target_scale`, float32, (count, 1, sH, sW); the loss blurs it.

        Args:
            emitters: anything with columns `frame`, `x_nm`, `y_nm`: Emitters, or a batch of tensors.
            first_frame: the frame that becomes image 0.

        The other arguments are those of `spikes`.
        """
        target = self.spikes(
            emitters.frame - first_frame,
            emitters.x_nm,
            emitters.y_nm,
            count=count,
            height=height,
            width=width,
            pixel_size_nm=pixel_size_nm,
            device=device,
        )
        return target.mul_(self.target_scale)

    def decode(
        self,
        images: Tensor,
        *,
        threshold: float,
        pixel_size_nm: float | tuple[float, float],
        first_frame: int = 0,
    ) -> Localizations:
        """Localizations in a network's output: local maxima of the 3x3 window, refined by their centre of
        gravity.

        The map is clipped at 0. A fine pixel is a localization when it exceeds `threshold` and no neighbour
        is higher; of equal neighbours the first in raster order wins. Its position is (index + 1/2 + offset +
        centre of gravity of the 3x3 window) fine pixels, its probability the window's sum over that of a lone
        emitter, at most 1.

        Args:
            images: (N, 1, sH, sW), any device and float type.
            threshold: in units of a lone emitter's ideal peak (`lone_peak`); found on validation data.
            pixel_size_nm: camera pixel, one number or (x, y).
            first_frame: frame number of image 0.

        Returns:
            Localizations sorted by frame, then row, then column; z, photons and sigmas are not known (nan).

        Raises:
            ValueError: wrong shape; a negative threshold; the map holds nan or infinity.

        Source: after the peak finder of ZeroCostDL4Mic's Deep-STORM notebook; half a pixel added, no ties.
        """
        from simulators import Localizations

        size_x, size_y = pixel_size_pair(pixel_size_nm)
        if images.ndim != 4 or images.shape[1] != 1:
            raise ValueError(f"images are {tuple(images.shape)}; decode needs (N, 1, height, width)")
        if not threshold >= 0:
            raise ValueError(f"threshold is {threshold!r}; it must be 0 or more, in units of a lone emitter's peak")
        images = images.detach()
        per_chunk = max(1, _CHUNK_PIXELS // max(1, images.shape[2] * images.shape[3]))
        parts = [
            self._peaks(images[start : start + per_chunk, 0], start, threshold * self.lone_peak)
            for start in range(0, len(images), per_chunk)
        ]
        columns = [torch.cat(part).cpu() for part in zip(*parts, strict=True)] if parts else [torch.zeros(0)] * 4
        frame, column, row, total = columns
        return Localizations(
            frame=frame.long().numpy() + first_frame,
            x_nm=((column.double() + (0.5 + self.offset_px[0])) * (size_x / self.upsampling)).numpy(),
            y_nm=((row.double() + (0.5 + self.offset_px[1])) * (size_y / self.upsampling)).numpy(),
            z_nm=math.nan,
            probability=(total.double() / self.lone_sum).clamp(max=1.0).numpy(),
        )

    @staticmethod
    def _peaks(maps: Tensor, first: int, level: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Peaks above `level` in (n, rows, columns): frame, column, row (both refined), 3x3 sum."""
        maps = maps.float()
        if maps.numel() and not torch.isfinite(maps.sum()):
            bad = (~torch.isfinite(maps)).flatten(1).any(1).nonzero()
            where = f"image {first + int(bad[0])}" if len(bad) else "their sum"
            raise ValueError(f"the network's output holds nan or infinity ({where}); check the input frames for nan")
        frame, row, column = torch.nonzero(maps > level, as_tuple=True)
        padded = torch.nn.functional.pad(maps, (1, 1, 1, 1)).clamp_(min=0)
        height, width = padded.shape[1:]
        corner = (frame * height + row) * width + column  # upper left of the window, in the padded map
        steps = torch.tensor([i * width + j for i in range(3) for j in range(3)], device=maps.device)
        window = padded.reshape(-1)[corner[:, None] + steps]  # (candidates, 9), raster order
        centre = window[:, 4:5]
        peak = (window[:, :4] < centre).all(1) & (window[:, 5:] <= centre).all(1)
        frame, row, column, window = frame[peak], row[peak], column[peak], window[peak].double()
        total = window.sum(1)
        across, down = window.view(-1, 3, 3).sum(1), window.view(-1, 3, 3).sum(2)
        x = column + (across[:, 2] - across[:, 0]) / total
        y = row + (down[:, 2] - down[:, 0]) / total
        return frame + first, x, y, total
