"""Calibration from beads: made-up stacks whose PSF, places and heights are known, and the challenge's beads."""

import json

import numpy as np
import pytest
import tifffile
import torch
from scipy.special import erf

from harness.calibration import calibrate, find_beads, save_calibration
from harness.cli import main
from harness.io import read_table
from simulators import AstigmaticPSF, Camera, Emitters, SplinePSF, load_recipe, read_spline

SOURCE = AstigmaticPSF(sigma_nm=125)
PIXEL = 100.0
Z = np.arange(-400.0, 401.0, 20.0)
PLACES = np.array([[1530.0, 1480.0], [4410.0, 1690.0], [1720.0, 4360.0], [4380.0, 4555.0]])
HEIGHTS = np.array([-30.0, 10.0, 0.0, 20.0])


def bead_stack(*, places=PLACES, heights=HEIGHTS, wobble=0.0, camera=None, size=60, photons=20_000.0, seed=0, z=Z):
    """Raw counts; each spot drifts along y by `wobble` nm per nm of z."""
    camera = camera or Camera.ideal(PIXEL)
    edges = np.arange(size + 1) * PIXEL
    expected = np.full((len(z), size, size), 5.0)
    for (x, y), height in zip(places, heights, strict=True):
        own = z + height
        wide_x, wide_y = (w.numpy()[:, None] * 2**0.5 for w in SOURCE.widths(torch.from_numpy(own)))
        across = np.diff(erf((edges - x) / wide_x), axis=1) / 2
        down = np.diff(erf((edges - y - wobble * own[:, None]) / wide_y), axis=1) / 2
        expected += photons * down[:, :, None] * across[:, None, :]
    return camera.expose(torch.from_numpy(expected), np.random.default_rng(seed)).numpy().astype(np.uint16)


def truth():
    n = len(PLACES)
    return Emitters(frame=np.zeros(n, int), x_nm=PLACES[:, 0], y_nm=PLACES[:, 1], z_nm=HEIGHTS, photons=np.ones(n))


def test_known_beads_give_the_known_psf():
    result = calibrate(bead_stack(), camera=Camera.ideal(PIXEL), z_step_nm=20, z_start_nm=-400, size_px=17, dz_nm=100)
    order = np.argsort(PLACES[:, 0] + 10 * PLACES[:, 1])
    found = np.argsort(result.position_nm[:, 0] + 10 * result.position_nm[:, 1])
    np.testing.assert_allclose(result.position_nm[found], PLACES[order], atol=1.5)
    np.testing.assert_allclose(result.shift_nm[found], (HEIGHTS - HEIGHTS.mean())[order], atol=3)
    assert result.table.z_range_nm == (-400, 400)
    psf = SplinePSF.of(result.table)
    at = torch.tensor([845.0, 870.0, 910.0], dtype=torch.float64)
    z = torch.tensor([-300.0, 20.0, 290.0], dtype=torch.float64)
    ours = psf.values_and_derivatives(at, at.flip(0), z, shape=(17, 17), pixel_size_nm=(PIXEL, PIXEL))
    theirs = SOURCE.values_and_derivatives(at, at.flip(0), z, shape=(17, 17), pixel_size_nm=(PIXEL, PIXEL))
    for one, other in zip(ours.image, theirs.image, strict=True):
        assert (one - other).abs().max() < 0.025 * other.max()
    assert np.abs(result.wobble[:, :2]).max() < 8
    for one in result.agreement:
        assert one.apart
        assert one.chi2.mean() == pytest.approx(1, abs=0.12)
        assert np.median(one.light) == pytest.approx(20_000, rel=0.03)
    assert result.worst_correlation(300) > 0.99
    assert np.isfinite(result.curves.z_sigma_nm).all()


def test_wobble_stays_in_the_psf_and_in_the_table():
    stack = bead_stack(wobble=0.1, heights=np.zeros(4))
    result = calibrate(
        stack, camera=Camera.ideal(PIXEL), z_step_nm=20, z_start_nm=-400, size_px=17, dz_nm=100, truth=truth()
    )
    dx, dy, z = result.wobble.T
    np.testing.assert_allclose(dy, 0.1 * z, atol=6)
    np.testing.assert_allclose(dx, 0, atol=6)
    assert result.settings["origin"] == "true places"
    assert max(result.truth_scatter_nm) < 1.5
    centre = torch.tensor([850.0], dtype=torch.float64)
    image = SplinePSF.of(result.table).values_and_derivatives(
        centre, centre, 0 * centre + 350, shape=(17, 17), pixel_size_nm=(PIXEL, PIXEL)
    )
    rows = image.image[0].sum(1)
    assert float((rows * (torch.arange(17) + 0.5)).sum() / rows.sum()) * PIXEL - 850 == pytest.approx(35, abs=6)


