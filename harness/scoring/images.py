"""Images compared with images, and the one renderer that turns localizations into an image.

Rendered this way, an image says how well positions are found, not how bright they are: every localization is
a Gaussian of peak 1. A figure of image quality without the width of its rendering means nothing, so give
both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from simulators.emitters import Emitters, Localizations

_MAX_PIXELS = 400_000_000


def nmse(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Normalised mean squared error after the best scale: sum((s estimate - reference)^2) / sum(reference^2).

    s is the least-squares factor, no offset. Not to be mixed up with `nmse_percent`, which has s = 1.

    Args:
        estimate: (..., H, W).
        reference: same shape. Of a stack the mean over its images is given, each with its own factor.

    Returns:
        A share: 0 at best, 1 for an all-zero estimate; nan when a reference is all zero.

    Raises:
        ValueError: the shapes differ or have fewer than two axes.
    """
    q, y = _stacks(estimate, reference)
    return _relative_error(q * _factors(q, y)[:, None, None], y)


def nmse_percent(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Normalised mean squared error in percent, as it is: 100 sum((estimate - reference)^2) / sum(reference^2).

    The definition of the Deep-STORM family; it needs both images in one unit. `nmse` scales first.

    Args:
        estimate: (..., H, W).
        reference: same shape. Of a stack the mean over its images is given.

    Returns:
        0 at best; 100 for an all-zero estimate. nan when a reference is all zero.

    Raises:
        ValueError: the shapes differ or have fewer than two axes.
    """
    q, y = _stacks(estimate, reference)
    return 100 * _relative_error(q, y)


def least_squares_factor(estimate: ArrayLike, reference: ArrayLike) -> float:
    """The number that brings an image nearest to its reference, no offset; 0 for an all-zero estimate."""
    q, y = _stacks(estimate, reference)
    if len(q) != 1:
        raise ValueError(f"estimate is {np.shape(estimate)}; give one image, (H, W)")
    return float(_factors(q, y)[0])


def snr_db(estimate: ArrayLike, reference: ArrayLike) -> float:
    """10 log10(sum reference^2 / sum (reference - estimate)^2), mean over a stack; inf for equal images."""
    q, y = _stacks(estimate, reference)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.mean(10 * np.log10((y**2).sum((1, 2)) / ((y - q) ** 2).sum((1, 2)))))


def psnr_db(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Peak signal-to-noise ratio, mean over a stack; the data range is the maximum of each reference.

    It rewards a black picture where the reference is sparse: never give it without the NMSE. inf for equal
    images, nan when a reference is nowhere positive.
    """
    from skimage.metrics import peak_signal_noise_ratio

    values = []
    for q, y in zip(*_stacks(estimate, reference), strict=True):
        if y.max() <= 0:
            values.append(math.nan)
        elif np.array_equal(q, y):
            values.append(math.inf)
        else:
            values.append(peak_signal_noise_ratio(y, q, data_range=y.max()))
    return float(np.mean(values))


def ssim(estimate: ArrayLike, reference: ArrayLike, *, compress: bool = True) -> float:
    """Structural similarity (Wang et al. 2004, doi:10.1109/TIP.2003.819861), Gaussian window of sigma 1.5
    pixels.

    Args:
        estimate: (..., H, W), at least 11 x 11 pixels; of a stack the mean is given.
        reference: same shape; its maximum, after compression, is the data range.
        compress: take the square root of both (negative values count as 0), since a nearly empty image
            otherwise scores 0.9 against anything.

    Returns:
        At most 1; nan when a reference is nowhere positive.
    """
    from skimage.metrics import structural_similarity

    q_stack, y_stack = _stacks(estimate, reference)
    if min(y_stack.shape[1:]) < 11:
        raise ValueError(f"images are {y_stack.shape[1]} x {y_stack.shape[2]} pixels; SSIM needs at least 11 x 11")
    values = []
    for q, y in zip(q_stack, y_stack, strict=True):
        if y.max() <= 0:
            values.append(math.nan)
            continue
        if compress:
            q, y = np.sqrt(np.maximum(q, 0)), np.sqrt(np.maximum(y, 0))
        similarity = structural_similarity(
            y, q, data_range=y.max(), gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        values.append(similarity)
    return float(np.mean(values))


def render(
    table: Emitters | Localizations,
    *,
    field_nm: tuple[float, float],
    pixel_nm: float = 10.0,
    fwhm_nm: float = 20.0,
    peak: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """All rows of a table, over all frames, as one image: the sum of Gaussians of peak 1, sampled at pixel
    centres.

    Gaussians are cut at 4 sigma. Rows outside the field add what of their Gaussian reaches into it.

    Args:
        table: positions in nm.
        field_nm: width (x) and height (y) in nm.
        pixel_nm: pixel of the image. fwhm_nm: width of every Gaussian at half its height.
        peak: of each row's Gaussian, (rows,), instead of 1.

    Returns:
        float32 (ceil(height / pixel), ceil(width / pixel)).

    Raises:
        ValueError: lengths that are not positive, or an image of more than 400 megapixels.

    Example:
        >>> image = render(Emitters(frame=[0], x_nm=[55.0], y_nm=[25.0]), field_nm=(100, 50))
        >>> image.shape, image[2, 5].item(), round(image[2, 6].item(), 6)   # one pixel aside is half a FWHM
        ((5, 10), 1.0, 0.5)
    """
    width, height = field_nm
    if not (pixel_nm > 0 and fwhm_nm > 0 and width > 0 and height > 0):
        raise ValueError(f"field {field_nm}, pixel {pixel_nm}, FWHM {fwhm_nm} nm: all must be positive")
    columns, rows = math.ceil(width / pixel_nm - 1e-9), math.ceil(height / pixel_nm - 1e-9)
    if columns * rows > _MAX_PIXELS:
        raise ValueError(f"the image would have {columns} x {rows} pixels; take a larger pixel_nm than {pixel_nm}")
    sigma = fwhm_nm / math.sqrt(8 * math.log(2)) / pixel_nm  # pixels
    reach = math.ceil(4 * sigma)
    u, v = table.x_nm / pixel_nm - 0.5, table.y_nm / pixel_nm - 0.5  # in pixels, centres at integers
    near = (u > -reach - 1) & (u < columns + reach) & (v > -reach - 1) & (v < rows + reach)
    u, v = u[near], v[near]
    column, row = np.rint(u).astype(np.int64), np.rint(v).astype(np.int64)
    margin = 2 * reach + 2
    wide = columns + 2 * margin
    padded = np.zeros((rows + 2 * margin) * wide)
    start = (row + margin) * wide + column + margin
    steps = np.arange(-reach, reach + 1)
    for begin in range(0, len(u), 20_000):
        part = slice(begin, begin + 20_000)
        across = np.exp(-0.5 * ((column[part, None] + steps - u[part, None]) / sigma) ** 2)
        down = np.exp(-0.5 * ((row[part, None] + steps - v[part, None]) / sigma) ** 2)
        if peak is not None:
            down *= peak[near][part, None]
        index = start[part, None, None] + (steps[:, None] * wide + steps)
        np.add.at(padded, index.ravel(), (down[:, :, None] * across[:, None, :]).ravel())
    image = padded.reshape(-1, wide)[margin : margin + rows, margin : margin + columns]
    return image.astype(np.float32)


def render_planes(
    table: Emitters | Localizations,
    *,
    field_nm: tuple[float, float],
    z_nm: tuple[float, float],
    pixel_nm: float = 10.0,
    fwhm_nm: float = 20.0,
) -> Iterator[NDArray[np.float32]]:
    """A table as a volume of round Gaussians of peak 1 and cubic voxels, one plane after the other, so that any field
    fits in memory.

    Args:
        table, field_nm, pixel_nm, fwhm_nm: see `render`.
        z_nm: lowest and highest z.

    Yields:
        float32 (height, width), the plane of lowest z first; Gaussians are cut at 4 sigma.

    Raises:
        ValueError: as `render`, or a z range that is empty.
    """
    low, high = z_nm
    if not (pixel_nm > 0 and low < high):
        raise ValueError(f"z from {low} to {high} nm, voxels of {pixel_nm} nm; give a range and a positive size")
    sigma = fwhm_nm / math.sqrt(8 * math.log(2))
    for number in range(math.ceil((high - low) / pixel_nm - 1e-9)):
        away = table.z_nm - (low + (number + 0.5) * pixel_nm)
        near = np.flatnonzero(np.abs(away) <= 4 * sigma)
        peak = np.exp(-0.5 * (away[near] / sigma) ** 2)
        yield render(table.pick(near), field_nm=field_nm, pixel_nm=pixel_nm, fwhm_nm=fwhm_nm, peak=peak)


def resample_area(image: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float64]:
    """An image on another grid over the same field: every new pixel takes its share of the area of the old ones.

    The sum of the image stays. Sizes may have any ratio.

    Args:
        image: (H, W).
        shape: rows and columns wanted.

    Raises:
        ValueError: other than two axes, or an empty image or shape.
    """
    old = np.asarray(image, np.float64)
    if old.ndim != 2 or not old.size or min(shape) < 1:
        raise ValueError(f"image is {old.shape} and is to become {shape}; give (H, W), not empty")
    return _overlap(old.shape[0], shape[0]) @ (old @ _overlap(old.shape[1], shape[1]).T)


def _overlap(old: int, new: int) -> csr_array:
    """(new, old): which share of each old pixel lies in each new one."""
    edges = np.unique(np.concatenate([np.arange(old + 1) / old, np.arange(new + 1) / new]))
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    row, column = (np.minimum((middle * n).astype(np.int64), n - 1) for n in (new, old))
    return csr_array((width * old, (row, column)), shape=(new, old))


def _factors(q: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    norm = (q**2).sum((1, 2))
    return np.divide((q * y).sum((1, 2)), norm, out=np.zeros_like(norm), where=norm > 0)


def _relative_error(q: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    power, error = (y**2).sum((1, 2)), ((q - y) ** 2).sum((1, 2))
    return float(np.mean(np.divide(error, power, out=np.full_like(power, math.nan), where=power > 0)))


def _stacks(estimate: ArrayLike, reference: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    q, y = np.asarray(estimate, np.float64), np.asarray(reference, np.float64)
    if q.shape != y.shape or q.ndim < 2:
        raise ValueError(f"estimate is {q.shape} but reference is {y.shape}; both must be (..., H, W) and equal")
    return q.reshape(-1, *q.shape[-2:]), y.reshape(-1, *y.shape[-2:])
