import numpy as np
import pytest
import torch
from pydantic import ValidationError

from simulators import Camera

PIXELS = 300_000
CAMERAS = {
    "ideal": Camera.ideal(100),
    "emccd": Camera.challenge_emccd(),
    "scmos": Camera(
        pixel_size_nm=100,
        baseline=100,
        e_per_adu=0.46,
        quantum_efficiency=0.7,
        read_noise_e=1.6,
        spurious_charge_e=0.5,
    ),
    "scmos_truncating": Camera(pixel_size_nm=100, baseline=100, e_per_adu=2.2, read_noise_e=1.6, rounding="truncate"),
}


def generators():
    return [np.random.default_rng(1), torch.Generator().manual_seed(1)]


@pytest.mark.parametrize("which", [0, 1], ids=["numpy", "torch"])
@pytest.mark.parametrize("photons", [20.0, 300.0])
@pytest.mark.parametrize("name", CAMERAS)
def test_mean_and_variance_follow_the_formulas(name, photons, which):
    camera = CAMERAS[name]
    counts = camera.expose(torch.full((1, PIXELS), photons), generators()[which]).double()
    assert torch.equal(counts, counts.round())
    electrons = camera.quantum_efficiency * photons + camera.spurious_charge_e
    gain = (camera.em_gain or 1) / camera.e_per_adu
    excess = 2 if camera.em_gain else 1
    variance = excess * electrons * gain**2 + (camera.read_noise_e / camera.e_per_adu) ** 2
    variance += 0 if name == "ideal" else 1 / 12
    mean = camera.baseline + electrons * gain - (0.5 if camera.rounding == "truncate" else 0)
    assert counts.mean().item() == pytest.approx(mean, abs=5 * (variance / PIXELS) ** 0.5)
    # The variance of a variance: kurtosis of these distributions is at most about 3 + 6 / electrons * 1.5.
    assert counts.var().item() == pytest.approx(variance, rel=5 * (3 / PIXELS) ** 0.5)
    tensor = torch.tensor(photons)
    assert camera.mean_counts(tensor).item() == pytest.approx(mean, rel=1e-6)
    assert camera.variance_counts(tensor).item() == pytest.approx(variance, rel=1e-6)


@pytest.mark.parametrize("photons", [0.0, 0.3, 20.0, 300.0])
@pytest.mark.parametrize("name", CAMERAS)
def test_to_photons_inverts_without_bias(name, photons):
    camera = CAMERAS[name].model_copy(update={"max_adu": 65535})
    if camera.baseline == 0 or photons > 1 or name == "emccd":
        back = camera.to_photons(camera.expose(torch.full((1, PIXELS), photons), np.random.default_rng(2)))
        error = (camera.variance_counts(torch.tensor(photons)).item() / PIXELS) ** 0.5 / camera.counts_per_photon
        assert back.dtype == torch.float32
        # Near zero light the truncation is even about zero only on average over the noise.
        assert back.double().mean().item() == pytest.approx(photons, abs=5 * error + (0.02 if photons < 1 else 0))


def test_the_challenge_camera_gives_six_counts_a_photon_and_excess_two():
    camera = Camera.challenge_emccd()
    assert camera.counts_per_photon == pytest.approx(6)
    ideal = camera.model_copy(update={"em_gain": None, "read_noise_e": 0.0})
    tensor = torch.tensor(1e6)
    ratio = camera.variance_counts(tensor) / camera.counts_per_photon**2
    assert (ratio / (ideal.variance_counts(tensor) / ideal.counts_per_photon**2)).item() == pytest.approx(2, rel=1e-3)


def test_no_light_no_gain_noise_but_the_read_noise():
    camera = Camera.challenge_emccd().model_copy(update={"spurious_charge_e": 0.0, "rounding": "nearest"})
    for generator in generators():
        dark = camera.expose(torch.zeros(1, PIXELS), generator).double()
        assert dark.mean().item() == pytest.approx(100, abs=0.02)
        assert dark.std().item() == pytest.approx((74.4**2 / 45**2 + 1 / 12) ** 0.5, rel=0.01)


