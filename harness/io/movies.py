"""Movies on disk: TIFF in its many forms, read frame by frame, and written atomically.

Read: classic TIFF and BigTIFF of either byte order, compressed or not, ImageJ stacks (those above 4 GB with a
single directory too), OME-TIFF, series of Micro-Manager files, and folders of single-frame files in natural
order. The movie is never loaded as a whole.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import tifffile
from numpy.typing import NDArray

from . import _tiff
from ._scan import MovieError, Part, Scan, describe, scan_file
from .writing import MovieWriter, write_movie

__all__ = [
    "MAX_FRAME_BYTES",
    "MovieError",
    "MovieReader",
    "MovieWriter",
    "natural_key",
    "open_movie",
    "tiff_files",
    "write_movie",
]

MAX_FRAME_BYTES = 2 * 1024**3
"""Largest frame that is read, in bytes; more is taken for a damaged or hostile header."""

_SUFFIXES = (".ome.tif", ".ome.tiff", ".tif", ".tiff")


class MovieReader:
    """Frames of a movie, read on demand. Made by `open_movie`; a context manager.

    Several threads may call `read`; pickled to another process, it opens its own handle there.

    Attributes:
        height, width: pixels.
        dtype: native-endian numpy type of the frames.
        pixel_size_nm: (x, y), or None where the file does not say.
        metadata: what the file says about itself: "kind", "files", "byteorder", "compressed", and where
            present "description", "imagej", "micro_manager" (the summary), "problem" (why a truncated movie
            ends).
    """

    def __init__(
        self,
        parts: list[Part],
        *,
        height: int,
        width: int,
        dtype: np.dtype,
        pixel_size_nm: tuple[float, float] | None,
        metadata: dict[str, Any],
    ) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])
        self.height, self.width, self.dtype = height, width, dtype
        self.pixel_size_nm, self.metadata = pixel_size_nm, metadata
        self._lock = threading.Lock()
        self._open: tuple[int, BinaryIO | tifffile.TiffFile] | None = None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __repr__(self) -> str:
        size = f"{len(self)} frames of {self.height} x {self.width} {self.dtype}"
        return f"<MovieReader {self._parts[0].path}: {size}>"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, height, width)."""
        return len(self), self.height, self.width

    @property
    def field_nm(self) -> tuple[float, float] | None:
        """Width and height of the field, or None without a pixel size."""
        if self.pixel_size_nm is None:
            return None
        return self.width * self.pixel_size_nm[0], self.height * self.pixel_size_nm[1]

    def read(self, start: int, stop: int) -> NDArray:
        """Frames start to stop - 1, (stop - start, height, width).

        Raises:
            IndexError: the range is not within the movie.
            MovieError: a frame cannot be decoded, or holds NaN or infinity; the message names it.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"frames {start} to {stop} asked for; the movie has frames 0 to {len(self) - 1}")
        block = np.empty((stop - start, self.height, self.width), self.dtype)
        with self._lock:
            done = start
            while done < stop:
                which = int(np.searchsorted(self._ends, done, side="right"))
                first = int(self._ends[which]) - len(self._parts[which])
                end = min(stop, int(self._ends[which]))
                self._fill(block[done - start : end - start], which, done - first, done)
                done = end
        if self.dtype.kind == "f":
            bad = ~np.isfinite(block).all(axis=(1, 2))
            if bad.any():
                frame = int(np.argmax(bad))
                count = int((~np.isfinite(block[frame])).sum())
                raise MovieError(
                    f"frame {start + frame} of {self._parts[0].path} holds {count} pixels that are NaN or "
                    "infinite; "
                    "replace them or leave that frame out"
                )
        return block

    def blocks(self, frames_per_block: int) -> Iterator[NDArray]:
        """All frames in order, in arrays of `frames_per_block` (the last may be shorter)."""
        if frames_per_block < 1:
            raise ValueError(f"frames_per_block is {frames_per_block}; give 1 or more")
        for start in range(0, len(self), frames_per_block):
            yield self.read(start, min(start + frames_per_block, len(self)))

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        with self._lock:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_open": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _handle(self, which: int) -> BinaryIO | tifffile.TiffFile:
        if self._open is None or self._open[0] != which:
            self._close()
            part = self._parts[which]
            plain = part.offsets is not None
            self._open = (which, part.path.open("rb") if plain else tifffile.TiffFile(part.path))
        return self._open[1]

    def _fill(self, out: NDArray, which: int, first: int, number: int) -> None:
        part = self._parts[which]
        handle = self._handle(which)
        if part.offsets is None or not hasattr(handle, "readinto"):
            for step, page in enumerate(part.pages[first : first + len(out)].tolist()):
                out[step] = _decode(handle, page, part.path, number + step, self.dtype)  # type: ignore[arg-type]
            return
        offsets = part.offsets[first : first + len(out)]
        nbytes = self.height * self.width * self.dtype.itemsize
        jumps = np.flatnonzero(np.diff(offsets) != nbytes) + 1
        for begin, end in zip([0, *jumps.tolist()], [*jumps.tolist(), len(out)], strict=True):
            handle.seek(int(offsets[begin]))
            view = out[begin:end]
            got = handle.readinto(view.data.cast("B") if view.size else bytearray())
            if got != view.nbytes:
                raise MovieError(f"{part.path} became shorter while it was read, near frame {number + begin}")
        if part.byteorder != _native() and self.dtype.itemsize > 1:
            out.byteswap(inplace=True)


def open_movie(
    path: str | os.PathLike[str], *, allow_truncated: bool = False, max_frame_bytes: int = MAX_FRAME_BYTES
) -> MovieReader:
    """Open a TIFF movie or a folder of single-frame TIFF files.

    The first file of a Micro-Manager series (`name_MMStack_Pos0.ome.tif`) brings its followers
    (`..._1.ome.tif` and so on) along. Frames that the metadata announce but that were never written (stopped
    acquisitions) are not missed.

    Args:
        path: a .tif or .tiff file of any kind, or a folder.
        allow_truncated: read the whole frames of a file that is cut off, instead of refusing it.
        max_frame_bytes: a larger frame is refused.

    Raises:
        FileNotFoundError: nothing is there.
        MovieError: not a TIFF, truncated, frames of size zero, too large or of differing shapes, several
            channels, or a pixel type that is no plain number.
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"no movie at {place}")
    if place.is_dir():
        files, single = _folder(place)
    else:
        files, single = _series(place), False
    scans: list[Scan] = []
    for number, file in enumerate(files):
        scan = scan_file(file, max_frame_bytes, sum(len(s.part) for s in scans))
        if single and len(scan.part) > 1:
            raise MovieError(
                f"{file} holds {len(scan.part)} frames, but {place} holds {len(files)} files; a folder is "
                "read as one "
                "frame per file. Give one of the files instead"
            )
        if scan.missing and not allow_truncated:
            readable = sum(len(s.part) for s in scans) + len(scan.part)
            message = f"{file} is truncated: {scan.missing}. The first unreadable frame is {readable}"
            if readable:
                message += f"; {readable} frames (0 to {readable - 1}) are readable: allow_truncated=True reads them"
            raise MovieError(message)
        scans.append(scan)
        if scan.missing:
            files = files[: number + 1]
            break
    _same_shape(scans)
    first = scans[0]
    if not sum(len(s.part) for s in scans):
        raise MovieError(f"{first.part.path} is truncated: {first.missing}; no frame is readable")
    pixel_size, metadata = describe(first)
    metadata["files"] = [str(file) for file in files]
    problems = [scan.missing for scan in scans if scan.missing]
    if problems:
        metadata["problem"] = problems[0]
    return MovieReader(
        [scan.part for scan in scans if len(scan.part)],
        height=first.height,
        width=first.width,
        dtype=first.dtype,
        pixel_size_nm=pixel_size,
        metadata=metadata,
    )


