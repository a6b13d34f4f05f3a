"""Filters, grouping, evenness within the pixel, de-bias and reliability, against formulas and cases by hand."""

import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from harness.analysis import (
    debias,
    debias_maps,
    group,
    keep_best_sigma,
    link,
    reliability_png,
    subpixel_uniformity,
    total_sigma_nm,
    uniformity_png,
    weighted_sigma_nm,
    within_limits,
)
from harness.analysis.uniformity import uniformize
from harness.cli import main
from harness.io import read_table, write_table
from harness.scoring.calibration import calibrate
from simulators import Emitters, Localizations


def scatter(n, seed=0, **columns):
    rng = np.random.default_rng(seed)
    base = {
        "frame": rng.integers(0, 50, n),
        "x_nm": rng.uniform(0, 6400, n),
        "y_nm": rng.uniform(0, 6400, n),
        "photons": rng.uniform(300, 3000, n),
        "probability": rng.uniform(0.1, 1, n),
        "x_sigma_nm": rng.uniform(5, 60, n),
        "y_sigma_nm": rng.uniform(5, 20, n),
        "z_sigma_nm": rng.uniform(20, 200, n),
    }
    return Localizations(**{**base, **columns})


# ---------------------------------------------------------------------------------------------- filters


def test_sigma_filter_by_hand():
    # variances 100/3 * (1, 4, 9): the weights make the axes equal, so t is a sum of equal squares
    sx = np.array([10.0, 20, 20, 30])
    table = Localizations(frame=[0] * 4, x_nm=1.0, y_nm=1.0, x_sigma_nm=sx, y_sigma_nm=2 * sx[[0, 2, 3, 1]])
    t = sx**2 + (2 * sx[[0, 2, 3, 1]]) ** 2 / 4
    np.testing.assert_allclose(weighted_sigma_nm(table), np.sqrt(t))
    np.testing.assert_allclose(total_sigma_nm(table), np.sqrt(sx**2 + 4 * sx[[0, 2, 3, 1]] ** 2))
    # t = 200, 800, 1300, 1300: the median is 1050
    assert keep_best_sigma(table, 0.5).tolist() == [True, True, False, False]
    assert keep_best_sigma(table, 1).all()
    assert not keep_best_sigma(table, 0).any()


def test_sigma_filter_looks_at_z_where_it_is_known():
    flat = scatter(400)
    deep = scatter(400, z_nm=np.linspace(-300, 300, 400))
    for fraction in (0.25, 0.5, 0.9):
        assert keep_best_sigma(flat, fraction).sum() == pytest.approx(400 * fraction, abs=1)
    assert np.array_equal(keep_best_sigma(flat, 0.5, dimensions=3), keep_best_sigma(deep, 0.5))
    assert np.array_equal(keep_best_sigma(flat, 0.5), keep_best_sigma(deep, 0.5, dimensions=2))
    assert not np.array_equal(keep_best_sigma(flat, 0.5), keep_best_sigma(deep, 0.5))


def test_filters_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="4 of 4 localizations have no x_sigma_nm"):
        keep_best_sigma(Localizations(frame=[0] * 4, x_nm=1.0, y_nm=1.0), 0.5)
    with pytest.raises(ValueError, match="fraction is 90"):
        keep_best_sigma(scatter(10), 90)
    with pytest.raises(ValueError, match="needs at least 2"):
        keep_best_sigma(scatter(1), 0.5)
    with pytest.raises(ValueError, match="no column 'brightness'"):
        within_limits(scatter(3), brightness=(1, 2))
    with pytest.raises(ValueError, match="must not exceed"):
        within_limits(scatter(3), photons=(2, 1))


def test_limits_include_their_ends():
    table = scatter(4, photons=[100.0, 200, 300, 400])
    assert within_limits(table, photons=(200, 300)).tolist() == [False, True, True, False]
    assert within_limits(table, photons=(None, None), z_nm=(None, None)).all()


# --------------------------------------------------------------------------------------------- grouping


