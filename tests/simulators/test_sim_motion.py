"""Drift, the sweep of a light sheet, dropout boxes and sensors whose pixels differ."""

import numpy as np
import pytest
import torch

from simulators import Camera, draw_frames, load_recipe, parse_recipe, simulate
from simulators.augment import DropoutBox
from simulators.motion import Drift, Sweep
from simulators.sensor import SensorSpread
from simulators.windows import draw_movies

PLAIN = load_recipe("epfl-2d").with_(
    density_um2=0.5, photons=2000, background=20, size=32, frames=400, psf={"kind": "gaussian", "sigma_nm": 115}
)


def test_a_steady_drift_moves_every_molecule_along_its_line():
    recipe = PLAIN.with_(
        drift={"steady_nm": [400, -200, 100]}, structure={"kind": "points", "values": [[1000, 1500, -50]]}
    )
    movie = simulate(recipe, np.random.default_rng(1))
    e = movie.emitters
    np.testing.assert_allclose(e.x_nm, 1000 + 0.4 * e.frame)
    np.testing.assert_allclose(e.y_nm, 1500 - 0.2 * e.frame)
    np.testing.assert_allclose(e.z_nm, -50 + 0.1 * e.frame)
    np.testing.assert_allclose(movie.drift_nm[e.frame, 0], 0.4 * e.frame)
    # The light moves along: the brightest pixel of the mean of the first and of the last frames.
    for part, frame in ((slice(0, 20), 10), (slice(380, 400), 390)):
        row, column = np.unravel_index(movie.frames[part].mean(0).argmax(), (32, 32))
        assert abs((column + 0.5) * 100 - 1000 - 0.4 * frame) < 100
        assert abs((row + 0.5) * 100 - 1500 + 0.2 * frame) < 100
    assert len(e) / 400 / 3.2**2 == pytest.approx(0.5, rel=0.05)


def test_a_random_drift_has_its_spread():
    ends = np.array([Drift(random_nm=50).path(1001, np.random.default_rng(seed))[[0, -1]] for seed in range(400)])
    assert (ends[:, 0] == 0).all()
    assert ends[:, 1, :2].std() == pytest.approx(50, rel=0.1)
    assert (ends[:, 1, 2] == 0).all()
    assert simulate(PLAIN.with_(frames=3), np.random.default_rng(1)).drift_nm is None


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (0, 40, 25), (-50, 10, 70)])
def test_the_sweep_is_the_turned_step(angles):
    from scipy.spatial.transform import Rotation

    expected = Rotation.from_euler("xyz", angles, degrees=True).apply([0, 270, 0])
    np.testing.assert_allclose(Sweep(step_nm=270, angles_deg=angles).vector_nm, expected, atol=1e-9)


def test_molecules_are_seen_a_step_further_in_each_frame():
    recipe = PLAIN.with_(sweep={"step_nm": 270, "angles_deg": [0, 0, -90]}, blinking={"mean_on_frames": 4})
    e = simulate(recipe, np.random.default_rng(1)).emitters
    order = np.lexsort((e.frame, e.id))
    same = np.diff(e.id[order]) == 0
    np.testing.assert_allclose(np.diff(e.x_nm[order])[same], 270 * np.diff(e.frame[order])[same])
    np.testing.assert_allclose(np.diff(e.y_nm[order])[same], 0, atol=1e-6)
    assert same.sum() > 500
    assert len(e) / 400 / 3.2**2 == pytest.approx(0.5, rel=0.02)
    # As dense on the left as on the right.
    left, right = np.histogram(e.x_nm, bins=2, range=(0, 3200))[0]
    assert left / right == pytest.approx(1, abs=0.15)


def test_a_sweep_along_z_leaves_the_range_and_keeps_the_density():
    recipe = PLAIN.with_(sweep={"step_nm": 270, "angles_deg": [90, 0, 0]}, blinking={"mean_on_frames": 3})
    e = simulate(recipe, np.random.default_rng(1)).emitters
    assert np.abs(e.z_nm).max() <= 300
    assert len(e) / 400 / 3.2**2 == pytest.approx(0.5, rel=0.02)
    batch = draw_movies(recipe, 30, 3, np.random.default_rng(1))
    assert batch.z_nm.abs().max() <= 300.001
    assert batch.photons.shape == (90, 32, 32)


