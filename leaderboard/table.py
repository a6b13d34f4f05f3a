"""Records -> tables: tidy frame, ranking, Markdown and CSV.

Rules of the ranking (they hold for tables, plots and page):

- Records are compared only on the same test: dataset, recipe hash, size, seed, tolerance, border, quantile,
  wobble and matching rule. Records that differ in one of these become columns of their own.
- Where a cell has several records, torch counts before other runtimes, then the newest date.
- Where every record of a column holds its counts by blocks of frames, models share a rank unless the paired block
  bootstrap, with Holm's correction, tells them apart (`leaderboard.statistics`); otherwise only equal scores share one.
- A model that lacks a score on one of the columns gets no mean and no mean rank.
- Models are ordered by mean efficiency, then mean rank, then name; those without a mean come last.
"""

import csv
import io
import json
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .record import WHOLE_NUMBERS, Result, flat
from .statistics import Blocks, Rank, compare, ranks

# Okabe-Ito and seaborn's colour-blind set, ordered so that the first seven stand on white and on black.
PALETTE = (
    "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc",
    "#56b4e9", "#8c8c8c", "#ca9161", "#b8a800", "#e58fc9",
)  # fmt: skip

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
    for result, entry, condition, engine in zip(results, *_all_labels(results), strict=True):
        row: dict[str, Any] = {"record": result.id, "entry": entry, "condition": condition, "engine": engine}
        for (section, name), value in flat(result).items():
            value = json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
            row[_RENAMED.get((section, name), name)] = value
        rows.append((result.when, row))
    rows.sort(key=lambda pair: pair[0])
    frame = pd.DataFrame([row for _, row in rows])
    whole = {_RENAMED.get(key, key[1]): "Int64" for key in WHOLE_NUMBERS}
    return frame.astype({column: kind for column, kind in whole.items() if column in frame})


@dataclass(frozen=True, kw_only=True)
class Board:
    """The records sorted into cells. `entries` are in the order of the ranking."""

    entries: list[str]
    conditions: list[str]
    engines: list[str]
    results: list[Result]
    of_entry: dict[str, Result]
    scored: dict[tuple[str, str], Result]
    timed: dict[tuple[str, str], Result]
    shared: dict[str, dict[str, Rank]]

    @property
    def colors(self) -> dict[str, str]:
        """A colour for each entry; depends on the names only, so that it stays when ranks change."""
        return {entry: PALETTE[i % len(PALETTE)] for i, entry in enumerate(sorted(self.entries))}

    def score(self, entry: str, condition: str, name: str = "efficiency") -> float:
        """A score of one cell; NaN where it was not measured."""
        result = self.scored.get((entry, condition))
        value = getattr(result.scores, name) if result and result.scores else None
        return math.nan if value is None else float(value)

    def ms(self, entry: str, engine: str) -> float:
        """Median milliseconds per 64x64 frame; NaN where it was not measured."""
        result = self.timed.get((entry, engine))
        value = result.timing.ms_p50 if result and result.timing else None
        return math.nan if value is None else float(value)

    def mean(self, entry: str) -> float:
        """Mean efficiency over all conditions; NaN where one is missing."""
        values = [self.score(entry, condition) for condition in self.conditions]
        return math.fsum(values) / len(values) if values and not any(map(math.isnan, values)) else math.nan

    def rank(self, entry: str, condition: str) -> float:
        """Rank by efficiency on one condition, 1 is best; those that share it have the mean place; NaN if missing."""
        if condition in self.shared:
            place = self.shared[condition].get(entry)
            return math.nan if place is None else place.mean
        own = self.score(entry, condition)
        if math.isnan(own):
            return math.nan
        others = [self.score(other, condition) for other in self.entries]
        return 1 + sum(v > own for v in others) + (sum(v == own for v in others) - 1) / 2

    def mean_rank(self, entry: str) -> float:
        """Mean of the ranks over all conditions; NaN where one is missing."""
        values = [self.rank(entry, condition) for condition in self.conditions]
        return math.fsum(values) / len(values) if values and not any(map(math.isnan, values)) else math.nan


def make_board(results: Iterable[Result]) -> Board:
    """Sort records into cells (entry x condition, entry x engine) by the rules at the top of this file."""
    results = sorted(results, key=lambda r: (r.when, r.id))
    entries, conditions, engines = _all_labels(results)
    scored: dict[tuple[str, str], Result] = {}
    timed: dict[tuple[str, str], Result] = {}
    of_entry: dict[str, Result] = {}
    density: dict[str, float] = {}
    for result, entry, condition, engine in zip(results, entries, conditions, engines, strict=True):
        of_entry[entry] = result
        if result.timing and result.timing.ms_p50 is not None:
            timed[entry, engine] = result
        if result.scores and result.scores.efficiency is not None:
            density[condition] = math.inf if result.dataset.density is None else result.dataset.density
            before = scored.get((entry, condition))
            if before is None or result.runtime.name == "torch" or before.runtime.name != "torch":
                scored[entry, condition] = result
    board = Board(
        entries=sorted(of_entry),
        conditions=sorted(density, key=lambda name: (density[name], name)),
        engines=sorted({engine for _, engine in timed}, key=lambda name: (not name.startswith("torch"), name)),
        results=results,
        of_entry=of_entry,
        scored=scored,
        timed=timed,
        shared={condition: places for condition in density if (places := _shared_ranks(scored, condition))},
    )

    def order(entry: str) -> tuple[float, float, str]:
        mean, rank = board.mean(entry), board.mean_rank(entry)
        return (math.inf, math.inf, entry) if math.isnan(mean) else (-mean, rank, entry)

    board.entries.sort(key=order)
    return board


