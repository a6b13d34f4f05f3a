"""The page of a comparison of two models: differences with intervals, blocks of frames, pictures side by side."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..comparison import ALL, Difference, Paired
from ..ranking import PALETTE, Board, make_board
from ..record import Result
from ..statistics import Blocks
from . import render
from .cells import Cell, Column, Row, Table, between, number, words
from .models import _ticks
from .pictures import MAX_PAGE_BYTES, Picture, load, strips

MOST_BARS = 200
_NAMES = {
    "efficiency": ("Efficiency", "points"),
    "jaccard": ("Jaccard index", "points"),
    "rmse_lateral_nm": ("RMSE, lateral", "nm"),
    "rmse_axial_nm": ("RMSE, axial", "nm"),
}


def build_comparison(
    paired: Paired,
    output_folder: str | Path,
    *,
    records: Sequence[Result] = (),
    pictures: Sequence[Picture | Mapping[str, Any]] = (),
    command: str = "",
) -> Path:
    """Write `index.html`: the paired answer for two models; it needs no other file and no network.

    Args:
        paired: from `leaderboard.compare`.
        output_folder: made if it is not there.
        records: of both, for the scores under the pictures.
        pictures: as for `build_page`.
        command: repeats the comparison.

    Raises:
        ValueError: a picture is no PNG or larger than 16 MB.
        OSError: a picture cannot be read or the folder cannot be written.
    """
    board: Board = make_board(records)
    shown, left_out = load(pictures)
    return render(
        "comparison.html.j2",
        Path(output_folder) / "index.html",
        scripts=("page.js", "pictures.js"),
        plotly=False,
        title=f"{paired.first} against {paired.second}",
        paired=paired,
        colors=(PALETTE[0], PALETTE[1]),
        tables=[_table(paired, score) for score in _NAMES if any(d.score == score for d in paired.differences)],
        forest=_forest(paired),
        blocks=[_bars(dataset, *both) for dataset, both in paired.blocks.items()],
        strips=strips(board, shown, {}),
        left_out=left_out,
        most_pictures=f"{MAX_PAGE_BYTES / 1e6:g} MB",
        command=command,
    )


def p_text(value: float) -> str:
    """A p-value as people read it.

    Example:
        >>> p_text(0.00049), p_text(0.0312), p_text(0.5)
        ('< 0.001', '0.031', '0.50')
    """
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _table(paired: Paired, score: str) -> Table:
    label, unit = _NAMES[score]
    columns = [
        Column(label=paired.first, unit=unit),
        Column(label=paired.second, unit=unit),
        Column(label="Difference", unit="with 95 % interval"),
        Column(label="p", help="two-sided, from resampled blocks"),
        Column(label="p, corrected", help="for the number of datasets, by Holm's method"),
        Column(label="Better", numeric=False),
    ]
    table = Table(label=label, note="", columns=columns, head="Dataset")
    names = {"first": paired.first, "second": paired.second, "": "cannot be told apart"}
    for one in paired.differences:
        if one.score == score:
            cells = [
                number(one.first),
                number(one.second),
                between(one.delta, _known(one.low), _known(one.high)),
                Cell(text=p_text(one.p_value), value=one.p_value),
                Cell(text=p_text(one.adjusted), value=one.adjusted),
                words(names[one.better]),
            ]
            cells[5].best = bool(one.better)
            table.rows.append(Row(entry="All datasets" if one.dataset == ALL else one.dataset, color="", cells=cells))
    return table


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _forest(paired: Paired) -> dict[str, Any]:
    """Differences of efficiency on one axis that holds all their intervals."""
    rows = [d for d in paired.differences if d.score == "efficiency" and not math.isnan(d.low)]
    reach = 1.1 * max([1.0, *(abs(v) for d in rows for v in (d.low, d.high, d.delta))])

    def place(value: float) -> float:
        return 50 + 50 * value / reach

    def row(one: Difference) -> dict[str, Any]:
        return {
            "label": "All datasets" if one.dataset == ALL else one.dataset,
            "whole": one.dataset == ALL,
            "low": place(one.low),
            "high": place(one.high),
            "at": place(one.delta),
            "text": number(one.delta).text,
            "better": one.better,
        }

    ticks = _ticks(reach)
    digits = 0 if ticks[1] >= 1 else 1
    return {
        "rows": [row(one) for one in rows],
        "ticks": [
            (place(sign * tick), number(sign * tick, digits).text, bool(i % 2))
            for i, tick in enumerate(ticks)
            for sign in ((1, -1) if tick else (1,))
        ],
    }


def _bars(dataset: str, first: Blocks, second: Blocks) -> dict[str, Any]:
    """Difference of efficiency block by block; neighbouring blocks together where there are very many."""
    step = math.ceil(len(first) / MOST_BARS)
    values = _by_block(first, step) - _by_block(second, step)
    top = float(np.max(np.abs(values), initial=1.0))
    width = 100 / len(values)
    return {
        "label": dataset,
        "frames": first.frames * step,
        "number": len(values),
        "ahead": int((values > 0).sum()),
        "behind": int((values < 0).sum()),
        "top": number(top, 0).text,
        "last": first.frames * len(first),
        "mean": 20 - 18 * float(values.mean()) / top,
        "bars": [
            {
                "x": i * width,
                "width": 0.8 * width,
                "y": 20 - 18 * max(v, 0.0) / top,
                "height": 18 * abs(v) / top,
                "kind": "first" if v > 0 else "second",
            }
            for i, v in enumerate(values.tolist())
        ],
    }


def _by_block(blocks: Blocks, step: int) -> np.ndarray:
    """Efficiency of every `step` blocks together."""
    out = []
    for begin in range(0, len(blocks), step):
        part = slice(begin, begin + step)
        sums = {n: [float(getattr(blocks, n)[part].sum())] for n in ("tp", "fp", "fn", "lateral_nm2", "axial_nm2")}
        one = Blocks(**sums, dimensions=blocks.dimensions, frames=blocks.frames)  # type: ignore[arg-type]
        out.append(one.scores()["efficiency"] if sum(sums[n][0] for n in ("tp", "fp", "fn")) else 0.0)
    return np.array(out)
