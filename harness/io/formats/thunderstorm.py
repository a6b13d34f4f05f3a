"""ThunderSTORM CSV (Ovesny et al. 2014, doi:10.1093/bioinformatics/btu202) and the many tables that imitate
it.

Labels are `name [unit]`, quoted, in any order; lengths in nm, um or px from the outer corner of the first
pixel, x along columns, frames from 1.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.emitters import Localizations

from ._text import (
    Table,
    TableError,
    TableFormat,
    TextFile,
    build,
    frames,
    missing,
    numbers,
    read_columns,
    write_columns,
)

LENGTHS = {"nm": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3}
PHOTONS = ("photon", "photons")


def _split(label: str) -> tuple[str, str]:
    found = re.fullmatch(r"(.*?)\s*(?:\[(.*)\])?", label.strip().lower())
    return (found[1], (found[2] or "").strip()) if found else (label, "")


def recognise(file: TextFile) -> bool:
    names = dict(map(_split, file.lowered))
    return file.header and "x" in names and "y" in names and bool(names["x"] or names["y"])


def read(file: TextFile, pixel_size_nm: tuple[float, float] | None) -> Table:
    """Localizations. Intensity and offset are taken when they are in photons, `uncertainty_xy` (or
    `uncertainty`) as standard error of x and y alike. Uncertainties of 0, and intensities if all are 0, mean
    unknown."""
    labels = {name: (label, unit) for label in file.lowered for name, unit in [_split(label)]}
    lacking = [name for name in ("frame", "x", "y") if name not in labels]
    if lacking:
        raise missing(file, lacking)
    columns = read_columns(file)

    def length(name: str, axis: int) -> NDArray[np.float64]:
        label, unit = labels[name]
        values = numbers(file, columns, label).astype(np.float64)
        spelling = file.labels[file.lowered.index(label)]
        if unit in LENGTHS:
            return values * LENGTHS[unit]
        if unit in ("px", "pixel", "pixels"):
            if pixel_size_nm is None:
                raise TableError(f"{file.path}: column {spelling!r} is in pixels; give pixel_size_nm to convert")
            return values * pixel_size_nm[axis]
        raise TableError(f"{file.path}: column {spelling!r} has the unit {unit!r}; expected [nm], [um] or [px]")

    def photons(name: str) -> NDArray[np.float64] | None:
        label, unit = labels.get(name, ("", ""))
        return numbers(file, columns, label).astype(np.float64) if unit in PHOTONS else None

    result: dict[str, Any] = {
        "frame": frames(file, columns, labels["frame"][0], first=1),
        "x_nm": length("x", 0),
        "y_nm": length("y", 1),
        "photons": photons("intensity"),
        "background": photons("offset"),
    }
    if result["photons"] is not None and not result["photons"].any():
        result["photons"] = None
    if "z" in labels:
        result["z_nm"] = length("z", 0)
    if "id" in labels:
        result["id"] = numbers(file, columns, labels["id"][0])
    lateral = next((name for name in ("uncertainty_xy", "uncertainty") if name in labels), None)
    for ours, theirs, axis in (
        ("x_sigma_nm", lateral, 0),
        ("y_sigma_nm", lateral, 1),
        ("z_sigma_nm", "uncertainty_z", 0),
    ):
        if theirs in labels:
            values = length(str(theirs), axis)
            result[ours] = np.where(values > 0, values, np.nan)
    return build(file, Localizations, result)


def write(table: Table, path: Path) -> None:
    """All columns that ThunderSTORM and Picasso ask for. What is unknown is written as 0 (both drop rows with
    nan): the PSF's sigma and bkgstd always. z is written when any row has one other than 0. Probabilities are
    lost, and of the standard errors of x and y their mean is kept.

    Raises:
        TableError: some rows have a z and others none.
    """

    def known(values: Any) -> NDArray[np.float64]:
        values = np.asarray(values, np.float64)
        return np.where(np.isfinite(values), values, 0.0)

    z = np.asarray(table.z_nm, np.float64)
    deep = bool((np.isfinite(z) & (z != 0)).any())
    if deep and not np.isfinite(z).all():
        raise TableError(
            f"{int((~np.isfinite(z)).sum())} of {len(z)} rows have no z_nm; ThunderSTORM needs all or none"
        )
    found = table if isinstance(table, Localizations) else None
    zero = np.zeros(len(table))
    lateral = zero if found is None else (known(found.x_sigma_nm) + known(found.y_sigma_nm)) / 2
    columns: dict[str, Any] = {
        "id": table.id,
        "frame": table.frame + 1,
        "x [nm]": table.x_nm,
        "y [nm]": table.y_nm,
    }
    if deep:
        columns |= {"z [nm]": z, "sigma1 [nm]": zero, "sigma2 [nm]": zero}
    else:
        columns |= {"sigma [nm]": zero}
    columns |= {
        "intensity [photon]": known(table.photons),
        "offset [photon]": known(table.background),
        "bkgstd [photon]": zero,
        "uncertainty_xy [nm]": lateral,
    }
    if deep:
        columns["uncertainty_z [nm]"] = zero if found is None else known(found.z_sigma_nm)
    write_columns(path, {name: np.asarray(values) for name, values in columns.items()}, quoted_header=True)


FORMAT = TableFormat(
    name="thunderstorm",
    convention="nm (or px, um) from the outer corner of the first pixel, x along columns, frames from 1",
    recognise=recognise,
    read=read,
    write=write,
)
