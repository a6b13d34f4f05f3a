"""A frame, or the sum of several, through one or several models, as a picture."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness.io.movies import open_movie
from harness.io.tables import as_localizations, read_table
from harness.localization import photons_of, summed_image
from harness.preview import SIDE, coloured, enlarge, sheet, to_grey, write_png
from harness.ready import Read, ReadyModel, drawn
from simulators import Camera

COLUMNS = 4  # panels in a row
READ_AT_ONCE = 64  # frames, for their mean


def show(
    models: ReadyModel | Sequence[ReadyModel],
    movie: Path,
    output: Path,
    *,
    camera: Camera,
    frame: int = 0,
    frames: int = 1,
    truth: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write input | truth | every model's image as a PNG.

    Args:
        models: from `open_model`.
        movie: file to read the frames from.
        output: PNG to write.
        camera: of the movie.
        frame: the first one shown, from 0.
        frames: how many, in one picture: the mean of the input, the sum of the images. Of one frame a model that looks
            at neighbours has them; of several it sees these alone.
        truth: table of emitters; without it that panel is left out.
        progress: called with the number of frames done, of all models together.

    Raises:
        ValueError: no model, the movie has no such frames, or a model has no threshold.
    """
    models = [models] if isinstance(models, ReadyModel) else list(models)
    if not models:
        raise ValueError("no model to show")
    with open_movie(movie) as reader:
        total = len(reader)
        if not 0 <= frame < total:
            raise ValueError(f"{movie} has frames 0 to {total - 1}; there is no frame {frame}")
        if not 1 <= frames <= total - frame:
            raise ValueError(f"{movie} has {total - frame} frames from frame {frame} on; {frames} cannot be shown")
        read = photons_of(reader, camera)
        raw = _mean(read, frame, frames)
        panels = {"input" if frames == 1 else f"mean of {frames} frames": enlarge(to_grey(raw), SIDE)}
        if truth is not None:
            emitters = as_localizations(read_table(truth))
            here = emitters.pick((emitters.frame >= frame) & (emitters.frame < frame + frames))
            height, width = raw.shape
            target = drawn(
                here, height=height, width=width, pixel_size_nm=camera.pixel_size_nm, upsampling=models[0].upsampling
            )
            panels["truth"] = coloured(target)
        for number, model in enumerate(models):
            image = _image(model, read, total, frame, frames, camera)
            panels[_free(model.name, panels)] = coloured(image)
            if progress is not None:
                progress((number + 1) * frames)
    return write_png(output, sheet(panels, columns=min(COLUMNS, len(panels))))


def _image(model: ReadyModel, read: Read, total: int, frame: int, frames: int, camera: Camera) -> NDArray[np.float32]:
    if frames == 1:
        return model.picture(read, total, frame, pixel_size_nm=camera.pixel_size_nm).numpy()
    return summed_image(model, lambda first, last: read(frame + first, frame + last), frames, camera=camera)


def _mean(read: Read, frame: int, frames: int) -> NDArray[np.float32]:
    stop = frame + frames
    blocks = (read(first, min(first + READ_AT_ONCE, stop)).sum(0) for first in range(frame, stop, READ_AT_ONCE))
    return (sum(blocks, start=torch.zeros(())) / frames).numpy()


def _free(name: str, taken: dict[str, NDArray[np.uint8]]) -> str:
    """A title that no other panel has."""
    number = 2
    title = name
    while title in taken:
        title, number = f"{name} ({number})", number + 1
    return title
