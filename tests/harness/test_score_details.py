"""Curves, molecules, point sets, bounds, calibration and the report, against formulas and cases by hand."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest

from harness.cli import main
from harness.io import write_table
from harness.scoring import (
    CHALLENGE_2D,
    CHALLENGE_3D,
    Protocol,
    assess,
    calibrations,
    curve,
    molecule_scores,
    report,
    rmsmd_nm,
    score,
    summarise,
    threshold_curve,
)
from harness.scoring.bounds import crlb_scores, emitter_variances
from harness.scoring.calibration import calibrate
from harness.scoring.flags import random_points
from harness.scoring.wobble import read_wobble
from leaderboard.statistics import compare, ranks
from simulators import Camera, Emitters, GaussianPSF, Localizations
from zoo import SRImage

FIELD = (6400.0, 6400.0)
OPEN = Protocol(
    name="all", dimensions=2, tolerance_nm=250, axial_tolerance_nm=None, border_nm=0, quantile=0, rule="greedy"
)


def movie(seed=0, n=4000, frames=400, sigma=20.0, recall=0.8, false=300):
    rng = np.random.default_rng(seed)
    truth = Emitters(
        frame=rng.integers(0, frames, n),
        x_nm=rng.uniform(0, 6400, n),
        y_nm=rng.uniform(0, 6400, n),
        z_nm=rng.uniform(-500, 500, n),
        photons=rng.uniform(500, 5000, n),
        id=rng.integers(0, n // 3, n),
    )
    seen = rng.random(n) < recall
    errors = rng.normal(0, sigma, (2, n))
    real = Localizations(
        frame=truth.frame,
        x_nm=truth.x_nm + errors[0],
        y_nm=truth.y_nm + errors[1],
        z_nm=truth.z_nm + rng.normal(0, 50, n),
        photons=truth.photons * rng.normal(1, 0.1, n),
        probability=rng.uniform(0.4, 1, n),
        x_sigma_nm=sigma,
        y_sigma_nm=sigma,
        z_sigma_nm=50.0,
    ).pick(seen)
    stray = Localizations(
        frame=rng.integers(0, frames, false),
        x_nm=rng.uniform(0, 6400, false),
        y_nm=rng.uniform(0, 6400, false),
        z_nm=rng.uniform(-500, 500, false),
        photons=900.0,
        probability=rng.uniform(0.1, 0.5, false),
        x_sigma_nm=sigma,
        y_sigma_nm=sigma,
        z_sigma_nm=50.0,
    )
    return truth, Localizations.concatenate([real, stray])


# --------------------------------------------------------------------------------------------- assessment


def test_another_quantile_needs_no_second_matching():
    truth, found = movie()
    one = assess(truth=truth, found=found, field_nm=FIELD).with_quantile(0.0)
    direct = score(truth=truth, found=found, field_nm=FIELD, quantile=0.0)
    ours = summarise(one).to_dict()
    assert {k: v for k, v in ours.items() if k != "protocol"} == {
        k: v for k, v in direct.to_dict().items() if k != "protocol"
    }
    back = summarise(one.with_quantile(0.25)).to_dict()
    assert back == score(truth=truth, found=found, field_nm=FIELD).to_dict()


# ------------------------------------------------------------------------------------------------- curves


def by_hand():
    truth = Emitters(
        frame=[0, 0, 0, 1, 1],
        x_nm=[1000.0, 1300, 4000, 1000, 5000],
        y_nm=[1000.0, 1000, 4000, 1000, 5000],
        z_nm=[-100.0, 50, 100, 0, 300],
        photons=[100.0, 200, 300, 400, 500],
    )
    found = Localizations(
        frame=[0, 0, 1, 1, 2],
        x_nm=[1010.0, 4030, 1000, 3000, 2000],
        y_nm=[1000.0, 4040, 1020, 3000, 2000],
        z_nm=[-100.0, 110, 0, 200, -400],
    )
    return assess(truth=truth, found=found, field_nm=FIELD, protocol=OPEN)


def test_curve_over_z_by_hand():
    low, high = curve(by_hand(), "z", edges=[-200, 75, 300])
    assert (low["tp"], low["fn"], low["fp"]) == (2, 1, 0)  # z -100 and 0 hit, 50 missed, -400 outside
    assert (high["tp"], high["fn"], high["fp"]) == (1, 1, 1)
    assert low["recall"] == pytest.approx(200 / 3)
    assert low["jaccard"] == pytest.approx(200 / 3)
    assert low["rmse_lateral_nm"] == pytest.approx(math.sqrt((100 + 400) / 2))
    assert (high["bias_x_nm"], high["bias_y_nm"], high["bias_z_nm"]) == (30, 40, None)
    assert high["efficiency_lateral"] == pytest.approx(100 - math.hypot(100 - 100 / 3, 50))


def test_curve_over_density_and_crowding_by_hand():
    one = by_hand()
    area = 6.4**2
    none, two, three = curve(one, "density", edges=[-0.5 / area, 1.5 / area, 2.5 / area, 3.5 / area])
    assert (none["tp"], none["fn"], none["fp"]) == (0, 0, 1)  # frame 2 has no emitter
    assert none["recall"] is None
    assert (two["tp"], two["fn"], two["fp"]) == (1, 1, 1)
    assert (three["tp"], three["fn"], three["fp"]) == (2, 1, 0)
    alone, crowded = curve(one, "crowding")
    assert (alone["low"], alone["high"], crowded["low"], crowded["high"]) == (0, 1, 1, None)
    assert (alone["tp"], alone["fn"], alone["fp"]) == (2, 1, 2)
    assert (crowded["tp"], crowded["fn"], crowded["fp"]) == (1, 1, 0)
    wide = curve(one, "crowding", radius_nm=6000)
    assert sum(row["n_truth"] for row in wide) == 5
    assert wide[0]["n_truth"] == 0


def test_curve_over_photons_gives_no_jaccard():
    rows = curve(by_hand(), "photons", bins=2)
    assert [row["n_truth"] for row in rows] == [2, 3]
    assert all(row["fp"] is None and row["jaccard"] is None for row in rows)
    assert json.dumps(rows, allow_nan=False)


@pytest.mark.parametrize("by", ["z", "density", "crowding"])
@pytest.mark.parametrize("quantile", [0, 0.25])
def test_bins_add_up_to_the_score(by, quantile):
    truth, found = movie()
    protocol = Protocol(**{**vars(CHALLENGE_3D), "quantile": quantile})
    one = assess(truth=truth, found=found, field_nm=FIELD, protocol=protocol)
    total = summarise(one)
    edges = [-1e9, -100, 0, 100, 1e9] if by == "z" else [0, 0.1, 0.2, 0.3, 1e9]
    rows = curve(one, by, edges=edges)
    for name in ("tp", "fp", "fn"):
        assert sum(row[name] for row in rows) == getattr(total, name)
    squares = sum(row["tp"] * row["rmse_lateral_nm"] ** 2 for row in rows if row["tp"])
    assert math.sqrt(squares / total.tp) == pytest.approx(total.rmse_lateral_nm)


def test_curve_refuses_nonsense():
    one = by_hand()
    with pytest.raises(ValueError, match="no curve over 'colour'"):
        curve(one, "colour")
    with pytest.raises(ValueError, match="do not ascend"):
        curve(one, "z", edges=[1, 0])
    nothing = assess(truth=Emitters.empty(), found=Localizations.empty(), field_nm=FIELD)
    assert [curve(nothing, by) for by in ("z", "photons", "density", "crowding")] == [[], [], [], []]


def test_threshold_curve_is_the_score_of_what_is_kept():
    truth, found = movie()
    rows = threshold_curve(truth=truth, found=found, field_nm=FIELD, protocol=CHALLENGE_2D)
    assert len(rows) == 20
    recall = [row["recall"] for row in rows]
    assert all(a >= b for a, b in pairwise(recall))
    some = rows[7]
    kept = found.pick(found.probability >= some["threshold"])
    direct = score(truth=truth, found=kept, field_nm=FIELD)
    assert (some["tp"], some["efficiency"]) == (direct.tp, direct.efficiency)
    best = max(rows, key=lambda row: row["jaccard"])
    assert 0.3 < best["threshold"] <= 0.55  # false alarms lie below 0.5, hits above 0.4
    with pytest.raises(ValueError, match="have no probability"):
        threshold_curve(truth=truth, found=found.replace(probability=math.nan), field_nm=FIELD, protocol=CHALLENGE_2D)


# ---------------------------------------------------------------------------------------- molecules, sets


def test_molecules_by_hand():
    truth = Emitters(
        frame=[0, 1, 2, 0, 1, 5],
        x_nm=[1000.0, 1000, 1000, 3000, 3000, 5000],
        y_nm=1000.0,
        photons=[500.0] * 6,
        id=[7, 7, 7, 3, 3, 9],
    )
    found = Localizations(frame=[0, 1, 1, 4], x_nm=[1030.0, 990, 3008, 5000], y_nm=[1000.0, 1000, 1006, 1000])
    one = molecule_scores(assess(truth=truth, found=found, field_nm=FIELD, protocol=OPEN))
    assert (one["molecules"], one["molecules_found"], one["rows_per_molecule"]) == (3, 2, 2)
    assert one["recall"] == pytest.approx(200 / 3)
    assert one["hits_per_found"] == 1.5
    assert one["rmse_lateral_nm"] == pytest.approx(math.sqrt((10**2 + 10**2) / 2))
    assert one["bias_x_nm"] == pytest.approx((10 + 8) / 2)
    assert one["rmse_axial_nm"] is None
    none = molecule_scores(assess(truth=truth, found=Localizations.empty(), field_nm=FIELD, protocol=OPEN))
    assert (none["molecules_found"], none["recall"], none["rmse_lateral_nm"]) == (0, 0, None)


def test_means_of_many_frames_are_finer_than_single_ones():
    n = 3000
    rng = np.random.default_rng(0)
    x = np.repeat(rng.uniform(1000, 5000, n // 3), 3)
    truth = Emitters(frame=np.arange(n), x_nm=x, y_nm=x, photons=1000.0, id=np.arange(n) // 3)
    found = Localizations(frame=truth.frame, x_nm=x + rng.normal(0, 30, n), y_nm=x + rng.normal(0, 30, n))
    one = molecule_scores(assess(truth=truth, found=found, field_nm=FIELD, protocol=OPEN))
    assert one["rmse_lateral_nm"] == pytest.approx(30 * math.sqrt(2 / 3), rel=0.05)


def test_rmsmd_by_hand_and_clipped():
    truth = Emitters(frame=[0, 1], x_nm=[0.0, 1000], y_nm=0.0, z_nm=[0.0, 30])
    found = Localizations(frame=[5, 5, 5], x_nm=[3.0, 1000, 5000], y_nm=[4.0, 12, 0], z_nm=[0.0, 30, 0])
    squares = (25 + 144) * 2
    assert rmsmd_nm(truth, found) == pytest.approx(math.sqrt((squares + 250**2) / 5))
    assert rmsmd_nm(truth, found, clip_nm=100) == pytest.approx(math.sqrt((squares + 100**2) / 5))
    assert rmsmd_nm(truth, found, clip_nm=math.inf) == pytest.approx(math.sqrt((squares + 4000**2 + 144) / 5), rel=1e-5)
    assert rmsmd_nm(truth, found.pick([0, 1]), dimensions=3) == pytest.approx(math.sqrt(squares / 4))
    assert rmsmd_nm(truth, Localizations.empty()) == 250
    assert math.isnan(rmsmd_nm(Emitters.empty(), Localizations.empty()))


# ------------------------------------------------------------------------------------- bounds, calibration


def test_a_method_at_the_bound_has_ratio_one():
    rng = np.random.default_rng(0)
    n = 20_000
    variance = rng.uniform(25, 900, n)
    truth = Emitters(frame=np.arange(n), x_nm=3000.0, y_nm=3000.0, photons=rng.uniform(500, 5000, n))
    found = Localizations(
        frame=truth.frame,
        x_nm=3000 + rng.normal(0, np.sqrt(variance)),
        y_nm=3000 + 2 * rng.normal(0, np.sqrt(variance)),
        photons=truth.photons + rng.normal(0, np.sqrt(variance)),
    ).pick(rng.permutation(n))
    one = assess(truth=truth, found=found, field_nm=FIELD, protocol=CHALLENGE_2D)
    rows = crlb_scores(one, {"x": variance, "y": variance, "photons": variance})
    assert rows["x"]["n"] == one.hit_truth.size < n  # the weak quarter does not count
    assert rows["x"]["ratio"] == pytest.approx(1, abs=0.02)
    assert rows["x"]["deviation"] == pytest.approx(1, abs=0.02)
    assert rows["y"]["ratio"] == pytest.approx(2, abs=0.04)
    assert rows["photons"]["ratio"] == pytest.approx(1, abs=0.02)
    with pytest.raises(ValueError, match=r"has shape \(3,\)"):
        crlb_scores(one, {"x": np.ones(3)})
    with pytest.raises(ValueError, match="no bound for 'w'"):
        crlb_scores(one, {"w": variance})


def test_the_bound_of_emitters_is_that_of_the_simulator_and_a_fit_at_it_has_ratio_one():
    rng = np.random.default_rng(0)
    n = 3000
    camera = Camera.ideal(100)
    truth = Emitters(
        frame=np.arange(n),
        x_nm=rng.uniform(1000, 5000, n),
        y_nm=rng.uniform(1000, 5000, n),
        z_nm=rng.uniform(-300, 300, n),
        photons=rng.uniform(500, 5000, n),
        background=20.0,
    )
    bound = emitter_variances(truth, psf=GaussianPSF(sigma_nm=115, defocus_nm=420), camera=camera)
    assert set(bound) == {"x", "y", "photons"}
    # without background and in focus: (sigma^2 + pixel^2 / 12) / N to 5 %
    bare = truth.replace(background=0.0, z_nm=0.0)
    plain = emitter_variances(bare, psf=GaussianPSF(sigma_nm=115), camera=camera)["x"]
    np.testing.assert_allclose(plain, (115**2 + 100**2 / 12) / truth.photons, rtol=0.05)
    assert (bound["x"] > plain).all()
    found = Localizations(
        frame=truth.frame,
        x_nm=truth.x_nm + rng.normal(0, np.sqrt(bound["x"])),
        y_nm=truth.y_nm + rng.normal(0, np.sqrt(bound["y"])),
    )
    one = report(truth=truth, found=found, field_nm=FIELD, crlb=bound, isolated_nm=1000, curves=False)
    assert one.crlb["x"]["ratio"] == pytest.approx(1, abs=0.05)
    with pytest.raises(ValueError, match="have no background"):
        emitter_variances(truth.replace(background=math.nan), psf=GaussianPSF(sigma_nm=115), camera=camera)


def test_only_isolated_molecules_are_held_against_the_bound():
    truth = Emitters(frame=[0, 0, 0, 1], x_nm=[1000.0, 1200, 4000, 1100], y_nm=1000.0)
    found = Localizations(frame=[0, 0, 0, 1], x_nm=[1050.0, 1150, 4010, 1110], y_nm=1000.0)
    one = assess(truth=truth, found=found, field_nm=FIELD, protocol=OPEN)
    bound = np.full(4, 100.0)
    assert crlb_scores(one, {"x": bound})["x"]["n"] == 4
    alone = crlb_scores(one, {"x": bound}, isolated_nm=1000)["x"]
    assert (alone["n"], alone["rmse"], alone["ratio"]) == (2, 10, 1)


def test_calibration_of_right_sigmas_and_of_boasting_ones():
    rng = np.random.default_rng(0)
    sigma = rng.uniform(5, 50, 40_000)
    error = rng.normal(0, sigma)
    right, boast = calibrate(error, sigma), calibrate(error, sigma / 2)
    assert right.z_std == pytest.approx(1, abs=0.02)
    assert right.z_spread == pytest.approx(1, abs=0.02)
    assert (right.within_1, right.within_2) == pytest.approx((0.6827, 0.9545), abs=0.01)
    assert right.sigma_over_rmse == pytest.approx(27.5 / math.sqrt(925), abs=0.01)
    assert right.expected_error < 0.6
    assert right.relative_error < 0.03
    assert boast.z_std == pytest.approx(2, abs=0.04)
    # in every bin the RMSE is twice the predicted one: the mean gap is the mean of the predicted, the share 1
    assert boast.expected_error == pytest.approx(27.5 / 2, rel=0.03)
    assert boast.relative_error == pytest.approx(1, abs=0.05)
    assert right.correlation == boast.correlation > 0.3
    assert sum(one["n"] for one in right.bins) == 40_000
    assert all(a["sigma_high"] <= b["sigma_low"] for a, b in pairwise(right.bins))


def test_calibration_of_little_and_of_nothing():
    one = calibrate(np.array([3.0, -4]), np.array([5.0, math.nan]))
    assert (one.n, one.missing, one.rmse, one.z_std) == (1, 1, 3, 0)
    assert math.isnan(one.correlation)
    none = calibrate(np.array([1.0]), np.array([math.nan]))
    assert (none.n, none.to_dict()["rmse"]) == (0, None)
    with pytest.raises(ValueError, match="1 of 2 sigmas of x are not positive"):
        calibrate(np.array([1.0, 2]), np.array([0.0, 1]), axis="x")
    truth, found = movie()
    axes = calibrations(assess(truth=truth, found=found, field_nm=FIELD, protocol=CHALLENGE_3D))
    assert set(axes) == {"x", "y", "z"}  # no photons_sigma
    assert axes["z"].z_std == pytest.approx(1, abs=0.15)


# ------------------------------------------------------------------------------------------------- report


def test_report_holds_every_setting_and_is_json():
    truth, found = movie()
    wobble = [[5.0, -5, -1000], [0, 0, 0], [-5, 5, 1000]]
    one = report(
        truth=truth,
        found=found,
        field_nm=FIELD,
        protocol=CHALLENGE_3D,
        wobble=wobble,
        seed=3,
        crlb={"x": np.ones(4000)},
    )
    record = json.loads(json.dumps(one.to_dict(), allow_nan=False))
    assert record["protocol"] == {**vars(CHALLENGE_3D)}
    assert record["wobble"]["rows"] == 3
    assert record["settings"]["seed"] == 3
    assert record["settings"]["block_frames"] == 20
    assert record["settings"]["n_frames"] == 400
    assert set(record["curves"]) == {"z", "photons", "density", "crowding", "threshold"}
    assert len(record["blocks"]["tp"]) == 20
    interval = record["intervals"]["efficiency"]
    assert interval["value"] == pytest.approx(record["efficiency"])
    assert interval["low"] < record["efficiency"] < interval["high"]
    assert (
        record["efficiency_quantile0"]
        == score(
            truth=truth, found=found, field_nm=FIELD, protocol=CHALLENGE_3D, quantile=0.0, wobble=wobble
        ).efficiency
    )
    assert record["efficiency_100nm"] < record["efficiency"]
    assert record["crlb"]["x"]["bound"] == 1
    same = report(
        truth=truth,
        found=found,
        field_nm=FIELD,
        protocol=CHALLENGE_3D,
        wobble=wobble,
        seed=3,
        crlb={"x": np.ones(4000)},
    )
    assert same.to_dict() == one.to_dict()


def test_report_of_nothing():
    one = report(truth=Emitters.empty(), found=Localizations.empty(), field_nm=FIELD)
    assert json.dumps(one.to_dict(), allow_nan=False)
    assert one.score.efficiency == -100
    truth, _ = movie(n=30, frames=100)
    one = report(truth=truth, found=Localizations.empty(), field_nm=FIELD)
    assert one.intervals["efficiency"].low == one.intervals["efficiency"].high == -100
    assert one.rmsmd_nm == 250


def test_blocks_follow_from_the_frames():
    truth, found = movie()
    total = score(truth=truth, found=found, field_nm=FIELD, protocol=CHALLENGE_3D)
    blocks = total.blocks(n_frames=403)
    assert len(blocks) == 21
    assert (blocks.tp.sum(), blocks.fp.sum(), blocks.fn.sum()) == (total.tp, total.fp, total.fn)
    again = blocks.scores()
    for name in ("jaccard", "efficiency", "efficiency_axial", "rmse_lateral_nm", "rmse_axial_nm", "f1"):
        assert again[name] == pytest.approx(getattr(total, name))


def sharp(seed=0, **changes):
    """A good model on a movie of 200 frames."""
    rng = np.random.default_rng(seed)
    n = 2000
    x, y = rng.uniform(0, 6400, (2, n))
    truth = Emitters(frame=np.arange(n) // 10, x_nm=x, y_nm=y, photons=rng.uniform(500, 5000, n))
    found = Localizations(
        frame=truth.frame,
        x_nm=x + rng.normal(0, 15, n),
        y_nm=y + rng.normal(0, 15, n),
        x_sigma_nm=15.0,
        y_sigma_nm=15.0,
    ).pick(rng.random(n) < 0.9)
    return truth, found


def test_wrong_models_are_flagged_and_ranked_below_the_right_one():
    truth, good = sharp()
    rng = np.random.default_rng(1)
    random = random_points(truth, field_nm=FIELD, rng=rng)
    wrong = {
        "good": (good, []),
        "half a pixel": (good.replace(x_nm=good.x_nm + 50, y_nm=good.y_nm + 50), ["x is off by 5", "y is off by 5"]),
        "transposed": (good.replace(x_nm=good.y_nm, y_nm=good.x_nm), ["x and y look exchanged"]),
        "late": (good.replace(frame=good.frame + 1), ["frames look off by one: with -1"]),
        "blank": (Localizations.empty(), ["nothing was found"]),
        "random": (random, ["no better than chance"]),
        "boasting": (good.replace(x_sigma_nm=5.0, y_sigma_nm=5.0), ["over-confident: errors in x are 3."]),
    }
    results = {
        name: report(truth=truth, found=found, field_nm=FIELD, curves=False, n_frames=200)
        for name, (found, _) in wrong.items()
    }
    for name, (_, expected) in wrong.items():
        for text in expected:
            assert any(flag.startswith(text) for flag in results[name].flags), (name, results[name].flags)
    assert results["good"].flags == []
    rows = compare({name: one.blocks for name, one in results.items()}, rng=rng)
    places = ranks(results, rows)
    assert str(places["good"]) == str(places["boasting"]) == "1-2"  # sigmas change no efficiency: the flag tells
    assert str(places["half a pixel"]) == "3"
    assert all(places[name].best >= 4 for name in ("transposed", "late", "blank", "random"))


def test_random_points_pair_by_chance_the_more_the_wider_the_tolerance():
    truth, _ = sharp()
    dense = truth.replace(frame=truth.frame // 10)  # 2.4 per um^2
    random = random_points(dense, field_nm=FIELD, rng=np.random.default_rng(1))
    one = report(truth=dense, found=random, field_nm=FIELD, curves=False)
    assert 10 < one.score.jaccard < 40
    assert one.strict.jaccard < one.score.jaccard / 2


def test_score_and_wobble_commands(capsys, tmp_path):
    truth, found = movie()
    write_table(truth, tmp_path / "emitters.csv")
    write_table(found, tmp_path / "localizations.csv")
    words = ["score", tmp_path, "--truth", tmp_path, "--field-nm", 6400, 6400, "-o", tmp_path / "s.json", "--three-d"]
    assert main([str(w) for w in [*words, "--rule", "optimal", "--curves"]]) == 0
    out = capsys.readouterr().out
    record = json.loads((tmp_path / "s.json").read_text())
    assert record["protocol"]["rule"] == "optimal"
    assert f"{record['intervals']['efficiency']['low']:.4g} .. " in out
    assert "x: std of error/sigma" in out
    beads = Emitters(frame=np.arange(100), x_nm=2000.0, y_nm=2000.0, z_nm=np.linspace(-500, 490, 100))
    write_table(beads, tmp_path / "beads.csv")
    seen = Localizations(frame=beads.frame, x_nm=2000 + beads.z_nm / 10, y_nm=1980.0)
    write_table(seen, tmp_path / "seen.csv")
    words = ["wobble", tmp_path / "seen.csv", "--beads", tmp_path / "beads.csv", "-o", tmp_path / "w.csv"]
    assert main([str(w) for w in words]) == 0
    table = read_wobble(tmp_path / "w.csv")
    np.testing.assert_allclose(table[:, 0], table[:, 2] / 10, atol=1e-3)
    np.testing.assert_allclose(table[:, 1], -20, atol=1e-3)
    words = ["score", tmp_path, "--truth", tmp_path, "--field-nm", 6400, 6400, "-o", tmp_path / "s.json"]
    assert main([str(w) for w in [*words, "--wobble", tmp_path / "w.csv"]]) == 0
    assert json.loads((tmp_path / "s.json").read_text())["wobble"]["rows"] == 100
    (tmp_path / "bad.csv").write_text("dx,dy,z\n1,2\n")
    assert main([str(w) for w in [*words, "--wobble", tmp_path / "bad.csv"]]) == 2
    assert "dx, dy, z" in capsys.readouterr().err


@pytest.mark.parametrize(("upsampling", "expected"), [(8, 5.1), (4, 10.2)])
def test_perfect_maps_have_the_floor_of_their_grid(upsampling, expected):
    # emitters known to a fine pixel: pixel / upsampling / sqrt(6)
    rng = np.random.default_rng(0)
    n = 1200
    place = rng.uniform(1000, 2200, (2, n))  # one in each frame
    truth = Emitters(frame=np.arange(n), x_nm=place[0], y_nm=place[1], photons=1000.0)
    output = SRImage(upsampling=upsampling)
    maps = output.encode(truth, count=n, height=32, width=32, pixel_size_nm=100)
    found = output.decode(maps, threshold=0.3, pixel_size_nm=100)
    one = score(truth=truth, found=found, field_nm=(3200, 3200), quantile=0)
    assert one.jaccard == 100
    assert one.rmse_lateral_nm == pytest.approx(expected, abs=0.2)
