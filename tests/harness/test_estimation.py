"""Parameters from a movie: simulated ones whose parameters are known come back; the page says where things differ."""

import dataclasses

import numpy as np
import pytest
import torch

from harness.cli import main
from harness.estimation import (
    LIMITS,
    Numbers,
    Row,
    build_page,
    compare,
    estimate,
    find_camera,
    observe,
    recipe_of,
    training_recipe,
)
from harness.io import open_movie, write_movie
from simulators import Camera, load_recipe, simulate


def movie_file(path, *, recipe="tubes-2d-ld", seed=3, **changes):
    """A movie of uniform molecules that are on for three frames on average, in a file; and what made it."""
    base = {
        "frames": 250,
        "size": (40, 40),
        "structure": {"kind": "uniform"},
        "blinking": {"kind": "on_time", "mean_on_frames": 3},
        "photons": 2000.0,
        "background": 40.0,
        "density_um2": 0.12,
        "psf": {"kind": "gaussian", "sigma_nm": 130},
        "z_range_nm": (0.0, 0.0),
    }
    source = load_recipe(recipe).with_(**{**base, **changes})
    movie = simulate(source, np.random.default_rng(seed))
    write_movie(path, [movie.frames], pixel_size_nm=source.camera.pixel_size_nm)
    return source, movie


