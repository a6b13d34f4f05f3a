"""Files of spline PSFs, read without trusting them: our npz, and SMAP's `_3dcal.mat` (MATLAB 5 and 7.3)."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .spline import MOST_NUMBERS, SplineTable, smap_table

MOST_BYTES = 1 << 29
_MOST_UNPACKED = 1 << 31


def read(path: Path) -> SplineTable:
    """A table from a file of either kind, told by its first bytes."""
    with open(path, "rb") as stream:
        head = stream.read(128)
    if head[:4] == b"PK\x03\x04":
        return _read_npz(path)
    if head[:8] == b"\x89HDF\r\n\x1a\n" or _is_hdf5(path):
        return _read_mat73(path)
    if head[:6] == b"MATLAB":
        return _read_mat5(path)
    raise ValueError("it is neither an npz of this program nor a MATLAB file (_3dcal.mat)")


def _is_hdf5(path: Path) -> bool:
    import h5py

    return bool(h5py.is_hdf5(path))


def _read_npz(path: Path) -> SplineTable:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > _MOST_UNPACKED:
            raise ValueError(f"its arrays take {unpacked / 2**30:.1f} GiB unpacked")
        with np.load(path, allow_pickle=False) as data:
            arrays = {key: data[key] for key in data.files if key in _KEYS}
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError, zlib.error, struct.error) as error:
        raise ValueError(f"damaged ({error})") from error
    if str(arrays.get("format", "")) != "smlm-zoo spline 1":
        raise ValueError("it has no entry format 'smlm-zoo spline 1'; make PSF files with smlm-zoo calibrate")
    missing = sorted(_KEYS - {"pixel_size_nm", "notes"} - arrays.keys())
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    try:
        origin = tuple(float(v) for v in arrays["origin"].reshape(3))
        pixel = tuple(float(v) for v in arrays["pixel_size_nm"].reshape(2)) if "pixel_size_nm" in arrays else None
        notes = json.loads(str(arrays.get("notes", "{}")))
        return SplineTable(
            coefficients=arrays["coefficients"],
            origin=(origin[0], origin[1], origin[2]),
            dz_nm=float(arrays["dz_nm"]),
            oversampling=int(arrays["oversampling"]),
            pixel_size_nm=None if pixel is None else (pixel[0], pixel[1]),
            notes=notes if isinstance(notes, dict) else {},
        )
    except TypeError as error:
        raise ValueError(f"damaged ({error})") from error


_KEYS = {"format", "coefficients", "origin", "dz_nm", "oversampling", "pixel_size_nm", "notes"}


class _Struct(Protocol):
    def __call__(self, name: str) -> npt.NDArray[Any] | None: ...


def _from_fields(fields: _Struct) -> SplineTable:
    coeff = fields("coeff")
    if coeff is None:
        raise ValueError("it holds no SXY.cspline.coeff; give a 3D calibration made by SMAP")
    numbers = {}
    for name in ("x0", "z0", "dz"):
        value = fields(name)
        if value is None or np.size(value) != 1 or np.asarray(value).dtype.kind not in "fiu":
            raise ValueError(f"SXY.cspline.{name} is missing or no single number")
        numbers[name] = float(np.asarray(value).reshape(-1)[0])
    centre = numbers["x0"] - 1
    return smap_table(
        coeff, origin_px=(centre, centre), z0=numbers["z0"], dz_nm=numbers["dz"], source="SMAP calibration"
    )


def _read_mat5(path: Path) -> SplineTable:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    _check_mat5(path)
    try:
        data = loadmat(path, variable_names=["SXY"], struct_as_record=True)
    except (
        MatReadError,
        TypeError,
        OSError,
        EOFError,
        KeyError,
        zlib.error,
        struct.error,
        NotImplementedError,
    ) as error:
        raise ValueError(f"damaged ({error})") from error
    spline = _member(_first(data.get("SXY")), "cspline")
    return _from_fields(lambda name: _first(_member(_first(spline), name), number=True))


def _check_mat5(path: Path) -> None:
    """Refuse a file whose compressed parts unpack to more than a PSF can be, before any is kept."""
    with open(path, "rb") as stream:
        order = "<" if stream.read(128)[126:128] == b"IM" else ">"
        unpacked = 0
        while len(tag := stream.read(8)) == 8:
            kind, size = struct.unpack(f"{order}II", tag)
            if kind != 15:
                stream.seek(size, 1)
                continue
            unpack, left = zlib.decompressobj(), size
            try:
                while left and (block := stream.read(min(left, 1 << 20))):
                    left -= len(block)
                    while block:
                        unpacked += len(unpack.decompress(block, 1 << 24))
                        block = unpack.unconsumed_tail
                        if unpacked > _MOST_UNPACKED:
                            raise ValueError("its compressed parts unpack to more than 2 GiB")
            except zlib.error as error:
                raise ValueError(f"damaged ({error})") from error


def _first(value: Any, *, number: bool = False) -> Any:
    """The only or first element of MATLAB's struct arrays and cells."""
    while isinstance(value, np.ndarray) and value.dtype.kind in "OV" and value.size:
        if value.dtype.kind == "V" and value.ndim == 0:
            break
        inner = value.reshape(-1)[0]
        if inner is value:
            break
        value = inner
        if isinstance(value, np.void) and not number:
            break
    return value


def _member(value: Any, name: str) -> Any:
    if isinstance(value, np.void | np.ndarray) and value.dtype.names and name in value.dtype.names:
        return value[name]
    return None


def _read_mat73(path: Path) -> SplineTable:
    import h5py

    try:
        with h5py.File(path, "r") as file:

            def entry(place: Any, name: str) -> Any:
                if not isinstance(place, h5py.Group) or not isinstance(place.get(name, getlink=True), h5py.HardLink):
                    return None
                return place[name]

            def resolved(place: Any) -> Any:
                """Through cells and struct arrays, which are data sets of references."""
                for _ in range(4):
                    if not (isinstance(place, h5py.Dataset) and h5py.check_ref_dtype(place.dtype)) or not place.size:
                        break
                    place = file[place[(0,) * place.ndim]]
                return place

            spline = resolved(entry(resolved(entry(file, "SXY")), "cspline"))

            def fields(name: str) -> npt.NDArray[Any] | None:
                found = resolved(entry(spline, name))
                if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiu":
                    return None
                if found.size > MOST_NUMBERS:
                    raise ValueError(f"cspline.{name} has {found.size} numbers; at most {MOST_NUMBERS} are read")
                return np.asarray(found).T  # MATLAB's axes are stored in reverse

            return _from_fields(fields)
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"damaged ({error})") from error
