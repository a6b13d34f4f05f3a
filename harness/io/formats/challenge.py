"""Tables of the SMLM Challenge: ground truth, activations, and submissions without a header.

Source: files of the 2013 and 2016 challenges and their converters. nm from the outer corner of the first
pixel, x along columns, frames from 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from simulators.emitters import Emitters, Localizations

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

FRAME_NAMES = ("frame", "slice")
ID_NAMES = ("ground-truth", "index", "id")
WITHOUT_HEADER = {
    5: ("frame", "x_nm", "y_nm", "z_nm", "photons"),
    6: ("id", "frame", "x_nm", "y_nm", "z_nm", "photons"),
}


def recognise(file: TextFile) -> bool:
    if not file.header:
        return len(file.labels) in WITHOUT_HEADER
    return {"xnano", "ynano"} <= set(file.lowered)


def read(file: TextFile, pixel_size_nm: tuple[float, float] | None) -> Table:
    """With a header emitters; without one localizations (frame, x, y, z, photons, with or without an id in
    front).
    """
    if not file.header:
        return _read_submission(file)
    labels = file.lowered
    frame = next((name for name in FRAME_NAMES if name in labels), None)
    lacking = [name for name in ("xnano", "ynano") if name not in labels]
    if frame is None or lacking:
        raise missing(file, lacking or ["frame"])
    columns = read_columns(file)
    result: dict[str, Any] = {"frame": frames(file, columns, frame, first=1)}
    for ours, theirs in (("x_nm", "xnano"), ("y_nm", "ynano"), ("z_nm", "znano"), ("photons", "intensity")):
        if theirs in labels:
            result[ours] = numbers(file, columns, theirs)
    if np.isnan(result.get("z_nm", np.zeros(1))).all():
        result.pop("z_nm", None)  # a 2D truth: in focus
    identity = next((name for name in ID_NAMES if name in labels), None)
    if identity is not None:
        values = numbers(file, columns, identity)
        if np.isfinite(values).all():
            result["id"] = values
    return build(file, Emitters, result)


def _read_submission(file: TextFile) -> Table:
    names = WITHOUT_HEADER.get(len(file.labels))
    if names is None:
        raise TableError(
            f"{file.path} has no header and {len(file.labels)} columns; without a header 5 (frame, x, y, z, "
            "photons) or 6 "
            "(id before them) are read"
        )
    columns = read_columns(file)
    result: dict[str, Any] = {}
    for place, name in enumerate(names, start=1):
        read_column = frames if name == "frame" else numbers
        options = {"first": 1} if name == "frame" else {}
        result[name] = read_column(file, columns, str(place), **options)
    return build(file, Localizations, result)


def write(table: Table, path: Path) -> None:
    """Ground-truth form; an unknown z becomes 0, unknown photons stay nan. Background and standard errors are
    lost.
    """
    z = np.where(np.isfinite(np.asarray(table.z_nm)), np.asarray(table.z_nm), 0.0)
    columns = {
        "Ground-truth": table.id,
        "frame": table.frame + 1,
        "xnano": table.x_nm,
        "ynano": table.y_nm,
        "znano": z,
        "intensity": table.photons,
    }
    write_columns(path, {name: np.asarray(values) for name, values in columns.items()})


FORMAT = TableFormat(
    name="challenge",
    convention="nm from the outer corner of the first pixel, x along columns, frames from 1",
    recognise=recognise,
    read=read,
    write=write,
)
