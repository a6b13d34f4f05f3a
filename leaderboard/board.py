"""Everything at once: CSV, Markdown, PNG figures and the page from a list of records."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ._files import write_whole
from .page import TITLE, Picture, build_page
from .plots import FIGURES
from .ranking import Board, make_board
from .record import Result
from .table import escape_markdown, results_frame, summary, to_csv, to_markdown


def write_all(
    results: Iterable[Result],
    folder: str | Path,
    *,
    pictures: Sequence[Picture | Mapping[str, Any]] = (),
    title: str = TITLE,
    notes: str = "",
) -> dict[str, Path]:
    """Write results.csv, leaderboard.md, efficiency.png, accuracy_speed.png, rmse_jaccard.png and index.html.

    Tables and figures are made before the first file is written; each file is written under a temporary name
    and renamed.
    A figure without a point to show is left out.

    Args:
        results: records, at least one.
        folder: made if it is not there; other files in it are left alone.
        pictures: see `build_page`.
        title: headline of page and Markdown.
        notes: a paragraph for the page and the Markdown, plain text.

    Returns:
        file name -> path, in the order written.

    Raises:
        ValueError: there is no record, or a picture is no PNG.
        OSError: the folder cannot be written.
    """
    results = list(results)
    if not results:
        raise ValueError("there are no records to show; run `smlm-zoo leaderboard` or give a folder of records")
    folder = Path(folder)
    board = make_board(results)
    content: dict[str, str | bytes] = {
        "results.csv": to_csv(results_frame(results)),
        "leaderboard.md": markdown_page(board, title=title, notes=notes),
    }
    for name, draw in FIGURES.items():
        image = draw(board)
        if image is not None:
            content[name] = image
    page = build_page(results, folder, pictures=pictures, title=title, notes=notes)
    paths = {name: write_whole(folder / name, text) for name, text in content.items()}
    return {**paths, "index.html": page}


def markdown_page(board: Board, *, title: str = TITLE, notes: str = "") -> str:
    """The ranking, one table per dataset with the molecules behind each score, speed, and the commands."""
    parts = [f"# {escape_markdown(title)}"]
    if notes:
        parts.append(escape_markdown(notes))
    parts.append(
        "Efficiency E = 100 - √((100 - Jaccard index in %)² + (RMSE in nm)²); 100 is perfect, -100 means "
        "that nothing was found; from .. to is its 95 % interval over blocks of frames. Models that the paired "
        "comparison of blocks cannot tell apart share a rank. A model without a result on every dataset has no mean. "
        "Times are medians in milliseconds per 64x64 frame, network only; noisy ones are in no speed ranking."
    )
    for part in [board.part(group) for group in board.groups] or [board]:
        if len(board.groups) > 1:
            parts.append(f"## {escape_markdown(part.groups[0].label)}")
        table = summary(part)
        parts.append(to_markdown(table.drop(columns="macs_64", errors="ignore")))
    for condition in (*board.conditions, *board.image_conditions):
        parts.append(f"## {escape_markdown(condition)}")
        if condition in board.conditions:
            parts.append(to_markdown(condition_frame(board, condition)))
        pictures = image_frame(board, condition)
        if len(pictures):
            parts += [f"### {escape_markdown(condition)}: images", to_markdown(pictures, digits=2)]
    if board.timed:
        parts += ["## Speed", to_markdown(speed_frame(board), digits=2)]
    commands = sorted({r.command for r in board.results if r.command})
    if commands:
        # An indented block shows its lines as they are, whatever stands in them.
        parts += ["## Commands", "\n".join(f"    {' '.join(command.split())}" for command in commands)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def condition_frame(board: Board, condition: str) -> pd.DataFrame:
    """Scores of every model on one dataset, best first; percent and nm as in the column names."""
    rows: list[dict[str, Any]] = []
    for entry in sorted(board.entries, key=lambda e: (-_or(board.score(e, condition)), e)):
        result = board.scored.get((entry, condition))
        if result is None or result.scores is None:
            continue
        s = result.scores
        rows.append(
            {
                "rank": board.rank(entry, condition),
                "model": entry + (" (baseline)" if result.model.baseline else ""),
                "E": s.efficiency,
                "E from": s.efficiency_low,
                "E to": s.efficiency_high,
                "E, all molecules": s.efficiency_quantile0,
                "Jaccard %": s.jaccard,
                "precision %": _percent(s.precision),
                "recall %": _percent(s.recall),
                "F1 %": _percent(s.f1),
                "RMSE nm": s.rmse_lateral_nm,
                **({"RMSE axial nm": s.rmse_axial_nm} if result.dataset.dimensions == 3 else {}),
                "RMSE/CRLB isolated": s.rmse_over_crlb,
                "bias x nm": s.bias_x_nm,
                "bias y nm": s.bias_y_nm,
                "grid floor nm": result.model.grid_floor_nm,
                "molecules": s.n_truth,
                "found": s.n_found,
            }
        )
    frame = pd.DataFrame(rows)
    whole = {"molecules": "Int64", "found": "Int64"}
    if all(row["rank"] == int(row["rank"]) for row in rows):  # halves where models are equal
        whole["rank"] = "Int64"
    return frame.astype({c: whole.get(c, "float64") for c in frame.columns if c != "model"})


_SOLID = ("snr_xz_db", "snr_yz_db", "snr_volume_db", "fsc_truth_nm")  # of results in three dimensions
_IMAGE_COLUMNS = {
    "snr_db": "SNR dB",
    "snr_xz_db": "SNR xz dB",
    "snr_yz_db": "SNR yz dB",
    "snr_volume_db": "SNR of the volume dB",
    "fsc_truth_nm": "FSC to truth nm",
    "nmse": "NMSE",
    "nmse_percent": "NMSE unscaled %",
    "ssim": "SSIM",
    "psnr_db": "PSNR dB",
    "frc_truth_nm": "FRC to truth nm",
    "frc_halves_nm": "FRC of halves nm",
    "fwhm_nm": "rendered FWHM nm",
}


def image_frame(board: Board, condition: str) -> pd.DataFrame:
    """Scores of the rendered images on one dataset, models in the order of the ranking; empty without any."""
    rows = []
    for entry in board.entries:
        result = board.imaged.get((entry, condition))
        figures = result.detail.images if result is not None and result.detail is not None else {}
        if figures:
            numbers = {
                label: float(value) if isinstance(value := figures.get(name), int | float) else None
                for name, label in _IMAGE_COLUMNS.items()
            }
            rows.append({"model": entry, **numbers})
    frame = pd.DataFrame(rows, columns=["model", *_IMAGE_COLUMNS.values()])
    frame = frame.astype(dict.fromkeys(_IMAGE_COLUMNS.values(), "float64"))
    flat = frame[[_IMAGE_COLUMNS[name] for name in _SOLID]].isna().all(axis=None)
    return frame.drop(columns=[_IMAGE_COLUMNS[name] for name in _SOLID]) if flat else frame


def speed_frame(board: Board) -> pd.DataFrame:
    """Times of every model in every runtime, models in the order of the ranking."""
    rows = []
    for entry in board.entries:
        for engine in board.engines:
            result = board.timed.get((entry, engine))
            if result is None or result.timing is None:
                continue
            t, r, a = result.timing, result.runtime, result.agreement
            rows.append(
                {
                    "model": entry,
                    "runtime": r.name,
                    "provider": r.provider,
                    "arithmetic": r.precision,
                    "threads": r.threads,
                    "ms p50": t.ms_p50,
                    "ms p90": t.ms_p90,
                    "ms p99": t.ms_p99,
                    "ms min": t.ms_min,
                    "ms max": t.ms_max,
                    "noisy": "yes" if t.noisy else "",
                    "frames/s": t.frames_per_second,
                    "batch": t.batch,
                    "best batch": t.best_batch,
                    "frames/s there": t.best_frames_per_second,
                    "MB": t.peak_memory_mb,
                    "max deviation": a.max_abs_deviation if a else None,
                    "machine": result.environment.machine,
                }
            )
    frame = pd.DataFrame(rows)
    return frame.astype(
        {"threads": "Int64", "batch": "Int64", "best batch": "Int64"}
        | dict.fromkeys((c for c in frame.columns if c.startswith(("ms", "frames/s", "MB", "max"))), "float64")
    )


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _or(value: float) -> float:
    return value if value == value else float("-inf")
