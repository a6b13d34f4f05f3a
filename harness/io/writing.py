"""Writing of movies, block by block; the file appears complete or not at all."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import tifffile
from numpy.typing import NDArray

from .atomic import OutputError, atomic_path

CLASSIC_LIMIT = 4 * 1024**3 - 64 * 1024**2
"""Size in bytes beyond which a written movie becomes a BigTIFF."""


class MovieWriter:
    """Writes a movie block by block; the file appears when the `with` block ends well, and not at all
    otherwise.

    Frames are deflated TIFF pages. The file becomes a BigTIFF when it outgrows 4 GB.

    Args:
        path: the .tif file; an older one is replaced at the end.
        pixel_size_nm: stored as resolution; one number or (x, y).

    Raises:
        OutputError: the file cannot be written, or nothing was written to it.
        ValueError: a block that does not fit the ones before, is empty or has another number of axes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        pixel_size_nm: float | tuple[float, float] | None = None,
        classic_limit: int = CLASSIC_LIMIT,
    ) -> None:
        self._path = Path(path)
        if isinstance(pixel_size_nm, (int, float)):
            pixel_size_nm = (float(pixel_size_nm), float(pixel_size_nm))
        if pixel_size_nm is not None and not all(0 < size < math.inf for size in pixel_size_nm):
            raise ValueError(f"pixel_size_nm is {pixel_size_nm}; give positive numbers in nm, or None")
        self._resolution = None if pixel_size_nm is None else (1e7 / pixel_size_nm[0], 1e7 / pixel_size_nm[1])
        self._limit = classic_limit
        self._big = False
        self._frames = 0
        self._bytes = 0
        self._like: tuple[tuple[int, ...], np.dtype] | None = None
        self._atomic: AbstractContextManager[Path] | None = None
        self._temporary: Path | None = None
        self._file: tifffile.TiffWriter | None = None

    def __enter__(self) -> Self:
        self._atomic = atomic_path(self._path)
        self._temporary = self._atomic.__enter__()
        self._file = tifffile.TiffWriter(self._temporary)
        return self

    def write(self, block: NDArray) -> None:
        """Append frames, (n, H, W) or one (H, W), all of one shape and type."""
        if self._file is None or self._temporary is None:
            raise RuntimeError("use the writer in a with block: with MovieWriter(path) as movie: movie.write(block)")
        block = np.asarray(block)
        if block.ndim == 2:
            block = block[None]
        if block.ndim != 3 or not block.shape[1] or not block.shape[2]:
            raise ValueError(f"the block is {block.shape}; frames are (n, H, W) or (H, W) and not empty")
        if block.dtype.kind not in "uif":
            raise ValueError(f"the block is of type {block.dtype}; write integers or floats")
        like = (block.shape[1:], block.dtype.newbyteorder("="))
        if self._like is not None and like != self._like:
            raise ValueError(
                f"the block holds frames of {like[0]} {like[1]}, those before {self._like[0]} {self._like[1]}"
            )
        self._like = like
        for frame in block:
            if not self._big and self._bytes + frame.nbytes > self._limit:
                self._become_big()
            self._append(frame)

    def _append(self, frame: NDArray) -> None:
        assert self._file is not None
        try:
            self._file.write(
                frame,
                photometric="minisblack",
                compression="zlib",
                metadata=None,
                contiguous=False,
                resolution=self._resolution,
                resolutionunit="CENTIMETER" if self._resolution else None,
                software="smlm-zoo",
            )
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from error
        self._frames += 1
        self._bytes = self._file.filehandle.tell()

    def _become_big(self) -> None:
        assert self._file is not None
        assert self._temporary is not None
        self._file.close()
        classic = self._temporary.with_name(f"{self._temporary.stem}.classic.part")
        os.replace(self._temporary, classic)
        self._big = True
        try:
            self._file = tifffile.TiffWriter(self._temporary, bigtiff=True)
            if self._frames:
                self._frames = 0
                from .movies import open_movie  # which needs this module itself

                with open_movie(classic) as movie:
                    for block in movie.blocks(1):
                        self._append(block[0])
        finally:
            classic.unlink(missing_ok=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        assert self._file is not None
        assert self._atomic is not None
        file, self._file = self._file, None
        try:
            file.close()
            if kind is None and not self._frames:
                raise OutputError(f"no frame was written to {self._path}; a movie needs at least one")
        except BaseException as failure:
            self._atomic.__exit__(type(failure), failure, failure.__traceback__)
            raise
        return self._atomic.__exit__(kind, error, trace)


def write_movie(
    path: str | os.PathLike[str],
    blocks: NDArray | Iterable[NDArray],
    *,
    pixel_size_nm: float | tuple[float, float] | None = None,
) -> None:
    """Write an (N, H, W) array, or blocks of frames one after the other, as a movie. See `MovieWriter`."""
    with MovieWriter(path, pixel_size_nm=pixel_size_nm) as movie:
        for block in [blocks] if isinstance(blocks, np.ndarray) else blocks:
            movie.write(block)