def test_grouping_by_hand():
    table = Localizations(
        frame=[1, 2, 3, 3, 5, 2],
        x_nm=[100.0, 110, 120, 500, 130, 900],
        y_nm=[100.0] * 6,
        photons=[100.0, 300, 100, 50, 500, 70],
        background=[10.0, 20, 30, 1, 2, 3],
        probability=[0.5, 0.9, 0.7, 1, 1, 1],
        x_sigma_nm=[10.0, 5, 10, 1, 1, 1],
        y_sigma_nm=[10.0, 10, 10, 1, 1, 1],
        photons_sigma=[3.0, 4, 12, 1, 1, 1],
    )
    assert link(table, radius_nm=20).tolist() == [0, 0, 0, 2, 3, 1]
    plain = group(table, radius_nm=20)
    first = plain.localizations.pick([0])
    assert plain.size.tolist() == [3, 1, 1, 1]
    assert plain.last_frame.tolist() == [3, 2, 3, 5]
    assert (first.frame[0], first.id[0], first.photons[0], first.background[0]) == (1, 0, 500, 20)
    assert (first.x_nm[0], first.y_nm[0], first.probability[0]) == (110, 100, 0.9)
    assert first.photons_sigma[0] == pytest.approx(13)  # sqrt(9 + 16 + 144)
    assert first.x_sigma_nm[0] == pytest.approx(15 / 3)  # sqrt(100 + 25 + 100) / 3
    assert np.isnan(first.z_nm[0])
    photons = group(table, radius_nm=20, weights="photons").localizations
    assert photons.x_nm[0] == pytest.approx((100 * 100 + 300 * 110 + 100 * 120) / 500)
    table = table.replace(x_nm=[100.0, 113, 120, 500, 130, 900])
    sigma = group(table, radius_nm=20, weights="sigma").localizations
    assert sigma.x_nm[0] == pytest.approx((100 / 100 + 113 / 25 + 120 / 100) / (0.01 + 0.04 + 0.01))
    assert sigma.y_nm[0] == pytest.approx(100)
    assert sigma.x_sigma_nm[0] == pytest.approx(1 / math.sqrt(0.06))


def test_gaps_and_depth():
    table = Localizations(frame=[0, 1, 3, 6], x_nm=[0.0, 5, 10, 15], y_nm=0.0, z_nm=[0.0, 0, 300, 300])
    assert link(table, radius_nm=20).tolist() == [0, 0, 1, 2]
    assert link(table, radius_nm=20, gap_frames=1).tolist() == [0, 0, 0, 1]
    assert link(table, radius_nm=20, gap_frames=2).tolist() == [0, 0, 0, 0]
    assert link(table, radius_nm=20, gap_frames=2, axial_radius_nm=100).tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="no z_nm"):
        link(scatter(3), radius_nm=20, axial_radius_nm=100)
    with pytest.raises(ValueError, match="radius_nm is 0"):
        link(table, radius_nm=0)
    with pytest.raises(ValueError, match="photons that is not positive"):
        group(table.replace(photons=[1.0, 1, 0, 1]), radius_nm=20, weights="photons")
    assert len(group(Localizations.empty(), radius_nm=20).size) == 0


