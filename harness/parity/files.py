"""Find reference files in a folder and read their arrays without trusting them."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

WEIGHT_SUFFIXES = (".safetensors", ".hdf5", ".h5", ".pth", ".pt", ".pkl", ".onnx")
SIZES = ((24, 40), (33, 57), (64, 64))  # odd and oblong on purpose
_MAX_ARRAY_BYTES = 2**31


@dataclass(frozen=True, kw_only=True)
class Case:
    """A reference file with its arrays, or its JSON document, and what belongs to it.

    Attributes:
        path: the npz or json.
        arrays: its arrays by key; none of a json.
        document: the json's values by key; none of an npz.
        weights: weight files of the same stem (NAME.safetensors for NAME_io.npz), in order of
            `WEIGHT_SUFFIXES`.
        folders: where weight files of other stems may lie.
        sizes: (height, width) of the frames on which the exported graph is compared, camera pixels.
        used: files that some case took from there.
    """

    path: Path
    arrays: Mapping[str, np.ndarray]
    weights: tuple[Path, ...]
    folders: tuple[Path, ...] = ()
    sizes: tuple[tuple[int, int], ...] = SIZES
    used: set[Path] = field(default_factory=set)
    document: Mapping[str, Any] = field(default_factory=dict)

    def beside(self, *patterns: str) -> list[Path]:
        """Files that match the wildcard patterns, in their order; they then count as used."""
        found = [path for pattern in patterns for folder in self.folders for path in sorted(folder.glob(pattern))]
        self.used.update(found)
        return list(dict.fromkeys(found))

    @property
    def stem(self) -> str:
        """NAME of NAME_io.npz."""
        return self.path.stem.removesuffix("_io")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz; objects are refused, since reading them would run code.

    Raises:
        ValueError: damaged, holding objects, or arrays of more than 2 GiB.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > _MAX_ARRAY_BYTES:
            raise ValueError(f"its arrays take {size / 2**30:.1f} GiB unpacked")
        with np.load(path, allow_pickle=False) as data:
            return {key: np.asarray(data[key]) for key in data.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"cannot be read: {error}") from error
    except Exception as error:  # zlib and struct errors of damaged members
        raise ValueError(f"cannot be read: damaged ({error})") from error


def read_document(path: Path) -> dict[str, Any]:
    """The values of a JSON file that holds an object.

    Raises:
        ValueError: larger than 64 MiB, no JSON, or no object.
    """
    try:
        if path.stat().st_size > 2**26:
            raise ValueError(f"it has {path.stat().st_size / 2**20:.0f} MiB")
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"cannot be read: holds {type(document).__name__}, not keys and values")
    return document


def find_weights(stem: str, folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """Weight files NAME.* in the folders, each format once; earlier folders win."""
    found = []
    for suffix in WEIGHT_SUFFIXES:
        candidates = (folder / f"{stem}{suffix}" for folder in folders)
        first = next((path for path in candidates if path.is_file()), None)
        if first is not None:
            found.append(first)
    return tuple(found)
