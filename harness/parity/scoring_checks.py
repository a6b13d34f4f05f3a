"""Matching, scores and sigma filters against the files that the programs' evaluations made.

Keys name what they hold: `gt_SET_xyz_px`, `pr_SET_frame_ix`, ... are tables, `SET_RULE_tp`, `SET_RULE_metrics`, ...
results under a rule: d3 and d2 (250 nm lateral; d3 also 500 nm axial and pairs in 3D order), vol (a sphere of
300 nm).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .files import Case
from .rows import Row, compare, not_covered, off

PIXEL_NM = 100.0
SCORE_TOLERANCE = 1e-4  # theirs are float32 distances: 2.5e-5 seen
RULES: dict[str, dict[str, Any]] = {
    "d3": {"tolerance_nm": 250.0, "axial_tolerance_nm": 500.0},
    "d2": {"tolerance_nm": 250.0},
    "vol": {"tolerance_nm": 300.0, "volume_tolerance_nm": 300.0},
}

Arrays = Mapping[str, np.ndarray]


def is_matching(case: Case) -> bool:
    return any(re.fullmatch(r"\w+_tp_match", key) for key in case.arrays)


def check_matching(case: Case) -> Iterator[Row]:
    """Indices and scores of every set and rule, the hand-made case, and the efficiency table."""
    file, arrays = case.path.name, case.arrays
    used: set[str] = {"metric_names"}
    for key in arrays:
        found = re.fullmatch(r"(\w+?)_(\w+)_tp_match", key)
        if found is None:
            continue
        data, rule = found[1], found[2]
        inputs = [f"{side}_{data}_{name}" for side in ("gt", "pr") for name in ("xyz_px", "frame_ix")]
        outputs = [f"{data}_{rule}_{name}" for name in ("tp", "tp_match", "fp", "fn", "metrics")]
        used.update([*inputs, *outputs, f"gt_{data}_phot", f"pr_{data}_phot"])
        if rule not in RULES:
            yield not_covered(
                file, f"{data}, rule {rule}", f"no rule of ours stands for it; there are {', '.join(RULES)}"
            )
            continue
        yield from _matching_rows(file, f"{data}, rule {rule}", arrays, inputs, outputs, RULES[rule])
    if "greedy_gt_nm" in arrays:
        used.update(key for key in arrays if key.startswith("greedy_"))
        yield from _toy_rows(file, arrays)
    for key in arrays:
        if key.startswith("efficiency_table"):
            used.add(key)
            yield _efficiency_row(file, key, arrays[key])
        elif key not in used:
            yield not_covered(file, key, "nothing of ours stands for it")


def _matching_rows(
    file: str, item: str, arrays: Arrays, inputs: list[str], outputs: list[str], rule: dict[str, Any]
) -> Iterator[Row]:
    from harness.scoring import Protocol, assess, summarise
    from simulators import Emitters, Localizations

    missing = [key for key in (*inputs, *outputs[:4]) if key not in arrays]
    if missing:
        yield off(file, item, f"the file lacks {', '.join(missing)}")
        return
    first = min(int(arrays[inputs[1]].min(initial=0)), int(arrays[inputs[3]].min(initial=0)))

    def columns(position: str, frame: str) -> dict[str, np.ndarray]:
        # the field below begins well outside of all rows, so that no border matters
        x, y, z = (arrays[position].astype(np.float64) * (PIXEL_NM, PIXEL_NM, 1.0)).T
        return {"frame": arrays[frame] - first, "x_nm": x + _MARGIN, "y_nm": y + _MARGIN, "z_nm": z}

    truth, found = Emitters(**columns(*inputs[:2])), Localizations(**columns(*inputs[2:]))
    three = "axial_tolerance_nm" in rule or "volume_tolerance_nm" in rule
    settings = {"axial_tolerance_nm": None, **rule}
    protocol = Protocol(name=item, dimensions=3 if three else 2, border_nm=0, quantile=0, rule="greedy", **settings)
    one = assess(truth=truth, found=found, field_nm=(4 * _MARGIN, 4 * _MARGIN), protocol=protocol)
    tp, tp_match, fp, fn = (arrays[key] for key in outputs[:4])
    order = np.argsort(tp_match)  # ours are ordered by truth row
    yield _same(file, f"{item}: hits", one.hit_found, tp[order])
    yield _same(file, f"{item}: their emitters", one.hit_truth, tp_match[order])
    yield _same(file, f"{item}: false alarms", np.flatnonzero(one.false_alarm), np.sort(fp))
    yield _same(file, f"{item}: misses", np.flatnonzero(one.missed), np.sort(fn))
    if outputs[4] not in arrays:
        return
    errors = np.column_stack([one.error("x"), one.error("y"), one.error("z")])
    score = summarise(one)
    ours = _scores_as_theirs(score.jaccard, score.precision, score.recall, score.f1, errors)
    names = [str(name) for name in arrays["metric_names"]] if "metric_names" in arrays else list(ours)
    theirs = np.ravel(arrays[outputs[4]])
    for name, value in zip(names, theirs, strict=True):
        if name not in ours:
            yield not_covered(file, f"{item}: {name}", "no score of ours stands for it")
        elif name.startswith("effcy"):  # may be near 0: compare what is lacking to 1
            yield compare(file, f"{item}: 1 - {name}", [1 - ours[name]], [1 - value], tolerance=SCORE_TOLERANCE)
        else:
            yield compare(file, f"{item}: {name}", [ours[name]], [value], tolerance=SCORE_TOLERANCE)
    if three:  # what a user gets, beside the same formulas on the errors above
        lateral, axial, volume = score.rmse_lateral_nm, score.rmse_axial_nm, score.rmse_volume_nm
        mine = [lateral, axial, volume, score.mad_lateral_nm, score.mad_axial_nm, score.mad_nm]
        same = ("rmse_lat", "rmse_ax", "rmse_vol", "mad_lat", "mad_ax", "mad_vol")
        pairs = [(a, theirs[names.index(n)]) for a, n in zip(mine, same, strict=True) if n in names]
        yield compare(file, f"{item}: our score's own fields", *zip(*pairs, strict=True), tolerance=SCORE_TOLERANCE)


_MARGIN = 1e7  # nm


def _scores_as_theirs(
    jaccard: float, precision: float, recall: float, f1: float, errors: np.ndarray
) -> dict[str, float]:
    """Our scores in the units of the file: shares from 0 to 1; errors over all three axes whatever the rule."""
    from harness.scoring.metrics import efficiency

    result = {"prec": precision / 100, "rec": recall / 100, "jac": jaccard / 100, "f1": f1 / 100}
    for name, axes in (("lat", [0, 1]), ("ax", [2]), ("vol", [0, 1, 2])):
        result[f"rmse_{name}"] = math.sqrt((errors[:, axes] ** 2).sum(1).mean()) if len(errors) else math.nan
        result[f"mad_{name}"] = float(np.abs(errors[:, axes]).sum(1).mean()) if len(errors) else math.nan
    for name, alpha in (("lat", 1.0), ("ax", 0.5)):
        result[f"effcy_{name}"] = efficiency(jaccard=jaccard, rmse_nm=result[f"rmse_{name}"], alpha_per_nm=alpha) / 100
    result["effcy_vol"] = (result["effcy_lat"] + result["effcy_ax"]) / 2
    return result


def _toy_rows(file: str, arrays: Arrays) -> Iterator[Row]:
    """Two emitters and three localizations on one frame, where greedy order matters."""
    from harness.scoring import match
    from simulators import Emitters, Localizations

    lowest = min(arrays["greedy_gt_nm"].min(), arrays["greedy_pr_nm"].min())

    def columns(key: str) -> dict[str, np.ndarray]:
        x, y, z = (arrays[key].astype(np.float64) - lowest).T
        return {"frame": np.zeros(len(x), np.int64), "x_nm": x, "y_nm": y, "z_nm": z}

    truth, found = Emitters(**columns("greedy_gt_nm")), Localizations(**columns("greedy_pr_nm"))
    pairs = match(truth=truth, found=found, **RULES["d3"])
    order = np.argsort(arrays["greedy_tp_match"])
    yield _same(file, "greedy order: hits", pairs.found_index, arrays["greedy_tp"][order])
    yield _same(file, "greedy order: their emitters", pairs.truth_index, arrays["greedy_tp_match"][order])
    alone = np.setdiff1d(np.arange(len(found)), pairs.found_index)
    yield _same(file, "greedy order: false alarms", alone, np.sort(arrays["greedy_fp"]))
    missed = np.setdiff1d(np.arange(len(truth)), pairs.truth_index)
    yield _same(file, "greedy order: misses", missed, np.sort(arrays["greedy_fn"]))


def _efficiency_row(file: str, key: str, table: np.ndarray) -> Row:
    """Columns: Jaccard, RMSE, efficiency with alpha 1 and with alpha 0.5."""
    from harness.scoring.metrics import efficiency

    ours = [
        [efficiency(jaccard=100 * jac, rmse_nm=rmse, alpha_per_nm=alpha) / 100 for alpha in (1.0, 0.5)]
        for jac, rmse in table[:, :2].tolist()
    ]
    return compare(file, key, ours, table[:, 2:], tolerance=1e-6)


def is_optimal(case: Case) -> bool:
    return any(key.endswith("_gt_frame_x_y_photons") for key in case.arrays)


def check_optimal(case: Case) -> Iterator[Row]:
    """Optimal assignment within 100 nm over all frames, against the figures in the JSON beside the file.

    What the original program counted (it misses frames without a prediction) is no row: ours counts every frame.
    """
    file, arrays = case.path.name, case.arrays
    beside = case.path.with_suffix(".json")
    if not beside.is_file():
        yield not_covered(file, "file", f"no {beside.name} with the figures beside it")
        return
    try:
        figures = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        yield off(file, beside.name, f"not readable as JSON: {error}")
        return
    for key in sorted(arrays):
        name = key.removesuffix("_gt_frame_x_y_photons")
        if name == key:
            if not key.endswith("_pred_frame_x_y"):
                yield not_covered(file, key, "nothing of ours stands for it")
            continue
        prediction = f"{name}_pred_frame_x_y"
        theirs = figures.get(name, {}).get("optimal_assignment") if isinstance(figures, dict) else None
        if prediction not in arrays or not isinstance(theirs, dict):
            yield not_covered(file, name, f"{prediction} or the optimal assignment in {beside.name} is missing")
            continue
        yield from _optimal_rows(file, name, arrays[key], arrays[prediction], theirs)


def _optimal_rows(
    file: str, name: str, truth: np.ndarray, found: np.ndarray, theirs: Mapping[str, float]
) -> Iterator[Row]:
    from harness.scoring import Protocol, score
    from simulators import Emitters, Localizations

    protocol = Protocol(
        name="optimal, 100 nm",
        dimensions=2,
        tolerance_nm=100.0,
        axial_tolerance_nm=None,
        border_nm=0.0,
        quantile=0.0,
        rule="optimal",
    )
    one = score(
        truth=Emitters(frame=truth[:, 0], x_nm=truth[:, 1] + _MARGIN, y_nm=truth[:, 2] + _MARGIN),
        found=Localizations(frame=found[:, 0], x_nm=found[:, 1] + _MARGIN, y_nm=found[:, 2] + _MARGIN),
        field_nm=(4 * _MARGIN, 4 * _MARGIN),
        protocol=protocol,
    )
    ours = {"tp": one.tp, "fp": one.fp, "fn": one.fn, "jaccard": one.jaccard / 100, "rmse_nm": one.rmse_lateral_nm}
    for key, value in theirs.items():
        if key not in ours:
            yield not_covered(file, f"{name}: {key}", "no score of ours stands for it")
        else:
            yield compare(file, f"{name}: {key}", [ours[key]], [value], tolerance=1e-9)


def is_emitter_tools(case: Case) -> bool:
    return {"em_xyz_sig", "em_id"} <= case.arrays.keys() and any(k.startswith("filter_sigma_") for k in case.arrays)


def check_emitter_tools(case: Case) -> Iterator[Row]:
    """Sigma filters and total sigmas of an emitter table; other tools in the same file are not covered."""
    from harness.analysis import keep_best_sigma, total_sigma_nm, weighted_sigma_nm
    from simulators import Localizations

    file, arrays = case.path.name, case.arrays
    frame = arrays["em_frame_ix"] if "em_frame_ix" in arrays else np.zeros(len(arrays["em_id"]), np.int64)

    def table(position: str, sigma: str) -> Localizations:
        x, y, z = arrays[position].astype(np.float64).T
        names = ("x_sigma_nm", "y_sigma_nm", "z_sigma_nm")
        sigmas = dict(zip(names, arrays[sigma].astype(np.float64).T, strict=True))
        return Localizations(frame=frame - min(frame.min(), 0), x_nm=x, y_nm=y, z_nm=z, id=arrays["em_id"], **sigmas)

    stored = table("em_xyz", "em_xyz_sig")
    for key in arrays:
        found = re.fullmatch(r"filter_sigma_(\d+)(?:_dim([23]))?_id", key)
        if found:
            share, dimensions = int(found[1]) / 100, int(found[2]) if found[2] else None
            kept = stored.pick(keep_best_sigma(stored, share, dimensions=dimensions))
            yield _same(file, key, np.sort(kept.id), np.sort(arrays[key]))
        elif key in ("sig_tot_nm", "sig_weighted_tot_nm") and {"xyz_nm", "xyz_sig_nm"} <= arrays.keys():
            in_nm = table("xyz_nm", "xyz_sig_nm")
            ours = total_sigma_nm(in_nm) if key == "sig_tot_nm" else weighted_sigma_nm(in_nm)
            yield compare(file, key, ours, arrays[key], tolerance=1e-6)
        elif not key.startswith("em_") and key not in ("xyz_nm", "xyz_sig_nm"):
            yield not_covered(file, key, "no tool of ours stands for it")


def _same(file: str, item: str, ours: np.ndarray, theirs: np.ndarray) -> Row:
    """Row numbers: equal or not. Two empty lists are equal."""
    if len(ours) == 0 and len(theirs) == 0:
        return Row(file=file, item=item, status="equal", deviation=0.0, tolerance=0.0, note="none on either side")
    return compare(file, item, ours, theirs, tolerance=0.0)
