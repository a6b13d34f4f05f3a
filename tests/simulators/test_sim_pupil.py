"""Computed PSFs against optics' formulas."""

import numpy as np
import pytest
import torch
from scipy.special import j1

from simulators import Camera, SplinePSF
from simulators.crlb import crlb_curves
from simulators.pupil import FieldPSF, PupilPSF, ZernikeField, noll, zernike


def images(z, *, pixel=100.0, size=25, oversampling=1, **optics):
    psf = PupilPSF.model_validate(optics)
    return psf.images(np.atleast_1d(z), pixel_size_nm=pixel, size_px=size, oversampling=oversampling)


def widths(image, pixel=100.0, share=0.02):
    """Second moments along x and y of what is above a share of the peak."""
    image = np.clip(image.numpy() - share * image.numpy().max(), 0, None)
    place = (np.arange(len(image)) - (len(image) - 1) / 2) * pixel
    return [float(np.sqrt((image.sum(axis) * place**2).sum() / image.sum())) for axis in (0, 1)]


def disk(samples=201):
    line = torch.linspace(-1, 1, samples, dtype=torch.float64)
    y, x = torch.meshgrid(line, line, indexing="ij")
    rho, phi = torch.hypot(x, y), torch.atan2(y, x)
    inside = rho < 1
    return rho[inside], phi[inside]


def test_zernike_polynomials_are_nolls():
    # Noll 1976, table 1.
    rho, phi = disk()
    table = {
        1: torch.ones_like(rho),
        2: 2 * rho * torch.cos(phi),
        3: 2 * rho * torch.sin(phi),
        4: 3**0.5 * (2 * rho**2 - 1),
        5: 6**0.5 * rho**2 * torch.sin(2 * phi),
        6: 6**0.5 * rho**2 * torch.cos(2 * phi),
        7: 8**0.5 * (3 * rho**3 - 2 * rho) * torch.sin(phi),
        8: 8**0.5 * (3 * rho**3 - 2 * rho) * torch.cos(phi),
        9: 8**0.5 * rho**3 * torch.sin(3 * phi),
        10: 8**0.5 * rho**3 * torch.cos(3 * phi),
        11: 5**0.5 * (6 * rho**4 - 6 * rho**2 + 1),
    }
    for index, formula in table.items():
        torch.testing.assert_close(zernike(index, rho, phi), formula, atol=1e-12, rtol=0)
    every = torch.stack([zernike(index, rho, phi) for index in range(1, 17)])
    torch.testing.assert_close(every @ every.T / len(rho), torch.eye(16, dtype=torch.float64), atol=0.02, rtol=0)
    assert [noll(index) for index in (12, 13, 22, 37)] == [(4, 2), (4, -2), (6, 0), (8, 0)]
    with pytest.raises(ValueError, match="count from 1"):
        noll(0)


@pytest.mark.parametrize(("model", "tolerance"), [("scalar", 0.004), ("vectorial", 0.03)])
def test_at_low_aperture_the_spot_is_airys(model, tolerance):
    na, pixel, lam = 0.3, 50.0, 660.0
    image = images(0.0, na=na, medium=1, immersion=1, wavelength_nm=lam, model=model, pixel=pixel, size=81)[0]
    u = 2 * np.pi * na * np.arange(1, 41) * pixel / lam
    airy = (2 * j1(u) / u) ** 2 * np.pi * (na / lam) ** 2 * pixel**2
    peak = np.pi * (na / lam) ** 2 * pixel**2
    assert image[40, 40].item() == pytest.approx(peak, rel=tolerance)
    assert np.abs(image[40, 41:].numpy() - airy).max() < tolerance * peak
    # The Gaussian of the same core has a sigma of 0.21 lambda / NA.
    half = np.interp(0.5, image[40, 40:60].numpy()[::-1] / image[40, 40].item(), np.arange(20)[::-1] * pixel)
    assert half / np.sqrt(2 * np.log(2)) == pytest.approx(0.21 * lam / na, rel=0.05)


