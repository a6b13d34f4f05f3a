"""Scores against a condition: a tidy table, figures, and whether the order of the models holds over seeds."""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .labels import all_labels
from .plots import _INK, _MUTED, _figure, _png, _short, _styled
from .ranking import entry_colors
from .record import Result

_LABELS = {
    "density": "emitters per µm² and frame",
    "photons": "photons per frame",
    "background": "background, photons per pixel",
    "psf": "PSF width, % off the middle of the domain",
    "defocus": "focus, nm off",
}
_LOG = ("density", "photons", "background")
_SCORES = (
    ("efficiency", "efficiency (100 is perfect)"),
    ("jaccard", "Jaccard index (%)"),
    ("rmse_lateral_nm", "lateral RMSE (nm)"),
)
_ENDS = {
    "efficiency": ("efficiency_low", "efficiency_high"),
    "jaccard": ("jaccard_low", "jaccard_high"),
    "rmse_lateral_nm": ("rmse_lateral_low_nm", "rmse_lateral_high_nm"),
}


def conditions_frame(results: Iterable[Result]) -> pd.DataFrame:
    """One row per record with scores: model, condition, value, movie, scores with their intervals, flags.

    Columns: `model`, `baseline`, `context_frames`, `trained_on`, `condition`, `value`, `dataset`, `dimensions`, `seed`,
    `frames`, `n_truth`, then efficiency, jaccard and rmse_lateral_nm with the ends of their 95 % intervals,
    `rmse_axial_nm`, `precision`, `recall`, `threshold`, `flags`. Missing numbers are NaN.
    """
    results = [r for r in results if r.scores is not None]
    rows = []
    for result, entry in zip(results, all_labels(results)[0], strict=True):
        m, d, s = result.model, result.dataset, result.scores
        assert s is not None
        scores = {name: getattr(s, name) for name, _ in _SCORES}
        ends = {end: getattr(s, end) for name in scores for end in _ENDS[name]}
        rows.append(
            {
                "model": entry,
                "baseline": m.baseline,
                "context_frames": m.context_frames,
                "trained_on": m.trained_on,
                "condition": d.condition,
                "value": d.value,
                "dataset": d.name,
                "dimensions": d.dimensions,
                "seed": d.seed,
                "frames": d.frames,
                "n_truth": s.n_truth,
                **scores,
                **ends,
                "rmse_axial_nm": s.rmse_axial_nm,
                "precision": s.precision,
                "recall": s.recall,
                "threshold": result.settings.threshold,
                "flags": result.detail.flags if result.detail else "",
            }
        )
    frame = pd.DataFrame(rows)
    numbers = [name for name, _ in _SCORES] + [end for ends in _ENDS.values() for end in ends]
    kinds = dict.fromkeys([*numbers, "value", "rmse_axial_nm", "precision", "recall", "threshold"], "float64")
    kinds |= dict.fromkeys(("context_frames", "seed", "frames", "n_truth"), "Int64")
    return frame.astype({name: kind for name, kind in kinds.items() if name in frame})


def condition_figures(results: Iterable[Result]) -> dict[str, bytes]:
    """PNG figures by file name: one per condition and dimension, `pairs.png`, `real.png`; none without records.

    Lines join the means over seeds. Bands and bars are the range over seeds where there are several, else the 95 %
    interval over blocks of frames.
    """
    results = list(results)
    frame = conditions_frame(results)
    labels = all_labels(results)[0]
    colors = entry_colors({entry: result.model.baseline for entry, result in zip(labels, results, strict=True)})
    figures: dict[str, bytes] = {}
    for condition, dimensions in sorted({(r.dataset.condition, r.dataset.dimensions) for r in results if r.scores}):
        part = frame[(frame.condition == condition) & (frame.dimensions == dimensions)]
        name = condition if dimensions == 2 else f"{condition}-3d"
        draw = _sweep if part.value.notna().all() else _dots
        figures[f"{name}.png"] = draw(part, colors, condition, dimensions)
    paired = [r for r in results if r.detail and r.detail.curves.get("pairs")]
    if paired:
        figures["pairs.png"] = _pairs(paired, colors)
    real = [r for r in results if r.dataset.condition == "real" and r.detail and r.detail.images]
    if real:
        figures["real.png"] = _real(real, colors)
    return figures