def _shared_ranks(scored: dict[tuple[str, str], Result], condition: str) -> dict[str, Rank]:
    """Ranks from the paired bootstrap on one condition; empty where a record lacks its blocks or cuts differ."""
    of_model: dict[str, Blocks] = {}
    for (entry, where), result in scored.items():
        if where == condition:
            try:
                of_model[entry] = Blocks.from_dict(result.detail.blocks if result.detail else {})
            except (ValueError, TypeError):
                return {}
    if len({(len(b), b.frames, b.dimensions) for b in of_model.values()}) != 1:
        return {}
    if len(next(iter(of_model.values()))) < 2:
        return {}
    return ranks(of_model, compare(dict(sorted(of_model.items())), rng=np.random.default_rng(0)))


def summary(results: Iterable[Result]) -> pd.DataFrame:
    """One row per model, best first.

    Columns: `place` (1 is best; missing without a mean), `model`, `efficiency DATASET` for each dataset,
    `mean_efficiency`, `mean_rank`, `ms ENGINE` for each runtime (median milliseconds per 64x64 frame),
    `parameters`, `macs_64`. A missing result leaves its cell, the mean and the mean rank empty (NaN).
    """
    board = make_board(results)
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


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, value) that no other beats in both, by rising cost; NaN points never."""
    best, front = -math.inf, []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        cost, value = points[i]
        if not math.isnan(cost) and value > best:
            best = value
            front.append(i)
    return front


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


def _entry_key(result: Result) -> tuple[str, ...]:
    model = result.model
    options = json.dumps(model.options, sort_keys=True) if model.options else ""
    return (model.name, model.variant, model.tag, model.weights_sha256[:8], options)


def _condition_key(result: Result) -> tuple[str, ...]:
    data, rule = result.dataset, result.settings
    size = "" if data.height is None or data.width is None else f"{data.height}x{data.width}"
    return (
        data.name,
        "" if data.frames is None else f"{data.frames} frames",
        size,
        "" if data.seed is None else f"seed {data.seed}",
        "" if not data.recipe_hash else f"recipe {data.recipe_hash[:8]}",
        "" if rule.tolerance_nm is None else f"{rule.tolerance_nm:g} nm",
        "" if rule.border_nm is None else f"border {rule.border_nm:g} nm",
        "" if rule.quantile is None else f"quantile {rule.quantile:g}",
        "" if rule.wobble in {"", "none"} else f"wobble {rule.wobble}",
        rule.rule,
    )


def _engine_key(result: Result) -> tuple[str, ...]:
    runtime = result.runtime
    threads = "" if runtime.threads is None else f"{runtime.threads} threads"
    return (runtime.name, runtime.precision, runtime.provider, threads, result.environment.machine)


def _all_labels(results: list[Result]) -> tuple[list[str], list[str], list[str]]:
    """Labels of model, test and runtime of every record; only what was scored or timed splits a label."""
    scored = [r.scores is not None and r.scores.efficiency is not None for r in results]
    timed = [r.timing is not None and r.timing.ms_p50 is not None for r in results]
    conditions = [_condition_key(r) if s else (r.dataset.name,) for r, s in zip(results, scored, strict=True)]
    engines = [_engine_key(r) if t else (r.runtime.name,) for r, t in zip(results, timed, strict=True)]
    return _labels([_entry_key(r) for r in results]), _labels(conditions), _labels(engines)


def _labels(keys: list[tuple[str, ...]]) -> list[str]:
    """The shortest label that tells each key from the others: the name, and what differs under that name."""
    by_name: dict[str, set[tuple[str, ...]]] = {}
    for key in keys:
        by_name.setdefault(key[0], set()).add(key)
    label_of: dict[tuple[str, ...], str] = {}
    taken: set[str] = set()
    for group in by_name.values():
        full = [key for key in group if len(key) > 1]
        shown = [len(set(part)) > 1 for part in zip(*full, strict=True)]
        for key in sorted(group):
            parts = [part for part, differs in zip(key[1:], shown[1:], strict=False) if differs and part]
            label = plain = " · ".join([key[0], *parts])
            number = 1
            while label in taken:  # a name that imitates another label
                number += 1
                label = f"{plain} ({number})"
            if len(key) > 1:
                taken.add(label)
            label_of[key] = label
    return [label_of[key] for key in keys]
