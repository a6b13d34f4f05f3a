"""What the page shows of each movie: one frame, its truth, what every model makes of it."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.board.entries import file_name
from harness.preview import enlarge, sheet, to_grey, to_heat, widen, write_png
from harness.scoring.images import render
from leaderboard import Picture, Result
from simulators import Emitters, Movie

FIRST_FRAMES = 16


def picture_path(folder: Path, dataset: str, name: str) -> Path:
    """Of what a model makes of a movie."""
    return folder / file_name(dataset) / f"{file_name(name)}.png"


def frame_shown(movie: Movie) -> int:
    """The frame with the most emitters among the first 16: what is shown of sparse movies should not be empty."""
    counts = np.bincount(movie.emitters.frame, minlength=len(movie))[:FIRST_FRAMES]
    return int(counts.argmax())


def raw_and_truth(name: str, movie: Movie, folder: Path) -> Iterator[Picture]:
    """One frame as the camera gives it, and its truth."""
    frame = frame_shown(movie)
    place = folder / file_name(name)
    place.mkdir(parents=True, exist_ok=True)
    height, width = movie.frames.shape[1:]
    size_x, size_y = movie.camera.pixel_size_nm
    here: Emitters = movie.emitters.pick(movie.emitters.frame == frame)
    truth = render(here, field_nm=(width * size_x, height * size_y), pixel_nm=size_x / 8, fwhm_nm=2.5 * size_x / 8)
    pictures = {"raw": enlarge(to_grey(movie.frames[frame]), 320), "truth": to_heat(truth, size=truth.shape[0])}
    for label, picture in pictures.items():
        path = write_png(place / f"{label}.png", picture)
        yield Picture(dataset=name, model=label, path=path, frame=frame)


def frames_of_failures(name: str, movie: Movie, results: Iterable[Result], folder: Path) -> Iterator[Picture]:
    """The raw frames that the records name as their worst; the page draws the molecules onto them."""
    here = [r.detail for r in results if r.dataset.name == name and r.detail is not None]
    for frame in sorted({int(one["frame"]) for detail in here for one in detail.worst} - {frame_shown(movie)}):
        path = folder / file_name(name) / f"raw-{frame}.png"
        if not path.is_file():
            write_png(path, to_grey(movie.frames[frame]))
        yield Picture(dataset=name, model="raw", path=path, frame=frame)


def map_picture(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A network's map in the colours of the truth, blurred by one fine pixel so that single spikes are seen."""
    return to_heat(widen(image), size=image.shape[0])


def write_sheet(pictures: Sequence[Picture], path: Path) -> None:
    """All pictures of one movie on one sheet, five in a row."""
    from PIL import Image

    panels = {picture.model: np.asarray(Image.open(picture.path).convert("RGB")) for picture in pictures}
    write_png(path, sheet(panels, columns=5))
