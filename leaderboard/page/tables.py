"""The tables of the page: accuracy by group of conditions, images, speed, training seeds, models."""

import math
from dataclasses import dataclass

from ..labels import is_scored
from ..ranking import Board
from .cells import (
    DASH,
    DOT,
    MINUS,
    TIMES,
    Cell,
    Column,
    Mark,
    Table,
    between,
    count,
    efficiency,
    number,
    percent,
    scaled,
    three,
    whole,
    words,
)
from .costs import models_table, seeds_table, speed_table
from .rows import make_row

_SHORT_MOVIES = (
    " Where records lack their blocks, or a movie is shorter than two of them, ranks follow the bare scores: read them "
    "as a first look only."
)


@dataclass(kw_only=True)
class Section:
    """Tables behind one tab; several are chosen by their labels."""

    label: str
    tables: list[Table]


def sections(board: Board, anchors: dict[str, str]) -> list[Section]:
    """Every table of the page.

    Args:
        board: all records.
        anchors: entry -> id of the model's page.
    """
    groups = board.groups
    out = []
    for group in groups:
        part = board.part(group)
        tables = [_overview(part, anchors), *(_condition(part, condition, anchors) for condition in group.conditions)]
        out.append(Section(label="Accuracy" if len(groups) == 1 else group.label, tables=tables))
    images = [_images(board, c, anchors) for c in (*board.conditions, *board.image_conditions)]
    if any(table.rows for table in images):
        out.append(Section(label="Images", tables=[table for table in images if table.rows]))
    if board.timed:
        out.append(Section(label="Speed", tables=[speed_table(board, anchors)]))
    seeds = seeds_table(board)
    if seeds.rows:
        out.append(Section(label="Seeds", tables=[seeds]))
    out.append(Section(label="Models", tables=[models_table(board, anchors)]))
    for section in out:
        for table in section.tables:
            table.with_best()
    return out


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


def score_cell(board: Board, entry: str, condition: str, *, rank: bool = False) -> Cell:
    """The efficiency with its interval, and with the rank where wanted."""
    result = board.scored.get((entry, condition))
    scores = result.scores if result is not None else None
    ends = (scores.efficiency_low, scores.efficiency_high) if scores is not None else (None, None)
    cell = efficiency(board.score(entry, condition), *ends)
    place = board.place(entry, condition) if rank else ""
    if place:
        cell.small = "\n".join(filter(None, (cell.small, f"rank {place.replace('-', DASH)}")))
    return cell


def _overview(board: Board, anchors: dict[str, str]) -> Table:
    columns = [
        Column(label="Mean", unit="efficiency", help="Mean efficiency over these datasets", better="high"),
        Column(label="Rank", unit="mean", help="Mean of the ranks on these datasets", better="low"),
    ]
    shared = {condition: same_molecules(board, condition) for condition in board.conditions}
    for condition in board.conditions:
        n = shared[condition]
        columns.append(
            Column(
                label=condition,
                unit="" if n is None else count(n, "molecule"),
                help=f"Efficiency on {condition}, its 95 % interval, and the rank; 100 is perfect",
                better="high",
            )
        )
    columns += [
        Column(
            label="Fastest",
            unit="ms / frame",
            help="Shortest median time per 64x64 frame, network only, of the runtimes whose time is not noisy",
            better="low",
        ),
        Column(label="Sees", unit="frames", help="Consecutive frames that one frame's localizations are found from"),
        Column(label="Trained on", numeric=False, help="Recipe of the training frames"),
        Column(label="Parameters", help="Trainable numbers of the network"),
    ]
    table = Table(
        label="Overview",
        note="Efficiency on each dataset, best mean first; below it the 95 % interval over blocks of 20 frames and the "
        "rank. Models that the paired comparison of the same blocks cannot tell apart share their ranks. A model "
        "without a result on every dataset has no mean."
        + ("" if all(c in board.shared for c in board.conditions) else _SHORT_MOVIES),
        columns=columns,
        sorted_by=0,
    )
    for entry in board.entries:
        cells = [efficiency(board.mean(entry)), number(board.mean_rank(entry))]
        for condition in board.conditions:
            cell = score_cell(board, entry, condition, rank=True)
            n = molecules(board, condition).get(entry)
            if shared[condition] is None and n is not None:
                cell.small = "\n".join(filter(None, (cell.small, count(n, "molecule"))))
            cells.append(cell)
        ms, engine = board.fastest(entry)
        fastest = three(ms)
        fastest.small = engine
        m = board.of_entry[entry].model
        cells += [fastest, whole(m.context_frames), words(m.trained_on), scaled(m.parameters)]
        table.rows.append(make_row(board, anchors, entry, cells))
    return table.without_empty_columns() if table.rows else table


