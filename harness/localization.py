"""Localize: a movie in, a table of molecules and a super-resolved image out. Movies are streamed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness.io.atomic import atomic_path
from harness.io.json_files import write_json
from harness.io.movies import MovieReader, open_movie
from harness.io.tables import TableWriter
from harness.preview import save_preview, to_heat, write_png
from harness.ready import Read, ReadyModel
from simulators import Camera, Localizations


@dataclass(frozen=True, kw_only=True)
class Localized:
    """What a movie gave.

    Args:
        localizations: rows over all frames.
        image: sum of the super-resolved images of the frames, (sH, sW) float32: of an image network its own images,
            negative values taken as 0; of a localization network the number of localizations in each fine pixel.
        frames: number of frames.
        seconds: from the first frame read to the last row.
    """

    localizations: Localizations
    image: NDArray[np.float32]
    frames: int
    seconds: float


def localize(
    model: ReadyModel,
    movie: Path | MovieReader | NDArray,
    *,
    camera: Camera,
    threshold: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Localized:
    """Find the molecules of a movie.

    Args:
        model: from `open_model`.
        movie: a file or folder, a reader, or counts (N, H, W).
        camera: turns counts into photons and pixels into nm.
        threshold: in units of a lone emitter's peak (image networks), or of probability (localization networks);
            default: the one in the model's card.
        progress: called with the number of frames done after each block.

    Raises:
        ValueError: unreadable movie, or no threshold.
    """
    rows: list[Localizations] = []
    done = stream(model, movie, rows.append, camera=camera, threshold=threshold, progress=progress)
    return replace(done, localizations=Localizations.concatenate(rows))


def stream(
    model: ReadyModel,
    movie: Path | MovieReader | NDArray,
    sink: Callable[[Localizations], None],
    *,
    camera: Camera,
    threshold: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Localized:
    """Find the molecules of a movie, and hand each block's rows to `sink` instead of keeping them.

    The arguments are those of `localize`; the result's own rows are none.
    """
    start = time.perf_counter()
    reader = open_movie(movie) if isinstance(movie, Path) else movie
    total = len(reader)
    image = summed_image(
        model, photons_of(reader, camera), total, camera=camera, sink=sink, threshold=threshold, progress=progress
    )
    seconds = time.perf_counter() - start
    return Localized(localizations=Localizations.empty(), image=image, frames=total, seconds=seconds)


def summed_image(
    model: ReadyModel,
    read: Read,
    total: int,
    *,
    camera: Camera,
    sink: Callable[[Localizations], None] = lambda rows: None,
    threshold: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """The sum of the images of frames 0..total-1 that `read` gives; each block's rows go to `sink`."""
    level = model.threshold if threshold is None else threshold
    image: NDArray[np.float32] | None = None
    for part in model.parts(read, total, threshold=level, pixel_size_nm=camera.pixel_size_nm):
        sink(part.localizations)
        if image is None:
            image = np.zeros(part.image.shape, np.float32)
        image += part.image.numpy()
        if progress is not None:
            progress(part.last)
    assert image is not None
    return image


def photons_of(movie: MovieReader | NDArray, camera: Camera) -> Read:
    """A function that reads frames first..last-1 of a movie as photons."""

    def read(first: int, last: int) -> torch.Tensor:
        counts = movie[first:last] if isinstance(movie, np.ndarray) else movie.read(first, last)
        return torch.from_numpy(np.asarray(camera.to_photons(counts), dtype=np.float32))

    return read


def localize_rows(
    model: ReadyModel,
    movie: Path,
    table: Path,
    *,
    camera: Camera,
    threshold: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Localized, int]:
    """Movie file to table file (CSV); rows go to the disk as they are found.

    Returns:
        What was found, without the rows, and their number.
    """
    with TableWriter(table) as writer, open_movie(movie) as reader:
        result = stream(model, reader, writer.write, camera=camera, threshold=threshold, progress=progress)
    return result, writer.rows


def localize_to(
    model: ReadyModel,
    movie: Path,
    folder: Path,
    *,
    camera: Camera,
    threshold: float | None = None,
    progress: Callable[[int], None] | None = None,
    notes: Sequence[str] = (),
) -> tuple[Localized, int]:
    """Localize a movie into a folder; rows go to the disk as they are found, so that memory stays bounded.

    Writes `localizations.csv`, `image.tif` (float32 sum), `image.png`, `preview.png` and `localize.json`, with
    `notes` in it.

    Returns:
        What was found, without the rows, and their number.
    """
    import tifffile

    level = model.threshold if threshold is None else threshold
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "localizations.csv"
    result, rows = localize_rows(model, movie, table, camera=camera, threshold=level, progress=progress)
    with atomic_path(folder / "image.tif") as temporary:
        tifffile.imwrite(temporary, result.image, compression="zlib")
    write_png(folder / "image.png", to_heat(result.image, size=1024))
    with open_movie(movie) as reader:
        read = photons_of(reader, camera)
        picture = model.picture(read, len(reader), 0, pixel_size_nm=camera.pixel_size_nm)
        save_preview(folder / "preview.png", read(0, 1)[0], prediction=picture)
    settings = {
        "model": model.name,
        "weights_sha256": model.card.get("sha256"),
        "movie": movie.name,
        "frames": result.frames,
        "localizations": rows,
        "threshold": level,
        "pixel_size_nm": list(camera.pixel_size_nm),
        "runtime": vars(model.info),
        "seconds": round(result.seconds, 3),
        "notes": list(notes),
    }
    write_json(folder / "localize.json", settings)
    return result, rows
