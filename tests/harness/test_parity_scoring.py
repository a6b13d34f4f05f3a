"""Matching, scores and sigma filters equal the originals' evaluations, and the checker notices wrong numbers."""

import json
import shutil

import numpy as np
import pytest

from harness.parity import run_parity
from harness.scoring import match
from simulators import Emitters, Localizations

MATCHING, TOOLS, OPTIMAL = "decode/matching.npz", "decode/misc.npz", "attention_unet/metrics.npz"


def rows_of(path):
    return {row.item: row for row in run_parity(path)}


def rewritten(source, target, **changes):
    arrays = dict(np.load(source))
    for key, change in changes.items():
        arrays[key] = change(arrays[key].copy())
    np.savez(target, **arrays)
    if source.with_suffix(".json").is_file() and not target.with_suffix(".json").exists():
        shutil.copy(source.with_suffix(".json"), target.with_suffix(".json"))
    return target


@pytest.mark.parametrize("name", [MATCHING, OPTIMAL])
def test_everything_in_the_file_is_equal(reference, name):
    rows = rows_of(reference / name)
    assert len(rows) >= 15
    assert [row for row in rows.values() if row.status != "equal"] == []


def test_all_rules_sets_and_scores_are_compared(reference):
    rows = rows_of(reference / MATCHING)
    scores = ("prec", "rec", "jac", "f1", "1 - effcy_lat", "1 - effcy_ax", "1 - effcy_vol")
    scores += tuple(f"{kind}_{axes}" for kind in ("rmse", "mad") for axes in ("lat", "ax", "vol"))
    for data in "ab":
        for rule in ("d3", "d2", "vol"):
            for item in ("hits", "their emitters", "false alarms", "misses", *scores):
                assert f"{data}, rule {rule}: {item}" in rows


def test_sigma_filters_are_equal_and_other_tools_not_claimed(reference):
    rows = rows_of(reference / TOOLS)
    ours = [row for item, row in rows.items() if item.startswith(("filter_sigma", "sig_"))]
    assert len(ours) == 7
    assert all(row.status == "equal" for row in ours)
    assert all(row.status != "off" for row in rows.values())


def test_figures_beside_the_arrays_are_no_file_of_their_own(reference, tmp_path):
    for suffix in (".npz", ".json"):
        shutil.copy((reference / OPTIMAL).with_suffix(suffix), tmp_path / f"renamed{suffix}")
    rows = run_parity(tmp_path)
    assert {row.file for row in rows} == {"renamed.npz"}
    (tmp_path / "renamed.json").unlink()
    assert [row.status for row in run_parity(tmp_path)] == ["not covered"]


@pytest.mark.parametrize(
    ("name", "key", "item"),
    [
        (MATCHING, "a_d3_tp", "a, rule d3: hits"),
        (MATCHING, "b_vol_tp_match", "b, rule vol: their emitters"),
        (MATCHING, "b_d2_fn", "b, rule d2: misses"),
        (MATCHING, "a_vol_metrics", "a, rule vol: prec"),
        (MATCHING, "greedy_tp", "greedy order: hits"),
        (MATCHING, "efficiency_table_jac_rmse_a1_a05", "efficiency_table_jac_rmse_a1_a05"),
        (TOOLS, "filter_sigma_67_id", "filter_sigma_67_id"),
        (TOOLS, "sig_weighted_tot_nm", "sig_weighted_tot_nm"),
    ],
)
def test_a_wrong_number_is_off(reference, tmp_path, name, key, item):
    def spoil(array):
        array.flat[0] += 1
        return array

    path = rewritten(reference / name, tmp_path / "spoiled.npz", **{key: spoil})
    assert rows_of(path)[item].status == "off"


def test_moved_inputs_are_off(reference, tmp_path):
    path = rewritten(reference / MATCHING, tmp_path / "m.npz", pr_a_xyz_px=lambda a: a + np.array([0.03, 0, 0]))
    rows = rows_of(path)
    assert rows["a, rule d3: rmse_lat"].status == "off"
    assert rows["b, rule d3: rmse_lat"].status == "equal"
    path = rewritten(reference / OPTIMAL, tmp_path / "o.npz", case0_pred_frame_x_y=lambda a: a + np.array([0, 1.0, 0]))
    assert rows_of(path)["case0: rmse_nm"].status == "off"
    figures = json.loads((reference / OPTIMAL).with_suffix(".json").read_text())
    figures["case2"]["optimal_assignment"]["tp"] += 1
    (tmp_path / "o.json").write_text(json.dumps(figures))
    assert rows_of(tmp_path / "o.npz")["case2: tp"].status == "off"


def test_other_sizes_and_unknown_rules(reference, tmp_path):
    arrays = dict(np.load(reference / MATCHING))
    kept = {k: v for k, v in arrays.items() if not k.startswith(("a_", "gt_a", "pr_a", "greedy"))}
    renamed = {k.replace("b_d2_", "b_d9_"): v for k, v in kept.items()}
    np.savez(tmp_path / "x.npz", **renamed)
    rows = rows_of(tmp_path / "x.npz")
    assert rows["b, rule d9"].status == "not covered"
    assert rows["b, rule vol: hits"].status == "equal"


def test_sphere_and_order_of_pairs():
    truth = Emitters(frame=[0], x_nm=[0.0], y_nm=[0.0], z_nm=[0.0])
    found = Localizations(frame=[0, 0], x_nm=[60.0, 80.0], y_nm=0.0, z_nm=[200.0, 0.0])
    both = {"truth": truth, "found": found, "tolerance_nm": 250}
    assert match(**both).found_index.tolist() == [0]  # nearest in the plane
    assert match(**both, axial_tolerance_nm=500).found_index.tolist() == [1]
    assert match(**both, axial_tolerance_nm=500, order_dimensions=2).found_index.tolist() == [0]
    assert match(**both, order_dimensions=3).distance.tolist() == [80]
    near = {**both, "found": found.pick([0])}
    assert len(match(**near, volume_tolerance_nm=208)) == 0
    assert len(match(**near, volume_tolerance_nm=209)) == 1
    with pytest.raises(ValueError, match="order_dimensions is 1"):
        match(**both, order_dimensions=1)
    with pytest.raises(ValueError, match="volume_tolerance_nm is 0"):
        match(**both, volume_tolerance_nm=0)