def test_molecules_that_blink_are_joined_to_what_they_are():
    rng = np.random.default_rng(0)
    n, sigma = 2000, 12.0
    start, length = rng.integers(0, 500, n), rng.integers(1, 6, n)
    x, y = (np.arange(n) % 50) * 600.0, (np.arange(n) // 50) * 600.0
    rows = np.repeat(np.arange(n), length)
    frame = start[rows] + np.arange(len(rows)) - np.repeat(np.cumsum(length) - length, length)
    table = Localizations(
        frame=frame,
        x_nm=x[rows] + rng.normal(0, sigma, len(rows)),
        y_nm=y[rows] + rng.normal(0, sigma, len(rows)),
        x_sigma_nm=sigma,
        y_sigma_nm=sigma,
    ).pick(rng.permutation(len(rows)))
    joined = group(table, radius_nm=100, weights="sigma")
    assert len(joined.size) == n
    assert np.array_equal(np.bincount(joined.size, minlength=6), np.bincount(length, minlength=6))
    error = joined.localizations.x_nm - np.rint(joined.localizations.x_nm / 600) * 600
    np.testing.assert_allclose((error / joined.localizations.x_sigma_nm).std(), 1, atol=0.05)


# ------------------------------------------------------------------------------------------- uniformity


def test_evenness_of_even_positions_has_the_stated_expectation():
    chi, squares = [], []
    for seed in range(200):
        one, _ = subpixel_uniformity(scatter(500, seed), pixel_size_nm=100, bins=10)
        chi.append(one.chi2_reduced)
        squares.append((one.chi2_reduced * 9 - 9) / 499)
    assert np.mean(chi) == pytest.approx(1, abs=4 * math.sqrt(2 / 9 / 200))
    assert np.std(chi) == pytest.approx(math.sqrt(2 / 9), rel=0.2)
    assert np.mean(squares) == pytest.approx(0, abs=4 * math.sqrt(18 / 200) / 500)


def test_unevenness_of_a_known_pattern_does_not_depend_on_n():
    rng = np.random.default_rng(0)
    values = []
    for n in (2000, 20_000, 200_000):
        u = rng.uniform(0, 1, 4 * n)
        u = u[rng.uniform(0, 1.5, 4 * n) < 1 + 0.5 * np.sin(2 * np.pi * u)][:n]
        table = Localizations(frame=np.zeros(n), x_nm=(u + rng.integers(0, 64, n)) * 160, y_nm=50.0)
        x, y = subpixel_uniformity(table, pixel_size_nm=(160, 100), bins=20)
        values.append(x.unevenness)
        assert y.unevenness == pytest.approx(math.sqrt(19))  # all in one bin
    expected = 0.5 / math.sqrt(2) * np.sinc(1 / 20)  # bins blur the sine a little
    for value, tolerance in zip(values, (0.12, 0.04, 0.015), strict=True):
        assert value == pytest.approx(expected, rel=tolerance)


def test_uniformize_makes_the_density_even_and_keeps_the_mean():
    rng = np.random.default_rng(0)
    offset = np.clip(rng.normal(0.1, 0.15, 50_000), -1, 1)
    even = uniformize(offset)
    assert even.mean() == pytest.approx(offset.mean(), abs=1e-3)
    assert np.ptp(even) == pytest.approx(1, abs=0.01)
    counts, _ = np.histogram(even, bins=10, range=(even.min(), even.max() + 1e-9))
    assert counts.std() / counts.mean() < 0.05
    assert (np.diff(even[np.argsort(offset)]) >= 0).all()


def test_debias_removes_the_pattern_and_brings_positions_nearer_to_the_truth():
    rng = np.random.default_rng(0)
    n = 40_000
    truth = rng.uniform(0, 64, n)
    sigma = rng.choice([5.0, 25.0], n)
    strength = np.where(sigma < 10, 0.0, 0.8)  # only the uncertain ones are drawn to the centre
    found = truth - strength * np.sin(2 * np.pi * (truth - np.floor(truth) - 0.5)) / (2 * np.pi)
    table = Localizations(frame=np.zeros(n), x_nm=found * 100, y_nm=found * 100, x_sigma_nm=sigma, y_sigma_nm=sigma)
    even = debias(table, pixel_size_nm=100, groups=2)
    before, after = (subpixel_uniformity(t, pixel_size_nm=100)[0] for t in (table, even))
    assert before.unevenness > 0.3
    assert after.unevenness < 0.03
    errors = [np.sqrt(np.mean((t.x_nm - truth * 100) ** 2)) for t in (table, even)]
    assert errors[1] < 0.15 * errors[0]
    with pytest.raises(ValueError, match="needs at least 200"):
        debias(scatter(50), pixel_size_nm=100)


def test_debias_of_maps_changes_sure_pixels_only():
    rng = np.random.default_rng(0)
    shape = (40, 30, 30)
    probability = rng.uniform(0, 1, shape)
    offset = np.clip(rng.normal(0, 0.2, (2, *shape)), -1, 1)
    sigma = rng.uniform(0.1, 0.5, (2, *shape))
    x, y = debias_maps(probability, offset[0], offset[1], sigma[0], sigma[1], groups=5)
    low = probability <= 0.3
    assert np.array_equal(x[low], offset[0][low])
    assert np.array_equal(y[low], offset[1][low])
    assert np.std(y[~low]) == pytest.approx(1 / math.sqrt(12), rel=0.02)
    assert np.std(offset[1][~low]) == pytest.approx(0.2, rel=0.02)


# ------------------------------------------------------------------------------------------ reliability


def test_reliability_picture_is_a_png_that_is_not_blank():
    rng = np.random.default_rng(0)
    sigma = rng.uniform(5, 50, 3000)
    picture = reliability_png({"x": calibrate(rng.normal(0, sigma), sigma, axis="x")}, title="x only")
    image = np.asarray(Image.open(io.BytesIO(picture)).convert("L"))
    assert image.shape[0] > 300
    assert (image < 128).mean() > 0.005
    even = subpixel_uniformity(scatter(500), pixel_size_nm=100)
    assert uniformity_png(*even).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="nothing to draw"):
        reliability_png({})


