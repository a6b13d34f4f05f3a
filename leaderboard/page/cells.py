"""Tables as plain values for the template: nothing here writes HTML."""

import math
from dataclasses import dataclass, field

DASH, MINUS, TIMES, DOT = "\u2013", "\u2212", "\u00d7", "\u00b7"


@dataclass(kw_only=True)
class Cell:
    """`text` is shown, `value` sorts (empty last), `bar` (0..1) is drawn below, `small` is a second line."""

    text: str
    value: float | str | None = None
    bar: float | None = None
    small: str = ""
    best: bool = False
    help: str = ""

    @property
    def sort(self) -> str:
        return "" if self.value is None else repr(self.value) if isinstance(self.value, float) else str(self.value)


@dataclass(kw_only=True)
class Column:
    """`better` is "high" or "low" where the best cell is set in bold; `start` how the first click sorts."""

    label: str
    unit: str = ""
    help: str = ""
    better: str = ""
    numeric: bool = True

    @property
    def start(self) -> str:
        return "descending" if self.better == "high" else "ascending"


@dataclass(kw_only=True)
class Mark:
    """A small label beside a model's name."""

    text: str
    help: str = ""
    warning: bool = False


@dataclass(kw_only=True)
class Row:
    """`anchor` leads to the model's page; rows that are not `ranked` (baselines, noisy times) are never the best."""

    entry: str
    color: str
    cells: list[Cell]
    anchor: str = ""
    marks: list[Mark] = field(default_factory=list)
    ranked: bool = True


@dataclass(kw_only=True)
class Table:
    """`head` is the title of the first column."""

    label: str
    note: str
    columns: list[Column]
    rows: list[Row] = field(default_factory=list)
    sorted_by: int | None = None
    head: str = "Model"

    def without_empty_columns(self) -> "Table":
        """The same without the columns that have no value in any row."""
        keep = [i for i in range(len(self.columns)) if any(row.cells[i].value is not None for row in self.rows)]
        for row in self.rows:
            row.cells = [row.cells[i] for i in keep]
        self.columns = [self.columns[i] for i in keep]
        if self.sorted_by is not None:
            self.sorted_by = keep.index(self.sorted_by) if self.sorted_by in keep else None
        return self

    def with_best(self) -> "Table":
        """The same with the best cell of each column marked."""
        for i, column in enumerate(self.columns):
            rows = [r for r in self.rows if r.ranked and isinstance(r.cells[i].value, float)]
            if not column.better or len(rows) < 2:
                continue
            pick = max if column.better == "high" else min
            best = pick(r.cells[i].value for r in rows)  # type: ignore[type-var]
            for row in rows:
                row.cells[i].best = row.cells[i].value == best
        return self


def number(value: float | None, digits: int = 1) -> Cell:
    """Fixed digits; a dash for what is missing."""
    if value is None or math.isnan(value):
        return Cell(text=DASH)
    text = f"{value:,.{digits}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")
    return Cell(text=text.replace("-", MINUS), value=float(value))


def between(value: float | None, low: float | None, high: float | None, digits: int = 1) -> Cell:
    """A number with its interval below."""
    cell = number(value, digits)
    if cell.value is not None and low is not None and high is not None:
        cell.small = f"{number(low, digits).text} to {number(high, digits).text}"
    return cell


def whole(value: int | None) -> Cell:
    """A whole number with its thousands apart."""
    return Cell(text=DASH) if value is None else Cell(text=f"{value:,}", value=float(value))


def whole_or_not(value: float | None) -> Cell:
    """A number as short as it can be."""
    return Cell(text=DASH) if value is None else Cell(text=f"{value:g}", value=value)


def three(value: float | None) -> Cell:
    """Three significant digits."""
    if value is None or math.isnan(value):
        return Cell(text=DASH)
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return Cell(
        text=f"{value:,.{min(digits, 6)}f}" if abs(value) >= 1e-4 or value == 0 else f"{value:.1e}",
        value=float(value),
    )


def scaled(value: float | None) -> Cell:
    """1,234,567 -> 1.23 M."""
    if value is None:
        return Cell(text=DASH)
    for size, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return Cell(text=three(value / size).text + suffix, value=float(value))
    return Cell(text=f"{value:g}", value=float(value))


def percent(value: float | None) -> Cell:
    """A share as percent."""
    return number(None if value is None else 100 * value)


def efficiency(value: float, low: float | None = None, high: float | None = None) -> Cell:
    """An efficiency with its interval and a bar."""
    cell = between(value, low, high)
    if cell.value is not None:
        cell.bar = min(1.0, max(0.0, value / 100))
    return cell


def words(text: str) -> Cell:
    """Text, sorted without regard to case."""
    return Cell(text=text or DASH, value=text.lower() or None)


def count(n: int, noun: str) -> str:
    """1 model, 2 models."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