def test_counts_are_clipped_to_the_range():
    camera = Camera(pixel_size_nm=100, baseline=2, read_noise_e=5, max_adu=255)
    dark = camera.expose(torch.zeros(1, 1000), np.random.default_rng(1))
    assert dark.min() == 0
    assert camera.expose(torch.full((1, 9), 1e4), np.random.default_rng(1)).max() == 255


def test_a_map_of_read_noise_acts_pixel_by_pixel():
    read = np.array([[0.0, 10.0], [20.0, 40.0]])
    camera = Camera(pixel_size_nm=100, baseline=1000, read_noise_e=read)
    for generator in generators():
        spread = camera.expose(torch.zeros(20_000, 2, 2), generator).std(0).numpy()
        np.testing.assert_allclose(spread, read, atol=0.4, rtol=0.02)
    with pytest.raises(ValueError, match="frames are 3 x 3 pixels but the map read_noise_e is 2 x 2"):
        camera.expose(torch.zeros(1, 3, 3), np.random.default_rng(1))
    assert Camera.model_validate(camera.model_dump(mode="json")) == camera


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float64])
def test_to_photons_takes_any_type_and_keeps_the_kind(dtype):
    camera = Camera.challenge_emccd()
    counts = np.array([[100, 90], [700, 65535]], dtype=dtype)
    photons = camera.to_photons(counts)
    assert isinstance(photons, np.ndarray)
    assert photons.dtype == np.float32
    assert photons[0, 0] == pytest.approx(-0.002 / 0.9)
    assert photons[0, 1] == pytest.approx(-10.5 / 6 - 0.002 / 0.9)
    tensor = camera.to_photons(torch.from_numpy(counts.astype(np.int32)))
    np.testing.assert_allclose(tensor.numpy(), photons)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pixel_size_nm": 0}, "pixel_size_nm"),
        ({"pixel_size_nm": 100, "quantum_efficiency": 1.5}, "quantum_efficiency"),
        ({"pixel_size_nm": 100, "em_gian": 300}, "unknown key 'em_gian' in Camera. Did you mean 'em_gain'?"),
        ({"pixel_size_nm": 100, "read_noise_e": -1}, "read_noise_e is -1"),
        ({"pixel_size_nm": 100, "read_noise_e": [[1.0, -2.0]]}, "read_noise_e is -2 somewhere"),
        ({"pixel_size_nm": 100, "read_noise_e": [1.0, 2.0]}, "map of shape"),
        ({"pixel_size_nm": 100, "relative_gain": [[1.0, 0.0]]}, "relative_gain is 0 somewhere"),
        ({"pixel_size_nm": 100, "relative_gain": [[1.0]], "offset_adu": [[1.0, 2.0]]}, "maps differ in shape"),
        ({"pixel_size_nm": 100, "full_well_e": 0}, "full_well_e"),
        ({"pixel_size_nm": 100, "baseline": 70_000}, "baseline is 70000"),
        ({"pixel_size_nm": 100, "e_per_adu": float("nan")}, "e_per_adu"),
    ],
)
def test_bad_cameras_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        Camera.model_validate(values)


@pytest.mark.parametrize("bad", [-1.0, float("nan")])
def test_negative_or_nan_light_is_refused(bad):
    for generator in generators():
        with pytest.raises(ValueError, match="negative or nan"):
            Camera.ideal(100).expose(torch.tensor([[1.0, bad]]), generator)


