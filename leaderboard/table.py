"""Records -> tables: tidy frame, ranking, Markdown and CSV. The rules of the ranking are in `leaderboard.ranking`."""

import csv
import io
import json
import math
import unicodedata
from collections.abc import Iterable
from typing import Any

import pandas as pd

from .labels import all_labels
from .ranking import Board, make_board
from .record import WHOLE_NUMBERS, Result, flat

_RENAMED = {
    ("model", "name"): "model",
    ("model", "tag"): "tag",
    ("dataset", "name"): "dataset",
    ("runtime", "name"): "runtime",
    ("runtime", "precision"): "runtime_arithmetic",
    ("settings", "precision"): "score_arithmetic",
    ("agreement", "frames"): "agreement_frames",
    ("environment", "torch"): "torch_version",
    ("environment", "onnxruntime"): "onnxruntime_version",
    ("environment", "python"): "python_version",
    ("environment", "smlm_zoo"): "smlm_zoo_version",
}


def results_frame(results: Iterable[Result]) -> pd.DataFrame:
    """Tidy table, one row per record, newest last.

    Columns: `record`, `entry` (the model as named in the other tables), `condition`, `engine`,
    then every field.
    The three fields called precision become `precision` (the score, 0..1), `score_arithmetic` and
    `runtime_arithmetic`; `options` is JSON text. Missing numbers are NaN.
    """
    results = list(results)
    rows = []
    for result, entry, condition, engine in zip(results, *all_labels(results), strict=True):
        row: dict[str, Any] = {"record": result.id, "entry": entry, "condition": condition, "engine": engine}
        for (section, name), value in flat(result).items():
            value = json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
            row[_RENAMED.get((section, name), name)] = value
        rows.append((result.when, row))
    rows.sort(key=lambda pair: pair[0])
    frame = pd.DataFrame([row for _, row in rows])
    whole = {_RENAMED.get(key, key[1]): "Int64" for key in WHOLE_NUMBERS}
    return frame.astype({column: kind for column, kind in whole.items() if column in frame})


def summary(results: Iterable[Result] | Board) -> pd.DataFrame:
    """One row per model, best first; of the first group of conditions, 2D and matched where there is one.

    Columns: `place` (1 is best; missing without a mean), `model`, `efficiency DATASET` for each dataset,
    `mean_efficiency`, `mean_rank`, `ms ENGINE` for each runtime (median milliseconds per 64x64 frame),
    `parameters`, `macs_64`. A missing result leaves its cell, the mean and the mean rank empty (NaN).
    """
    board = (results if isinstance(results, Board) else make_board(results)).main
    rows = []
    for place, entry in enumerate(board.entries, start=1):
        model = board.of_entry[entry].model
        mean = board.mean(entry)
        row: dict[str, Any] = {"place": math.nan if math.isnan(mean) else place, "model": entry}
        row |= {f"efficiency {condition}": board.score(entry, condition) for condition in board.conditions}
        row |= {"mean_efficiency": mean, "mean_rank": board.mean_rank(entry)}
        row |= {f"ms {engine}": board.ms(entry, engine) for engine in board.engines}
        row |= {"parameters": model.parameters, "macs_64": model.macs_64}
        rows.append(row)
    frame = pd.DataFrame(rows, columns=None if rows else ["place", "model", "mean_efficiency", "mean_rank"])
    return frame.astype({"place": "Int64", **{c: "Int64" for c in ("parameters", "macs_64") if c in frame}})


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no new cell or line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*[]|~$#!" else c for c in text)


def to_markdown(frame: pd.DataFrame, *, digits: int = 1) -> str:
    """A table as GitHub Markdown; numbers to the right, whole numbers whole, missing values as a dash."""
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame.columns]
    head = [escape_markdown(str(column)) for column in frame.columns]
    lines = [head, ["--:" if right else ":--" for right in numeric]]
    lines += [[_cell(value, digits) for value in row] for row in frame.itertuples(index=False)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any, digits: int) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, str):
        return escape_markdown(value) or "-"
    if isinstance(value, float):
        return f"{value:,.{digits}f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"
    if isinstance(value, int) or hasattr(value, "__index__"):
        return f"{int(value):,}"
    return escape_markdown(str(value))


def escape_csv(value: Any) -> Any:
    """A cell that a spreadsheet takes as text: one line, an apostrophe before what begins like a formula."""
    if not isinstance(value, str):
        return value
    value = value.replace("\r", " ").replace("\n", " ").replace("\t", " ")
    first = unicodedata.normalize("NFKC", value.lstrip()[:1])
    return f"'{value}" if first in {"=", "+", "-", "@"} else value


def to_csv(frame: pd.DataFrame) -> str:
    """A table as CSV (UTF-8, comma, header, full float digits); missing values are empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([escape_csv(str(column)) for column in frame.columns])
    for row in frame.itertuples(index=False):
        writer.writerow(["" if _missing(value) else escape_csv(value) for value in row])
    return out.getvalue()


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
