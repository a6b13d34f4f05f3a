"""What all text formats share: separator, header, columns of numbers, and messages that name the cell."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from simulators.emitters import Emitters, Localizations

Table = Emitters | Localizations


class TableError(ValueError):
    """A table cannot be read or written; the message names file, column and what was found."""


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """A text table whose header has been looked at.

    Attributes:
        path: the file. encoding: of its bytes. delimiter: comma, semicolon or tab. decimal: point or comma.
        labels: header cells without quotes and outer blanks, in the file's spelling; for a file without a
            header the numbers of the columns, counted from 1.
        skip: lines before the first line of numbers.
        header: whether there is one.
    """

    path: Path
    encoding: str
    delimiter: str
    decimal: str
    labels: tuple[str, ...]
    skip: int
    header: bool

    @property
    def lowered(self) -> tuple[str, ...]:
        return tuple(label.lower() for label in self.labels)


@dataclass(frozen=True, kw_only=True)
class TableFormat:
    """A text format.

    Attributes:
        name: what `format=` takes.
        convention: origin, units and first frame, in words for people.
        recognise: whether a header is of this format.
        read: file and pixel size (x, y) -> table in our convention.
        write: table and path -> file; None where the format is only read.
    """

    name: str
    convention: str
    recognise: Callable[[TextFile], bool]
    read: Callable[[TextFile, tuple[float, float] | None], Table]
    write: Callable[[Table, Path], None] | None


def look(path: Path) -> TextFile:
    """Find separator, header and decimal sign.

    Raises:
        TableError: the file is empty or holds binary data.
    """
    with open(path, "rb") as file:
        start = file.read(1 << 16)
    encoding = "utf-8"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\0" in start:
        raise TableError(f"{path} is no text table: it holds binary data")
    try:
        text = start.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8" and error.start > len(start) - 4:
            text = start.decode("utf-8-sig", errors="ignore")  # a letter cut in two at the end of the sample
        else:
            encoding = "latin-1"
            text = start.decode(encoding)
    lines = text.splitlines()
    skip = next((n for n, line in enumerate(lines) if line.strip()), None)
    if skip is None:
        raise TableError(f"{path} is empty; a table has at least a header, e.g. frame,x_nm,y_nm")
    if lines[skip].startswith("# DECODE EmitterSet"):
        raise TableError(f"{path} is a DECODE table, which is not read; export it from there as a ThunderSTORM CSV")
    first = lines[skip]
    body = next((line for line in lines[skip + 1 :] if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", first)
    delimiter = next((d for d in "\t;," if d in bare), ",")
    decimal = "," if delimiter != "," and "," in re.sub(r'"', "", body) and "." not in body else "."
    cells = next(csv.reader([first], delimiter=delimiter))
    labels = tuple(cell.strip().strip('"').strip() for cell in cells)
    header = not all(_is_number(label, decimal) for label in labels)
    if not header:
        labels = tuple(str(n + 1) for n in range(len(cells)))
    return TextFile(
        path=path,
        encoding=encoding,
        delimiter=delimiter,
        decimal=decimal,
        labels=labels,
        skip=skip + header,
        header=header,
    )


def _is_number(text: str, decimal: str) -> bool:
    try:
        float(text.replace(decimal, "."))
    except ValueError:
        return False
    return True


def read_columns(file: TextFile) -> dict[str, NDArray[Any]]:
    """All columns, under the lower-case label, as numbers; empty cells are nan. Text columns are left as
    text.

    Raises:
        TableError: a line has another number of cells, or a label occurs twice.
    """
    labels = file.lowered
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise TableError(f"{file.path}: column {', '.join(map(repr, sorted(twice)))} occurs more than once")
    source: Any = str(file.path)
    if file.encoding != "utf-8":
        source = io.BytesIO(file.path.read_text(encoding=file.encoding).encode())
    numbers = ["", "nan", "NaN", "NAN", "NA", "null", "None"]
    try:
        table = pyarrow.csv.read_csv(
            source,
            read_options=pyarrow.csv.ReadOptions(column_names=list(labels), skip_rows=file.skip),
            parse_options=pyarrow.csv.ParseOptions(delimiter=file.delimiter),
            convert_options=pyarrow.csv.ConvertOptions(
                null_values=numbers, quoted_strings_can_be_null=True, decimal_point=file.decimal
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return {label: np.empty(0) for label in labels}
        line = _odd_line(file)
        if line is not None:
            raise TableError(
                f"{file.path}: line {line[0]} has {line[1]} cells, expected {len(labels)}; is the file cut off?"
            ) from None
        raise TableError(f"{file.path} cannot be read as a table: {error}") from None
    return {name: _numbers(table[name]) for name in table.column_names}


def _odd_line(file: TextFile) -> tuple[int, int] | None:
    """Number and cells of the first line with another number of cells than the first one."""
    with open(file.path, encoding=file.encoding, errors="replace", newline="") as lines:
        reader = csv.reader(lines, delimiter=file.delimiter)
        for cells in reader:
            if reader.line_num > file.skip and cells and len(cells) != len(file.labels):
                return reader.line_num, len(cells)
    return None


def _numbers(column: Any) -> NDArray[Any]:
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_floating(column.type) or (pa.types.is_integer(column.type) and not column.null_count):
        return pc.fill_null(column, float("nan")).to_numpy() if column.null_count else column.to_numpy()
    if pa.types.is_integer(column.type):
        return pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()
    return np.asarray(column.to_pylist(), dtype=object)


def numbers(file: TextFile, columns: dict[str, NDArray[Any]], label: str) -> NDArray[Any]:
    """One column as numbers.

    Raises:
        TableError: it holds text; the message shows the first cell that is no number.
    """
    values = columns[label]
    if values.dtype != object:
        return values
    result = np.empty(len(values))
    for row, value in enumerate(values.tolist()):
        try:
            result[row] = np.nan if value is None else float(str(value).strip().replace(file.decimal, "."))
        except ValueError:
            spelling = file.labels[file.lowered.index(label)]
            raise TableError(
                f"{file.path}: column {spelling!r} holds {value!r} in line {row + 1 + file.skip}; expected a number"
            ) from None
    return result


def frames(file: TextFile, columns: dict[str, NDArray[Any]], label: str, *, first: int) -> NDArray[np.int64]:
    """A frame column, counted from 0.

    Args:
        first: number of the format's first frame.

    Raises:
        TableError: a frame is no whole number or lies before the first.
    """
    values = numbers(file, columns, label)
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(values) & (values == np.floor(values))
    if not whole.all():
        row = int(np.argmin(whole))
        raise TableError(
            f"{file.path}: frame is {values[row]} in line {row + 1 + file.skip}; expected whole numbers from {first}"
        )
    if len(values) and values.min() < first:
        row = int(np.argmin(values))
        raise TableError(
            f"{file.path}: frame is {values[row]:.0f} in line {row + 1 + file.skip}, but this format counts "
            f"from {first}; "
            "name the file's own format with format=, or shift its frames"
        )
    return values.astype(np.int64) - first


def build(file: TextFile, kind: type[Emitters], columns: dict[str, Any]) -> Table:
    """The table, with the file named in what its checks say."""
    try:
        return kind(**columns)
    except ValueError as error:
        raise TableError(f"{file.path}: {error}") from None


def missing(file: TextFile, wanted: Sequence[str]) -> TableError:
    names = " and ".join(repr(name) for name in wanted)
    found = ", ".join(repr(label) for label in file.labels)
    return TableError(f"{file.path}: column {names} is missing; found {found}")


def write_columns(path: Path, columns: dict[str, NDArray[Any]], *, quoted_header: bool = False) -> None:
    """Comma-separated text; numbers in the shortest form that reads back exactly, unknown ones as nan."""
    header = ",".join(f'"{name}"' if quoted_header else name for name in columns)
    with open(path, "wb") as file:
        file.write(header.encode() + b"\n")
        append_columns(file, columns)


def append_columns(file: BinaryIO, columns: dict[str, NDArray[Any]]) -> None:
    """Rows as `write_columns` writes them, at the end of an open file."""
    arrays = {name: pa.array(values) for name, values in columns.items()}
    pyarrow.csv.write_csv(pa.table(arrays), file, pyarrow.csv.WriteOptions(include_header=False))