def varied(rng, shape=(3, 4)):
    return Camera(
        pixel_size_nm=100,
        baseline=100,
        e_per_adu=0.5,
        quantum_efficiency=0.8,
        read_noise_e=rng.uniform(1, 6, shape),
        relative_gain=rng.uniform(0.8, 1.2, shape),
        offset_adu=rng.uniform(-5, 5, shape),
    )


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
def test_every_pixel_has_its_own_gain_offset_and_noise(rounding):
    camera = varied(np.random.default_rng(1)).model_copy(update={"rounding": rounding})
    gain, offset, read = (np.array(getattr(camera, n)) for n in ("relative_gain", "offset_adu", "read_noise_e"))
    draws = 40_000
    for generator in generators():
        counts = camera.expose(torch.full((draws, 3, 4), 50.0), generator).double()
        mean = 100 + offset + 40 * 2 * gain - (0.5 if rounding == "floor" else 0)
        variance = (40 + read**2) * 4 * gain**2 + 1 / 12
        assert np.abs(counts.mean(0).numpy() - mean).max() < 5 * (variance.max() / draws) ** 0.5
        np.testing.assert_allclose(counts.var(0).numpy(), variance, rtol=5 * (2.2 / draws) ** 0.5)
        flat = torch.full((3, 4), 50.0, dtype=torch.float64)
        np.testing.assert_allclose(camera.mean_counts(flat).numpy(), mean, rtol=1e-6)
        np.testing.assert_allclose(camera.variance_counts(flat).numpy(), variance, rtol=1e-6)
        for back in (camera.to_photons(counts), torch.from_numpy(camera.to_photons(counts.numpy()))):
            assert (back.mean(0) - 50).abs().max() < 5 * (variance.max() / draws) ** 0.5 / 1.6 / 0.8
    with pytest.raises(ValueError, match="frames are 4 x 3 pixels but the map read_noise_e is 3 x 4"):
        camera.to_photons(np.zeros((2, 4, 3)))
    part = camera.crop(slice(1, 3), slice(0, 2))
    assert part.map_shape == (2, 2)
    np.testing.assert_allclose(part.offset_adu, offset[1:3, :2])
    with pytest.raises(ValueError, match="hold no pixel"):
        camera.crop(slice(5, 9), slice(0, 2))
    assert Camera.ideal().crop(slice(0, 2), slice(0, 2)) == Camera.ideal()


def test_a_camera_from_its_calibration_explains_dark_and_lit_frames():
    rng = np.random.default_rng(2)
    offset, variance, gain = rng.normal(100, 3, (5, 6)), rng.uniform(2, 30, (5, 6)), rng.uniform(1.8, 2.4, (5, 6))
    camera = Camera.from_calibration(offset, variance, gain, pixel_size_nm=110, quantum_efficiency=0.9)
    dark = torch.zeros(5, 6, dtype=torch.float64)
    np.testing.assert_allclose(camera.mean_counts(dark).numpy(), offset, rtol=1e-6)
    np.testing.assert_allclose(camera.variance_counts(dark).numpy(), variance, rtol=1e-6)
    np.testing.assert_allclose(camera.mean_counts(dark + 10).numpy() - offset, 9 * gain, rtol=1e-6)
    assert camera.kind == "scmos"
    with pytest.raises(ValueError, match="two maps"):
        Camera.from_calibration(offset, variance[0], gain, pixel_size_nm=110)


def test_full_pixels_hold_no_more():
    camera = Camera(pixel_size_nm=100, full_well_e=1000, e_per_adu=2, baseline=10)
    for generator in generators():
        assert camera.expose(torch.full((1, 99), 5000.0), generator).unique().tolist() == [510]


@pytest.mark.parametrize("rounding", ["floor", "truncate", "nearest"])
@pytest.mark.parametrize("photons", [0.3, 5.0, 80.0])
def test_no_rounding_leaves_a_bias_in_photons(rounding, photons):
    camera = Camera(pixel_size_nm=100, baseline=400, e_per_adu=5, em_gain=100, read_noise_e=58.8, rounding=rounding)
    counts = camera.expose(torch.full((1, PIXELS), photons), np.random.default_rng(3))
    error = (camera.variance_counts(torch.tensor(photons)).item() / PIXELS) ** 0.5 / camera.counts_per_photon
    assert camera.to_photons(counts).double().mean().item() == pytest.approx(photons, abs=5 * error)
