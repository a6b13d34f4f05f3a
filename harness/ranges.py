"""Whether a movie looks like what a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.estimation.observe import apart, observe
from harness.io.movies import MovieReader
from harness.localization import photons_of
from simulators import Camera

FRAMES = 20  # looked at, from the whole movie
PIXELS = 1_000_000  # looked at in all frames together, at most
FEW = 20  # lone spots say nothing below this number
PIXEL_TOLERANCE = 0.05
WIDTH_TOLERANCE = 0.15  # molecules somewhat out of focus are wider than the PSF in focus, which the card gives
LIGHT_TOLERANCE = 0.25  # of photons and background
BELOW = -5.0  # photons of an empty pixel; the median of an EMCCD's readings of next to no light is a little below 0


def outside_range(card: dict[str, Any], movie: MovieReader, camera: Camera, *, name: str) -> list[str]:
    """What of a movie lies outside the range that a model was trained on, a sentence each.

    Pixel size, background (median of some frames' pixels) and, where there are lone spots to tell, their width and
    photons. Density and camera noise are not looked at.

    Args:
        card: of the model; one without a `valid_range` gives no sentence.
        movie: some frames from all its length are read.
        camera: of the movie.
        name: of the model.
    """
    known = card.get("valid_range") or {}
    if not known or not len(movie):
        return []
    found = _of_pixels(known.get("pixel_size_nm"), camera.pixel_size_nm, name)
    frames, camera = _sample(movie, camera)
    if not np.isfinite(frames).all():
        return found
    level = float(np.median(frames))
    background = limits(known.get("background"))
    if level < BELOW:
        found.append(
            f"an empty pixel has {level:.3g} photons: the camera's baseline is too high, or another constant is wrong"
        )
    elif background and not _within(level, background, LIGHT_TOLERANCE):
        found.append(f"an empty pixel has about {level:.3g} photons; {name} learned on {_told(background)}")
    return found + _of_spots(known, frames, camera, name)


def same_pixels(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two pixel sizes (x, y) are the same to a network: within 5 %."""
    return all(abs(a - b) <= PIXEL_TOLERANCE * min(a, b) for a, b in zip(one, other, strict=True))


def limits(value: Any) -> tuple[float, float] | None:
    """Lowest and highest of a range, or of one number, as cards give them."""
    if isinstance(value, dict) and "low" in value and "high" in value:
        return float(value["low"]), float(value["high"])
    return (float(value), float(value)) if isinstance(value, int | float) else None


def _of_pixels(own: Sequence[float] | None, given: Sequence[float], name: str) -> list[str]:
    if not own or same_pixels(own, given):
        return []
    return [f"a pixel is {_sizes(given)} nm; {name} learned on {_sizes(own)} nm, and knows the PSF in pixels only"]


def _of_spots(known: dict[str, Any], frames: NDArray[np.float32], camera: Camera, name: str) -> list[str]:
    psf = known.get("psf") or {}
    if psf.get("kind") != "gaussian":
        return []
    widths, photons = limits(psf.get("sigma_nm")), limits(known.get("photons"))
    middle = float(np.sqrt(widths[0] * widths[1])) if widths else 1.3 * float(np.mean(camera.pixel_size_nm))
    seen = observe(apart([frame[None] for frame in frames]), camera=camera, sigma_nm=middle)
    if int(seen.isolated.sum()) < FEW:
        return []
    found = []
    width, light = float(np.median(seen.alone("sigma_nm"))), float(np.median(seen.alone("photons")))
    if widths and not _within(width, widths, WIDTH_TOLERANCE):
        found.append(f"lone spots are {width:.0f} nm wide (sigma); {name} learned on {_told(widths)} nm")
    if photons and not _within(light, photons, LIGHT_TOLERANCE):
        found.append(f"lone spots have about {light:.3g} photons; {name} learned on {_told(photons)}")
    return found


def _sample(movie: MovieReader, camera: Camera) -> tuple[NDArray[np.float32], Camera]:
    """Photons of frames spread over the movie, of their middles where fields are large, (frames, height, width), and
    the camera of that part."""
    height, width = movie.shape[1:]
    count = min(len(movie), FRAMES)
    side = int(np.sqrt(PIXELS / count))
    starts = (max(0, (n - side) // 2) for n in (height, width))
    rows, columns = (slice(start, start + side) for start in starts)
    read = photons_of(movie, camera)
    places = np.linspace(0, len(movie) - 1, count).astype(int)
    frames = np.stack([read(int(place), int(place) + 1)[0, rows, columns].numpy() for place in places])
    return frames, camera.crop(rows, columns)


def _within(value: float, span: tuple[float, float], tolerance: float) -> bool:
    return span[0] / (1 + tolerance) <= value <= span[1] * (1 + tolerance)


def _told(span: tuple[float, float]) -> str:
    low, high = span
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _sizes(pixel: Sequence[float]) -> str:
    x, y = pixel
    return f"{x:g}" if x == y else f"{x:g} x {y:g}"
