"""Our own CSV: one column per field of `Emitters` or `Localizations`, named with its unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simulators.emitters import Emitters, Localizations

from ._text import Table, TableFormat, TextFile, build, frames, missing, numbers, read_columns, write_columns

REQUIRED = ("frame", "x_nm", "y_nm")
ONLY_FOUND = tuple(name for name in Localizations.columns() if name not in Emitters.columns())


def recognise(file: TextFile) -> bool:
    return file.header and {"x_nm", "y_nm"} <= set(file.lowered)


def read(file: TextFile, pixel_size_nm: tuple[float, float] | None) -> Table:
    """A table with any column that only localizations have is one of localizations, otherwise of emitters."""
    lacking = [name for name in REQUIRED if name not in file.lowered]
    if lacking:
        raise missing(file, lacking)
    columns = read_columns(file)
    kind = Localizations if set(ONLY_FOUND) & set(columns) else Emitters
    known: dict[str, Any] = {n: numbers(file, columns, n) for n in kind.columns() if n in columns and n != "frame"}
    return build(file, kind, {"frame": frames(file, columns, "frame", first=0), **known})


def write(table: Table, path: Path) -> None:
    write_columns(path, {name: getattr(table, name) for name in table.columns()})


FORMAT = TableFormat(
    name="csv",
    convention="nm from the outer corner of the first pixel, x along columns, frames from 0",
    recognise=recognise,
    read=read,
    write=write,
)
