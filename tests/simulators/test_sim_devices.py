"""Tensors are made on the device that is asked for.

Inside `torch.device("meta")` a tensor whose device is not said holds no numbers, and to use it beside one on the CPU
raises: what works here leaves no device to chance, on a GPU as well.
"""

import numpy as np
import pytest
import torch

from simulators import AstigmaticPSF, Camera, GaussianPSF, draw_frames, load_recipe, simulate
from simulators.crlb import crlb, crlb_curves
from simulators.fitting import fit_regions, localize_frames
from simulators.pupil import PupilPSF
from simulators.spline import SplinePSF
from simulators.windows import draw_movies

NM = (100.0, 100.0)
SHAPE = (15, 15)
PSFS = {
    "gaussian": GaussianPSF(sigma_nm=115),
    "astigmatic": AstigmaticPSF(sigma_nm=115),
    "spline": SplinePSF.of(PupilPSF().to_spline(pixel_size_nm=100, z_range_nm=(-300, 300))),
}
CAMERAS = {
    "ideal": Camera.ideal(100),
    "emccd": Camera.challenge_emccd(100),
    "scmos": Camera(pixel_size_nm=100, read_noise_e=np.full(SHAPE, 1.5), relative_gain=np.full(SHAPE, 1.1)),
}


@pytest.fixture
def elsewhere():
    with torch.device("meta"):
        assert torch.zeros(1).device.type == "meta"
        yield


def columns(n=20, dtype=torch.float64):
    rng = np.random.default_rng(1)
    spans = {"x_nm": (500, 1000), "y_nm": (500, 1000), "z_nm": (-250, 250), "photons": (1000, 3000)}
    return {name: torch.from_numpy(rng.uniform(*span, n)).to(dtype) for name, span in spans.items()}


def on_cpu(*tensors):
    return {tensor.device.type for tensor in tensors} == {"cpu"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)  # compiled, and the way that GPUs take
@pytest.mark.parametrize("name", PSFS)
def test_images_and_derivatives(name, dtype, elsewhere):
    psf, places = PSFS[name], columns(dtype=dtype)
    frame = torch.from_numpy(np.arange(20) // 7)
    for shape in (SHAPE, (90, 70)):  # one tile, several
        image = psf.expected(frame=frame, frames=3, shape=shape, pixel_size_nm=NM, **places)
        assert on_cpu(image)
        assert image.sum() > 10_000
    photons = places.pop("photons")
    unit = psf.values_and_derivatives(**places, shape=SHAPE, pixel_size_nm=NM)
    assert on_cpu(*unit)
    assert on_cpu(photons)


@pytest.mark.parametrize("name", CAMERAS)
def test_counts_and_photons(name, elsewhere):
    camera = CAMERAS[name]
    light = torch.full((4, *SHAPE), 50.0, device="cpu")
    for generator in (np.random.default_rng(1), torch.Generator("cpu").manual_seed(1)):  # the latter as on GPUs
        counts = camera.expose(light, generator)
        assert on_cpu(counts, camera.to_photons(counts), camera.variance_counts(light))
        assert camera.to_photons(counts).mean() == pytest.approx(50, rel=0.1)


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("name", PSFS)
def test_bounds_and_fits(name, camera, elsewhere):
    psf, chip, places = PSFS[name], CAMERAS[camera], columns()
    corner = torch.zeros(20, dtype=torch.int64, device="cpu")
    more = {"camera": chip, "corner_px": (corner, corner)}
    light = torch.full((20,), 10.0, dtype=torch.float64, device="cpu")
    bound = crlb(psf, **places, background=light, shape=SHAPE, **more)
    assert on_cpu(bound.x_sigma_nm, bound.photons_sigma)
    photons = places.pop("photons")
    image = psf.values_and_derivatives(**places, shape=SHAPE, pixel_size_nm=NM).image
    counts = chip.expose((image * photons[:, None, None] + 10).float(), torch.Generator("cpu").manual_seed(1))
    fit = fit_regions(chip.to_photons(counts), psf=psf, **more)
    assert on_cpu(fit.x_nm, fit.chi2, *fit.errors.values())
    assert (fit.x_nm - places["x_nm"]).abs().median() < 40
    if camera != "scmos":
        curves = crlb_curves(psf, z_nm=[-100, 100], photons=[1000], background=10, camera=chip)
        assert np.isfinite(curves.x_sigma_nm).all()
        found = localize_frames(chip.to_photons(counts).numpy(), psf=psf, camera=chip)
        assert len(found) > 10


@pytest.mark.parametrize("name", ["tubes-2d-hd", "tubes-as-ld", "er-2d-hd", "tubes-2d-hd-scmos", "epfl-2d", "paint-2d"])
def test_movies_and_batches(name, elsewhere):
    recipe = load_recipe(name).with_(frames=6, size=32)
    movie = simulate(recipe, np.random.default_rng(1), device="cpu", threads=1)
    assert movie.frames.mean() > recipe.camera.baseline
    batch = draw_frames(recipe, 3, np.random.default_rng(1), device="cpu", threads=1)
    windows = draw_movies(recipe, 2, 3, np.random.default_rng(1), device="cpu", threads=1)
    for made in (batch, windows):
        assert on_cpu(made.photons, made.frame, made.x_nm, made.background)
