"""What stands on the page, as plain values for the template: nothing here writes HTML."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..record import Result
from ..table import Board, pareto

if TYPE_CHECKING:
    from . import Picture

DASH, MINUS, TIMES = "\u2013", "\u2212", "\u00d7"
MEAN = "Mean"


@dataclass(kw_only=True)
class Cell:
    """`text` is shown, `value` sorts (empty last), `bar` (0..1) is drawn below, `small` is a second line."""

    text: str
    value: float | str | None = None
    bar: float | None = None
    small: str = ""
    best: bool = False

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
class Row:
    entry: str
    color: str
    cells: list[Cell]


@dataclass(kw_only=True)
class Table:
    label: str
    note: str
    columns: list[Column]
    rows: list[Row] = field(default_factory=list)
    sorted_by: int | None = None


def number(value: float | None, digits: int = 1) -> Cell:
    if value is None or math.isnan(value):
        return Cell(text=DASH)
    text = f"{value:,.{digits}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")
    return Cell(text=text.replace("-", MINUS), value=float(value))


def whole(value: int | None) -> Cell:
    return Cell(text=DASH) if value is None else Cell(text=f"{value:,}", value=float(value))


def whole_or_not(value: float | None) -> Cell:
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


def signed_percent(value: float | None) -> Cell:
    return number(None if value is None else 100 * value)


def efficiency(value: float, *, small: str = "") -> Cell:
    cell = number(value)
    cell.small = small
    if cell.value is not None:
        cell.bar = min(1.0, max(0.0, value / 100))
    return cell


def words(text: str) -> Cell:
    return Cell(text=text or DASH, value=text.lower() or None)


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def molecules(board: Board, condition: str) -> dict[str, int | None]:
    """Entry -> molecules behind its score."""
    return {
        entry: result.scores.n_truth
        for (entry, at), result in board.scored.items()
        if at == condition and result.scores is not None
    }


def same_molecules(board: Board, condition: str) -> int | None:
    """The number of molecules when it is one and the same for all models."""
    numbers = set(molecules(board, condition).values())
    return numbers.pop() if len(numbers) == 1 else None


def introduction(board: Board) -> str:
    models, datasets = len(board.entries), len(board.conditions)
    return (
        f"{_spelled(models)} {'model reads' if models == 1 else 'models read'} the same frames of blinking "
        f"molecules{f' from {_spelled(datasets).lower()} datasets' if datasets > 1 else ''}. This page "
        "shows how many of the molecules each one finds, how exactly it places them, and how long "
        "it takes."
    )


def _spelled(n: int) -> str:
    names = (
        "No",
        "One",
        "Two",
        "Three",
        "Four",
        "Five",
        "Six",
        "Seven",
        "Eight",
        "Nine",
        "Ten",
        "Eleven",
        "Twelve",
    )
    return names[n] if n < len(names) else f"{n:,}"


def facts(board: Board) -> list[tuple[str, str]]:
    """(what, value) for the line under the headline."""
    total = 0
    for condition in board.conditions:
        total += max((n or 0 for n in molecules(board, condition).values()), default=0)
    dates = sorted({r.when.date().isoformat() for r in board.results if r.date})
    out = [("Models", f"{len(board.entries):,}"), ("Datasets", f"{len(board.conditions):,}")]
    if total:
        out.append(("Molecules", f"{total:,}"))
    if board.engines:
        out.append(("Runtimes", f"{len({board.timed[k].runtime.name for k in board.timed}):,}"))
    if dates:
        out.append(("Measured", dates[0] if len(dates) == 1 else f"{dates[0]} {DASH} {dates[-1]}"))
    return out


def tables(board: Board) -> list[Table]:
    out = [_overview(board), *(_condition(board, condition) for condition in board.conditions)]
    if board.timed:
        out.append(_speed(board))
    out.append(_models(board))
    for table in out:
        _mark_best(table)
    return out


def _row(board: Board, entry: str, cells: list[Cell]) -> Row:
    return Row(entry=entry, color=board.colors[entry], cells=cells)


def _overview(board: Board) -> Table:
    columns = [
        Column(label="Mean", unit="efficiency", help="Mean efficiency over all datasets", better="high"),
        Column(label="Rank", unit="mean", help="Mean of the ranks on the datasets", better="low"),
    ]
    shared = {condition: same_molecules(board, condition) for condition in board.conditions}
    for condition in board.conditions:
        n = shared[condition]
        columns.append(
            Column(
                label=condition,
                unit="" if n is None else count(n, "molecule"),
                help=f"Efficiency on {condition}; 100 is perfect",
                better="high",
            )
        )
    columns += [
        Column(label=engine, unit="ms / frame", help="Median time per 64x64 frame, network only", better="low")
        for engine in board.engines
    ]
    columns.append(Column(label="Parameters", help="Trainable numbers of the network"))
    table = Table(
        label="Overview",
        note="Efficiency on each dataset, best mean first. A model without a result on every dataset has no mean.",
        columns=columns,
        sorted_by=0,
    )
    for entry in board.entries:
        cells = [efficiency(board.mean(entry)), number(board.mean_rank(entry))]
        for condition in board.conditions:
            n = molecules(board, condition).get(entry)
            small = count(n, "molecule") if shared[condition] is None and n is not None else ""
            cells.append(efficiency(board.score(entry, condition), small=small))
        cells += [three(board.ms(entry, engine)) for engine in board.engines]
        cells.append(scaled(board.of_entry[entry].model.parameters))
        table.rows.append(_row(board, entry, cells))
    return table


def _condition(board: Board, condition: str) -> Table:
    columns = [
        Column(label="Efficiency", better="high", help=f"100 {MINUS} √((100 {MINUS} Jaccard)² + RMSE²)"),
        Column(
            label="E, all",
            unit="molecules",
            better="high",
            help="Efficiency when the weakest molecules count too",
        ),
        Column(label="Jaccard", unit="%", better="high", help="found / (found + missed + invented)"),
        Column(label="Precision", unit="%", better="high", help="share of the localizations that are molecules"),
        Column(label="Recall", unit="%", better="high", help="share of the molecules that were found"),
        Column(label="F1", unit="%", better="high", help="harmonic mean of precision and recall"),
        Column(
            label="RMSE",
            unit="nm",
            better="low",
            help="root mean square lateral error of the molecules found",
        ),
        Column(label="Bias x, y", unit="nm", help="mean error along columns and rows"),
        Column(label="Grid floor", unit="nm", help="error that the output grid alone causes"),
        Column(label="Molecules", unit="true", help="true molecules behind the score"),
        Column(label="Found", unit="localizations"),
        Column(label="Threshold", help="the one free number of the converter from image to localizations"),
    ]
    parts = [f"{v} {k}" for k, v in _test(board, condition)]
    table = Table(label=condition, note=" · ".join(parts), columns=columns, sorted_by=0)
    here = [e for e in board.entries if (e, condition) in board.scored]
    for entry in sorted(here, key=lambda e: -board.score(e, condition)):
        result = board.scored[entry, condition]
        s = result.scores
        if s is None:
            continue
        bias = Cell(text=DASH)
        if s.bias_x_nm is not None and s.bias_y_nm is not None:
            bias = Cell(
                text=f"{number(s.bias_x_nm).text}, {number(s.bias_y_nm).text}",
                value=math.hypot(s.bias_x_nm, s.bias_y_nm),
            )
        cells = [
            efficiency(board.score(entry, condition)),
            number(s.efficiency_quantile0),
            number(s.jaccard),
            signed_percent(s.precision),
            signed_percent(s.recall),
            signed_percent(s.f1),
            number(s.rmse_lateral_nm),
            bias,
            number(result.model.grid_floor_nm),
            whole(s.n_truth),
            whole(s.n_found),
            three(result.settings.threshold),
        ]
        table.rows.append(_row(board, entry, cells))
    return table


def _test(board: Board, condition: str) -> list[tuple[str, str]]:
    """(unit, value) of the test movie."""
    data = next(r.dataset for (_, at), r in board.scored.items() if at == condition)
    out = []
    if data.frames is not None:
        out.append(("frames", f"{data.frames:,}"))
    if data.height is not None and data.width is not None:
        out.append(("pixels", f"{data.height} {TIMES} {data.width}"))
    if data.density is not None:
        out.append(("emitters per µm² and frame", f"{data.density:g}"))
    if data.recipe_hash:
        out.append(("", f"recipe {data.recipe_hash}"))
    if data.seed is not None:
        out.append(("", f"seed {data.seed}"))
    return out


def _speed(board: Board) -> Table:
    columns = [
        Column(label="Runtime", numeric=False),
        Column(label="Arithmetic", numeric=False),
        Column(label="Median", unit="ms / frame", better="low", help="64x64 frame, network only"),
        Column(label="Range", unit="ms / frame", help="fastest to slowest repeat"),
        Column(label="Frames", unit="per second", better="high"),
        Column(label="Batch", unit="frames"),
        Column(label="Threads"),
        Column(label="Jaccard", unit="Δ points", help="against torch float32 on the same frames"),
        Column(label="RMSE", unit="Δ nm", help="against torch float32 on the same frames"),
        Column(label="Deviation", unit="maximum", help="largest difference of the output from torch"),
        Column(label="Machine", numeric=False),
    ]
    table = Table(
        label="Speed",
        note=f"The network alone on a fixed batch of 64 {TIMES} 64 frames; "
        "reading, simulation and matching are not in these times.",
        columns=columns,
    )
    for entry in board.entries:
        for engine in board.engines:
            result = board.timed.get((entry, engine))
            if result is None or result.timing is None:
                continue
            t, r, a = result.timing, result.runtime, result.agreement
            spread = Cell(text=DASH)
            if t.ms_min is not None and t.ms_max is not None:
                spread = Cell(text=f"{three(t.ms_min).text} {DASH} {three(t.ms_max).text}", value=t.ms_max - t.ms_min)
            name = words(r.name)
            name.small = r.provider.removesuffix("ExecutionProvider")
            cells = [
                name,
                words(r.precision),
                three(t.ms_p50),
                spread,
                three(t.frames_per_second),
                whole(t.batch),
                whole(r.threads),
                number(a.jaccard_delta if a else None, 2),
                number(a.rmse_delta_nm if a else None, 2),
                three(a.max_abs_deviation if a else None),
                words(result.environment.machine),
            ]
            table.rows.append(_row(board, entry, cells))
    return table


def _models(board: Board) -> Table:
    columns = [
        Column(label="Variant", numeric=False),
        Column(label="Weights", numeric=False, help="tag and SHA-256 of the weights"),
        Column(label="Parameters"),
        Column(label="Multiply-adds", unit=f"64 {TIMES} 64 frame"),
        Column(label="Receptive field", unit="pixels"),
        Column(label="File", unit="bytes"),
        Column(label="Grid floor", unit="nm"),
        Column(label="Options", numeric=False),
    ]
    table = Table(
        label="Models", note="What was run. Weights are named by the start of their SHA-256.", columns=columns
    )
    for entry in board.entries:
        m = board.of_entry[entry].model
        weights = words(m.tag or m.weights_sha256[:8])
        weights.small = m.weights_sha256[:12] if m.tag else ""
        cells = [
            words(m.variant),
            weights,
            scaled(m.parameters),
            scaled(m.macs_64),
            whole_or_not(m.receptive_field_px),
            scaled(m.size_bytes),
            number(m.grid_floor_nm),
            words(", ".join(f"{k}={v}" for k, v in sorted(m.options.items()))),
        ]
        table.rows.append(_row(board, entry, cells))
    return table


def _mark_best(table: Table) -> None:
    for i, column in enumerate(table.columns):
        values = [r.cells[i].value for r in table.rows if isinstance(r.cells[i].value, float)]
        if not column.better or len(values) < 2:
            continue
        best = max(values) if column.better == "high" else min(values)  # type: ignore[type-var]
        for row in table.rows:
            row.cells[i].best = row.cells[i].value == best


def chart(board: Board) -> dict[str, Any] | None:
    """Data of the accuracy-speed plot: one view for the mean and one for each dataset."""
    views = [(MEAN, board.mean)] if len(board.conditions) > 1 else []
    views += [(c, lambda entry, c=c: board.score(entry, c)) for c in board.conditions]  # type: ignore[misc]
    out = []
    for label, value in views:
        points = [
            (board.ms(entry, engine), value(entry), entry, engine)
            for entry in board.entries
            for engine in board.engines
            if board.ms(entry, engine) > 0 and not math.isnan(value(entry))
        ]
        if points:
            front = [points[i] for i in pareto([p[:2] for p in points])]
            out.append(
                {
                    "label": label,
                    "axis": "mean efficiency" if label is MEAN else f"efficiency on {label}",
                    "points": [{"ms": p[0], "e": p[1], "entry": p[2], "engine": p[3]} for p in points],
                    "front": [[p[0], p[1]] for p in front],
                }
            )
    if not out:
        return None
    return {"views": out, "entries": board.entries, "engines": board.engines, "colors": board.colors}


def strips(board: Board, pictures: "list[tuple[Picture, str]]") -> list[dict[str, Any]]:
    """Pictures of one dataset and frame side by side: raw, truth, models by rank, others by name."""
    groups: dict[tuple[str, int], list[tuple[Picture, str]]] = {}
    for picture, uri in pictures:
        groups.setdefault((picture.dataset, picture.frame), []).append((picture, uri))
    order = {"raw": -2, "truth": -1}
    for i, entry in enumerate(board.entries):
        order[entry] = i
        order.setdefault(board.of_entry[entry].model.name, i)
    rank = {condition: i for i, condition in enumerate(board.conditions)}
    shared = Counter(dataset for dataset, _ in groups)
    out = []
    for dataset, frame in sorted(groups, key=lambda g: (rank.get(g[0], len(rank)), g[0], g[1])):
        items = sorted(groups[dataset, frame], key=lambda item: (order.get(item[0].model, 10**6), item[0].model))
        out.append(
            {
                "label": f"{dataset} · frame {frame}" if shared[dataset] > 1 else dataset,
                "dataset": dataset,
                "frame": frame,
                "items": [
                    {
                        "model": picture.model,
                        "caption": picture.caption,
                        "uri": uri,
                        "score": _picture_score(board, picture),
                        "own": picture.model not in {"raw", "truth"},
                    }
                    for picture, uri in items
                ],
            }
        )
    return out


def _picture_score(board: Board, picture: "Picture") -> str:
    value = board.score(picture.model, picture.dataset)
    return "" if math.isnan(value) else f"E {number(value).text}"


def settings(board: Board) -> list[tuple[str, str]]:
    """(setting, values in use) of the scored records."""
    scored = list(board.scored.values())

    def used(read: Any, unit: str = "") -> str:
        values = []
        for result in scored:
            value = read(result.settings)
            text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
            if text and text not in values:
                values.append(text)
        return ", ".join(f"{value}{unit}" for value in values)

    rows = [
        ("Matching", used(lambda s: s.rule)),
        ("Tolerance", used(lambda s: s.tolerance_nm, " nm")),
        ("Border left out", used(lambda s: s.border_nm, " nm")),
        ("Weak molecules left out", used(lambda s: None if s.quantile is None else 100 * s.quantile, " %")),
        ("Threshold from", used(lambda s: s.threshold_source)),
        ("Wobble correction", used(lambda s: s.wobble)),
        ("Arithmetic of the scored run", used(lambda s: s.precision)),
    ]
    return [(name, value) for name, value in rows if value]


def environments(board: Board) -> list[list[tuple[str, str]]]:
    """One list of (what, value) for each machine and set of versions in the records."""
    out: list[list[tuple[str, str]]] = []
    names = {
        "machine": "Machine",
        "cpu": "Processor",
        "gpu": "GPU",
        "os": "System",
        "python": "Python",
        "torch": "torch",
        "onnxruntime": "ONNX Runtime",
        "smlm_zoo": "smlm-zoo",
        "commit": "Commit",
    }
    for result in reversed(board.results):
        env = [(label, getattr(result.environment, name)) for name, label in names.items()]
        env = [(label, value) for label, value in env if value]
        if env and env not in out:
            out.append(env)
    return out


def reproduce(board: Board) -> list[dict[str, Any]]:
    """Records grouped by the command that repeats them; every record in use is in one group."""
    used: dict[str, Result] = {r.id: r for r in (*board.scored.values(), *board.timed.values())}
    label = {result.id: entry for (entry, _), result in (*board.scored.items(), *board.timed.items())}
    groups: dict[str, list[Result]] = {}
    for result in used.values():
        groups.setdefault(result.command, []).append(result)
    place = {entry: i for i, entry in enumerate(board.entries)}
    out = []
    for command, members in groups.items():
        members.sort(key=lambda r: (place[label[r.id]], r.dataset.name, r.runtime.name != "torch", r.runtime.name))
        rows = [
            {
                "entry": label[r.id],
                "dataset": r.dataset.name,
                "runtime": r.runtime.name,
                "date": r.date[:10],
                "commit": r.environment.commit[:10],
                "record": r.id,
            }
            for r in members
        ]
        out.append({"command": command, "rows": rows})
    return sorted(out, key=lambda group: (not group["command"], -len(group["rows"])))
