"""Baselines: what chance, nothing and the plain mean of the frames score, through the models' own harness."""

import numpy as np
import pytest

import zoo
from harness.baselines import (
    BASELINES,
    FIT_RANGE,
    TARGET,
    TARGET_MIN_PHOTONS,
    MeanFrame,
    RandomPoints,
    fitted_psf,
    open_baseline,
    rows,
    true_density_um2,
)
from harness.board import Plan
from harness.localization import localize, photons_of
from harness.recording import field_nm, score_movie
from harness.scoring import score
from harness.scoring.image_quality import score_image
from harness.thresholding import validation_movies
from leaderboard import read_results
from simulators import load_recipe, simulate


@pytest.fixture(scope="module")
def dense():
    recipe = load_recipe("tubes-2d-hd").with_(size=(40, 40), frames=40, structure={"kind": "uniform"}, name="even")
    return recipe, simulate(recipe, recipe.rng())


def test_random_points_have_the_density_asked_for_and_do_not_depend_on_blocks(dense):
    recipe, movie = dense
    model = open_baseline("random", movie, domain=recipe)
    found = localize(model, movie.frames, camera=movie.camera).localizations
    wanted = len(movie.emitters)
    assert abs(len(found) - wanted) < 4 * np.sqrt(wanted)
    assert np.histogram(found.x_nm, bins=4, range=(0, 4000))[0] == pytest.approx(wanted / 4, abs=4 * wanted**0.5 / 2)
    read = photons_of(movie.frames, movie.camera)
    whole = model.decode(model.raw(read, len(movie), len(movie)), threshold=0.0, pixel_size_nm=(100.0, 100.0))
    assert np.array_equal(whole.x_nm, found.x_nm)
    assert np.array_equal(whole.frame, found.frame)


def test_chance_scores_what_geometry_says():
    # at low density a random point lies within the tolerance of a lone emitter with probability density x pi r^2
    recipe = load_recipe("tubes-2d-ld").with_(size=(64, 64), frames=300, structure={"kind": "uniform"}, density_um2=0.2)
    movie = simulate(recipe, recipe.rng())
    density = true_density_um2(movie)
    recalls = []
    for seed in range(6):
        found = localize(RandomPoints(density_um2=density, seed=seed), movie.frames, camera=movie.camera).localizations
        recalls.append(score(truth=movie.emitters, found=found, field_nm=(6400, 6400), quantile=0).recall)
    assert np.mean(recalls) / 100 == pytest.approx(density * np.pi * 0.25**2, rel=0.15)
    flags = score_movie(movie, found, curves=False, images=False)["flags"]
    assert any("no better than chance" in flag for flag in flags)


def test_the_mean_frame_is_that_of_all_frames(dense):
    _, movie = dense
    shown = localize(MeanFrame(), movie.frames, camera=movie.camera)
    assert len(shown.localizations) == 0
    assert shown.image.shape == (320, 320)
    mean = movie.photons().mean(0)
    coarse = shown.image.reshape(40, 8, 40, 8).mean((1, 3))
    expected = np.maximum(mean - np.median(mean), 0)
    assert np.corrcoef(coarse.ravel(), expected.ravel())[0, 1] > 0.98
    assert shown.image.min() == 0


def test_rows_are_written_marked_and_not_measured_again(dense, tmp_path):
    recipe, movie = dense
    movies = {recipe.name: (recipe, movie)}
    validation = validation_movies(movies=1, frames=4)
    command = Plan.make(quick=True).command
    results = rows(movies, validation=validation, folder=tmp_path, command=command)
    assert [r.model.name for r in results] == list(BASELINES)
    assert all(r.model.baseline and r.dataset.recipe_hash == recipe.hash for r in results)
    assert {r.command for r in results} == {f"smlm-zoo leaderboard --quick --dataset {recipe.name}"}
    of = {r.model.name: r for r in results}
    assert of["blank"].scores.efficiency == -100
    assert of["blank"].detail.flags == "nothing was found"
    assert of["blank"].detail.images["nmse"] == 1.0  # nothing explains nothing
    assert of["mean_frame"].scores is None
    same = score_image(
        localize(MeanFrame(), movie.frames, camera=movie.camera).image,
        truth=movie.emitters,
        field_nm=field_nm(movie),
    )
    assert of["mean_frame"].detail.images["nmse"] == pytest.approx(same["nmse"])
    assert 0.5 < same["nmse"] < 1
    assert 0 < of["random"].scores.jaccard < 30
    fit = of["fit"]
    assert fit.settings.threshold_trials == 20
    assert FIT_RANGE[0] <= fit.settings.threshold <= FIT_RANGE[1]
    assert fit.settings.threshold_source == "1 validation movies of epfl-2d, 4 frames, 20 trials"
    assert fit.scores.efficiency > 35
    assert sorted(r.id for r in read_results(tmp_path / "records")) == sorted(r.id for r in results)
    said: list[str] = []
    again = rows(movies, validation=validation, folder=tmp_path, command=command, known=results, say=said.append)
    assert [r.id for r in again] == [r.id for r in results]
    assert said == []
    without = rows(movies, validation=[], folder=tmp_path, command=command, known=results)
    assert "fit" not in {r.model.name for r in without}