def known_part(camera):
    """What a user knows who knows neither gain nor offset."""
    return Camera(
        pixel_size_nm=camera.pixel_size_nm, em_gain=camera.em_gain, quantum_efficiency=camera.quantum_efficiency
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("movie") / "frames.tif"
    source, movie = movie_file(path)
    with open_movie(path) as reader:
        found = estimate(reader, camera=known_part(source.camera), name="mine", gain_known=False, offset_known=False)
    return source, movie, found


def test_an_emccd_of_unknown_gain_and_offset_comes_back(result):
    source, movie, found = result
    camera, numbers = found.recipe.camera, found.numbers
    # Read noise is part of the offset: 74.4 e / 45 = 1.7 counts, nothing beside 200 counts of background.
    assert camera.e_per_adu == pytest.approx(45, rel=0.12)
    assert camera.baseline == pytest.approx(100, abs=30)
    assert numbers.flux == pytest.approx(2000, rel=0.15)
    assert numbers.background == pytest.approx(40, rel=0.2)
    assert numbers.sigma_nm == pytest.approx(130, rel=0.03)
    assert numbers.on_frames == pytest.approx(3, rel=0.25)
    assert numbers.density_um2 == pytest.approx(len(movie.emitters) / 250 / source.area_um2, rel=0.15)
    assert any("EM gain as given" in note for note in found.notes)


def test_training_ranges_surround_the_recipe(result):
    _, _, found = result
    inside, wide = found.recipe, found.training
    assert wide.photons.low < found.numbers.flux < wide.photons.high
    assert wide.density_um2.low < inside.density_um2 < wide.density_um2.high
    assert wide.background.low < inside.background < wide.background.high
    assert wide.psf.sigma_nm.low < found.numbers.sigma_nm < wide.psf.sigma_nm.high
    assert wide.camera == inside.camera


def test_the_page_compares_and_warns(result):
    _, _, found = result
    rows = compare(found)
    assert {row.name for row in rows} == set(LIMITS)
    assert sum(row.differs for row in rows) <= 2
    page = build_page(found, title="a <b> movie")
    assert "a &lt;b&gt; movie" in page
    assert "<b>" not in page
    assert page.count("data:image/png;base64,") == 3
    assert "http://" not in page
    assert "https://" not in page
    brighter = dataclasses.replace(found.simulated, candidates_um2=2 * found.simulated.candidates_um2)
    page = build_page(dataclasses.replace(found, simulated=brighter), title="other")
    assert "spots found per um2 and frame, " in page
    assert 'class="differs"' in page


def test_a_row_differs_beyond_its_limit_only():
    assert not Row(name="a", real=100, simulated=109, limit=0.1).differs
    assert Row(name="a", real=100, simulated=89, limit=0.1).differs
    assert not Row(name="a", real=float("nan"), simulated=1, limit=0.1).differs


def test_scmos_with_maps_gives_its_mean_gain(tmp_path):
    source, movie = movie_file(
        tmp_path / "frames.tif", recipe="tubes-2d-hd-scmos", photons=4000.0, frames=150, density_um2=0.15
    )
    found = find_camera(
        [movie.frames], camera=known_part(source.camera), sigma_nm=130, gain_known=False, offset_known=False
    )
    assert found.camera.e_per_adu == pytest.approx(0.46, rel=0.2)
    assert found.camera.baseline == pytest.approx(100, abs=15)
    told = source.camera.model_copy(update={"e_per_adu": 1.0, "read_noise_e": 0.0})
    found = find_camera([movie.frames], camera=told, sigma_nm=130, gain_known=False, offset_known=True)
    assert found.camera.e_per_adu == pytest.approx(0.46, rel=0.2)
    told = source.camera.model_copy(update={"baseline": 0.0})
    found = find_camera([movie.frames], camera=told, sigma_nm=130, gain_known=True, offset_known=False)
    assert found.camera.baseline == pytest.approx(100, abs=15)


def test_gain_and_offset_that_cannot_be_told_are_refused():
    flat = np.full((20, 40, 40), 100, np.uint16)
    with pytest.raises(ValueError, match=r"two consecutive frames"):
        find_camera([flat[:1]], camera=Camera(), sigma_nm=130, gain_known=False, offset_known=False)
    with pytest.raises(ValueError, match=r"does not rise|too few"):
        find_camera([flat], camera=Camera(), sigma_nm=130, gain_known=False, offset_known=False)


def test_runs_are_counted_and_cut_ones_allowed_for():
    recipe = load_recipe("tubes-2d-ld").with_(
        frames=60,
        size=(48, 48),
        structure={"kind": "uniform"},
        blinking={"kind": "on_time", "mean_on_frames": 8},
        photons=5000.0,
        background=10.0,
        density_um2=0.06,
        z_range_nm=(0.0, 0.0),
        camera={"pixel_size_nm": 100},
    )
    movie = simulate(recipe, np.random.default_rng(2))
    photons = movie.photons()
    whole = observe([(0, photons)], camera=movie.camera, sigma_nm=115)
    halves = observe([(0, photons[:30]), (30, photons[30:])], camera=movie.camera, sigma_nm=115)
    assert whole.run_length == halves.run_length  # stretches that touch are one
    apart = observe([(0, photons[:30]), (100, photons[30:])], camera=movie.camera, sigma_nm=115)
    assert len(apart.runs) > len(whole.runs)  # those on in between are two runs now
    assert whole.run_length == pytest.approx(9, rel=0.3)
    assert np.median(whole.flux) == pytest.approx(5000, rel=0.05)


def test_command_writes_recipes_that_load(tmp_path, capsys):
    source, _ = movie_file(tmp_path / "frames.tif", frames=60, size=(24, 24), density_um2=0.2)
    target = tmp_path / "out" / "mine.yaml"
    words = ["estimate", str(tmp_path / "frames.tif"), "--camera.recipe", "tubes-2d-ld", "-o", str(target)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "photons" in told
    recipe, training = load_recipe(target), load_recipe(target.with_name("mine-training.yaml"))
    assert recipe.camera == source.camera
    assert (recipe.size, recipe.frames, training.structure.kind) == ((24, 24), 60, "uniform")
    assert recipe.photons if isinstance(recipe.photons, float) else recipe.photons.low
    assert (tmp_path / "out" / "mine.html").stat().st_size > 10_000
    assert main([*words[:-1], str(tmp_path / "x.txt")]) == 2
    write_movie(tmp_path / "dark.tif", [np.full((20, 32, 32), 100, np.uint16)], pixel_size_nm=(100.0, 100.0))
    assert main(["estimate", str(tmp_path / "dark.tif"), "--camera.recipe", "tubes-2d-ld"]) == 2
    assert "spots were found" in capsys.readouterr().err


@pytest.mark.parametrize("spread", [0.02, 0.07, 0.25])
def test_widths_vary_from_molecule_to_molecule_as_they_were_measured(spread):
    numbers = Numbers(
        flux=5000, flux_spread=0, background=50, sigma_nm=130, sigma_spread=spread, on_frames=3, density_um2=2
    )
    recipe = recipe_of(numbers, Camera(pixel_size_nm=100), None, name="mine", size=(32, 32), frames=300, seed=1)
    training = training_recipe(recipe, numbers, 0.0)
    z_nm = torch.from_numpy(simulate(recipe, np.random.default_rng(1)).emitters.z_nm)
    low, middle, high = np.quantile(recipe.psf.widths(z_nm)[0], [0.16, 0.5, 0.84])
    assert middle == pytest.approx(130, rel=0.02)
    assert (high - low) / 2 / middle == pytest.approx(spread, rel=0.15)
    assert training.psf.defocus_nm == recipe.psf.defocus_nm
    assert training.psf.sigma_nm.low < recipe.psf.sigma_nm < training.psf.sigma_nm.high
    assert training.z_range_nm[1] > recipe.z_range_nm[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "frames", "camera_known", "far"),
    [("tubes-2d-ld", 400, True, 0.1), ("tubes-2d-ld", 400, False, 0.12), ("tubes-2d-hd-scmos", 400, True, 0.1)],
)
def test_named_recipes_come_back(recipe, frames, camera_known, far, tmp_path):
    """Photons and background within `far`, and the density of sparse tubes within 20 %: four-state blinking counts
    rows of 1 % of a frame, which nobody finds."""
    source = load_recipe(recipe).with_(frames=frames, density_um2=0.05)
    movie = simulate(source, np.random.default_rng(5))
    write_movie(tmp_path / "frames.tif", [movie.frames], pixel_size_nm=source.camera.pixel_size_nm)
    camera = movie.camera if camera_known else known_part(source.camera)
    with open_movie(tmp_path / "frames.tif") as reader:
        found = estimate(reader, camera=camera, name="mine", gain_known=camera_known, offset_known=camera_known)
    numbers = found.numbers
    print(recipe, camera_known, numbers, found.recipe.camera.e_per_adu, found.recipe.camera.baseline)
    assert numbers.flux == pytest.approx(8000, rel=far)
    assert numbers.background == pytest.approx(90, rel=far)
    # Molecules lie at |z| <= 300 nm, where spots are 115 to 141 nm wide, 122 on average.
    assert numbers.sigma_nm == pytest.approx(122, rel=0.02)
    assert numbers.sigma_spread == pytest.approx(0.068, abs=0.015)
    assert numbers.density_um2 == pytest.approx(0.05, rel=0.2)
    assert found.recipe.camera.e_per_adu == pytest.approx(source.camera.e_per_adu, rel=0.1)
    assert found.recipe.camera.baseline == pytest.approx(source.camera.baseline, abs=40)
