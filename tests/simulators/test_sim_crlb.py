"""Fisher information and bounds against formulas, numerical differentiation and autograd."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from simulators import AstigmaticPSF, Camera, GaussianPSF
from simulators.crlb import crlb, crlb_curves, fisher, standard_errors

PSFS = {
    "gaussian": GaussianPSF(sigma_nm=115, defocus_nm=420),
    "flat": GaussianPSF(sigma_nm=130),
    "astigmatic": AstigmaticPSF(sigma_nm=120, defocus_nm=400, focal_shift_nm=230),
}
PIXEL = (110.0, 90.0)


def columns(*values, n=1):
    return [torch.full((n,), float(v), dtype=torch.float64) for v in values]


def bounds(psf, *, x=750.0, y=750.0, z=0.0, photons=1000.0, background=10.0, camera=None, **more):
    names = ("x_nm", "y_nm", "z_nm", "photons")
    full = [torch.as_tensor(v, dtype=torch.float64) for v in (x, y, z, photons)]
    full = [v.reshape(1) if v.ndim == 0 else v for v in torch.broadcast_tensors(*full)]
    dark = torch.as_tensor(background, dtype=torch.float64).expand(len(full[0]))
    return crlb(psf, **dict(zip(names, full, strict=True)), background=dark, camera=camera or Camera.ideal(100), **more)


@pytest.mark.parametrize("name", PSFS)
def test_derivatives_are_those_of_finite_differences_of_the_drawn_image(name):
    psf, shape = PSFS[name], (9, 12)
    rng = np.random.default_rng(1)
    x, y, z = (torch.from_numpy(rng.uniform(*span, 20)) for span in ((-50, 1400), (-50, 850), (-500, 500)))

    def drawn(x, y, z):
        return psf.expected(
            frame=torch.arange(len(x)),
            x_nm=x,
            y_nm=y,
            z_nm=z,
            photons=torch.ones_like(x),
            frames=len(x),
            shape=shape,
            pixel_size_nm=PIXEL,
        )

    unit = psf.values_and_derivatives(x, y, z, shape=shape, pixel_size_nm=PIXEL)
    assert unit.image.dtype == torch.float64
    # The drawing leaves out what lies beyond five standard deviations.
    torch.testing.assert_close(unit.image, drawn(x, y, z), atol=3e-7, rtol=0)
    for part, move in ((unit.d_x, (0.5, 0, 0)), (unit.d_y, (0, 0.5, 0)), (unit.d_z, (0, 0, 0.5))):
        dx, dy, dz = move
        numeric = drawn(x + dx, y + dy, z + dz) - drawn(x - dx, y - dy, z - dz)
        torch.testing.assert_close(part, numeric, atol=2e-7, rtol=1e-4)
        assert name == "flat" or part.abs().max() > 1e-5


@pytest.mark.parametrize("name", PSFS)
def test_derivatives_are_those_of_autograd_and_differentiable_themselves(name):
    psf = PSFS[name]

    def unit(x, y, z):
        return psf.values_and_derivatives(x, y, z, shape=(7, 8), pixel_size_nm=PIXEL)

    at = columns(321.0, 456.0, 130.0)
    jacobian = torch.autograd.functional.jacobian(lambda *v: unit(*v).image, tuple(at))
    for analytic, auto in zip(unit(*at)[1:], jacobian, strict=True):
        torch.testing.assert_close(analytic, auto[..., 0], atol=1e-15, rtol=1e-10)
    leaves = [v.requires_grad_() for v in at]
    assert torch.autograd.gradcheck(lambda *v: unit(*v).d_z, leaves, eps=1e-2, atol=1e-9, rtol=1e-4)


def test_the_width_can_be_given_per_emitter():
    psf = GaussianPSF(sigma_nm=115)
    at = columns(500, 500, 0, n=2)
    wide = torch.tensor([100.0, 140.0], dtype=torch.float64)
    unit = psf.values_and_derivatives(*at, shape=(10, 10), pixel_size_nm=(100, 100), sigma_nm=wide)
    for row, sigma in enumerate((100.0, 140.0)):
        alone = GaussianPSF(sigma_nm=sigma).values_and_derivatives(*at, shape=(10, 10), pixel_size_nm=(100, 100))
        torch.testing.assert_close(unit.d_x[row], alone.d_x[row])


def test_without_background_and_with_small_pixels_the_textbook_limits_hold():
    # sigma / sqrt(N) laterally, sqrt(N) for photons; z of an astigmatic spot: the Fisher information of a Gaussian's
    # widths is 2 / sigma^2 each.
    camera, sigma, depth, shift, z = Camera.ideal(12), 115.0, 420.0, 250.0, 130.0
    bound = bounds(
        AstigmaticPSF(sigma_nm=sigma, defocus_nm=depth, focal_shift_nm=shift),
        x=900.0,
        y=900.0,
        z=z,
        photons=2500.0,
        background=0.0,
        camera=camera,
        shape=(150, 150),
    )
    u, v = (z - shift) / depth, (z + shift) / depth
    wide = sigma * np.sqrt(1 + u**2), sigma * np.sqrt(1 + v**2)
    assert bound.x_sigma_nm.item() == pytest.approx(wide[0] / 50, rel=2e-3)
    assert bound.y_sigma_nm.item() == pytest.approx(wide[1] / 50, rel=2e-3)
    assert bound.photons_sigma.item() == pytest.approx(50, rel=1e-3)
    information = 2500 * 2 * ((u / (1 + u**2) / depth) ** 2 + (v / (1 + v**2) / depth) ** 2)
    assert bound.z_sigma_nm.item() == pytest.approx(information**-0.5, rel=3e-3)


@pytest.mark.parametrize(("photons", "background"), [(300, 1), (1000, 10), (1000, 100), (5000, 40)])
def test_with_background_mortensens_formula_holds(photons, background):
    # Mortensen et al. 2010, eq. 5 (maximum likelihood), pixel integration as sigma_a^2 = sigma^2 + a^2 / 12.
    sigma, pixel = 115.0, 100.0
    wide = sigma**2 + pixel**2 / 12
    tau = 2 * np.pi * wide * background / (photons * pixel**2)
    lost = quad(lambda t: np.log(t) / (1 + t / tau), 0, 1)[0]
    theory = np.sqrt(wide / photons / (1 + lost))
    curves = crlb_curves(
        GaussianPSF(sigma_nm=sigma),
        z_nm=[0.0],
        photons=[photons],
        background=background,
        camera=Camera.ideal(pixel),
        shape=(17, 17),
    )
    assert curves.x_sigma_nm[0, 0] == pytest.approx(theory, rel=0.02)
    assert curves.y_sigma_nm[0, 0] == pytest.approx(curves.x_sigma_nm[0, 0], rel=1e-9)


def test_fisher_matrix_by_hand():
    psf, shape = PSFS["astigmatic"], (8, 9)
    at = columns(400, 420, 90)
    given = dict(zip(("x_nm", "y_nm", "z_nm"), at, strict=True))
    light, dark = columns(800, 7)
    ours = fisher(psf, **given, photons=light, background=dark, camera=Camera.ideal(PIXEL), shape=shape)

    def mean(x, y, z, n, b):
        return (n * psf.values_and_derivatives(x, y, z, shape=shape, pixel_size_nm=PIXEL).image + b).reshape(-1)

    slopes = torch.cat(torch.autograd.functional.jacobian(mean, (*at, light, dark)), 1)
    by_hand = slopes.T @ (slopes / mean(*at, light, dark)[:, None])
    torch.testing.assert_close(ours[0], by_hand, rtol=1e-9, atol=0)
    torch.testing.assert_close(standard_errors(ours)[0], torch.linalg.inv(by_hand).diagonal().sqrt(), rtol=1e-8, atol=0)


def test_cameras():
    psf = PSFS["astigmatic"]
    ideal = bounds(psf, z=100.0)
    # Excess noise and quantum efficiency 0.9 alone: sqrt(2 / 0.9) times as wide.
    emccd = Camera(em_gain=300, quantum_efficiency=0.9, e_per_adu=1e-3, max_adu=2**24)
    for name in ("x_sigma_nm", "y_sigma_nm", "z_sigma_nm", "photons_sigma", "background_sigma"):
        ratio = getattr(bounds(psf, z=100.0, camera=emccd), name) / getattr(ideal, name)
        assert ratio.item() == pytest.approx((2 / 0.9) ** 0.5, rel=1e-6)
    # Read noise acts as that much more background variance.
    scmos = Camera(read_noise_e=3.0, e_per_adu=1e-3, max_adu=2**24)
    more = bounds(psf, z=100.0, background=19.0)
    assert bounds(psf, z=100.0, camera=scmos).x_sigma_nm.item() == pytest.approx(more.x_sigma_nm.item(), rel=1e-6)
    # The variance that the bound uses is the one that the camera makes.
    camera, light = Camera.challenge_emccd(), torch.full((200, 200), 30.0)
    counts = camera.expose(light, np.random.default_rng(0))
    assert counts.var().item() == pytest.approx(float(camera.variance_counts(torch.tensor(30.0))), rel=0.05)


def test_maps_of_read_noise_are_read_at_the_regions_place():
    psf, noise = GaussianPSF(sigma_nm=115), np.full((40, 50), 1.0)
    noise[20:, 30:] = 12.0
    camera = Camera(read_noise_e=noise)
    corner = (torch.tensor([0, 22]), torch.tensor([3, 33]))
    ours = bounds(psf, x=[750.0, 750.0], camera=camera, corner_px=corner)
    for row, read in enumerate((1.0, 12.0)):
        alone = bounds(psf, camera=Camera(read_noise_e=read))
        assert ours.x_sigma_nm[row].item() == pytest.approx(alone.x_sigma_nm.item(), rel=1e-9)
    across = bounds(psf, camera=camera, corner_px=(torch.tensor([14]), torch.tensor([24])))
    assert ours.x_sigma_nm[0] < across.x_sigma_nm[0] < ours.x_sigma_nm[1]
    with pytest.raises(ValueError, match="corner_px"):
        bounds(psf, camera=camera)
    with pytest.raises(ValueError, match="leaves the camera's map of 40 x 50"):
        bounds(psf, camera=camera, corner_px=(torch.tensor([26]), torch.tensor([0])))
    with pytest.raises(ValueError, match="a curve"):
        crlb_curves(psf, z_nm=[0], photons=[100], background=1, camera=camera)


def test_what_cannot_be_known_is_infinite_and_hurts_nothing_else():
    flat, focus = bounds(GaussianPSF(sigma_nm=115)), bounds(GaussianPSF(sigma_nm=115, defocus_nm=420))
    assert flat.z_sigma_nm.item() == focus.z_sigma_nm.item() == np.inf
    known = bounds(GaussianPSF(sigma_nm=115), known=("z",))
    assert known.z_sigma_nm.item() == 0
    assert flat.x_sigma_nm.item() == pytest.approx(known.x_sigma_nm.item())
    assert bounds(GaussianPSF(sigma_nm=115), known=("background",)).photons_sigma < flat.photons_sigma
    with pytest.raises(ValueError, match="'depth'"):
        bounds(GaussianPSF(sigma_nm=115), known=("depth",))


def test_overlapping_emitters():
    psf = PSFS["astigmatic"]

    def pair(distance, **more):
        x = torch.tensor([[1250 - distance / 2, 1250 + distance / 2]])
        return bounds(psf, x=x, y=torch.full((1, 2), 1250.0), z=torch.tensor([[60.0, 110.0]]), shape=(25, 25), **more)

    lone = bounds(psf, x=1250.0, y=1250.0, z=60.0, shape=(25, 25))
    apart = pair(1400.0)
    assert apart.x_sigma_nm.shape == (1, 2)
    assert apart.background_sigma.shape == (1,)
    assert apart.x_sigma_nm[0, 0].item() == pytest.approx(lone.x_sigma_nm.item(), rel=0.01)
    near = [pair(d).x_sigma_nm[0, 0].item() for d in (800.0, 400.0, 200.0, 100.0)]
    assert near == sorted(near)
    assert near[-1] > 3 * near[0]
    # The same place: only the sum of the photons can be known.
    same = torch.full((1, 2), 1250.0)
    merged = bounds(psf, x=same, y=same, z=same * 0 + 60.0, shape=(25, 25))
    assert torch.isinf(merged.x_sigma_nm).all()


def test_many_regions_are_worked_off_in_blocks(monkeypatch):
    rng = np.random.default_rng(2)
    x = rng.uniform(600, 900, 40)
    whole = bounds(PSFS["astigmatic"], x=x, z=50.0)
    monkeypatch.setattr("simulators.crlb._CHUNK", 5 * 15 * 15 * 7)
    parts = bounds(PSFS["astigmatic"], x=x, z=50.0)
    torch.testing.assert_close(whole.z_sigma_nm, parts.z_sigma_nm)


def test_what_does_not_fit_is_refused():
    psf = GaussianPSF(sigma_nm=115)
    a, b = columns(500, n=3)[0], columns(500, n=2)[0]
    common = {"camera": Camera.ideal(), "y_nm": a, "z_nm": a, "photons": a}
    with pytest.raises(ValueError, match=r"\(2,\), \(3,\)"):
        fisher(psf, x_nm=b, background=a, **common)
    with pytest.raises(ValueError, match="one number per region"):
        fisher(psf, x_nm=a, background=b, **common)
    with pytest.raises(ValueError, match="background is negative"):
        fisher(psf, x_nm=a, background=-a, **common)
