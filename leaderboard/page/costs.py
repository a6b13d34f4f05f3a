"""What runs cost and what was run: the tables of times, models and training seeds."""

import json
import math
from typing import Any

from ..ranking import Board
from ..record import Result
from ..statistics import Interval, over_seeds
from .cells import (
    DASH,
    TIMES,
    Cell,
    Column,
    Mark,
    Row,
    Table,
    number,
    percent,
    scaled,
    three,
    whole,
    whole_or_not,
    words,
)
from .rows import make_row


def speed_table(board: Board, anchors: dict[str, str]) -> Table:
    columns = [
        Column(label="Runtime", numeric=False),
        Column(label="Arithmetic", numeric=False),
        Column(label="Median", unit="ms / frame", better="low", help="64x64 frame, network only"),
        Column(label="p90", unit="ms"),
        Column(label="p99", unit="ms"),
        Column(label="Range", unit="ms / frame", help="fastest to slowest repeat"),
        Column(label="Frames", unit="per second", better="high", help="one call after the other, batch as named"),
        Column(label="Batch", unit="frames"),
        Column(label="Throughput", unit="frames / s", better="high", help="at the batch size where it is largest"),
        Column(label="Best batch", unit="frames"),
        Column(label="Pixels", unit="10⁶ / s", better="high", help="camera pixels at the best batch"),
        Column(label="Movie to table", unit="frames / s", better="high", help="from movie file to table file"),
        Column(label="First call", unit="ms", better="low", help="in a fresh process"),
        Column(label="Memory", unit="MB", better="low", help="largest resident memory, on a GPU its memory"),
        Column(label="Of peak", unit="%", help="share of the speed of a matrix multiplication in the same process"),
        Column(label="Processor", unit="s / 1000 frames", better="low", help="of all threads, at the best batch"),
        Column(label="Million frames", unit="hours", better="low", help="at the best batch"),
        Column(label="Million frames", unit="cost", better="low"),
        Column(label="Threads"),
        Column(label="Jaccard", unit="Δ points", help="against torch float32 on the same frames"),
        Column(label="RMSE", unit="Δ nm", help="against torch float32 on the same frames"),
        Column(label="Deviation", unit="maximum", help="largest difference of the output from torch"),
        Column(label="Machine", numeric=False),
    ]
    table = Table(
        label="Speed",
        note=f"The network alone on a fixed batch of 64 {TIMES} 64 frames; reading, simulation and matching are not in "
        "these times unless a column says so. Noisy: two interleaved halves of the repeats differ by more than 10 %, "
        "or a matrix multiplication beside them was by so much faster or slower than beside most others of the run; "
        "such a time is in no ranking. Compare times of one machine only.",
        columns=columns,
    )
    for entry in board.entries:
        for engine in board.engines:
            result = board.timed.get((entry, engine))
            if result is None or result.timing is None:
                continue
            row = make_row(board, anchors, entry, _times(result))
            row.marks = [m for m in row.marks if not m.warning]
            if result.timing.noisy:
                row.marks.append(Mark(text="noisy", help="left out of the speed ranking", warning=True))
                row.ranked = False
            table.rows.append(row)
    return table.without_empty_columns()


def _times(result: Result) -> list[Cell]:
    t, r, a = result.timing, result.runtime, result.agreement
    if t is None:
        return []
    spread = Cell(text=DASH)
    if t.ms_min is not None and t.ms_max is not None:
        spread = Cell(text=f"{three(t.ms_min).text} {DASH} {three(t.ms_max).text}", value=t.ms_max - t.ms_min)
    name = words(r.name)
    name.small = r.provider.removesuffix("ExecutionProvider")
    return [
        name,
        words(r.precision),
        three(t.ms_p50),
        three(t.ms_p90),
        three(t.ms_p99),
        spread,
        three(t.frames_per_second),
        whole(t.batch),
        three(t.best_frames_per_second),
        whole(t.best_batch),
        three(t.megapixels_per_second),
        three(t.movie_frames_per_second),
        three(t.first_call_ms),
        three(t.peak_memory_mb),
        percent(t.peak_share),
        three(t.cpu_seconds_per_1000_frames),
        three(t.hours_per_million_frames),
        three(t.cost_per_million_frames),
        whole(r.threads),
        number(a.jaccard_delta if a else None, 2),
        number(a.rmse_delta_nm if a else None, 2),
        three(a.max_abs_deviation if a else None),
        words(result.environment.machine),
    ]