def test_falling_stacks_and_the_sharpest_slice():
    common = {"camera": Camera.ideal(PIXEL), "size_px": 17, "dz_nm": 100.0}
    rising = calibrate(bead_stack(), z_step_nm=20, z_start_nm=-400, **common)
    falling = calibrate(bead_stack()[::-1], z_step_nm=-20, z_start_nm=400, **common)
    np.testing.assert_allclose(falling.table.coefficients, rising.table.coefficients, atol=1e-6)
    z = np.arange(-520.0, 401.0, 20.0)
    found = calibrate(bead_stack(z=z, heights=np.zeros(4)), z_step_nm=20, **common)
    assert found.z_nm[0] == pytest.approx(-520, abs=120)  # between the two foci the area is flat


def test_beads_that_do_not_stand_alone_or_look_alike_are_left_out():
    places = np.concatenate([PLACES, [[6700.0, 2000.0], [6700.0, 3000.0], [7600.0, 6500.0]]])
    stack = bead_stack(places=places, heights=np.zeros(7), size=80)
    photons = Camera.ideal(PIXEL).to_photons(stack).astype(np.float64)
    beads, rejected = find_beads(photons, side_px=17)
    assert len(beads) == 4
    assert {spot.why.split(" ")[0] for spot in rejected} == {"another", "nearer"}
    assert beads[0].background == pytest.approx(5, abs=0.6)
    upside_down = bead_stack(places=PLACES[3:], heights=[0.0])[::-1].astype(int)
    odd = (bead_stack(places=PLACES[:3], heights=np.zeros(3)) + upside_down - 5).clip(0).astype(np.uint16)
    kept = calibrate(odd, camera=Camera.ideal(PIXEL), z_step_nm=20, z_start_nm=-400, size_px=17, dz_nm=100)
    assert len(kept.agreement) == 3
    assert "unlike the others" in kept.rejected[-1].why


def test_what_cannot_work_is_refused():
    camera, stack = Camera.ideal(PIXEL), bead_stack()
    with pytest.raises(ValueError, match="z_step_nm is 0"):
        calibrate(stack, camera=camera, z_step_nm=0)
    with pytest.raises(ValueError, match="at least 4 layers of 500 nm"):
        calibrate(stack, camera=camera, z_step_nm=20, dz_nm=500, size_px=17)
    with pytest.raises(ValueError, match="smaller --size-px"):
        calibrate(stack, camera=camera, z_step_nm=20, size_px=45)
    noise = np.random.default_rng(0).poisson(20, (20, 60, 60)).astype(np.uint16)
    with pytest.raises(ValueError, match="no bead stands alone"):
        calibrate(noise, camera=camera, z_step_nm=20, size_px=17)
    far = truth().replace(x_nm=PLACES[:, 0] + 3000)
    with pytest.raises(ValueError, match="nm from the nearest true place"):
        calibrate(stack, camera=camera, z_step_nm=20, z_start_nm=-400, size_px=17, dz_nm=100, truth=far)


def test_light_may_follow_the_stack():
    common = {"camera": Camera.ideal(PIXEL), "z_step_nm": 20, "z_start_nm": -400, "size_px": 17, "dz_nm": 100}
    dimming = np.linspace(1, 0.4, len(Z))[:, None, None]
    stack = np.random.default_rng(0).poisson((bead_stack() - 5.0).clip(0) * dimming + 5).astype(np.uint16)
    even, followed = (calibrate(stack, **common, normalize=mode).table for mode in ("slice", "stack"))
    total = [
        SplinePSF.of(table)
        .values_and_derivatives(
            *(torch.tensor([850.0, 850.0], dtype=torch.float64),) * 2,
            torch.tensor([-300.0, 300.0], dtype=torch.float64),
            shape=(17, 17),
            pixel_size_nm=(PIXEL, PIXEL),
        )
        .image.sum((1, 2))
        for table in (even, followed)
    ]
    assert total[0].numpy() == pytest.approx([1, 1], abs=0.01)
    assert (total[1][1] / total[1][0]).item() == pytest.approx(
        np.interp(300, Z, dimming[:, 0, 0]) / np.interp(-300, Z, dimming[:, 0, 0]), rel=0.05
    )


