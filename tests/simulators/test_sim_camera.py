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
        ({"pixel_size_nm": 100, "read_noise_e": [[1.0, -2.0]]}, "map of shape"),
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