def test_boxes_are_empty_and_as_large_as_two_random_sides():
    box = DropoutBox()
    rng = np.random.default_rng(1)
    space = PLAIN.space
    scene = np.repeat(np.arange(300), 400)
    x, y = rng.uniform(0, 3200, (2, len(scene)))
    kept = box.kept(x, y, scene, 300, space, rng)
    assert 1 - kept.mean() == pytest.approx(1 / 9, rel=0.12)  # the mean side is a third
    for number in range(20):
        out = (scene == number) & ~kept
        if out.sum() > 5:
            around = (scene == number) & (x > x[out].min()) & (x < x[out].max())
            around &= (y > y[out].min()) & (y < y[out].max())
            assert not kept[around].any()
    half = DropoutBox(chance=0.5).kept(x, y, scene, 300, space, rng)
    none = np.bincount(scene[~half], minlength=300) == 0
    assert 0.45 < none.mean() < 0.75


def test_batches_leave_boxes_out_and_movies_do_not():
    full, less = PLAIN.with_(density_um2=2), PLAIN.with_(density_um2=2, dropout={"kind": "box"})
    counts = [
        recipe.space.inside(batch.x_nm.numpy(), batch.y_nm.numpy()).sum()
        for recipe, batch in ((r, draw_frames(r, 500, np.random.default_rng(1))) for r in (full, less))
    ]
    assert counts[1] / counts[0] == pytest.approx(8 / 9, abs=0.04)
    a, b = (simulate(r.with_(frames=20), np.random.default_rng(1)) for r in (full, less))
    np.testing.assert_array_equal(a.frames, b.frames)


def test_sensors_have_their_spreads_and_stay_the_same():
    camera = Camera(pixel_size_nm=100, baseline=100, read_noise_e=1.6, e_per_adu=0.46)
    spread = SensorSpread(hot_share=0.01)
    drawn = spread.build(camera, (200, 300))
    read, gain, offset = (np.array(getattr(drawn, n)) for n in ("read_noise_e", "relative_gain", "offset_adu"))
    assert np.median(read) == pytest.approx(1.6, rel=0.02)
    assert np.log(np.quantile(read, 0.84) / np.median(read)) == pytest.approx(0.25, abs=0.02)
    assert (read > 8).mean() == pytest.approx(0.01, rel=0.15)
    assert gain.std() == pytest.approx(0.02, rel=0.03)
    assert offset.std() == pytest.approx(1.5, rel=0.03)
    assert spread.build(camera, (200, 300)) == drawn
    assert SensorSpread(hot_share=0.01, seed=2).build(camera, (200, 300)) != drawn


def test_movies_of_a_varied_sensor_are_given_back_without_its_pattern():
    recipe = load_recipe("tubes-2d-hd-scmos").with_(
        frames=600, size=24, density_um2=0, sensor={"gain_spread": 0.1, "offset_spread_adu": 10, "hot_share": 0.05}
    )
    movie = simulate(recipe, np.random.default_rng(1))
    assert movie.camera.map_shape == (24, 24)
    raw = movie.frames.mean(0)
    assert raw.std() > 10
    error = (movie.camera.variance_counts(np.float64(90)) ** 0.5 / 0.82 * 0.46 / 600**0.5).max()
    assert np.abs(movie.photons().mean(0) - 90).max() < 5 * error
    again = simulate(recipe, np.random.default_rng(2))
    assert again.camera == movie.camera  # another movie, the same sensor
    batch = draw_frames(load_recipe("scmos-2d").with_(density_um2=0.02, background=90), 64, np.random.default_rng(1))
    assert batch.photons.mean().item() == pytest.approx(90, rel=0.05)
    assert torch.median(batch.photons).item() == pytest.approx(90, abs=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drift": {"steady": [1, 2, 3]}}, "drift: unknown key 'steady' in Drift. Did you mean 'steady_nm'"),
        ({"drift": {"steady_nm": [1, 2]}}, "drift.steady_nm"),
        ({"sweep": {}}, "sweep.step_nm: is missing"),
        ({"dropout": {"chance": 0}}, "dropout.chance"),
        ({"sensor": {}}, "sensor draws the maps of an sCMOS"),
        ({"sensor": {"gain_spread": 3}}, "sensor.gain_spread"),
    ],
)
def test_bad_motion_and_sensors_are_refused_by_name(changes, message):
    values = load_recipe("epfl-2d").model_dump(mode="json")
    with pytest.raises(ValueError, match=message):
        parse_recipe({**values, **changes}, source="mine")
