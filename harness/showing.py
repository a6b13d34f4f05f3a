"""One frame through one model, as a picture."""

from pathlib import Path

import numpy as np
import torch

from harness.io.movies import open_movie
from harness.io.tables import read_table
from harness.models import ReadyModel
from harness.preview import save_preview
from simulators import Camera


def show(
    model: ReadyModel, movie: Path, output: Path, *, camera: Camera, frame: int = 0, truth: Path | None = None
) -> Path:
    """Write input | truth | prediction of one frame as a PNG.

    Args:
        model: from `open_model`.
        movie: file to read the frame from.
        output: PNG to write.
        camera: of the movie.
        frame: which, from 0.
        truth: table of emitters; without it that panel is left out.

    Raises:
        ValueError: the movie has no such frame.
    """
    with open_movie(movie) as reader:
        if not 0 <= frame < len(reader):
            raise ValueError(f"{movie} has frames 0 to {len(reader) - 1}; there is no frame {frame}")
        photons = np.asarray(camera.to_photons(reader.read(frame, frame + 1)), dtype=np.float32)
    target = None
    if truth is not None:
        emitters = read_table(truth)
        here = emitters.pick(emitters.frame == frame)
        target = model.output.spikes(
            np.zeros(len(here), dtype=np.int64),
            here.x_nm,
            here.y_nm,
            count=1,
            height=photons.shape[1],
            width=photons.shape[2],
            pixel_size_nm=camera.pixel_size_nm,
        )[0, 0]
    return save_preview(output, photons[0], target=target, prediction=model.image(torch.from_numpy(photons))[0, 0])
