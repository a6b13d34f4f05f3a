"""What one TIFF file holds and what it says about itself: frames, their place and type, pixel size."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from . import _tiff

_IMAGEJ_CHANNELS = 7  # composite images have no more
_GREY = {0: "white is zero", 1: "black is zero", 3: "palette"}


class MovieError(ValueError):
    """A movie cannot be read; the message names the file, what was found and what to do."""


@dataclass(frozen=True)
class Part:
    """Frames of one file, in order."""

    path: Path
    byteorder: str
    offsets: NDArray[np.int64] | None  # first byte of each plain frame; None: tifffile decodes the pages
    pages: NDArray[np.int64]  # place of each frame in the chain of directories

    def __len__(self) -> int:
        return len(self.pages)


@dataclass(frozen=True)
class Scan:
    """What one file holds."""

    part: Part
    height: int
    width: int
    dtype: np.dtype
    shapes: list[tuple[int, int, str]]  # of each frame: height, width, type
    missing: str | None  # why frames after the last one cannot be read
    micro_manager: bool


def scan_file(path: Path, max_frame_bytes: int, before: int) -> Scan:
    try:
        found = _tiff.walk(path)
    except _tiff.NotTiff as reason:
        raise MovieError(f"{path} is not a TIFF file: {reason}. Movies are read from .tif files or folders") from None
    frames = [d for d in found.directories if not d.reduced]
    if not frames:
        if found.broken is None:
            raise MovieError(f"{path} holds no image")
        raise MovieError(f"{path} is truncated: {found.broken}; the first unreadable frame is {before}, none before it")
    first = frames[0]
    dtype = _dtype(first, path)
    if not first.width or not first.height:
        raise MovieError(f"{path} has frames of size zero ({first.height} x {first.width} pixels)")
    nbytes = first.width * first.height * dtype.itemsize
    if nbytes > max_frame_bytes:
        raise MovieError(
            f"{path} declares frames of {first.height} x {first.width} pixels, {nbytes / 1024**3:.1f} GiB "
            f"each; the limit is {max_frame_bytes / 1024**3:.3g} GiB (max_frame_bytes)"
        )
    if first.samples > 1 or first.photometric not in _GREY:
        raise MovieError(
            f"{path} holds colour images ({first.samples} samples per pixel); save one grey channel as its own movie"
        )
    planes, one_run = _declared_planes(path)
    raw = first.compression == 1 and first.contiguous and first.predictor == 1
    missing: str | None = None
    if raw and planes > 1 and len(frames) == 1 and (one_run or found.broken):
        # one directory, then all frames in one run of bytes (ImageJ above 4 GB, tifffile's truncated stacks)
        whole = min(planes, max(0, (found.size - first.offset) // nbytes))
        if whole < planes:
            missing = f"{planes} frames are declared, the file's {found.size} bytes hold {whole}"
        offsets = (first.offset if whole else 0) + nbytes * np.arange(whole, dtype=np.int64)
        part = Part(path, found.byteorder, offsets, np.zeros(whole, np.int64))
        shapes = [(first.height, first.width, dtype.name)] * min(whole, 1)
        return Scan(part, first.height, first.width, dtype, shapes, missing, first.micro_manager)
    missing = found.broken
    for number, directory in enumerate(frames):
        if directory.data_end > found.size:
            missing = f"frame data should reach byte {directory.data_end}, the file has {found.size}"
            frames = frames[:number]
            break
    shapes = [(d.height, d.width, _dtype(d, path).name) for d in frames]
    plain = all(
        d.compression == 1 and d.predictor == 1 and d.contiguous and d.nbytes == d.height * d.width * dtype.itemsize
        for d in frames
    )
    starts = np.array([d.offset for d in frames], np.int64) if plain else None
    pages = np.array([d.index for d in frames], np.int64)
    part = Part(path, found.byteorder, starts, pages)
    return Scan(part, first.height, first.width, dtype, shapes, missing, first.micro_manager)


def _dtype(directory: _tiff.Directory, path: Path) -> np.dtype:
    kind = {1: "u", 2: "i", 3: "f"}.get(directory.sample_format)
    sizes = {"u": (8, 16, 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}
    if kind is None or directory.bits not in sizes[kind]:
        raise MovieError(
            f"{path} has pixels of {directory.bits} bits (sample format {directory.sample_format}); whole 8, "
            "16, 32 or 64 bit numbers are read. Save it as 16-bit grey"
        )
    return np.dtype(f"{kind}{directory.bits // 8}")


@contextlib.contextmanager
def _first_page(path: Path) -> Iterator[tuple[tifffile.TiffFile, Any]]:
    """The open file and its first page; whatever damaged tags make tifffile raise becomes a MovieError."""
    try:
        with tifffile.TiffFile(path) as file:
            yield file, file.pages.first
    except MovieError:
        raise
    except Exception as error:
        raise MovieError(f"{path} has a damaged header: {error}") from error


def _declared_planes(path: Path) -> tuple[int, bool]:
    """Frames that the description declares (1 without one), and whether one directory stands for all of them.

    Raises:
        MovieError: the description has several channels or axes, so that the order of frames is not certain.
    """
    with _first_page(path) as (_, page):
        text = page.description or ""
        kind = "imagej" if page.is_imagej else "ome" if page.is_ome else "shaped" if page.is_shaped else ""
        height, width = page.imagelength, page.imagewidth
    if kind == "imagej":
        numbers = {k: int(v) for k, v in re.findall(r"^(images|channels|slices|frames)=(\d+)\s*$", text, re.MULTILINE)}
        channels = numbers.get("channels", 1)
        if channels == numbers.get("images") and channels > _IMAGEJ_CHANNELS:
            channels = 1  # a plain stack whose writer called its only axis channels
        _one_axis(path, channels, numbers.get("frames", 1), numbers.get("slices", 1))
        return numbers.get("images", 1), True
    if kind == "ome":
        pixels = re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", text)
        for image in pixels:
            sizes = {k: int(v) for k, v in re.findall(r'\bSize([CTZ])="(\d+)"', image)}
            _one_axis(path, sizes.get("C", 1), sizes.get("T", 1), sizes.get("Z", 1))
            if len(pixels) > 1 and max(sizes.values(), default=1) > 1:
                raise MovieError(
                    f"{path} holds {len(pixels)} OME images (positions); save the one wanted as its own movie"
                )
        return 1, False
    if kind == "shaped":
        try:
            declared = json.loads(text)
            shape = [int(n) for n in declared["shape"]]
        except (ValueError, KeyError, TypeError):
            return 1, False
        leading = shape[:-2] if shape[-2:] == [height, width] else []
        if sum(n > 1 for n in leading) > 1:
            raise MovieError(
                f"{path} has shape {' x '.join(map(str, shape))}: which axis is time is not certain. Save it "
                "as "
                f"frames x {height} x {width}"
            )
        return math.prod(leading), bool(declared.get("truncated"))
    return 1, False


def _one_axis(path: Path, channels: int, times: int, slices: int) -> None:
    if channels > 1:
        raise MovieError(f"{path} has {channels} channels; save the one wanted as its own movie")
    if times > 1 and slices > 1:
        raise MovieError(f"{path} has {times} time points of {slices} slices each; save one slice as its own movie")


_UNITS_NM = {"nm": 1.0, "nanometer": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3, "micron": 1e3, "microns": 1e3}
_UNITS_NM |= {
    "micrometer": 1e3,
    "\\u00b5m": 1e3,
    "mm": 1e6,
    "cm": 1e7,
    "m": 1e9,
    "å": 0.1,
    "angstrom": 0.1,
    "pm": 1e-3,
}


def describe(scanned: Scan) -> tuple[tuple[float, float] | None, dict[str, Any]]:
    metadata: dict[str, Any] = {
        "byteorder": "little" if scanned.part.byteorder == "<" else "big",
        "compressed": scanned.part.offsets is None,
    }
    with _first_page(scanned.part.path) as (file, page):
        metadata["kind"] = "ImageJ" if page.is_imagej else "OME" if page.is_ome else "TIFF"
        if page.description:
            metadata["description"] = page.description
        if page.is_imagej:
            metadata["imagej"] = dict(file.imagej_metadata or {})
        summary = None
        if scanned.micro_manager:
            metadata["kind"] = "Micro-Manager"
            frame = page.tags[_tiff.MICRO_MANAGER].value
            summary = frame if isinstance(frame, dict) else None
            metadata["micro_manager"] = summary or {}
        sizes = _micro_manager_size(summary) or _ome_size(page) or _imagej_size(page, metadata) or _plain_size(page)
    if sizes is not None and not all(math.isfinite(s) and 1 <= s <= 10_000 for s in sizes):
        sizes = None  # uncalibrated files say 0, or dots per inch
    return sizes, metadata


def _micro_manager_size(frame: dict[str, Any] | None) -> tuple[float, float] | None:
    value = (frame or {}).get("PixelSizeUm")
    if isinstance(value, dict):
        value = value.get("PropVal")
    try:
        size = 1000 * float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return (size, size) if size > 0 else None


def _ome_size(page: Any) -> tuple[float, float] | None:
    if not page.is_ome:
        return None
    text = page.description
    sizes = []
    for axis in "XY":
        value = re.search(rf'\bPhysicalSize{axis}="([^"]+)"', text)
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]+)"', text)
        scale = _UNITS_NM.get(unit[1].lower() if unit else "µm")
        if value is None or scale is None:
            return None
        try:
            sizes.append(float(value[1]) * scale)
        except ValueError:
            return None
    return sizes[0], sizes[1]


def _resolution(page: Any) -> tuple[float, float] | None:
    """Units per pixel, x and y."""
    sizes = []
    for name in ("XResolution", "YResolution"):
        tag = page.tags.get(name)
        if tag is None or not tag.value[0]:
            return None
        sizes.append(tag.value[1] / tag.value[0])
    return sizes[0], sizes[1]


def _imagej_size(page: Any, metadata: dict[str, Any]) -> tuple[float, float] | None:
    scale = _UNITS_NM.get(str(metadata.get("imagej", {}).get("unit", "")).lower())
    size = _resolution(page)
    if not page.is_imagej or scale is None or size is None:
        return None
    return size[0] * scale, size[1] * scale


def _plain_size(page: Any) -> tuple[float, float] | None:
    """From dots per centimetre, as `MovieWriter` stores it."""
    unit = page.tags.get("ResolutionUnit")
    size = _resolution(page)
    if page.is_imagej or unit is None or int(unit.value) != 3 or size is None:
        return None
    return round(size[0] * 1e7, 6), round(size[1] * 1e7, 6)