def test_the_fit_reaches_the_bound_where_molecules_are_alone():
    recipe = load_recipe("tubes-2d-ld").with_(
        size=(40, 40),
        frames=300,
        structure={"kind": "uniform"},
        psf={"kind": "gaussian", "sigma_nm": 115},
        z_range_nm=(0, 0),
    )
    movie = simulate(recipe, recipe.rng())
    model = open_baseline("fit", movie, domain=recipe, threshold=6.0)
    assert not model.gives_height
    found = localize(model, movie.frames, camera=movie.camera).localizations
    crlb = score_movie(movie, found, recipe=recipe, curves=False, images=False)["crlb"]
    assert crlb["x"]["n"] > 50
    assert crlb["x"]["ratio"] == pytest.approx(1, abs=0.15)
    astigmatic = load_recipe("epfl-as")
    assert open_baseline("fit", movie, domain=astigmatic).gives_height
    assert fitted_psf(load_recipe("epfl-2d")).sigma_nm == 117.5
    assert fitted_psf(astigmatic).focal_shift_nm == astigmatic.psf.focal_shift_nm
    with pytest.raises(ValueError, match="holds no threshold"):
        localize(open_baseline("fit", movie, domain=recipe), movie.frames, camera=movie.camera)


def test_a_perfect_target_loses_what_its_grid_loses():
    recipe = load_recipe("tubes-2d-ld").with_(
        size=(64, 64), frames=200, structure={"kind": "uniform"}, density_um2=0.02
    )
    movie = simulate(recipe, recipe.rng())
    model = open_baseline("perfect_target", movie, domain=recipe)
    found = localize(model, movie.frames, camera=movie.camera).localizations
    figures = score(truth=movie.emitters, found=found, field_nm=(6400, 6400), quantile=0.25)
    assert figures.jaccard > 98.5  # nearly all alone, all but the dimmest asked for
    assert figures.rmse_lateral_nm == pytest.approx(12.5 / np.sqrt(6), rel=0.06)  # even within fine pixels of 12.5 nm
    crowded = recipe.with_(density_um2=15, frames=10)
    movie = simulate(crowded, crowded.rng())
    model = open_baseline("perfect_target", movie, domain=crowded)
    found = localize(model, movie.frames, camera=movie.camera).localizations
    merged = score(truth=movie.emitters, found=found, field_nm=(6400, 6400), quantile=0.25)
    assert 85 < merged.jaccard < 97  # spots within 50 nm are one
    assert merged.rmse_lateral_nm > 1.15 * figures.rmse_lateral_nm


def test_the_perfect_target_is_that_of_the_shipped_image_networks():
    seen = 0
    for name in zoo.list_weights():
        card = zoo.read_card(name)
        config = card["training"]["config"]
        if "heatmap_sigma" in config["contract"]:
            seen += 1
            assert card["output"]["upsampling"] == TARGET.upsampling
            assert (card["output"]["kind"], card["output"]["heatmap_sigma"]) == (TARGET.kind, TARGET.heatmap_sigma)
            assert config["min_photons"] == TARGET_MIN_PHOTONS
            assert config["loss_options"]["kernel_size"] == 13
    assert seen == 7


def test_unknown_baselines_are_refused(dense):
    with pytest.raises(ValueError, match="there are blank"):
        open_baseline("blanc", dense[1], domain=dense[0])
