"""Numbers of the interactive charts: accuracy against speed, curves, scores over a condition's value."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from ..ranking import Board, Group
from .cells import DOT

MEAN = "Mean"
MOST_POINTS = 40
_CURVES = {
    "threshold": "threshold",
    "z": "height z (nm)",
    "photons": "photons of the molecule",
    "density": "emitters per µm² in the frame",
    "crowding": "other emitters within 500 nm",
}
_SCORES = {
    "efficiency": "efficiency",
    "efficiency_lateral": "efficiency, lateral",
    "jaccard": "Jaccard index (%)",
    "recall": "recall (%)",
    "precision": "precision (%)",
    "rmse_lateral_nm": "lateral RMSE (nm)",
    "rmse_axial_nm": "axial RMSE (nm)",
    "bias_z_nm": "bias in z (nm)",
}
_SWEPT = (
    "efficiency", "efficiency_low", "efficiency_high", "jaccard", "jaccard_low", "jaccard_high", "rmse_lateral_nm",
    "rmse_axial_nm",
)  # fmt: skip
_UNITS = {
    "density": "emitters per µm² and frame",
    "photons": "photons",
    "background": "background (photons per pixel)",
    "psf": "PSF wider by (%)",
    "defocus": "molecules higher by (nm)",
}


def charts(board: Board) -> dict[str, Any] | None:
    """Everything that the script draws; None if there is nothing to draw."""
    data = {"speed": _speed(board), "curves": _curves(board), "sweeps": _sweeps(board)}
    if not any(data.values()):
        return None
    base = [entry for entry in board.entries if board.of_entry[entry].model.baseline]
    return {
        "entries": board.entries,
        "engines": board.engines,
        "colors": board.colors,
        "baselines": base,
        **data,
    }


def _speed(board: Board) -> list[dict[str, Any]]:
    """One view for the mean of each group and one for each dataset of the first."""
    views: list[tuple[str, str, Callable[[str], float]]] = []
    for group in board.groups:
        part = board.part(group)
        name = MEAN if group is board.groups[0] else f"{MEAN} {group.label}"
        if len(group.conditions) > 1:
            views.append((name, f"mean efficiency, {group.label}", part.mean))
        if group is board.groups[0] or len(group.conditions) == 1:
            views += [(c, f"efficiency on {c}", partial(board.score, condition=c)) for c in group.conditions]
    out = []
    for label, axis, value in views:
        points = [
            (board.ms(entry, engine), value(entry), entry, engine)
            for entry in board.entries
            for engine in board.engines
            if board.ms(entry, engine) > 0 and not math.isnan(value(entry))
        ]
        if points:
            front = [points[i] for i in board.front(points)]
            out.append(
                {
                    "label": label,
                    "axis": axis,
                    "points": [
                        {"ms": p[0], "e": p[1], "entry": p[2], "engine": p[3], "noisy": board.noisy(p[2], p[3])}
                        for p in points
                    ],
                    "front": [[p[0], p[1]] for p in front],
                }
            )
    return out


def _curves(board: Board) -> list[dict[str, Any]]:
    """Per dataset and kind of curve: for every model the x values and each score over them."""
    out = []
    for condition in board.conditions:
        kinds: dict[str, dict[str, Any]] = {}
        for entry in board.entries:
            result = board.scored.get((entry, condition))
            given = result.detail.curves if result is not None and result.detail is not None else {}
            for kind, axis in _CURVES.items():
                line = _line(kind, given.get(kind))
                if line is not None:
                    kinds.setdefault(kind, {"label": kind, "axis": axis, "lines": {}})["lines"][entry] = line
        if not kinds:
            continue
        for one in kinds.values():
            names = {name for line in one["lines"].values() for name in line if name != "x"}
            one["scores"] = [[name, _SCORES[name]] for name in _SCORES if name in names]
        out.append({"label": condition, "kinds": [kinds[kind] for kind in _CURVES if kind in kinds]})
    return out


def _line(kind: str, rows: Any) -> dict[str, list[float | None]] | None:
    """Columns of one curve, thinned to `MOST_POINTS`; None where the record holds none that can be read."""
    if not isinstance(rows, list):
        return None
    rows = [row for row in rows if isinstance(row, dict)]
    points = [(x, row) for row in rows if (x := _place(kind, row)) is not None]
    if len(points) < 2:
        return None
    step = math.ceil(len(points) / MOST_POINTS)
    points = points[::step]
    line: dict[str, list[float | None]] = {"x": [_short(x) for x, _ in points]}
    for name in _SCORES:
        column = [_short(_number(row.get(name))) for _, row in points]
        if any(value is not None for value in column):
            line[name] = column
    return line if len(line) > 1 else None


def _place(kind: str, row: dict[str, Any]) -> float | None:
    """Where a row stands: the threshold, or the middle of the bin (crowding counts: its lower end)."""
    if kind == "threshold":
        return _number(row.get("threshold"))
    low, high = _number(row.get("low")), _number(row.get("high"))
    return low if high is None or low is None or kind == "crowding" else (low + high) / 2


def _sweeps(board: Board) -> list[dict[str, Any]]:
    """Scores over the values of a condition, with the ends of their intervals."""
    out = []
    for group in board.groups:
        for label, conditions in _series(board, group):
            lines: dict[str, dict[str, list[float | None]]] = {}
            for entry in board.entries:
                rows = []
                for condition in conditions:
                    result = board.scored.get((entry, condition))
                    if result is not None and result.scores is not None and result.dataset.value is not None:
                        rows.append((result.dataset.value, result.scores))
                if rows:
                    rows.sort(key=lambda row: row[0])
                    lines[entry] = {
                        "x": [_short(x) for x, _ in rows],
                        **{name: [_short(getattr(s, name)) for _, s in rows] for name in _SWEPT},
                    }
            names = [n for n in _SCORES if any(any(v is not None for v in line.get(n, ())) for line in lines.values())]
            out.append(
                {
                    "label": label,
                    "axis": _UNITS.get(group.condition, group.condition),
                    "scores": [[name, _SCORES[name]] for name in names],
                    "lines": lines,
                }
            )
    return out


def _series(board: Board, group: Group) -> list[tuple[str, list[str]]]:
    """Columns of one group that differ in their value: by the name of the movie where names repeat."""
    values: dict[str, dict[str, float]] = {}
    for (_, condition), result in board.scored.items():
        if condition in group.conditions and result.dataset.value is not None:
            values.setdefault(result.dataset.name, {})[condition] = result.dataset.value
    repeated = {name: of for name, of in values.items() if len(set(of.values())) > 1}
    if repeated:
        single = len(repeated) == 1
        return [(group.label if single else f"{group.label} {DOT} {name}", list(of)) for name, of in repeated.items()]
    everything = {condition: value for of in values.values() for condition, value in of.items()}
    return [(group.label, list(everything))] if len(set(everything.values())) > 1 else []


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _short(value: float | None) -> float | None:
    """Four significant digits are more than a screen shows."""
    return None if value is None else float(f"{value:.4g}")
