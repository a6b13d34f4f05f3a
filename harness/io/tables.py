"""Tables of emitters and localizations on disk. The only place where conventions are converted.

Inside the program: nm from the outer corner of the first pixel, x along columns, frames from 0, photons that
reach the sensor. Formats read and written: our own CSV and Parquet, ThunderSTORM CSV, SMLM Challenge CSV;
Picasso's HDF5 is read (`FORMATS` names them with their conventions).
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

import numpy as np

from simulators.emitters import Emitters, Localizations

from .atomic import atomic_path
from .formats import challenge, native, parquet, picasso, thunderstorm
from .formats._text import Table, TableError, TableFormat, TextFile, append_columns, look

__all__ = [
    "FORMATS",
    "Table",
    "TableError",
    "TableWriter",
    "as_emitters",
    "as_localizations",
    "read_table",
    "write_table",
]

_TEXT: dict[str, TableFormat] = {f.name: f for f in (native.FORMAT, thunderstorm.FORMAT, challenge.FORMAT)}

FORMATS: dict[str, str] = {
    **{name: form.convention for name, form in _TEXT.items()},
    "parquet": native.FORMAT.convention,
    "picasso": picasso.CONVENTION,
}
"""Names of the formats and their conventions."""


def read_table(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    kind: Literal["emitters", "localizations"] | None = None,
    pixel_size_nm: float | tuple[float, float] | None = None,
) -> Emitters | Localizations:
    """Read a table and convert it to our convention.

    Args:
        path: the file.
        format: a name of `FORMATS`; None recognises it from the header.
        kind: what is wanted. None gives what the format holds: challenge ground truth is emitters,
            ThunderSTORM and tables without a header are localizations, our own files say it.
        pixel_size_nm: one number or (x, y), for columns in pixels.

    Raises:
        FileNotFoundError: nothing is there.
        TableError: unknown format, missing column, a cell that is no number, a frame before the first, or
            columns in pixels without `pixel_size_nm`.
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"no table at {place}")
    if place.is_dir():
        raise TableError(f"{place} is a folder; give the table in it")
    if format is not None and format not in FORMATS:
        raise TableError(f"no table format named {format!r}; there are {', '.join(FORMATS)}")
    with open(place, "rb") as file:
        magic = file.read(4)
    sizes = (pixel_size_nm, pixel_size_nm) if isinstance(pixel_size_nm, (int, float)) else pixel_size_nm
    table: Table
    if format == "parquet" or (format is None and magic == parquet.MAGIC):
        table = parquet.read(place)
    elif format == "picasso" or magic == picasso.MAGIC:
        table = picasso.read(place, sizes)
    else:
        text = look(place)
        form = _TEXT[format] if format else recognise(text)
        table = form.read(text, sizes)
    if kind == "emitters":
        return as_emitters(table)
    return as_localizations(table) if kind == "localizations" else table


def recognise(text: TextFile) -> TableFormat:
    """The format of a text table, from its header."""
    for form in _TEXT.values():
        if form.recognise(text):
            return form
    if text.header:
        found = f"columns {', '.join(map(repr, text.labels))}"
    else:
        found = f"{len(text.labels)} columns without a header"
    raise TableError(
        f"{text.path}: the table format is not known; found {found}. Expected one of: frame,x_nm,y_nm (own), "
        "frame with "
        "x [nm], y [nm] (ThunderSTORM), frame,xnano,ynano (challenge), or 5 or 6 columns of numbers without "
        "a header"
    )


def write_table(table: Emitters | Localizations, path: str | os.PathLike[str], *, format: str | None = None) -> None:
    """Write a table; the file appears complete or not at all.

    Args:
        table: rows in our convention.
        path: the file; an older one is replaced.
        format: a name of `FORMATS`; None takes Parquet for .parquet and our own CSV otherwise. The formats of
            other programs lose columns, see `harness/io/formats`.

    Raises:
        TableError: unknown format, or a table that it cannot hold.
        OutputError: the file cannot be written.
    """
    place = Path(path)
    if format is None:
        format = "parquet" if place.suffix.lower() in (".parquet", ".pq") else "csv"
    if format not in FORMATS:
        raise TableError(f"no table format named {format!r}; there are {', '.join(FORMATS)}")
    writer = parquet.write if format == "parquet" else _TEXT[format].write if format in _TEXT else None
    if writer is None:
        raise TableError(f"the format {format!r} is only read; write one of {', '.join(FORMATS)}")
    with atomic_path(place) as temporary:
        writer(table, temporary)


class TableWriter:
    """Writes localizations block by block as our own CSV; the file appears when the `with` block ends well.

    Args:
        path: the file; an older one is replaced at the end.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.rows = 0
        self._path = Path(path)
        self._atomic: AbstractContextManager[Path] | None = None
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._atomic = atomic_path(self._path)
        self._file = open(self._atomic.__enter__(), "wb")  # closed in __exit__
        self._file.write((",".join(Localizations.columns()) + "\n").encode())
        return self

    def write(self, table: Localizations) -> None:
        """Append rows; `id` counts them over the whole file."""
        if self._file is None:
            raise RuntimeError("use the writer in a with block: with TableWriter(path) as table: table.write(rows)")
        numbered = table.replace(id=np.arange(self.rows, self.rows + len(table)))
        append_columns(self._file, {name: getattr(numbered, name) for name in table.columns()})
        self.rows += len(table)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        assert self._atomic is not None
        self._file.close()
        self._file = None
        self._atomic.__exit__(kind, error, trace)


def as_emitters(table: Emitters | Localizations) -> Emitters:
    """The table as truth: columns that only localizations have are dropped, an unknown z becomes 0."""
    if not isinstance(table, Localizations):
        return table
    columns = {name: getattr(table, name) for name in Emitters.columns()}
    columns["z_nm"] = np.where(np.isfinite(columns["z_nm"]), columns["z_nm"], 0.0)
    return Emitters(**columns)


def as_localizations(table: Emitters | Localizations) -> Localizations:
    """The table as found: columns that emitters lack are unknown (nan)."""
    if isinstance(table, Localizations):
        return table
    return Localizations(**{name: getattr(table, name) for name in table.columns()})
