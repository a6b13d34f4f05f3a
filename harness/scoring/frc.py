"""Fourier ring and shell correlation: at which distance two images, or volumes, stop saying the same.

Source: Nieuwenhuizen et al. 2013, doi:10.1038/nmeth.2448. Between two halves of the data it measures the data, against
the truth it measures the method. It punishes noise, not invented structure: never a sole criterion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import rfftn
from scipy.signal.windows import tukey

from simulators.emitters import Emitters, Localizations

THRESHOLD = 1 / 7
SPAN = 1 / 20
_MAX_PIXELS = 100_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class RingCorrelation:
    """Correlation of two images by spatial frequency.

    Attributes:
        frequency: 1/nm, middle of each ring, from the second ring on.
        correlation: as measured. smooth: after local linear regression, from which the resolution is read.
        resolution_nm: 1 / frequency where the smoothed curve first falls below 1/7; two pixels when it never does
            (`crosses` is False then), and the size of the image when it starts below.
    """

    frequency: NDArray[np.float64]
    correlation: NDArray[np.float64]
    smooth: NDArray[np.float64]
    resolution_nm: float
    crosses: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return {
            "resolution_nm": self.resolution_nm,
            "crosses": self.crosses,
            "frequency_per_nm": [round(float(v), 8) for v in self.frequency],
            "correlation": [round(float(v), 5) for v in self.correlation],
        }


def ring_correlation(
    first: ArrayLike, second: ArrayLike, *, pixel_nm: float, threshold: float = THRESHOLD, taper: float = 0.25
) -> RingCorrelation:
    """FRC(q) = sum F1 F2* / sqrt(sum |F1|^2 sum |F2|^2) over the ring |q|; of volumes over the shell |q|.

    Rings are one frequency step of the longest side wide. The margins are tapered by a cosine (Tukey's window), so that
    the cut at the border says nothing.

    Args:
        first, second: (H, W), one field; or (D, H, W), one volume of cubic voxels.
        pixel_nm: pixel of both.
        threshold: where the resolution is read.
        taper: share of each side under the cosine, both ends together; 0 leaves it out.

    Raises:
        ValueError: shapes that differ, or less than 16 pixels along a side.

    Example:
        >>> image = np.random.default_rng(0).poisson(1.0, (64, 64))
        >>> ring_correlation(image, image, pixel_nm=10).resolution_nm
        20.0
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or a.ndim not in (2, 3) or min(a.shape) < 16:
        raise ValueError(f"images are {a.shape} and {b.shape}; give two of one shape, at least 16 pixels along a side")
    if not pixel_nm > 0:
        raise ValueError(f"pixel_nm is {pixel_nm}; give a positive size in nm")
    exact = np.float64 if a.ndim == 2 else np.float32  # volumes are large
    window = math.prod(np.ix_(*(tukey(side, taper).astype(exact) for side in a.shape)))
    fa, fb = (rfftn(np.asarray(image, exact) * window, overwrite_x=True) for image in (a, b))
    size = max(a.shape)
    steps = [np.fft.fftfreq(side) * size for side in a.shape[:-1]] + [np.fft.rfftfreq(a.shape[-1]) * size]
    squared = sum(axis.astype(exact) ** 2 for axis in np.ix_(*steps))
    ring = np.rint(np.sqrt(squared)).astype(np.int32)
    weight = np.full(fa.shape[-1], 2, exact)  # the half that is not stored counts as well
    weight[0] = 1
    if a.shape[-1] % 2 == 0:
        weight[-1] = 1
    rings = size // 2 + 1

    def total(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(ring.ravel(), (values * weight).ravel(), minlength=rings)[1:rings].astype(np.float64)

    cross = total((fa * fb.conj()).real)
    norm = np.sqrt(total(np.abs(fa) ** 2) * total(np.abs(fb) ** 2))
    correlation = np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 0)
    frequency = np.arange(1, rings) / (size * pixel_nm)
    smooth = local_regression(correlation, span=SPAN)
    below = np.flatnonzero(smooth < threshold)
    crosses = len(below) > 0
    if not crosses:
        resolution = 2 * pixel_nm
    elif below[0] == 0:
        resolution = size * pixel_nm
    else:
        i = below[0]
        share = (smooth[i - 1] - threshold) / (smooth[i - 1] - smooth[i])
        resolution = 1 / float(frequency[i - 1] + share * (frequency[i] - frequency[i - 1]))
    return RingCorrelation(
        frequency=frequency, correlation=correlation, smooth=smooth, resolution_nm=float(resolution), crosses=crosses
    )


def half_images(
    table: Emitters | Localizations,
    *,
    field_nm: tuple[float, float],
    n_frames: int | None = None,
    blocks: int = 10,
    pixel_nm: float = 5.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Histograms of the localizations of the even and of the odd blocks of frames.

    Blocks, since molecules live for several frames, which an odd-even split of frames would share.

    Args:
        table: positions in nm.
        field_nm: width and height; rows outside are left out.
        n_frames: frames of the movie; None takes the last frame of the table.
        blocks: equal stretches of the movie.
        pixel_nm: pixel of the images.

    Raises:
        ValueError: fewer than two blocks, or an image of more than 100 megapixels.
    """
    if blocks < 2:
        raise ValueError(f"blocks is {blocks}; two halves need at least 2")
    width, height = field_nm
    shape = (math.ceil(height / pixel_nm - 1e-9), math.ceil(width / pixel_nm - 1e-9))
    if shape[0] * shape[1] > _MAX_PIXELS:
        raise ValueError(
            f"the images would have {shape[1]} x {shape[0]} pixels; take a larger pixel_nm than {pixel_nm}"
        )
    frames = n_frames if n_frames is not None else int(table.frame.max(initial=0)) + 1
    even = (table.frame * blocks // max(frames, 1)) % 2 == 0
    column, row = np.floor(table.x_nm / pixel_nm), np.floor(table.y_nm / pixel_nm)
    inside = (column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0])
    place = (row * shape[1] + column)[inside].astype(np.int64)
    halves = [np.bincount(place[half[inside]], minlength=shape[0] * shape[1]) for half in (even, ~even)]
    return halves[0].reshape(shape).astype(np.float64), halves[1].reshape(shape).astype(np.float64)


def resolution_of_halves(
    table: Emitters | Localizations,
    *,
    field_nm: tuple[float, float],
    n_frames: int | None = None,
    blocks: int = 10,
    pixel_nm: float = 5.0,
) -> RingCorrelation:
    """Fourier ring correlation of two halves of a table, split by blocks of frames; arguments as `half_images`."""
    first, second = half_images(table, field_nm=field_nm, n_frames=n_frames, blocks=blocks, pixel_nm=pixel_nm)
    return ring_correlation(first, second, pixel_nm=pixel_nm)


def local_regression(values: NDArray[np.float64], *, span: float) -> NDArray[np.float64]:
    """Values at equal steps, smoothed by local straight lines with tricube weights (LOESS).

    Args:
        values: one dimension.
        span: share of the values in a window, at least 5 of them.
    """
    n = len(values)
    reach = max(round(span * n) // 2, 2)
    steps = np.arange(-reach, reach + 1)
    weight = (1 - (np.abs(steps) / (reach + 1)) ** 3) ** 3
    padded = np.concatenate([np.zeros(reach), values, np.zeros(reach)])
    present = np.concatenate([np.zeros(reach), np.ones(n), np.zeros(reach)])

    def moment(power: int, of: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.convolve(of, (weight * steps**power)[::-1], mode="valid")

    s0, s1, s2 = (moment(power, present) for power in (0, 1, 2))
    t0, t1 = moment(0, padded), moment(1, padded)
    determinant = s0 * s2 - s1**2
    return np.where(determinant > 0, (s2 * t0 - s1 * t1) / np.where(determinant > 0, determinant, 1), values)
