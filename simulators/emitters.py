"""Tables of molecules: `Emitters` (the truth) and `Localizations` (what was found).

Conventions of the whole project. Origin at the outer corner of pixel [0, 0]; x along columns, y along rows,
nm, so the centre of pixel (row i, column j) is at x = (j + 0.5) * pixel, y = (i + 0.5) * pixel. Frames count
from 0. Photons are those that reach the sensor in that frame, before quantum efficiency. z is 0 at focus,
nm. One row per molecule and frame.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

Column = npt.NDArray[Any]
ColumnLike = npt.ArrayLike


@dataclass(frozen=True, kw_only=True, eq=False)
class Emitters:
    """Truth: a row per molecule and frame.

    Every column becomes a one-dimensional array of the same length; a scalar is repeated. `frame` and `id`
    are int64, the others float64. Left out, `z_nm` is 0, `photons` and `background` are nan (unknown) and
    `id` counts rows.

    Args:
        frame: frame number, from 0.
        x_nm: position along columns, nm from the outer corner of the first pixel.
        y_nm: position along rows, nm.
        z_nm: height above the focus, nm.
        photons: photons of this molecule that reach the sensor in this frame.
        background: background under the molecule, photons per pixel.
        id: number of the molecule; equal in all frames where it is on.

    Raises:
        ValueError: columns differ in length, a position is not finite, or a frame is negative or no whole
            number.

    Example:
        >>> table = Emitters(frame=[0, 0, 1], x_nm=[50, 150, 50], y_nm=50.0)
        >>> len(table), table.y_nm.tolist(), table.pick(table.frame == 0).id.tolist()
        (3, [50.0, 50.0, 50.0], [0, 1])
    """

    frame: Column = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    x_nm: Column = dataclasses.field(default_factory=lambda: np.zeros(0))
    y_nm: Column = dataclasses.field(default_factory=lambda: np.zeros(0))
    z_nm: Column = None  # type: ignore[assignment]
    photons: Column = None  # type: ignore[assignment]
    background: Column = None  # type: ignore[assignment]
    id: Column = None  # type: ignore[assignment]

    _integer: ClassVar[tuple[str, ...]] = ("frame", "id")
    _finite: ClassVar[tuple[str, ...]] = ("x_nm", "y_nm", "z_nm")
    _default: ClassVar[dict[str, float]] = {"z_nm": 0.0}

    if TYPE_CHECKING:  # columns may be given as anything array-like; they are arrays afterwards

        def __init__(self, **columns: ColumnLike | None) -> None: ...

    def __post_init__(self) -> None:
        kind = type(self).__name__
        columns: dict[str, Column] = {}
        for name in self.columns():
            value = getattr(self, name)
            if value is None:
                continue
            try:
                array = np.asarray(value)
                if array.dtype == object or array.dtype.kind not in "biuf":
                    array = array.astype(np.float64)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{kind}: column {name!r} does not hold numbers: {error}") from None
            if array.ndim > 1:
                raise ValueError(
                    f"{kind}: column {name!r} has shape {array.shape}; give one dimension, one value per row"
                )
            columns[name] = array
        lengths = {name: len(array) for name, array in columns.items() if array.ndim == 1}
        rows = max(lengths.values(), default=1)
        if any(length == 0 for length in lengths.values()):
            rows = 0
        wrong = {name: length for name, length in lengths.items() if length != rows}
        if wrong:
            raise ValueError(
                f"{kind}: columns differ in length: {', '.join(f'{n} {k}' for n, k in lengths.items())}; "
                "give one value per row, or a single number for all rows"
            )
        for name in self.columns():
            if name not in columns:
                default = np.arange(rows) if name == "id" else self._default.get(name, np.nan)
                columns[name] = np.asarray(default)
            array = np.broadcast_to(columns[name], (rows,))
            if name in self._integer:
                array = self._whole(kind, name, array)
            else:
                array = np.array(array, dtype=np.float64, order="C")
            object.__setattr__(self, name, array)
        for name in self._finite:
            bad = ~np.isfinite(getattr(self, name))
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise ValueError(
                    f"{kind}: {name} is {getattr(self, name)[row]} in row {row}; positions must be finite, nm"
                )
        if rows and self.frame.min() < 0:
            row = int(np.argmin(self.frame))
            raise ValueError(f"{kind}: frame is {self.frame[row]} in row {row}; frames count from 0")

    @staticmethod
    def _whole(kind: str, name: str, array: Column) -> Column:
        if array.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                bad = ~(np.isfinite(array) & (array == np.floor(array)))
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise ValueError(f"{kind}: {name} is {array[row]} in row {row}; expected whole numbers")
        return np.array(array, dtype=np.int64, order="C")

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(field.name for field in dataclasses.fields(cls))

    def __len__(self) -> int:
        return len(self.frame)

    def pick(self, which: npt.ArrayLike | slice) -> Self:
        """The rows of a boolean mask, of row numbers (in that order) or of a slice."""
        if not isinstance(which, slice):
            which = np.asarray(which)
            if which.size == 0 and which.dtype != bool:
                which = which.astype(np.int64)
            if which.dtype == bool and which.shape != (len(self),):
                raise ValueError(
                    f"mask has shape {which.shape}; the table has {len(self)} rows, so give ({len(self)},)"
                )
        return self._from_columns({name: getattr(self, name)[which] for name in self.columns()})

    def sorted(self) -> Self:
        """The same rows by frame, then id; rows that tie keep their order."""
        return self.pick(np.lexsort((self.id, self.frame)))

    def replace(self, **columns: ColumnLike) -> Self:
        """The same table with some columns exchanged.

        Example:
            >>> Emitters(frame=[0], x_nm=[1.0], y_nm=[2.0]).replace(x_nm=[5.0]).x_nm.tolist()
            [5.0]
        """
        unknown = sorted(set(columns) - set(self.columns()))
        if unknown:
            raise ValueError(f"no column {', '.join(map(repr, unknown))}; the columns are {', '.join(self.columns())}")
        return type(self)(**{**{name: getattr(self, name) for name in self.columns()}, **columns})

    @classmethod
    def empty(cls) -> Self:
        """A table without rows."""
        return cls()

    @classmethod
    def concatenate(cls, tables: Iterable[Self]) -> Self:
        """Tables one below the other; `id` is kept as it is."""
        tables = list(tables)
        if not tables:
            return cls.empty()
        return cls._from_columns({n: np.concatenate([getattr(t, n) for t in tables]) for n in cls.columns()})

    @classmethod
    def from_frame(cls, table: pd.DataFrame) -> Self:
        """From a pandas DataFrame; columns of other names are ignored.

        Raises:
            ValueError: `frame`, `x_nm` or `y_nm` is missing.
        """
        missing = [name for name in ("frame", "x_nm", "y_nm") if name not in table.columns]
        if missing:
            raise ValueError(
                f"column {', '.join(map(repr, missing))} is missing; "
                f"found {', '.join(map(repr, table.columns))}. "
                "Rename the columns, or read the file with harness.io.read_table"
            )
        return cls(**{name: table[name].to_numpy() for name in cls.columns() if name in table.columns})

    def to_frame(self) -> pd.DataFrame:
        """As a pandas DataFrame, a column each."""
        import pandas as pd

        return pd.DataFrame({name: getattr(self, name) for name in self.columns()})

    @classmethod
    def _from_columns(cls, columns: dict[str, Column]) -> Self:
        """Columns that were checked before: no second check."""
        table = cls.__new__(cls)
        for name, array in columns.items():
            object.__setattr__(table, name, array)
        return table


@dataclass(frozen=True, kw_only=True, eq=False)
class Localizations(Emitters):
    """What was found: the columns of `Emitters`, with probability and standard errors.

    Left out, the further columns are nan. `z_nm` may be nan: a 2D method does not say.

    Args:
        probability: 0..1, how sure the method is that there is a molecule.
        x_sigma_nm: standard error of `x_nm`, nm; likewise y and z.
        photons_sigma: standard error of `photons`; `background_sigma` likewise.
    """

    probability: Column = None  # type: ignore[assignment]
    x_sigma_nm: Column = None  # type: ignore[assignment]
    y_sigma_nm: Column = None  # type: ignore[assignment]
    z_sigma_nm: Column = None  # type: ignore[assignment]
    photons_sigma: Column = None  # type: ignore[assignment]
    background_sigma: Column = None  # type: ignore[assignment]

    _finite: ClassVar[tuple[str, ...]] = ("x_nm", "y_nm")
    _default: ClassVar[dict[str, float]] = {}

    if TYPE_CHECKING:

        def __init__(self, **columns: ColumnLike | None) -> None: ...