def models_table(board: Board, anchors: dict[str, str]) -> Table:
    columns = [
        Column(label="Variant", numeric=False),
        Column(label="Weights", numeric=False, help="tag and SHA-256 of the weights"),
        Column(label="Trained on", numeric=False, help="recipe of the training frames"),
        Column(label="Seed", help="of the training"),
        Column(label="Sees", unit="frames", help="consecutive frames that one frame's localizations are found from"),
        Column(label="Parameters"),
        Column(label="Multiply-adds", unit=f"64 {TIMES} 64 frame"),
        Column(label="Receptive field", unit="pixels"),
        Column(label="File", unit="bytes"),
        Column(label="Grid floor", unit="nm"),
        Column(label="Options", numeric=False),
    ]
    table = Table(
        label="Models",
        note="What was run. Weights are named by the start of their SHA-256. A name leads to the model's own page.",
        columns=columns,
    )
    for entry in board.entries:
        m = board.of_entry[entry].model
        weights = words(m.tag or m.weights_sha256[:8])
        weights.small = m.weights_sha256[:12] if m.tag else ""
        cells = [
            words(m.variant),
            weights,
            words(m.trained_on),
            whole_or_not(None if m.training_seed is None else float(m.training_seed)),
            whole(m.context_frames),
            scaled(m.parameters),
            scaled(m.macs_64),
            whole_or_not(m.receptive_field_px),
            scaled(m.size_bytes),
            number(m.grid_floor_nm),
            words(", ".join(f"{k}={v}" for k, v in sorted(m.options.items()))),
        ]
        table.rows.append(make_row(board, anchors, entry, cells))
    return table.without_empty_columns()


def seeds_table(board: Board) -> Table:
    """Trainings that are alike but for their seed, dataset by dataset."""
    table = Table(
        label="Seeds",
        note="Efficiency of trainings that differ only in their seed. The wider of the two spreads, over seeds or over "
        "blocks of frames, governs what can be said of the model.",
        columns=[
            Column(label="Dataset", numeric=False),
            Column(label="Trainings"),
            Column(label="Median", unit="efficiency", better="high"),
            Column(label="Lowest"),
            Column(label="Highest"),
            Column(label="Range", unit="over seeds"),
            Column(label="Interval", unit="over frames", help="width of the 95 % interval of the median training"),
            Column(label="Governs", numeric=False),
            Column(label="Each", numeric=False, help="efficiency of every training, by seed"),
        ],
    )
    alike: dict[tuple[Any, ...], list[str]] = {}
    for entry in board.entries:
        m = board.of_entry[entry].model
        if m.training_seed is not None:
            alike.setdefault((m.name, m.variant, json.dumps(m.options, sort_keys=True), m.trained_on), []).append(entry)
    for key, entries in alike.items():
        if len({board.of_entry[e].model.training_seed for e in entries}) < 2:
            continue
        for condition in board.conditions:
            given = {e: v for e in entries if not math.isnan(v := board.score(e, condition))}
            if len(given) > 1:
                table.rows.append(_seed_row(board, key[0], condition, given))
    return table


def _seed_row(board: Board, name: str, condition: str, given: dict[str, float]) -> Row:
    middle = sorted(given, key=lambda e: given[e])[(len(given) - 1) // 2]
    scores = board.scored[middle, condition].scores
    interval = None
    if scores is not None and scores.efficiency_low is not None and scores.efficiency_high is not None:
        interval = Interval(
            value=given[middle], low=scores.efficiency_low, high=scores.efficiency_high, deviation=math.nan
        )
    one = over_seeds(given.values(), interval)
    each = sorted((board.of_entry[e].model.training_seed or 0, v) for e, v in given.items())
    cells = [
        words(condition),
        whole(len(given)),
        number(one.median),
        number(one.low),
        number(one.high),
        number(one.high - one.low),
        number(None if interval is None else interval.high - interval.low),
        words(one.governs),
        words(", ".join(f"{seed}: {number(value).text}" for seed, value in each)),
    ]
    return Row(entry=name, color=board.colors[middle], cells=cells)
