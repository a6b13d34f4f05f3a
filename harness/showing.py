"""One frame through one model, as a picture."""

from pathlib import Path

from harness.io.movies import open_movie
from harness.io.tables import as_localizations, read_table
from harness.localization import photons_of
from harness.preview import save_preview
from harness.ready import ReadyModel, drawn
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
        read = photons_of(reader, camera)
        photons = read(frame, frame + 1)[0]
        prediction = model.picture(read, len(reader), frame, pixel_size_nm=camera.pixel_size_nm)
    target = None
    if truth is not None:
        emitters = as_localizations(read_table(truth))
        here = emitters.pick(emitters.frame == frame)
        height, width = photons.shape
        target = drawn(
            here, height=height, width=width, pixel_size_nm=camera.pixel_size_nm, upsampling=model.upsampling
        )
    return save_preview(output, photons, target=target, prediction=prediction)