def test_light_is_kept():
    # All of it far out; the share within the frame at a high aperture does not depend on the samples' number.
    wide = images([0.0, 400.0], size=121)
    assert wide.sum((1, 2)).numpy() == pytest.approx([1, 1], abs=0.025)
    coarse, fine = (images([-500.0, 0.0], samples=n, zernike_nm={6: 60}) for n in (64, 160))
    torch.testing.assert_close(coarse, fine, atol=2e-3 * fine.max().item(), rtol=0)
    # A pixel is the sum of its four quarters, and oversampled values are whole pixels' light.
    quarter = images([200.0], pixel=50.0, size=50)[0].reshape(25, 2, 25, 2).sum((1, 3))
    whole = images([200.0], pixel=100.0, size=25)[0]
    torch.testing.assert_close(quarter, whole, atol=1e-3 * whole.max().item(), rtol=0)
    twice = images([200.0], pixel=100.0, size=25, oversampling=3)[0]
    torch.testing.assert_close(twice[1::3, 1::3], whole, atol=1e-3 * whole.max().item(), rtol=0)


def test_symmetry():
    image = images([-400.0, 0.0, 400.0])
    torch.testing.assert_close(image, image.flip(1))
    torch.testing.assert_close(image, image.transpose(1, 2), atol=1e-12, rtol=0)
    torch.testing.assert_close(image[0], image[2], atol=1e-12, rtol=0)  # without aberration z and -z look alike
    bent = images([-400.0, 400.0], zernike_nm={11: 40})
    assert (bent[0] - bent[1]).abs().max() > 0.1 * bent.max()
    # x runs along columns: coma along x leaves y symmetric.
    coma = images([0.0], zernike_nm={8: 50})
    torch.testing.assert_close(coma, coma.flip(1))
    assert (coma - coma.flip(2)).abs().max() > 0.05 * coma.max()


def test_tilt_moves_the_spot_by_its_slope():
    # 2 rho cos(phi) of rms c is a path of 2 c / NA per unit of k_x / k0: here two pixels, towards smaller x.
    optics = {"model": "scalar", "na": 0.6, "medium": 1, "immersion": 1}
    tilted, plain = images([0.0], zernike_nm={2: 60.0}, **optics)[0], images([0.0], **optics)[0]
    torch.testing.assert_close(tilted[:, :-2], plain[:, 2:], atol=1e-6, rtol=0)


def test_astigmatism_is_narrow_along_x_above_focus():
    below, focus, above = (widths(image) for image in images([-300.0, 0.0, 300.0], zernike_nm={6: 60}))
    assert above[0] < 0.55 * above[1]
    assert below == pytest.approx(above[::-1], rel=1e-6)
    assert focus[0] == pytest.approx(focus[1], rel=1e-6)


@pytest.mark.parametrize("rings", [2, 3])
def test_the_double_helix_turns_at_its_rate(rings):
    na, n, lam = 1.45, 1.518, 660.0
    z = np.arange(-300.0, 301.0, 100.0)
    stack = images(z, pixel=50.0, size=61, mask={"kind": "double_helix", "rings": rings}).numpy()
    y, x = np.mgrid[-30:31, -30:31] * 50.0
    window = np.exp(-(x**2 + y**2) / (2 * 450.0**2))
    turn = np.unwrap(np.angle((stack * window * (x + 1j * y) ** 2).sum((1, 2)))) / 2
    rate = 2 * np.pi / lam * (n - np.sqrt(n**2 - na**2)) / (2 * rings)
    assert abs(np.polyfit(z, turn, 1)[0]) == pytest.approx(rate, rel=0.15)
    for image in stack:  # two lobes: the middle is darker than they are
        assert image[30, 30] < 0.7 * image.max()


def test_the_tetrapods_lobes_part_along_y_above_focus_and_x_below():
    below, above = (widths(image, share=0.3) for image in images([-800.0, 800.0], size=41, mask={"kind": "tetrapod"}))
    assert above[1] > 3 * above[0]
    assert below[0] > 3 * below[1]


def test_index_mismatch():
    # No mismatch: the depth does not matter. Low aperture: it does not either, once the objective has moved.
    plain = images([0.0, 200.0])
    torch.testing.assert_close(images([0.0, 200.0], depth_nm=3000), plain, atol=1e-9, rtol=0)
    low = {"na": 0.4, "immersion": 1.518, "medium": 1.33}
    near, far = images([0.0], **low, size=41), images([0.0], **low, depth_nm=3000, size=41)
    torch.testing.assert_close(near, far, atol=5e-3 * near.max().item(), rtol=0)
    # In water, focus is lost as in oil at n_oil / n_water times the distance (paraxial).
    water, oil = images([2000.0], **low, size=41), images([2000.0 * 1.518 / 1.33], na=0.4, size=41)
    assert widths(water[0])[0] == pytest.approx(widths(oil[0])[0], rel=0.01)
    # High aperture: the deeper, the worse.
    high = {"na": 1.3, "immersion": 1.518, "medium": 1.33}
    peaks = [images([0.0, 200.0], **high, depth_nm=d).max().item() for d in (0, 1000, 4000)]
    assert peaks[0] > 1.03 * peaks[1] > 1.5 * peaks[2]
    # Beyond the critical angle only molecules at the glass give light.
    near, far = (images([0.0], na=1.49, medium=1.33, depth_nm=d, size=61).sum().item() for d in (0, 2000))
    assert far < 0.9 * near < near < 1
    with pytest.raises(ValueError, match="needs immersion and cover above it"):
        images([0.0], na=1.52)