def order_over_seeds(results: Iterable[Result]) -> pd.DataFrame:
    """Whether models keep their order of efficiency from seed to seed, one row per movie of several seeds.

    Columns: `condition`, `value`, `dataset`, `dimensions`, `seeds`, `agreement` (smallest Kendall's tau between the
    orders of two seeds: 1 the same, -1 reversed), `stable`, `changes` (pairs of models whose order is not the same in
    all seeds). Baselines take no part.
    """
    frame = conditions_frame(results)
    rows = []
    if len(frame):
        for key, part in frame[~frame.baseline].groupby(
            ["condition", "value", "dataset", "dimensions"], dropna=False, sort=False
        ):
            table = part.pivot_table(index="model", columns="seed", values="efficiency").dropna()
            if table.shape[0] < 2 or table.shape[1] < 2:
                continue
            pairs = list(combinations(table.index, 2))
            signs = np.array([np.sign(table.loc[a] - table.loc[b]) for a, b in pairs])  # (pairs, seeds)
            taus = [float((signs[:, i] * signs[:, j]).mean()) for i, j in combinations(range(signs.shape[1]), 2)]
            changed = [f"{a} / {b}" for (a, b), sign in zip(pairs, signs, strict=True) if len(set(sign)) > 1]
            rows.append(
                {
                    **dict(zip(("condition", "value", "dataset", "dimensions"), key, strict=True)),
                    "seeds": table.shape[1],
                    "agreement": min(taus),
                    "stable": not changed,
                    "changes": ", ".join(changed),
                }
            )
    columns = ["condition", "value", "dataset", "dimensions", "seeds", "agreement", "stable", "changes"]
    return pd.DataFrame(rows, columns=columns)


