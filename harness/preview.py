"""Pictures for people: raw frame, target and prediction side by side."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.io.atomic import atomic_path

SIDE = 384  # of a panel, pixels


def to_grey(image: ArrayLike, *, low: float = 1.0, high: float = 99.8) -> NDArray[np.uint8]:
    """An image as 8-bit grey between two percentiles of itself; an empty one is black."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    floor, top = np.percentile(values, low), np.percentile(values, high)
    if top <= floor:
        top = max(values.max(), floor + 1e-12)
    return (255 * np.clip((values - floor) / (top - floor), 0, 1)).astype(np.uint8)


def to_heat(image: ArrayLike, *, size: int = SIDE) -> NDArray[np.uint8]:
    """A super-resolved image in colour, (h, w, 3) of about `size` pixels.

    Fine pixels are summed, not skipped, where the picture is smaller than the image, so that no spike is lost; the
    brightest 0.5 % of the lit pixels saturate and a square root lifts the dim ones.
    """
    import matplotlib

    values = np.clip(np.nan_to_num(np.asarray(image, dtype=np.float64)), 0, None)
    step = max(1, round(max(values.shape) / size))
    rows, columns = (side // step * step for side in values.shape)
    values = values[:rows, :columns].reshape(rows // step, step, columns // step, step).sum((1, 3))
    lit = values[values > 0.02 * values.max()] if values.max() > 0 else values
    top = np.percentile(lit, 99.5) if values.max() > 0 else 1.0
    scaled = np.sqrt(np.clip(values / top, 0, 1))
    return (255 * matplotlib.colormaps["inferno"](scaled)[..., :3]).astype(np.uint8)


def enlarge(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A picture whose longer side is `size`, made by repeating pixels, so that camera pixels stay visible."""
    from PIL import Image

    scale = size / max(picture.shape[:2])
    height, width = (max(1, round(scale * side)) for side in picture.shape[:2])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST))


def write_png(path: Path, picture: NDArray[np.uint8]) -> Path:
    """Write (h, w) grey or (h, w, 3) colour; the file appears whole or not at all."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
    return path


def save_preview(path: Path, frame: ArrayLike, *, prediction: ArrayLike, target: ArrayLike | None = None) -> Path:
    """One row: input | target | prediction.

    Args:
        path: PNG to write.
        frame: raw frame, (H, W).
        prediction: image on the fine grid, (sH, sW).
        target: the same; left out where there is no truth.
    """
    panels = {"input": enlarge(to_grey(frame), SIDE)}
    if target is not None:
        panels["target"] = coloured(target)
    panels["prediction"] = coloured(prediction)
    return write_png(path, sheet(panels, columns=len(panels)))


def coloured(image: ArrayLike) -> NDArray[np.uint8]:
    """A super-resolved image as a panel of `SIDE` pixels."""
    return enlarge(to_heat(widen(image), size=SIDE), SIDE)


def sheet(panels: Mapping[str, NDArray[np.uint8]], *, columns: int) -> NDArray[np.uint8]:
    """Pictures side by side with their names above, `columns` in a row."""
    from PIL import Image, ImageDraw, ImageFont

    gap, title = 8, 20
    width = max(panel.shape[1] for panel in panels.values())
    height = max(panel.shape[0] for panel in panels.values())
    rows = -(-len(panels) // columns)
    page = Image.new("RGB", ((width + gap) * columns - gap, (height + title + gap) * rows - gap), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for place, (name, panel) in enumerate(panels.items()):
        x, y = place % columns * (width + gap), place // columns * (height + title + gap)
        draw.text((x + 2, y + 2), name, fill="black", font=font)
        page.paste(Image.fromarray(panel), (x, y + title))
    return np.asarray(page)


def widen(image: ArrayLike) -> NDArray[np.float64]:
    """Blur by one fine pixel: a single spike of a large image is otherwise too small to be seen."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(np.clip(np.asarray(image, dtype=np.float64), 0, None), 1.0)