def test_splines_of_it_simulate_and_bound():
    optics = PupilPSF(zernike_nm={6: 60})
    psf = SplinePSF.of(optics.to_spline(pixel_size_nm=100, size_px=19, z_range_nm=(-400, 400)))
    assert psf.table.z_range_nm == (-400, 400)
    at = torch.tensor([950.0], dtype=torch.float64)  # a place between the samples is as exact as on them
    for z in (-375.0, 110.0):
        own = psf.values_and_derivatives(at, at, 0 * at + z, shape=(19, 19), pixel_size_nm=(100, 100)).image[0]
        exact = optics.images([z], pixel_size_nm=100, size_px=19)[0]
        inner = (slice(1, -1), slice(1, -1))
        assert (own - exact)[inner].abs().max() < 0.003 * exact.max()
    bound = crlb_curves(psf, z_nm=[-300, 0, 300], photons=[1000], background=10, camera=Camera.ideal(100))
    assert bound.x_sigma_nm[0, 0] == pytest.approx(bound.y_sigma_nm[2, 0], rel=0.02)
    assert (bound.z_sigma_nm < 60).all()


@pytest.fixture(scope="module")
def over_field():
    field = ZernikeField(centre_nm=(5000, 5000), scale_nm=5000, terms_nm={6: (60, 20, 0, -5), 7: (0, 0, 15)})
    places = (0.0, 5000.0, 10000.0)
    psf = FieldPSF.build(
        PupilPSF(zernike_nm={6: 10}, samples=48), field, x_nm=places, y_nm=places[:2], pixel_size_nm=100, size_px=11,
        z_range_nm=(-400, 400), dz_nm=100,
    )  # fmt: skip
    return field, psf


def test_coefficients_vary_over_the_field(over_field):
    field, psf = over_field
    assert field.at(5000, 5000) == {6: 60, 7: 0}
    assert field.at(10000, 0) == {6: 75, 7: -15}
    node = PupilPSF(zernike_nm={6: 10 + 75, 7: -15}, samples=48)
    table = node.to_spline(pixel_size_nm=100, size_px=11, z_range_nm=(-400, 400), dz_nm=100)
    np.testing.assert_allclose(psf.at(12000, -50).table.coefficients, table.coefficients, atol=1e-9)
    left, right = psf.at(0, 0).table.coefficients, psf.at(5000, 0).table.coefficients
    np.testing.assert_allclose(psf.at(1250, 0).table.coefficients, 0.75 * left + 0.25 * right, atol=1e-9)


def test_a_field_is_drawn_with_the_psf_of_each_place(over_field):
    _, psf = over_field
    rng = np.random.default_rng(0)
    x, y, z = (torch.from_numpy(rng.uniform(*span, 6)) for span in ((500, 9500), (500, 4500), (-300, 300)))
    frame = torch.arange(6)
    drawn = psf.expected(
        frame=frame, x_nm=x, y_nm=y, z_nm=z, photons=0 * x + 1000, frames=6, shape=(50, 100), pixel_size_nm=(100, 100)
    )
    for n in range(6):
        one = slice(n, n + 1)
        alone = psf.at(x[n].item(), y[n].item()).values_and_derivatives(
            x[one], y[one], z[one], shape=(50, 100), pixel_size_nm=(100, 100)
        )
        torch.testing.assert_close(drawn[n], 1000 * alone.image[0], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="must rise"):
        FieldPSF([[psf.psfs[0][0].table] * 2], x_nm=(5, 5), y_nm=(0,))
    with pytest.raises(ValueError, match="1 rows of 2"):
        FieldPSF([[psf.psfs[0][0].table]], x_nm=(0, 5), y_nm=(0,))
