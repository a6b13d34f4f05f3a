"""Picasso's HDF5 with its YAML (Schnitzbauer et al. 2017, doi:10.1038/nprot.2017.024), read only.

One dataset `locs`, a record per localization. Lateral lengths are in camera pixels with the centre of the first pixel
at 0, so x_nm = (x + 1/2) pixel; z and its error are in nm; frames count from 0. Its photons are those detected (photo-
electrons): they are taken as they are, which is right for a quantum efficiency of 1. The pixel size stands in the YAML
of the same name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.emitters import Localizations

from ._text import Table, TableError

MAGIC = b"\x89HDF"
CONVENTION = (
    "HDF5 of Picasso (read only); camera pixels, 0 half a pixel inside the outer corner, z in nm; frames from 0; "
    "detected photons"
)
_NEEDED = ("frame", "x", "y")


def read(path: Path, pixel_size_nm: tuple[float, float] | None) -> Table:
    """Localizations.

    Args:
        path: the HDF5 file.
        pixel_size_nm: (x, y); None takes `Pixelsize` of the YAML beside the file.

    Raises:
        TableError: another kind of HDF5 file, a missing column, or no pixel size.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            stored = file.get("locs")
            if not isinstance(stored, h5py.Dataset) or not stored.dtype.names:
                raise TableError(
                    f"{path} is an HDF5 file without Picasso's table 'locs'; export the table as CSV (ThunderSTORM) "
                    "and read that"
                )
            rows: NDArray[Any] = stored[()]
    except OSError as error:
        raise TableError(f"{path} cannot be read as HDF5: {error}") from None
    names = rows.dtype.names or ()
    lacking = [name for name in _NEEDED if name not in names]
    if lacking:
        raise TableError(f"{path}: column {', '.join(lacking)} is missing in 'locs'; found {', '.join(names)}")
    width, height = _pixel_size(path) if pixel_size_nm is None else pixel_size_nm

    def column(name: str, scale: float = 1.0) -> NDArray[np.float64] | None:
        return rows[name].astype(np.float64) * scale if name in names else None

    try:
        return Localizations(
            frame=rows["frame"],
            x_nm=(rows["x"].astype(np.float64) + 0.5) * width,
            y_nm=(rows["y"].astype(np.float64) + 0.5) * height,
            z_nm=column("z"),
            photons=column("photons"),
            background=column("bg"),
            x_sigma_nm=column("lpx", width),
            y_sigma_nm=column("lpy", height),
            z_sigma_nm=column("lpz"),
        )
    except ValueError as error:
        raise TableError(f"{path}: {error}") from None


def _pixel_size(path: Path) -> tuple[float, float]:
    import yaml

    beside = path.with_suffix(".yaml")
    value = None
    if beside.is_file():
        try:
            parts = list(yaml.safe_load_all(beside.read_text(encoding="utf-8")))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise TableError(f"{beside} cannot be read: {error}") from None
        for part in parts:  # the last one that says it wins
            if isinstance(part, dict) and isinstance(part.get("Pixelsize"), int | float):
                value = float(part["Pixelsize"])
    if not value:
        raise TableError(f"{path} is in pixels, and {beside.name} says no Pixelsize; give pixel_size_nm to convert")
    return value, value
