"""Parquet: our own columns, exact and small; the form for large tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from simulators.emitters import Emitters, Localizations

from ._text import Table, TableError
from .native import FORMAT as NATIVE
from .native import ONLY_FOUND, REQUIRED

MAGIC = b"PAR1"
_KIND = b"smlm_zoo_kind"
_CONVENTION = b"smlm_zoo_convention"


def read(path: Path) -> Table:
    """Raises:
    TableError: damaged file, missing column, or a column that holds no numbers.
    """
    try:
        stored = pyarrow.parquet.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise TableError(f"{path} cannot be read as Parquet: {error}") from None
    lacking = [name for name in REQUIRED if name not in stored.column_names]
    if lacking:
        found = ", ".join(map(repr, stored.column_names))
        raise TableError(f"{path}: column {' and '.join(map(repr, lacking))} is missing; found {found}")
    said = (stored.schema.metadata or {}).get(_KIND)
    found_only = bool(set(ONLY_FOUND) & set(stored.column_names))
    kind = Localizations if said == b"Localizations" or (said is None and found_only) else Emitters
    columns = {}
    for name in kind.columns():
        if name in stored.column_names:
            values = stored[name].to_numpy()
            if values.dtype.kind not in "iufb":
                raise TableError(f"{path}: column {name!r} is of type {stored[name].type}; expected numbers")
            columns[name] = values
    try:
        return kind(**columns)
    except ValueError as error:
        raise TableError(f"{path}: {error}") from None


def write(table: Table, path: Path) -> None:
    stored = pa.table({name: pa.array(np.asarray(getattr(table, name))) for name in table.columns()})
    metadata = {_KIND: type(table).__name__.encode(), _CONVENTION: NATIVE.convention.encode()}
    pyarrow.parquet.write_table(stored.replace_schema_metadata(metadata), path, compression="zstd")
