"""PNG figures of the leaderboard: efficiency bars, accuracy against speed, RMSE against Jaccard index."""

import io
import math
import textwrap
import warnings
from collections.abc import Iterable

import matplotlib
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .ranking import Board, make_board
from .record import Result

_INK, _MUTED, _LINE = "#1d1f23", "#6a6f78", "#d9dbe0"
_STYLE = {
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.labelsize": 10,
    "axes.titlecolor": _INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.size": 10,
    "grid.color": "#eceef1",
    "legend.frameon": False,
    "text.color": _INK,
    "text.parse_math": False,  # a name is never a formula
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
}
_MARKERS = "osD^vPX*<>"


def efficiency_bars(results: Iterable[Result] | Board) -> bytes | None:
    """One panel per dataset, one bar per model with its 95 % interval, in the order of the ranking.

    Returns:
        PNG, or None without a score.
    """
    board = _board(results)
    if not board.conditions:
        return None
    colors = board.colors
    columns = min(3, len(board.conditions))
    rows = math.ceil(len(board.conditions) / columns)
    with _styled():
        figure = _figure(3.2 * columns + 1.6, rows * (0.9 + 0.36 * len(board.entries)) + 0.7)
        low = min([0.0, *(v for e in board.entries for c in board.conditions if (v := board.score(e, c)) < 0)])
        for i, condition in enumerate(board.conditions):
            axes = figure.add_subplot(rows, columns, i + 1)
            values = [board.score(entry, condition) for entry in board.entries]
            positions = list(range(len(values)))
            sns.barplot(
                x=[0.0 if math.isnan(v) else v for v in values],
                y=positions,
                hue=positions,
                palette=[colors[entry] for entry in board.entries],
                orient="h",
                width=0.68,
                saturation=1,
                legend=False,
                ax=axes,
            )
            for y, (entry, value) in enumerate(zip(board.entries, values, strict=True)):
                text = "not scored" if math.isnan(value) else f"{value:.1f}"
                ends = [board.score(entry, condition, f"efficiency_{end}") for end in ("low", "high")]
                if not any(map(math.isnan, ends)):
                    axes.plot(ends, [y, y], color=_INK, lw=1.1, alpha=0.75, solid_capstyle="butt")
                axes.text(
                    max([0.0, *(v for v in (value, ends[1]) if not math.isnan(v))]) + 1.5,
                    y,
                    text,
                    va="center",
                    color=_MUTED,
                    size=9,
                )
            names = [_short(entry) for entry in board.entries] if i % columns == 0 else [""] * len(values)
            axes.set_yticks(positions, names)
            axes.tick_params(axis="y", length=0, labelcolor=_INK)
            axes.set_xlim(low * 1.1, 112)
            axes.grid(axis="y", visible=False)
            axes.set(title=_short(condition), xlabel="efficiency (100 is perfect)", ylabel="")
            sns.despine(ax=axes, left=True)
        figure.suptitle("Efficiency by dataset", x=0.01, ha="left", size=14, weight="bold")
        return _png(figure)


def accuracy_speed(results: Iterable[Result] | Board) -> bytes | None:
    """Mean efficiency against milliseconds per 64x64 frame, and the Pareto front. PNG or None."""
    board = _board(results)
    points = [
        (board.ms(entry, engine), board.mean(entry), entry, engine)
        for entry in board.entries
        for engine in board.engines
        if board.ms(entry, engine) > 0 and not math.isnan(board.mean(entry))
    ]
    if not points:
        return None
    with _styled():
        figure = _figure(9.2, 5.2)
        axes = figure.add_subplot()
        axes.set_xscale("log")
        front = [points[i] for i in board.front(points)]
        axes.plot([p[0] for p in front], [p[1] for p in front], color=_MUTED, lw=1.2, ls=(0, (4, 3)), zorder=1)
        _scatter(axes, board, points, board.engines)
        axes.margins(0.12)
        axes.set(
            title="Up and to the left is better; the dashed line joins the models that none beats in both",
            xlabel="time per 64x64 frame (ms, median, network only)",
            ylabel="mean efficiency over the datasets",
        )
        _plain_log(axes)
        sns.despine(ax=axes)
        figure.suptitle("Accuracy against speed", x=0.01, ha="left", size=14, weight="bold")
        return _png(figure)


