"""Training pairs on disk: a folder of low-resolution images and a folder of their targets.

For image-to-image training without emitter tables. Files are paired by name, never by the order in which a
folder happens to list them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from .io.movies import MovieError, MovieReader, open_movie, tiff_files

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 10


class PairError(ValueError):
    """The two folders do not fit together; the message lists the files."""


class _Camera(Protocol):
    def to_photons(self, counts: NDArray) -> NDArray: ...


class ImageDataset:
    """Pairs of (frame, target) from two folders of TIFF files with the same names; a map-style torch dataset.

    `inputs/img2.tif` belongs to `targets/img2.tif` (the stems must be equal, .tif and .tiff are alike). A
    file holds one frame or a stack; its partner holds as many. All inputs have one size, all targets that
    size times one whole number, the upsampling. The order is natural: img2 before img10.

    Args:
        inputs_folder: frames (H, W).
        targets_folder: targets (s H, s W).
        camera: turns counts into photons (`Camera.to_photons`); None takes the inputs as they are.

    Attributes:
        upsampling: s. input_shape, target_shape: (H, W) of both.
        pairs: the paths, in order.

    Raises:
        FileNotFoundError: a folder is missing.
        PairError: no files, files without a partner (all are listed), stacks of different length, sizes that
            differ or do not make one whole upsampling.
        MovieError: a file cannot be read.

    Example:
        >>> dataset = ImageDataset("pairs/inputs", "pairs/targets")   # doctest: +SKIP
        >>> frame, target = dataset[0]                                # (1, H, W) and (1, sH, sW), float32
    """

    def __init__(
        self,
        inputs_folder: str | os.PathLike[str],
        targets_folder: str | os.PathLike[str],
        *,
        camera: _Camera | None = None,
    ) -> None:
        self._camera = camera
        self.pairs = _pair(Path(inputs_folder), Path(targets_folder))
        self._readers: list[tuple[MovieReader, MovieReader]] = []
        lengths = []
        reference: tuple[tuple[int, int], tuple[int, int]] | None = None
        for input_path, target_path in self.pairs:
            low, high = _open(input_path), _open(target_path)
            self._readers.append((low, high))
            if len(low) != len(high):
                raise PairError(f"{input_path} holds {len(low)} frames but {target_path} holds {len(high)}")
            shapes = low.shape[1:], high.shape[1:]
            _upsampling(input_path, shapes)
            reference = reference or shapes
            if shapes != reference:
                raise PairError(
                    f"{input_path} is {_size(shapes[0])} with target {_size(shapes[1])}, the files before "
                    "are "
                    f"{_size(reference[0])} with {_size(reference[1])}; all pairs must be alike"
                )
            lengths.append(len(low))
        assert reference is not None  # _pair refuses empty folders
        self.input_shape, self.target_shape = reference
        self.upsampling = _upsampling(self.pairs[0][0], reference)
        self._ends = np.cumsum(lengths)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Frame (1, H, W) and target (1, sH, sW), float32."""
        import torch

        if not -len(self) <= index < len(self):
            raise IndexError(f"pair {index} asked for; there are {len(self)}")
        index %= len(self)
        which = int(np.searchsorted(self._ends, index, side="right"))
        number = index - (int(self._ends[which - 1]) if which else 0)
        images = []
        for reader in self._readers[which]:
            images.append(reader.read(number, number + 1).astype(np.float32))
            if len(self._readers) > 8:
                reader.close()  # folders of thousands of files would exhaust the open handles
        frame, target = images
        if self._camera is not None:
            frame = np.asarray(self._camera.to_photons(frame), np.float32)
        return torch.from_numpy(frame), torch.from_numpy(target)


def _pair(inputs: Path, targets: Path) -> list[tuple[Path, Path]]:
    by_stem = []
    for folder in (inputs, targets):
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}")
        files: dict[str, Path] = {}
        for file in tiff_files(folder):
            if file.stem in files:
                raise PairError(f"{folder} holds both {files[file.stem].name} and {file.name}; keep one of them")
            files[file.stem] = file
        if not files:
            raise PairError(f"{folder} holds no .tif or .tiff file")
        by_stem.append(files)
    low, high = by_stem
    problems = []
    for folder, alone in (
        (inputs, [low[s] for s in low if s not in high]),
        (targets, [high[s] for s in high if s not in low]),
    ):
        if alone:
            names = ", ".join(file.name for file in alone[:_SHOWN])
            more = f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
            problems.append(f"without a partner in {folder}: {names}{more}")
    if problems:
        raise PairError(f"inputs and targets are paired by file name; {'; '.join(problems)}")
    return [(low[stem], high[stem]) for stem in low]


def _open(path: Path) -> MovieReader:
    try:
        return open_movie(path)
    except MovieError as error:
        raise MovieError(f"cannot use {path} as a training image: {error}") from error


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"


def _upsampling(path: Path, shapes: tuple[tuple[int, int], tuple[int, int]]) -> int:
    (height, width), (tall, wide) = shapes
    factor = tall // height
    if factor < 1 or (tall, wide) != (factor * height, factor * width):
        raise PairError(
            f"{path.name} is {_size(shapes[0])} and its target {_size(shapes[1])}; a target must be the "
            "input's size times "
            "one whole number"
        )
    return factor