def _condition(board: Board, condition: str, anchors: dict[str, str]) -> Table:
    columns = [
        Column(label="Rank", help="By efficiency; shared where the paired comparison cannot tell models apart"),
        Column(label="Efficiency", better="high", help=f"100 {MINUS} √((100 {MINUS} Jaccard)² + RMSE²)"),
        Column(label="E lateral", better="high", help="Efficiency from the lateral error alone"),
        Column(label="E axial", better="high", help="Efficiency from the axial error alone, half as heavy"),
        Column(label="E, all", unit="molecules", better="high", help="Efficiency when the weakest count too"),
        Column(label="E, strict", unit="100 nm", better="high", help="Efficiency with a tolerance of 100 nm"),
        Column(label="Jaccard", unit="%", better="high", help="found / (found + missed + invented)"),
        Column(label="Precision", unit="%", better="high", help="share of the localizations that are molecules"),
        Column(label="Recall", unit="%", better="high", help="share of the molecules that were found"),
        Column(label="F1", unit="%", better="high", help="harmonic mean of precision and recall"),
        Column(label="RMSE", unit="nm", better="low", help="root mean square lateral error of the molecules found"),
        Column(label="RMSE axial", unit="nm", better="low", help="root mean square axial error"),
        Column(
            label="RMSE / bound",
            unit="lone molecules",
            better="low",
            help="lateral error of isolated molecules over their Cramér-Rao bound; 1 is the limit for one frame",
        ),
        Column(label="Bias x, y", unit="nm", help="mean error along columns and rows"),
        Column(label="Error / sigma", help="standard deviation of error over predicted sigma; 1 is right"),
        Column(label="Photons r", better="high", help="correlation of found with true photons"),
        Column(label="RMSMD", unit="nm", better="low", help="distance of the point sets over the movie, clipped"),
        Column(label="Grid floor", unit="nm", help="error that the output grid alone causes"),
        Column(label="Molecules", unit="true", help="true molecules behind the score"),
        Column(label="Found", unit="localizations"),
        Column(label="Threshold", help="the one free number of the converter from image to localizations"),
    ]
    note = f" {DOT} ".join(f"{v} {k}".strip() for k, v in test_of(board, condition))
    table = Table(label=condition, note=note, columns=columns, sorted_by=1)
    for entry in sorted(board.entries, key=lambda e: -_or_last(board.score(e, condition))):
        result = board.scored.get((entry, condition))
        if result is None or result.scores is None:
            continue
        s = result.scores
        bias = Cell(text=DASH)
        if s.bias_x_nm is not None and s.bias_y_nm is not None:
            bias = Cell(
                text=f"{number(s.bias_x_nm).text}, {number(s.bias_y_nm).text}",
                value=math.hypot(s.bias_x_nm, s.bias_y_nm),
            )
        cells = [
            Cell(text=board.place(entry, condition).replace("-", DASH), value=board.rank(entry, condition)),
            score_cell(board, entry, condition),
            number(s.efficiency_lateral if result.dataset.dimensions == 3 else None),
            number(s.efficiency_axial),
            number(s.efficiency_quantile0),
            number(s.efficiency_100nm),
            between(s.jaccard, s.jaccard_low, s.jaccard_high),
            percent(s.precision),
            percent(s.recall),
            percent(s.f1),
            between(s.rmse_lateral_nm, s.rmse_lateral_low_nm, s.rmse_lateral_high_nm),
            number(s.rmse_axial_nm),
            number(s.rmse_over_crlb, 2),
            bias,
            number(s.sigma_z_std, 2),
            number(s.photon_correlation, 2),
            number(s.rmsmd_nm),
            number(result.model.grid_floor_nm),
            whole(s.n_truth),
            whole(s.n_found),
            three(result.settings.threshold),
        ]
        table.rows.append(make_row(board, anchors, entry, cells, condition))
    return table.without_empty_columns()


