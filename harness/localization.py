"""Localize: a movie in, a table of molecules and a super-resolved image out. Movies are streamed."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness.io.atomic import atomic_path
from harness.io.movies import MovieReader, open_movie
from harness.io.tables import write_table
from harness.models import ReadyModel
from harness.preview import save_preview, to_heat, write_png
from simulators import Camera, Localizations

FRAMES_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Localized:
    """What a movie gave.

    Args:
        localizations: rows over all frames.
        image: sum of the network's images over the frames, (sH, sW) float32, negative values taken as 0.
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
        threshold: in units of a lone emitter's peak; default: the one in the model's card.
        progress: called with the number of frames done after each block.

    Raises:
        ValueError: unreadable movie, or no threshold.
    """
    level = model.threshold if threshold is None else threshold
    start = time.perf_counter()
    reader = open_movie(movie) if isinstance(movie, Path) else movie
    total = len(reader)
    rows: list[Localizations] = []
    image: NDArray[np.float32] | None = None
    for first in range(0, total, FRAMES_AT_ONCE):
        last = min(first + FRAMES_AT_ONCE, total)
        counts = reader[first:last] if isinstance(reader, np.ndarray) else reader.read(first, last)
        photons = torch.from_numpy(np.asarray(camera.to_photons(counts), dtype=np.float32))
        maps = model.image(photons)
        rows.append(model.output.decode(maps, threshold=level, pixel_size_nm=camera.pixel_size_nm, first_frame=first))
        block = maps.clamp(min=0).sum((0, 1)).numpy()
        image = block if image is None else image + block
        if progress is not None:
            progress(last)
    assert image is not None
    return Localized(
        localizations=Localizations.concatenate(rows),
        image=image,
        frames=total,
        seconds=time.perf_counter() - start,
    )


def write_localized(result: Localized, folder: Path, *, model: ReadyModel, camera: Camera, movie: Path) -> None:
    """Write `localizations.csv`, `image.tif` (float32 sum), `image.png`, `preview.png` and `localize.json`."""
    import tifffile

    folder.mkdir(parents=True, exist_ok=True)
    write_table(result.localizations, folder / "localizations.csv")
    with atomic_path(folder / "image.tif") as temporary:
        tifffile.imwrite(temporary, result.image, compression="zlib")
    write_png(folder / "image.png", to_heat(result.image, size=1024))
    with open_movie(movie) as reader:
        first = np.asarray(camera.to_photons(reader.read(0, 1)), dtype=np.float32)[0]
    save_preview(folder / "preview.png", first, prediction=model.image(torch.from_numpy(first)[None])[0, 0])
    settings = {
        "model": model.name,
        "weights_sha256": model.card.get("sha256"),
        "movie": movie.name,
        "frames": result.frames,
        "localizations": len(result.localizations),
        "threshold": model.card.get("threshold"),
        "pixel_size_nm": list(camera.pixel_size_nm),
        "runtime": vars(model.runtime.info),
        "seconds": round(result.seconds, 3),
    }
    with atomic_path(folder / "localize.json") as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