def rmse_jaccard(results: Iterable[Result] | Board) -> bytes | None:
    """RMSE against Jaccard index, a point per model and dataset, lines of equal efficiency. PNG or None."""
    board = _board(results)
    points = []
    for entry in board.entries:
        for condition in board.conditions:
            jaccard, rmse = (board.score(entry, condition, name) for name in ("jaccard", "rmse_lateral_nm"))
            if not (math.isnan(jaccard) or math.isnan(rmse)):
                points.append((jaccard, rmse, entry, condition))
    if not points:
        return None
    with _styled():
        figure = _figure(9.2, 5.2)
        axes = figure.add_subplot()
        top = max(20.0, 1.15 * max(p[1] for p in points))
        for efficiency in range(20, 100, 20):
            radius = 100 - efficiency
            turn = [math.pi / 2 * step / 60 for step in range(61)]
            xs, ys = [100 - radius * math.cos(t) for t in turn], [radius * math.sin(t) for t in turn]
            axes.plot(xs, ys, color=_LINE, lw=1, zorder=1)
            if 100 - radius * 0.996 >= 0:
                axes.text(xs[0] + 0.6, top * 0.01, f"E {efficiency}", color=_MUTED, size=8, va="bottom")
        _scatter(axes, board, points, board.conditions)
        axes.set(
            title="Down and to the right is better; the curves join points of equal efficiency E",
            xlabel="Jaccard index (%)",
            ylabel="lateral RMSE (nm)",
            xlim=(0, 102),
            ylim=(0, top),
        )
        sns.despine(ax=axes)
        figure.suptitle("Position error against detection", x=0.01, ha="left", size=14, weight="bold")
        return _png(figure)


FIGURES = {
    "efficiency.png": efficiency_bars,
    "accuracy_speed.png": accuracy_speed,
    "rmse_jaccard.png": rmse_jaccard,
}


def _board(results: Iterable[Result] | Board) -> Board:
    """The board of the main table: 2D and matched, where there is such a one."""
    return (results if isinstance(results, Board) else make_board(results)).main


def _short(label: str, width: int = 44) -> str:
    return textwrap.shorten(label, width, placeholder=" …") if len(label) > width and " " in label else label[:width]


def _styled():  # type: ignore[no-untyped-def]
    return matplotlib.rc_context({**sns.axes_style("whitegrid"), **_STYLE})


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # Agg whatever the display, and no global state
    return figure


def _scatter(axes: Axes, board: Board, points: list[tuple[float, float, str, str]], kinds: list[str]) -> None:
    """Colour tells the model, marker the kind (runtime or dataset); a legend for each."""
    colors = board.colors
    markers = {kind: _MARKERS[i % len(_MARKERS)] for i, kind in enumerate(kinds)}
    sns.scatterplot(
        x=[p[0] for p in points],
        y=[p[1] for p in points],
        hue=[p[2] for p in points],
        style=[p[3] for p in points],
        palette=colors,
        markers=markers,
        s=85,
        alpha=0.92,
        edgecolor="white",
        linewidth=0.8,
        legend=False,
        ax=axes,
        zorder=3,
    )
    shown = [e for e in board.entries if any(p[2] == e for p in points)]
    handles = [axes.plot([], [], "o", ms=7, color=colors[e], label=_short(e, 30))[0] for e in shown]
    first = axes.legend(handles=handles, title="model", loc="upper left", bbox_to_anchor=(1.01, 1.0), alignment="left")
    axes.add_artist(first)
    handles = [
        axes.plot([], [], markers[k], ms=7, color=_MUTED, label=_short(k, 30))[0]
        for k in kinds
        if any(p[3] == k for p in points)
    ]
    second = axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(1.01, 0.0), alignment="left")
    second.set_in_layout(True)
    first.set_in_layout(True)


def _plain_log(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(out, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return out.getvalue()