def _over_seeds(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Mean, low and high of every score for each model and `by`; the range over seeds, or the one movie's interval."""
    rows = []
    for (model, where), part in frame.groupby(["model", by], sort=False):
        row: dict[str, Any] = {"model": model, by: where, "baseline": bool(part.baseline.any())}
        for name, (low, high) in _ENDS.items():
            several = len(part) > 1
            row[name] = part[name].mean()
            row[f"{name} low"] = part[name].min() if several else part[low].iloc[0]
            row[f"{name} high"] = part[name].max() if several else part[high].iloc[0]
        rows.append(row)
    return pd.DataFrame(rows)


def _spread(frame: pd.DataFrame) -> str:
    several = frame.groupby(["model", "value", "dataset"], dropna=False).size().max() > 1
    return "bands: range over seeds" if several else "bands: 95 % interval over blocks of frames"


def _sweep(frame: pd.DataFrame, colors: dict[str, str], condition: str, dimensions: int) -> bytes:
    table = _over_seeds(frame, "value").sort_values("value")
    ticks = sorted(table.value.unique())
    with _styled():
        figure = _figure(13.5, 4.6)
        for i, (name, label) in enumerate(_SCORES):
            axes = figure.add_subplot(1, 3, i + 1)
            for model in table.model.unique():
                part = table[table.model == model]
                sns.lineplot(
                    x=part.value,
                    y=part[name],
                    color=colors[model],
                    ls="--" if part.baseline.any() else "-",
                    marker="o",
                    ms=5,
                    legend=False,
                    ax=axes,
                )
                axes.fill_between(
                    part.value, part[f"{name} low"], part[f"{name} high"], color=colors[model], alpha=0.13
                )
            if condition in _LOG:
                axes.set_xscale("log")
            axes.set_xticks(ticks, [f"{v:g}" for v in ticks])
            axes.minorticks_off()
            axes.set(xlabel=_LABELS.get(condition, condition), ylabel=label)
            _limits(axes, name, table)
            sns.despine(ax=axes)
        _legend(figure, table, colors)
        figure.suptitle(f"{_title(condition, dimensions)}   ({_spread(frame)})", x=0.01, ha="left", size=13)
        return _png(figure)


def _dots(frame: pd.DataFrame, colors: dict[str, str], condition: str, dimensions: int) -> bytes:
    names = sorted(frame.dataset.unique())
    with _styled():
        height = 0.9 + 0.32 * frame.model.nunique()
        figure = _figure(13.5, height * len(names) + 0.8)
        grid = figure.subplots(len(names), 3, squeeze=False)
        for row, dataset in enumerate(names):
            table = _over_seeds(frame[frame.dataset == dataset], "dataset").sort_values("efficiency")
            for axes, (name, label) in zip(grid[row], _SCORES, strict=True):
                _intervals(axes, table, name, colors)
                last = row == len(names) - 1
                axes.set(xlabel=label if last else "", ylabel="", title=_short(dataset) if name == "efficiency" else "")
                axes.set_yticks(range(len(table)), table.model if name == "efficiency" else [""] * len(table))
        figure.suptitle(f"{_title(condition, dimensions)}   ({_spread(frame)})", x=0.01, ha="left", size=13)
        return _png(figure)


def _intervals(axes: Axes, table: pd.DataFrame, name: str, colors: dict[str, str]) -> None:
    """A point per model with its interval, one below the other."""
    for y, row in enumerate(table.to_dict("records")):
        color = colors[row["model"]]
        ends = [float(row.get(f"{name} {end}", math.nan)) for end in ("low", "high")]
        axes.plot(ends, [y, y], color=color, lw=2.5, alpha=0.45)
        axes.plot([row[name]], [y], "s" if row["baseline"] else "o", color=color, ms=7)
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.tick_params(axis="y", length=0, labelcolor=_INK)
    sns.despine(ax=axes, left=True)


def _pairs(results: Sequence[Result], colors: dict[str, str]) -> bytes:
    panels = (
        ("both", "both_low", "both_high", "share of pairs with both found"),
        ("rmse_along_nm", "rmse_along_low_nm", "rmse_along_high_nm", "RMSE along the axis (nm)"),
        ("rmse_across_nm", "rmse_across_low_nm", "rmse_across_high_nm", "RMSE across the axis (nm)"),
        ("bias_along_nm", "bias_along_low_nm", "bias_along_high_nm", "mean shift away from the partner (nm)"),
    )
    labels = all_labels(list(results))[0]
    ratios = sorted({r.dataset.value or 1.0 for r in results}, reverse=True)
    with _styled():
        figure = _figure(15.5, 3.9 * len(ratios) + 0.8)
        grid = figure.subplots(len(ratios), len(panels), squeeze=False, sharex=True)
        shown: dict[str, bool] = {}
        for row, ratio in enumerate(ratios):
            for result, entry in zip(results, labels, strict=True):
                if (result.dataset.value or 1.0) != ratio or result.detail is None:
                    continue
                shown[entry] = result.model.baseline
                table = pd.DataFrame(result.detail.curves["pairs"])
                table = table.astype(dict.fromkeys(table.columns, "float64"))
                for axes, (name, low, high, _) in zip(grid[row], panels, strict=True):
                    part = (
                        table if name == "both" else table[(table.pairs * table.both >= 5) & (table.separation_nm > 0)]
                    )
                    x = part.separation_nm
                    ls = "--" if result.model.baseline else "-"
                    sns.lineplot(x=x, y=part[name], color=colors[entry], ls=ls, marker="o", ms=4, legend=False, ax=axes)
                    axes.fill_between(x, part[low], part[high], color=colors[entry], alpha=0.13)
            for axes, (name, _, _, label) in zip(grid[row], panels, strict=True):
                last = row == len(ratios) - 1
                axes.set(xlabel="separation (nm)" if last else "", ylabel=label)
                if name == "both":
                    axes.set_ylim(-0.02, 1.02)
                    kind = "equal brightness" if ratio == 1 else f"brightness 1:{1 / ratio:g}"
                    axes.set_title(kind, weight="bold")
                elif name.startswith("bias"):
                    axes.axhline(0, color=_MUTED, lw=0.8)
                else:
                    axes.set_ylim(bottom=0)
                sns.despine(ax=axes)
        table = pd.DataFrame({"model": list(shown), "baseline": list(shown.values())})
        _legend(figure, table, colors)
        title = "Two molecules   (bands: 95 % intervals; errors of pairs with both found, where there are at least 5)"
        figure.suptitle(title, x=0.01, ha="left", size=13)
        return _png(figure)


def _real(results: Sequence[Result], colors: dict[str, str]) -> bytes:
    panels = (
        ("found_per_frame", "localizations per frame"),
        ("frc_halves_nm", "FRC of halves (nm)"),
        ("rsp", "agreement with the mean frame (RSP)"),
    )
    labels = all_labels(list(results))[0]
    names = sorted({r.dataset.name for r in results})
    with _styled():
        figure = _figure(13.5, (0.9 + 0.32 * len(set(labels))) * len(names) + 0.8)
        grid = figure.subplots(len(names), len(panels), squeeze=False)
        for row, dataset in enumerate(names):
            rows = [
                {"model": label, "baseline": r.model.baseline, **{n: _number(r, n) for n, _ in panels}}
                for r, label in zip(results, labels, strict=True)
                if r.dataset.name == dataset and not (r.model.baseline and _number(r, "found_per_frame") == 0)
            ]
            table = pd.DataFrame(rows).sort_values("model", ascending=False)
            for axes, (name, label) in zip(grid[row], panels, strict=True):
                _intervals(axes, table, name, colors)
                first, last = name == panels[0][0], row == len(names) - 1
                axes.set(xlabel=label if last else "", ylabel="", title=_short(dataset) if first else "")
                axes.set_yticks(range(len(table)), table.model if first else [""] * len(table))
        figure.suptitle("Real data: reported, no ranking (none of this proves a structure)", x=0.01, ha="left", size=13)
        return _png(figure)


def _number(result: Result, name: str) -> float:
    value = result.detail.images.get(name) if result.detail else None
    return float(value) if isinstance(value, int | float) else math.nan


def _title(condition: str, dimensions: int) -> str:
    return f"Condition: {condition}" + (", three dimensions" if dimensions == 3 else "")


def _limits(axes: Axes, name: str, table: pd.DataFrame) -> None:
    """The range that the models need; baselines that lie wholly outside are named with their value instead."""
    if name == "jaccard":
        axes.set_ylim(0, 102)
        return
    values = table if table.baseline.all() else table[~table.baseline]
    best = {str(model): table[table.model == model][name] for model in table.model.unique()}
    if name == "efficiency":
        low = min(0.0, values[name].min()) - 4
        axes.set_ylim(low, 102)
        outside = {model: v.max() for model, v in best.items() if v.max() < low}
        text, y = "below: ", 0.02
    else:
        high = 1.25 * values[f"{name} high"].fillna(values[name]).max()
        axes.set_ylim(0, high if high > 0 else 1)
        outside = {model: v.min() for model, v in best.items() if v.min() > high}
        text, y = "above: ", 0.95
    if outside:
        text += ", ".join(f"{model} {value:.0f}" for model, value in outside.items())
        axes.text(0.02, y, text, transform=axes.transAxes, color=_MUTED, size=8.5)


def _legend(figure: Figure, table: pd.DataFrame, colors: dict[str, str]) -> None:
    rows = table.drop_duplicates("model").sort_values("model")
    axes = figure.axes[0]
    handles = [
        axes.plot([], [], "--" if b else "-", color=colors[m], marker="o", ms=5, label=_short(m, 34))[0]
        for m, b in zip(rows.model, rows.baseline, strict=True)
    ]
    figure.legend(handles=handles, loc="outside right upper")