def test_the_command_writes_a_psf_that_recipes_read(capsys, tmp_path):
    tifffile.imwrite(tmp_path / "beads.tif", bead_stack(), photometric="minisblack")
    words = ["calibrate", tmp_path / "beads.tif", "--z-step-nm", 20, "--z-start-nm", -400, "--size-px", 17]
    words += ["--camera.pixel-size-nm", 100, "--dz-nm", 100, "-o", tmp_path / "out" / "psf.npz"]
    assert main([str(word) for word in words]) == 0
    out = capsys.readouterr().out
    assert "4 beads, z -400 to 400 nm" in out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"psf.npz", "psf-report.json", "psf-report.png", "psf-wobble.csv"}
    assert len(json.loads((tmp_path / "out" / "psf-report.json").read_text())["beads"]) == 4
    wobble = np.loadtxt(tmp_path / "out" / "psf-wobble.csv", delimiter=",", skiprows=1)
    assert wobble.shape == (9, 3)
    recipe = load_recipe("tubes-2d-hd").with_(
        psf={"kind": "spline", "file": str(tmp_path / "out" / "psf.npz")}, z_range_nm=(-300, 300)
    )
    assert recipe.psf.table.z_range_nm == (-400, 400)
    assert main([str(word) for word in words[:-1]] + [str(tmp_path / "psf.txt")]) == 2
    assert "ends in .npz" in capsys.readouterr().err
    assert main(["calibrate", str(tmp_path / "none.tif"), "--z-step-nm", "10", "--camera.pixel-size-nm", "100"]) == 2


def test_an_older_file_stays_if_writing_fails(tmp_path, monkeypatch):
    result = calibrate(bead_stack(), camera=Camera.ideal(PIXEL), z_step_nm=20, size_px=17, dz_nm=100)
    (tmp_path / "psf.npz").write_text("older")

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr("harness.calibration.report.save_spline", broken)
    with pytest.raises(OSError, match="disk full"):
        save_calibration(result, tmp_path / "psf.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["psf.npz"]
    assert (tmp_path / "psf.npz").read_text() == "older"


def test_a_real_bead_alone_in_a_small_stack(data):
    stack = tifffile.imread(data / "ries_single_bead_astigmatic_real" / "beads.tif")
    camera = Camera(pixel_size_nm=100, baseline=400, e_per_adu=0.1, max_adu=65535)
    result = calibrate(stack[::2], camera=camera, z_step_nm=20)
    assert len(result.agreement) == 1
    assert not result.agreement[0].apart
    assert result.worst_correlation(600) > 0.995
    assert result.z_nm[np.abs(result.z_nm).argmin()] == 0
    assert 80 <= np.abs(result.z_nm).argmin() * 2 <= 104  # focus near slice 92


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "wobble"),
    [
        # (x, y) at z -600, -300, 0, 300, 600 as measured on these stacks by other means.
        ("AS", [(0, -126), (19, -55), (9, -46), (37, -37), (18, -77)]),
        ("2D", [(22, -41), (-3, -9), (0, -1), (16, -5), (61, -40)]),
        ("DH", [(-88, -4), (-49, -7), (-16, -9), (0, -22), (0, -37)]),
    ],
)
def test_the_challenges_beads(data, tmp_path, kind, wobble):
    folder = data / "epfl2016_beads"
    camera = load_recipe("tubes-2d-hd").camera
    result = calibrate(
        tifffile.imread(folder / f"beads_{kind}.tif"),
        camera=camera,
        z_step_nm=10,
        z_start_nm=-750,
        truth=read_table(folder / "beads_gt.csv"),
    )
    assert len(result.agreement) == 6
    assert result.worst_correlation(600) >= 0.97
    near = np.abs(result.z_nm) <= 600
    chi2 = np.mean([one.chi2[near] for one in result.agreement])
    assert chi2 == pytest.approx(1.0 if kind != "DH" else 1.1, abs=0.08)
    assert max(result.truth_scatter_nm) < 1
    rows = [result.wobble[np.abs(result.wobble[:, 2] - z).argmin(), :2] for z in (-600, -300, 0, 300, 600)]
    np.testing.assert_allclose(rows, wobble, atol=5 if kind != "DH" else 20)
    save_calibration(result, tmp_path / "psf.npz")
    assert read_spline(tmp_path / "psf.npz")[0].z_range_nm == (-750, 750)
