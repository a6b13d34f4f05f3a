"""Image scores: ring correlation, resampling, scores against the truth and against the widefield image."""

import json
import math

import numpy as np
import pytest
import tifffile

from harness.cli import main
from harness.io import write_table
from harness.scoring.frc import half_images, local_regression, resolution_of_halves, ring_correlation
from harness.scoring.image_quality import (
    baseline_images,
    compare_images,
    score_image,
    score_rendered,
    widefield_agreement,
)
from harness.scoring.images import render, resample_area
from simulators import Emitters, Localizations

FIELD = (2560.0, 2560.0)


def pairs(seed, sigma, n=6000, frames=1000):
    """Molecules seen once in an even and once in an odd block, each time with an independent error."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, FIELD[0], (2, n))
    block = rng.integers(0, 5, n) * 2
    frame = np.concatenate([block * 100 + rng.integers(0, 100, n), (block + 1) * 100 + rng.integers(0, 100, n)])
    error = rng.normal(0, sigma, (2, 2 * n)) if sigma else np.zeros((2, 2 * n))
    return Localizations(frame=frame, x_nm=np.tile(x, 2) + error[0], y_nm=np.tile(y, 2) + error[1])


@pytest.mark.parametrize("sigma", [8.0, 15.0, 25.0])
def test_resolution_of_halves_is_the_one_of_the_formula(sigma):
    # random points seen twice: FRC(q) = exp(-4 pi^2 sigma^2 q^2), which is 1/7 at q = sqrt(ln 7) / (2 pi sigma)
    expected = 2 * math.pi * sigma / math.sqrt(math.log(7))
    values = [
        resolution_of_halves(pairs(seed, sigma), field_nm=FIELD, n_frames=1000).resolution_nm for seed in range(4)
    ]
    assert np.mean(values) == pytest.approx(expected, rel=0.05)


def test_the_curve_follows_the_formula():
    one = resolution_of_halves(pairs(0, 15.0, n=20_000), field_nm=FIELD, n_frames=1000)
    expected = np.exp(-4 * math.pi**2 * 15**2 * one.frequency**2)
    assert np.abs(one.correlation - expected)[3:].max() < 0.15
    assert np.abs(one.smooth - expected)[10:].max() < 0.08
    json.dumps(one.to_dict(), allow_nan=False)


def test_ring_correlation_of_equal_and_of_independent_images():
    rng = np.random.default_rng(0)
    a, b = rng.poisson(3.0, (2, 96, 80)).astype(float)
    same = ring_correlation(a, a, pixel_nm=7)
    np.testing.assert_allclose(same.correlation, 1)
    assert (same.resolution_nm, same.crosses) == (14, False)
    other = ring_correlation(a - a.mean(), b - b.mean(), pixel_nm=7)
    assert other.resolution_nm == 96 * 7
    assert np.abs(other.correlation[5:]).max() < 0.3
    with pytest.raises(ValueError, match="at least 16 pixels"):
        ring_correlation(a, a.T, pixel_nm=7)


def test_oblong_images_and_odd_sizes_have_the_same_rings():
    rng = np.random.default_rng(0)
    for shape in ((64, 200), (65, 131), (130, 33)):
        a = rng.normal(size=shape)
        frequency = ring_correlation(a, a, pixel_nm=10).frequency
        assert frequency[0] == pytest.approx(1 / (max(shape) * 10))
        assert frequency[-1] <= 1 / 20 + 1e-12


def test_halves_are_cut_by_blocks_of_frames():
    table = Localizations(
        frame=np.arange(100), x_nm=(np.arange(100) % 20) * 10.0 + 5, y_nm=(np.arange(100) // 20) * 10.0 + 5
    )
    first, second = half_images(table, field_nm=(200, 50), blocks=10, pixel_nm=10)
    assert first.sum() == second.sum() == 50
    assert np.array_equal(first + second, np.ones((5, 20)))
    assert first[0, :10].all()  # frames 0 to 9 are the first block
    assert second[0, 10:].all()
    outside = Localizations(frame=[0, 1], x_nm=[-1.0, 5], y_nm=[5.0, 51])
    assert sum(half.sum() for half in half_images(outside, field_nm=(200, 50))) == 0


def test_local_regression_leaves_lines_and_smooths_noise():
    line = 3 - 0.01 * np.arange(200)
    np.testing.assert_allclose(local_regression(line, span=0.05), line, atol=1e-9)
    noise = np.random.default_rng(0).normal(size=2000)
    assert local_regression(noise, span=0.05).std() < 0.2


def test_resampling_by_area_keeps_the_sum_and_the_place():
    image = np.random.default_rng(0).uniform(size=(12, 20))
    for shape in ((6, 10), (24, 60), (7, 13), (12, 20)):
        assert resample_area(image, shape).sum() == pytest.approx(image.sum())
    np.testing.assert_allclose(resample_area(image, (6, 10)), image.reshape(6, 2, 10, 2).sum((1, 3)))
    np.testing.assert_allclose(resample_area(image, (24, 60)), np.kron(image, np.ones((2, 3))) / 6)
    np.testing.assert_allclose(resample_area([[6.0, 0, 0]], (1, 2)), [[6, 0]])
    np.testing.assert_allclose(resample_area([[0, 6.0, 0]], (1, 2)), [[3, 3]])


def scene(seed=0, n=400, error=0.0):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * math.pi, n)
    x, y = 1280 + 800 * np.cos(angle), 1280 + 500 * np.sin(2 * angle)
    truth = Emitters(frame=rng.integers(0, 100, n), x_nm=x, y_nm=y, z_nm=rng.uniform(-300, 300, n))
    found = Localizations(
        frame=truth.frame,
        x_nm=x + rng.normal(0, error, n),
        y_nm=y + rng.normal(0, error, n),
        z_nm=truth.z_nm + rng.normal(0, 2 * error, n),
    )
    return truth, found


def test_rendered_localizations():
    truth, found = scene()
    perfect = score_rendered(truth=truth, found=found, field_nm=FIELD)
    assert perfect["snr_db"] is None  # infinite
    assert (perfect["nmse"], perfect["nmse_percent"], perfect["ssim"]) == (pytest.approx(0), 0, pytest.approx(1))
    assert perfect["snr_volume_db"] is None
    assert perfect["frc_truth_nm"] == perfect["fsc_truth_nm"] == 20
    fine, coarse = (score_rendered(truth=truth, found=scene(error=e)[1], field_nm=FIELD) for e in (5.0, 20.0))
    for better in ("snr_db", "snr_xz_db", "snr_yz_db", "snr_volume_db", "ssim", "psnr_db"):
        assert fine[better] > coarse[better]
    for smaller in ("nmse", "nmse_percent", "frc_truth_nm", "fsc_truth_nm"):
        assert fine[smaller] < coarse[smaller]
    assert coarse["fwhm_nm"] == 20
    # the same localizations against wider renderings: another figure, as the record must say
    assert score_rendered(truth=truth, found=scene(error=20.0)[1], field_nm=FIELD, fwhm_nm=40)["nmse"] < coarse["nmse"]
    nothing = score_rendered(truth=truth, found=Localizations.empty(), field_nm=FIELD)
    assert (nothing["snr_db"], nothing["nmse"], nothing["nmse_percent"]) == (0, 1, 100)
    assert nothing["frc_truth_nm"] is None
    json.dumps([perfect, fine, nothing], allow_nan=False)


@pytest.mark.parametrize("error", [(6.0, 0.0, 0.0), (0.0, 0.0, 9.0), (5.0, -4.0, 8.0)])
def test_the_volume_of_molecules_apart_has_the_snr_of_shifted_gaussians(error):
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(200.0, 1000, 200), np.arange(200.0, 1000, 200)))
    truth = Emitters(frame=np.arange(16), x_nm=x, y_nm=y, z_nm=np.linspace(-200, 200, 16))
    moved = {f"{axis}_nm": getattr(truth, f"{axis}_nm") + step for axis, step in zip("xyz", error, strict=True)}
    found = Localizations(frame=truth.frame, **moved)
    sigma = 20 / math.sqrt(8 * math.log(2))
    overlap = math.exp(-sum(step**2 for step in error) / (4 * sigma**2))  # of two Gaussians of one width
    scored = score_rendered(truth=truth, found=found, field_nm=(1200, 1200), pixel_nm=5.0)
    assert scored["snr_volume_db"] == pytest.approx(-10 * math.log10(2 - 2 * overlap), abs=0.02)
    flat = score_rendered(truth=truth, found=found.replace(z_nm=np.zeros(len(found))), field_nm=(1200, 1200))
    assert (flat["snr_xz_db"], flat["snr_volume_db"], flat["fsc_truth_nm"]) == (None, None, None)  # no height is told


def test_shells_of_a_volume_tell_noise_from_structure():
    rng = np.random.default_rng(5)
    blobs, one, two = (rng.normal(size=(24, 40, 32)) for _ in range(3))
    coarse = np.fft.irfftn(np.fft.rfftn(blobs) * (np.abs(np.fft.fftfreq(24)) < 0.2)[:, None, None], s=blobs.shape)
    same = ring_correlation(coarse, coarse, pixel_nm=10)
    assert (same.resolution_nm, same.crosses) == (20, False)
    assert np.abs(ring_correlation(one, two, pixel_nm=10).correlation[3:]).max() < 0.35
    shared = ring_correlation(blobs + one, blobs + two, pixel_nm=10).correlation  # half of the power is shared
    assert shared[5:].mean() == pytest.approx(0.5, abs=0.05)


def test_images_are_scaled_but_not_shifted_in_value():
    truth, _ = scene()
    image = render(truth, field_nm=FIELD)
    scaled = score_image(7 * image, truth=truth, field_nm=FIELD)
    assert scaled["factor"] == pytest.approx(1 / 7)
    assert scaled["nmse"] == pytest.approx(0, abs=1e-12)
    assert scaled["nmse_percent"] == pytest.approx(0, abs=1e-9)  # scaled before all scores, not for one alone
    raised = score_image(7 * image + 1, truth=truth, field_nm=FIELD)
    assert raised["nmse"] > 0.1
    finer = np.kron(image, np.ones((2, 2)))
    assert score_image(np.stack([finer, finer]), truth=truth, field_nm=FIELD)["nmse"] == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="finite"):
        score_image(np.full((4, 4), np.nan), truth=truth, field_nm=FIELD)


def test_the_two_errors_are_not_the_same():
    reference = np.zeros((20, 20))
    reference[4:8, 4:8] = 2.0
    one = compare_images(reference * 3, reference, pixel_nm=10)
    assert one["nmse"] == pytest.approx(0)
    assert one["nmse_percent"] == pytest.approx(400)
    assert one["snr_db"] == pytest.approx(-10 * math.log10(4))


def test_baselines_score_as_nothing():
    truth, _ = scene()
    mean = resample_area(render(truth, field_nm=FIELD, fwhm_nm=250), (26, 26))
    images = baseline_images(mean, field_nm=FIELD)
    assert images["mean frame"].shape == images["blank"].shape == (256, 256)
    blank, blurred = (score_image(images[name], truth=truth, field_nm=FIELD) for name in ("blank", "mean frame"))
    assert blank["nmse"] == 1
    assert blank["psnr_db"] > 10  # a black picture of a sparse scene: why PSNR stands beside the NMSE only
    assert 0.3 < blurred["nmse"] < 1


def test_agreement_finds_scale_offset_and_blur():
    from scipy.ndimage import gaussian_filter

    truth, _ = scene()
    fine = render(truth, field_nm=FIELD, pixel_nm=20)
    wide = 300 * resample_area(gaussian_filter(fine.astype(float), 6.0), (32, 32)) * (32 / 128) ** 2 + 100
    one = widefield_agreement(fine, wide)
    assert one.rsp == pytest.approx(1, abs=1e-4)
    assert one.rse < 0.01 * wide.std()
    assert (one.sigma_px, one.offset) == (pytest.approx(6, rel=0.01), pytest.approx(100, rel=0.01))
    assert one.scale == pytest.approx(300, rel=0.01)
    wrong = widefield_agreement(np.roll(fine, 24, 1), wide)
    assert wrong.rsp < 0.9
    with pytest.raises(ValueError, match="same value everywhere"):
        widefield_agreement(np.ones((64, 64)), wide)


def test_published_images_have_the_figures_measured_on_them(data):
    folder = data / "squirrel_figure3_real"
    widefield = tifffile.imread(folder / "widefield.tif")
    figures = [(0.868, 33.7, 9.5), (0.909, 28.2, 10), (0.775, 42.9, 12)]
    for image, (rsp, rse, sigma) in zip(tifffile.imread(folder / "super_resolution.tif"), figures, strict=True):
        one = widefield_agreement(image, widefield)
        assert one.rsp == pytest.approx(rsp, abs=0.001)
        assert one.rse == pytest.approx(rse, abs=0.05)
        assert one.sigma_px == pytest.approx(sigma, abs=0.3)


def test_commands_on_images(capsys, tmp_path, data):
    truth, found = scene(error=10.0)
    write_table(truth, tmp_path / "emitters.csv")
    write_table(found, tmp_path / "localizations.csv")
    tifffile.imwrite(tmp_path / "image.tif", render(found, field_nm=FIELD))
    words = ["score", tmp_path, "--truth", tmp_path, "--field-nm", 2560, 2560, "--quantile", 0, "--images"]
    assert main([str(w) for w in [*words, "-o", tmp_path / "s.json"]]) == 0
    record = json.loads((tmp_path / "s.json").read_text())
    assert record["images"]["snr_db"] > 0
    words[1] = tmp_path / "image.tif"
    assert main([str(w) for w in [*words, "-o", tmp_path / "i.json"]]) == 0
    image = json.loads((tmp_path / "i.json").read_text())
    assert image["nmse"] == pytest.approx(record["images"]["nmse"], rel=1e-3)
    capsys.readouterr()
    squirrel = data / "squirrel_figure3_real"
    tifffile.imwrite(tmp_path / "one.tif", tifffile.imread(squirrel / "super_resolution.tif")[1])
    words = ["quality", tmp_path / "one.tif", "--widefield", squirrel / "widefield.tif", "-o", tmp_path / "q.json"]
    assert main([str(w) for w in words]) == 0
    assert json.loads((tmp_path / "q.json").read_text())["widefield"]["rsp"] == pytest.approx(0.909, abs=0.001)
    words = ["quality", tmp_path / "localizations.csv", "--field-nm", 2560, 2560]
    assert main([str(w) for w in words]) == 0
    assert "frc_halves_nm" in capsys.readouterr().out
    assert main([str(w) for w in words[:2]]) == 2
    assert "--field-nm" in capsys.readouterr().err