def natural_key(path: str | os.PathLike[str]) -> list[tuple[int, int, str]]:
    """Sorting key of a path's name under which img2 stands before img10."""
    pieces = re.split(r"(\d+)", Path(path).name.lower())
    return [(1, int(p), p) if p.isdecimal() else (0, 0, p) for p in pieces if p]


def tiff_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The .tif and .tiff files of a folder in natural order; hidden files are left out."""
    found = [p for p in Path(folder).iterdir() if p.suffix.lower() in (".tif", ".tiff") and p.name[0] != "."]
    return sorted(found, key=natural_key)


def _folder(folder: Path) -> tuple[list[Path], bool]:
    files = tiff_files(folder)
    if not files:
        raise MovieError(f"{folder} holds no .tif or .tiff file")
    heads = [file for file in files if not _follower_of(file, files)]
    if len(files) > 1 and len(heads) == 1 and "_MMStack" in heads[0].name:
        return _series(heads[0]), False
    return files, len(files) > 1


def _split(path: Path) -> tuple[str, str]:
    for suffix in _SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)], path.name[-len(suffix) :]
    return path.stem, path.suffix


def _follower_of(file: Path, files: list[Path]) -> bool:
    stem, suffix = _split(file)
    head, _, number = stem.rpartition("_")
    return number.isdecimal() and file.with_name(head + suffix) in files


def _series(path: Path) -> list[Path]:
    """The file and, if Micro-Manager wrote it, the files that continue it."""
    stem, suffix = _split(path)
    followers = {}
    for other in path.parent.glob(f"*{suffix}"):
        match = re.fullmatch(re.escape(stem) + r"_(\d+)" + re.escape(suffix), other.name)
        if match:
            followers[int(match[1])] = other
    if not followers:
        return [path]
    if "_MMStack" not in path.name and not _written_by_micro_manager(path):
        return [path]
    missing = sorted(set(range(1, max(followers) + 1)) - set(followers))
    if missing:
        raise MovieError(
            f"{path.name} is the first of a Micro-Manager series that lacks {stem}_{missing[0]}{suffix}; put "
            "the file "
            f"into {path.parent} or move the later ones away"
        )
    return [path, *(followers[number] for number in sorted(followers))]


def _written_by_micro_manager(path: Path) -> bool:
    try:
        directories = _tiff.walk(path).directories
    except _tiff.NotTiff:
        return False
    return bool(directories) and directories[0].micro_manager


def _same_shape(scans: list[Scan]) -> None:
    frame = 0
    reference: tuple[int, int, str] | None = None
    for scan in scans:
        for shape in scan.shapes:
            reference = reference or shape
            if shape != reference:
                raise MovieError(
                    f"frame {frame} of {scan.part.path} is {shape[0]} x {shape[1]} {shape[2]}, the frames "
                    "before are "
                    f"{reference[0]} x {reference[1]} {reference[2]}; all frames of a movie must be alike"
                )
            frame += 1
        frame += len(scan.part) - len(scan.shapes)


def _decode(file: tifffile.TiffFile, page: int, path: Path, number: int, dtype: np.dtype) -> NDArray:
    try:
        image = file.pages[page].asarray()
    except Exception as error:  # damaged data make the decoders raise anything
        advice = ""
        if "imagecodecs" in str(error):
            advice = ". Install imagecodecs, or save the movie uncompressed or with deflate"
        raise MovieError(f"frame {number} of {path} cannot be decoded: {error}{advice}") from error
    return np.squeeze(image).reshape(image.shape[-2:]).astype(dtype, copy=False)


def _native() -> str:
    return "<" if np.little_endian else ">"