def test_of(board: Board, condition: str) -> list[tuple[str, str]]:
    """(unit, value) of the test movie."""
    results = (*board.scored.items(), *board.imaged.items())
    data = next(r.dataset for (_, at), r in results if at == condition)
    out = []
    if data.frames is not None:
        out.append(("frames", f"{data.frames:,}"))
    if data.height is not None and data.width is not None:
        out.append(("pixels", f"{data.height} {TIMES} {data.width}"))
    if data.density is not None:
        out.append(("emitters per µm² and frame", f"{data.density:g}"))
    if data.value is not None:
        out.append(("", f"{data.condition} {data.value:g}"))
    if data.recipe_hash:
        out.append(("", f"recipe {data.recipe_hash}"))
    if data.seed is not None:
        out.append(("", f"seed {data.seed}"))
    return out


_IMAGE_COLUMNS = (
    ("snr_db", "SNR", "dB", "high", "of the rendered image against the rendered truth"),
    ("snr_xz_db", "SNR xz", "dB", "high", "the same, seen along y"),
    ("snr_yz_db", "SNR yz", "dB", "high", "the same, seen along x"),
    ("snr_volume_db", "SNR", "of the volume, dB", "high", "of the rendered volume against the rendered truth"),
    ("fsc_truth_nm", "FSC", "to truth, nm", "low", "resolution from the Fourier shell correlation with the truth"),
    ("nmse", "NMSE", "", "low", "squared error over squared truth, after the least-squares factor"),
    ("nmse_percent", "NMSE", "unscaled, %", "low", "squared error over squared truth, as it is"),
    ("ssim", "SSIM", "", "high", "structural similarity of the square roots"),
    ("psnr_db", "PSNR", "dB", "high", "good for a black picture of a sparse scene: read it with the NMSE"),
    ("frc_truth_nm", "FRC", "to truth, nm", "low", "resolution from the Fourier ring correlation with the truth"),
    ("frc_halves_nm", "FRC", "of halves, nm", "low", "the same between two halves of the movie"),
    ("fwhm_nm", "Rendered", "FWHM nm", "", "width that localizations are drawn with"),
)


def _images(board: Board, condition: str, anchors: dict[str, str]) -> Table:
    columns = [Column(label=a, unit=unit, better=better, help=text) for _, a, unit, better, text in _IMAGE_COLUMNS]
    table = Table(
        label=condition,
        note="Localizations drawn as Gaussians of one fixed width, or an image as it came, against the truth, drawn "
        "the same way.",
        columns=columns,
    )
    for entry in board.entries:
        result = board.imaged.get((entry, condition))
        if result is None or result.detail is None:
            continue
        found = [result.detail.images.get(name) for name, *_ in _IMAGE_COLUMNS]
        numbers = [float(v) if isinstance(v, int | float) and not isinstance(v, bool) else None for v in found]
        row = make_row(board, anchors, entry, [three(v) for v in numbers], condition)
        if not is_scored(result):
            row.marks.append(Mark(text="image only", help="an image without localizations: in no ranking"))
        table.rows.append(row)
    return table.without_empty_columns()


def _or_last(value: float) -> float:
    return value if value == value else -math.inf