# ----------------------------------------------------------------------------------------- command line


def run(capsys, *words):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_filter_and_group_commands(capsys, tmp_path):
    table = scatter(500)
    write_table(table, tmp_path / "found.csv", format="thunderstorm")  # another program's table
    code, out, _ = run(capsys, "filter", tmp_path / "found.csv", "-o", tmp_path / "good.parquet", "--min-photons", 1000)
    assert code == 0
    assert f"{(table.photons >= 1000).sum()} of 500" in out
    kept = read_table(tmp_path / "good.parquet")
    assert isinstance(kept, Localizations)
    np.testing.assert_allclose(kept.x_nm, table.x_nm[table.photons >= 1000], atol=0.01)
    code, out, _ = run(capsys, "group", tmp_path / "good.parquet", "-o", tmp_path / "joined.csv", "--radius-nm", 60)
    assert code == 0
    assert "groups of" in out
    assert len(read_table(tmp_path / "joined.csv")) < len(kept)
    code, _, err = run(capsys, "filter", tmp_path / "found.csv", "-o", tmp_path / "none.csv")
    assert code == 2
    assert "nothing to filter by" in err
    code, _, err = run(capsys, "filter", tmp_path / "joined.csv", "-o", tmp_path / "none.csv", "--max-z-sigma-nm", 3)
    assert code == 2
    assert "z_sigma_nm" in err
    assert not (tmp_path / "none.csv").exists()


def test_check_and_debias_commands(capsys, tmp_path):
    rng = np.random.default_rng(0)
    n = 3000
    truth = Emitters(
        frame=np.arange(n) // 3, x_nm=rng.uniform(0, 6400, n), y_nm=rng.uniform(0, 6400, n), photons=1000.0
    )
    sigma = rng.uniform(5, 30, n)
    found = Localizations(
        frame=truth.frame,
        x_nm=truth.x_nm + rng.normal(0, sigma),
        y_nm=truth.y_nm + rng.normal(0, 2 * sigma),
        x_sigma_nm=sigma,
        y_sigma_nm=sigma,
    )
    write_table(truth, tmp_path / "emitters.csv")
    write_table(found, tmp_path / "found.csv")
    words = ("check", tmp_path / "found.csv", "--camera-pixel-nm", 100, "-o", tmp_path / "out")
    code, out, err = run(capsys, *words, "--truth", tmp_path, "--field-nm", 6400, 6400)
    assert code == 0, err
    assert "reliability.png" in out
    report = json.loads((tmp_path / "out" / "check.json").read_text())
    assert report["calibration"]["x"]["z_std"] == pytest.approx(1, abs=0.05)
    assert report["calibration"]["y"]["z_std"] == pytest.approx(2, abs=0.1)
    assert report["calibration"]["y"]["sigma_over_rmse"] == pytest.approx(0.5 * 17.5 / math.sqrt(358.3), rel=0.05)
    assert sum(report["uniformity"]["x"]["counts"]) == n
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"check.json", "uniformity.png", "reliability.png"}
    code, _, err = run(capsys, *words, "--truth", tmp_path)
    assert code == 2
    assert "--field-nm" in err
    code, out, _ = run(capsys, "debias", tmp_path / "found.csv", "-o", tmp_path / "even.csv", "--camera-pixel-nm", 100)
    assert code == 0
    assert len(read_table(tmp_path / "even.csv")) == n
