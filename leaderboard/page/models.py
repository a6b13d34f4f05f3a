"""The page of one model: its card, training recipe, scores by condition, reliability, failure cases."""

import math
import re
from typing import Any

from ..ranking import Board
from ..record import Result
from .cells import DASH, DOT, Cell, Column, Row, Table, between, count, number, percent, scaled, three, whole, words
from .rows import marks
from .tables import score_cell

MOST_LINES = 80
MOST_CASES = 12
MOST_POINTS = 300
_SHORT = 300


def anchors_of(board: Board) -> dict[str, str]:
    """Entry -> id of its page: letters, digits and dashes only, each once."""
    out: dict[str, str] = {}
    for entry in sorted(board.entries):
        base = "m-" + (re.sub(r"[^a-z0-9]+", "-", entry.lower()).strip("-")[:60] or "model")
        anchor, number_of = base, 1
        while anchor in out.values():
            number_of += 1
            anchor = f"{base}-{number_of}"
        out[entry] = anchor
    return out


def model_pages(
    board: Board, anchors: dict[str, str], backgrounds: dict[tuple[str, int], str]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """One page per model, in the order of the ranking.

    Args:
        backgrounds: (dataset, frame) -> picture of the raw frame.

    Returns:
        The pages, and the raw frames that failure cases show: `id`, `uri`.
    """
    used: dict[str, str] = {}
    names = {key: f"raw-{i}" for i, key in enumerate(backgrounds)}
    pages = []
    for i, entry in enumerate(board.entries):
        cases = _failures(board, entry, names)
        for case in cases:
            if case["background"]:
                key = next(k for k, name in names.items() if name == case["background"])
                used[case["background"]] = backgrounds[key]
        pages.append(
            {
                "entry": entry,
                "id": anchors[entry],
                "color": board.colors[entry],
                "marks": marks(board, entry),
                "facts": _facts(board, entry),
                "card": _card(board.of_entry[entry]),
                "training": _training(board, entry),
                "scores": _scores(board, entry),
                "times": _times(board, entry),
                "reliability": _reliability(board, entry),
                "failures": cases,
                "flags": _flags(board, entry),
                "commands": _commands(board, entry),
                "before": anchors[board.entries[i - 1]] if i else "",
                "after": anchors[board.entries[i + 1]] if i + 1 < len(board.entries) else "",
            }
        )
    return pages, [{"id": name, "uri": uri} for name, uri in used.items()]


def _own(board: Board, entry: str) -> list[tuple[str, Result]]:
    """(condition, record) of the model's scores, in the order of the tables."""
    return [(c, board.scored[entry, c]) for c in board.conditions if (entry, c) in board.scored]


def _facts(board: Board, entry: str) -> list[tuple[str, str]]:
    out = []
    for group in board.groups:
        part = board.part(group)
        if entry in part.entries and len(group.conditions) > 1:
            out.append((f"Mean efficiency, {group.label}", number(part.mean(entry)).text))
            out.append((f"Mean rank of {len(part.entries)}", number(part.mean_rank(entry)).text))
            break
    ms, _ = board.fastest(entry)
    m = board.of_entry[entry].model
    if not math.isnan(ms):
        out.append(("Fastest, ms per frame", three(ms).text))
    if m.parameters is not None:
        out.append(("Parameters", scaled(m.parameters).text))
    return out


def _card(result: Result) -> list[tuple[str, str]]:
    m = result.model
    rows = [
        ("Model", m.name),
        ("Variant", m.variant),
        ("Weights", m.tag),
        ("SHA-256", m.weights_sha256[:32]),
        ("Trained on", m.trained_on),
        ("Training seed", "" if m.training_seed is None else str(m.training_seed)),
        ("Frames it sees", "" if m.context_frames is None else f"{m.context_frames:,}"),
        ("Options", ", ".join(f"{k}={v}" for k, v in sorted(m.options.items()))),
        ("Parameters", "" if m.parameters is None else f"{m.parameters:,}"),
        ("Multiply-adds, 64x64 frame", "" if m.macs_64 is None else f"{m.macs_64:,}"),
        ("Receptive field, pixels", "" if m.receptive_field_px is None else f"{m.receptive_field_px:g}"),
        ("File, bytes", "" if m.size_bytes is None else f"{m.size_bytes:,}"),
        ("Grid floor, nm", "" if m.grid_floor_nm is None else f"{m.grid_floor_nm:.1f}"),
    ]
    return [(name, value[:_SHORT]) for name, value in rows if value]


def _training(board: Board, entry: str) -> list[tuple[str, str]]:
    """The newest card's own words on the training, one line for each value."""
    for _, result in sorted(_own(board, entry), key=lambda pair: pair[1].when, reverse=True):
        card = result.detail.card if result.detail is not None else {}
        if card:
            parts = {k: v for k, v in card.items() if k in ("training", "valid_range", "source", "licence", "summary")}
            lines = _flat(parts or card)
            return [(_plain(name), value) for name, value in lines[:MOST_LINES]]
    return []


def _flat(value: Any, name: str = "", depth: int = 0) -> list[tuple[str, str]]:
    """Nested values as lines of "a.b" and text, ranges as one line; what is None or empty is left out."""
    if isinstance(value, dict) and {"low", "high"} <= value.keys() <= {"low", "high", "scale"}:
        scale = f" ({value['scale']})" if value.get("scale") not in (None, "linear") else ""
        return [(name[:100], f"{value['low']} to {value['high']}{scale}"[:_SHORT])]
    if isinstance(value, dict) and depth < 6:
        return [line for k, v in value.items() for line in _flat(v, f"{name}.{k}" if name else str(k), depth + 1)]
    if value is None or value == "" or value == [] or value == {}:
        return []
    if isinstance(value, list):
        text = ", ".join(str(v) for v in value[:20])
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    return [(name[:100], text[:_SHORT])]


def _plain(name: str) -> str:
    name = name.removeprefix("training.").removeprefix("config.")
    return name.replace("_", " ").replace(".", f" {DOT} ")


def _scores(board: Board, entry: str) -> Table:
    columns = [
        Column(label="Rank"),
        Column(label="Efficiency"),
        Column(label="Jaccard", unit="%"),
        Column(label="Precision", unit="%"),
        Column(label="Recall", unit="%"),
        Column(label="RMSE", unit="nm"),
        Column(label="RMSE axial", unit="nm"),
        Column(label="Molecules", unit="true"),
        Column(label="Threshold"),
    ]
    table = Table(label="Scores by condition", note="", columns=columns, head="Dataset")
    for condition, result in _own(board, entry):
        s = result.scores
        if s is None:
            continue
        of = len([e for e in board.entries if (e, condition) in board.scored])
        place = Cell(text=board.place(entry, condition).replace("-", DASH), value=board.rank(entry, condition))
        place.small = f"of {of}"
        cells = [
            place,
            score_cell(board, entry, condition),
            between(s.jaccard, s.jaccard_low, s.jaccard_high),
            percent(s.precision),
            percent(s.recall),
            between(s.rmse_lateral_nm, s.rmse_lateral_low_nm, s.rmse_lateral_high_nm),
            number(s.rmse_axial_nm),
            whole(s.n_truth),
            three(result.settings.threshold),
        ]
        table.rows.append(Row(entry=condition, color="", cells=cells))
    return table.without_empty_columns()


def _times(board: Board, entry: str) -> Table:
    columns = [
        Column(label="Arithmetic", numeric=False),
        Column(label="Median", unit="ms / frame"),
        Column(label="p99", unit="ms"),
        Column(label="Throughput", unit="frames / s"),
        Column(label="Memory", unit="MB"),
    ]
    table = Table(label="Speed", note="", columns=columns, head="Runtime")
    for engine in board.engines:
        result = board.timed.get((entry, engine))
        if result is None or result.timing is None:
            continue
        t = result.timing
        median = three(t.ms_p50)
        median.small = "noisy" if t.noisy else ""
        cells = [
            words(result.runtime.precision),
            median,
            three(t.ms_p99),
            three(t.best_frames_per_second or t.frames_per_second),
            three(t.peak_memory_mb),
        ]
        table.rows.append(Row(entry=engine, color="", cells=cells))
    return table.without_empty_columns()


def _flags(board: Board, entry: str) -> list[tuple[str, str]]:
    return [(c, r.detail.flags) for c, r in _own(board, entry) if r.detail is not None and r.detail.flags]


def _commands(board: Board, entry: str) -> list[str]:
    own = [r for (e, _), r in (*board.scored.items(), *board.timed.items()) if e == entry and r.command]
    return list(dict.fromkeys(r.command for r in own))


def _reliability(board: Board, entry: str) -> list[dict[str, Any]]:
    """Per dataset: predicted sigma against the error that was made, in bins, with the shares within 1 and 2 sigma."""
    out = []
    for condition, result in _own(board, entry):
        given = result.detail.calibration if result.detail is not None else {}
        axes: list[dict[str, Any]] = []
        for axis in ("x", "y", "z"):
            one = given.get(axis)
            bins = one.get("bins") if isinstance(one, dict) else None
            if not isinstance(one, dict) or not isinstance(bins, list):
                continue
            points = [
                (a, b)
                for bin_ in bins[:50]
                if isinstance(bin_, dict)
                and (a := _positive(bin_.get("rms_sigma"))) is not None
                and (b := _positive(bin_.get("rmse"))) is not None
            ]
            figures = [
                (label, number(value, 2).text)
                for name, label in (
                    ("z_std", "error / sigma"),
                    ("within_1", "within 1 sigma (0.68)"),
                    ("within_2", "within 2 sigma (0.95)"),
                )
                if (value := _finite(one.get(name))) is not None
            ]
            if points:
                axes.append({"axis": axis, "points": points, "figures": figures})
        if axes:
            top = 1.08 * max(v for a in axes for p in a["points"] for v in p)
            out.append({"label": condition, "axes": axes, "top": top, "ticks": _ticks(top)})
    return out


def _ticks(top: float) -> list[float]:
    """Round numbers from 0 up to the end of the axis, three to six of them."""
    step = 10.0 ** math.floor(math.log10(top))
    for factor in (0.2, 0.5, 1.0, 2.0):
        if top / (step * factor) <= 5.5:
            return [round(i * step * factor, 6) for i in range(int(top / (step * factor)) + 1)]
    return [0.0, step]


def _failures(board: Board, entry: str, names: dict[tuple[str, int], str]) -> list[dict[str, Any]]:
    """The worst frames of every dataset as points to draw; frames that cannot be read are left out."""
    out = []
    for condition, result in _own(board, entry):
        for one in (result.detail.worst if result.detail is not None else [])[:3]:
            case = _case(one)
            if case is not None:
                background = names.get((condition, case["frame"])) or names.get((result.dataset.name, case["frame"]))
                out.append({"label": condition, "background": background or "", **case})
    return out[:MOST_CASES]


def _case(one: Any) -> dict[str, Any] | None:
    if not isinstance(one, dict):
        return None
    counts = [_finite(one.get(name)) for name in ("frame", "tp", "fp", "fn")]
    if any(v is None for v in counts):
        return None
    frame, tp, fp, fn = (int(v) for v in counts if v is not None)
    field = one.get("field_nm")
    sides = [_positive(v) for v in field] if isinstance(field, list) else []
    drawn = len(sides) == 2 and None not in sides
    return {
        "frame": frame,
        "words": f"{count(tp, 'hit')}, {fn} missed, {count(fp, 'false alarm')}",
        "width": sides[0] if drawn else 0.0,
        "height": sides[1] if drawn else 0.0,
        "truth": _points(one.get("truth")) if drawn else [],
        "found": _points(one.get("found")) if drawn else [],
    }


_KINDS = {1: "hit", 0: "bad", -1: "other"}


def _points(rows: Any) -> list[tuple[float, float, str]]:
    out = []
    for row in rows[:MOST_POINTS] if isinstance(rows, list) else []:
        if isinstance(row, list) and len(row) == 3:
            x, y, kind = (_finite(v) for v in row)
            if x is not None and y is not None and kind in _KINDS:
                out.append((x, y, _KINDS[int(kind)]))
    return out


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if abs(value) < 1e15 else None


def _positive(value: Any) -> float | None:
    number_ = _finite(value)
    return number_ if number_ is not None and number_ > 0 else None
