"""The study of conditions: its movies, pairs of molecules, records that are made once, users' movies."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
import yaml
from scipy.stats import binomtest

import zoo
from harness.cli import main
from harness.conditions import (
    PairsPlan,
    Study,
    dataset_cells,
    pair_figures,
    read_user_movie,
    run_study,
    simulate_pairs,
    sweep_cells,
    user_cells,
)
from harness.conditions.cells import SWEEPS, centre
from harness.io.tables import write_table
from leaderboard import read_results
from leaderboard.conditions import condition_figures, order_over_seeds
from simulators import Emitters, Localizations, load_recipe, simulate

DOMAIN = load_recipe("epfl-2d")


# -------------------------------------------------------------------------------------------------- cells


def test_a_sweep_changes_one_quantity_and_leaves_the_middle_of_the_domain():
    middle = centre(DOMAIN)
    assert middle.density_um2 == pytest.approx(0.2)  # sqrt(0.02 x 2)
    assert middle.photons == pytest.approx(300 * (10000 / 300) ** 0.5)
    assert middle.background == pytest.approx(2000**0.5)
    assert middle.psf.sigma_nm == 117.5  # drawn on a linear scale
    wanted = {"density": "density_um2", "photons": "photons", "background": "background", "psf": "psf"}
    same = {"name", "summary", "structure", "blinking", "camera", "z_range_nm", *wanted.values()}
    for condition, key in wanted.items():
        cells = sweep_cells(DOMAIN, conditions=[condition], frames=3)
        assert [cell.value for cell in cells] == list(SWEEPS[condition].values)
        for cell in cells:
            assert (cell.recipe.frames, cell.recipe.size, cell.dimensions) == (3, (40, 40), 2)
            changed = {name for name in same if getattr(cell.recipe, name) != getattr(middle, name)}
            assert changed <= {key}
            value = cell.recipe.psf.sigma_nm / 117.5 * 100 - 100 if key == "psf" else getattr(cell.recipe, key)
            assert value == pytest.approx(cell.value)
    (lifted,) = [c for c in sweep_cells(DOMAIN, conditions=["defocus"], frames=3) if c.value == 100]
    assert lifted.recipe.z_range_nm == (-200, 400)
    (matched,) = sweep_cells(DOMAIN, conditions=["matched"], frames=3)
    assert matched.recipe.density_um2 == DOMAIN.density_um2
    assert matched.recipe.seed != DOMAIN.seed


def test_several_seeds_are_several_movies_of_the_same_cells():
    cells = sweep_cells(DOMAIN, conditions=["matched", "psf"], frames=2, seeds=3, quick=True)
    assert len(cells) == 12
    assert len({cell.recipe.seed for cell in cells}) == 3
    assert len({cell.recipe.hash for cell in cells}) == 12
    assert sweep_cells(load_recipe("epfl-as"), conditions=["density"], frames=2)[0].dimensions == 3
    with pytest.raises(ValueError, match="no condition named 'densty'; there are matched"):
        sweep_cells(DOMAIN, conditions=["densty"], frames=2)
    with pytest.raises(ValueError, match="seeds is 0"):
        sweep_cells(DOMAIN, conditions=["psf"], frames=2, seeds=0)


def test_test_movies_of_other_seeds(model_folder, tmp_path):
    names = ("tubes-2d-hd", "tubes-2d-ld")
    seeds = {name: load_recipe(name).seed for name in names}
    cells = dataset_cells([load_recipe(name) for name in names], frames=2, seeds=3)
    assert [(cell.condition, cell.value, cell.source.name) for cell in cells] == [
        ("matched", None, name) for _ in range(3) for name in names
    ]
    assert all(cell.source.size == (64, 64) and cell.source.frames == 2 for cell in cells)
    assert len({cell.source.seed for cell in cells if cell.source.name == names[0]} - {seeds[names[0]]}) == 3
    settings = {"datasets": names[:1], "baselines": ("random",), "frames": 2, "seeds": 2, "quick": True}
    study = Study.make([str(model_folder)], **settings)
    assert study.pairs is None
    assert study.size == 4
    results = run_study(study, tmp_path)
    table = order_over_seeds(results)
    assert table.empty  # one model has no order
    mine = [r for r in results if not r.model.baseline]
    assert {r.dataset.name for r in mine} == {"tubes-2d-hd"}
    assert {r.runtime.precision for r in mine} == {"float32"}
    other = run_study(Study.make([str(model_folder)], **settings, precision="bfloat16"), tmp_path)
    assert {r.runtime.precision for r in other if not r.model.baseline} == {"bfloat16"}
    assert len(list((tmp_path / "records").iterdir())) == 6
    with pytest.raises(ValueError, match=r"tubes-as-hd has another kind of PSF.*give --recipe epfl-as"):
        Study.make([], datasets=["tubes-as-hd"])
    with pytest.raises(ValueError, match="seeds is 0"):
        dataset_cells([], frames=2, seeds=0)


# -------------------------------------------------------------------------------------------------- pairs


def test_pairs_stand_at_their_distance_with_their_photons_on_for_one_frame():
    plan = PairsPlan(separations_nm=(0, 300), pairs=18, photons=3000)
    recipe = centre(DOMAIN).with_(background=0.0)
    movie, separation = simulate_pairs(recipe, plan, ratio=1 / 3, rng=rng())
    truth = movie.emitters
    assert len(truth) == 2 * len(separation) == 72
    ends = np.stack([truth.x_nm, truth.y_nm]).reshape(2, -1, 2)
    np.testing.assert_allclose(np.hypot(*np.diff(ends)[..., 0]), separation, atol=1e-6)
    np.testing.assert_allclose(truth.photons.reshape(-1, 2), [[3000, 1000]] * 36)
    assert set(truth.frame.tolist()) == {1, 4, 7, 10}
    assert len(movie) == 12
    light = movie.photons().sum((1, 2))
    np.testing.assert_allclose(light[[1, 4, 7, 10]], 9 * 4000, rtol=0.05)
    assert np.abs(light[[0, 2, 3, 5, 11]]).max() < 1500  # read noise only
    angle = np.arctan2(*np.diff(ends[:, 18:])[::-1, :, 0])
    assert np.ptp(angle) > 3  # all orientations
    alone, _ = simulate_pairs(recipe, plan, ratio=1 / 3, rng=np.random.default_rng(0), gaps=0)
    assert set(alone.emitters.frame.tolist()) == {0, 1, 2, 3}
    with pytest.raises(ValueError, match="is a range"):
        simulate_pairs(DOMAIN, plan, ratio=1.0, rng=rng())


def test_pairs_by_hand():
    # three pairs 200 nm apart along y: found with both ends moved 10 nm outwards and 5 and 3 nm across; with its first
    # end only; not at all
    x, y = np.array([1000.0, 3000, 5000]), 1000.0
    truth = Emitters(frame=[0] * 6, x_nm=np.repeat(x, 2), y_nm=np.tile([y, y + 200], 3), id=np.repeat([0, 1, 2], 2))
    found = Localizations(frame=[0, 0, 0], x_nm=[1005.0, 1003, 3000], y_nm=[990.0, 1210, 1000])
    (row,) = pair_figures(truth, found, np.full(3, 200.0), tolerance_nm=250, rng=rng())
    assert (row["both"], row["one"], row["none"]) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert row["bias_along_nm"] == pytest.approx(10)
    assert row["rmse_along_nm"] == pytest.approx(10)
    assert row["rmse_across_nm"] == pytest.approx(np.sqrt((25 + 9) / 2))
    interval = binomtest(1, 3).proportion_ci(method="wilson")
    assert (row["both_low"], row["both_high"]) == pytest.approx((interval.low, interval.high))
    assert row["rmse_along_low_nm"] is None  # one pair tells no spread
    nothing = pair_figures(truth, Localizations.empty(), np.full(3, 200.0), tolerance_nm=250, rng=rng())
    assert (nothing[0]["none"], nothing[0]["rmse_along_nm"]) == (1, None)
    with pytest.raises(ValueError, match="two rows per pair"):
        pair_figures(truth, found, np.full(2, 200.0), tolerance_nm=250, rng=rng())


def rng():
    return np.random.default_rng(0)


def test_errors_of_pairs_and_their_intervals_follow_the_noise_put_in():
    plan = PairsPlan(separations_nm=(400, 800), pairs=900)
    movie, separation = simulate_pairs(centre(DOMAIN), plan, ratio=1.0, rng=rng(), gaps=0)
    truth = movie.emitters
    ends = np.stack([truth.x_nm, truth.y_nm]).reshape(2, -1, 2)
    axis = np.diff(ends)[..., 0] / separation
    noise = rng().normal(0, [[20.0], [7.0]], (2, 2 * len(separation)))
    axis = np.repeat(axis, 2, axis=1)
    found = Localizations(
        frame=truth.frame,
        x_nm=truth.x_nm + noise[0] * axis[0] - noise[1] * axis[1],
        y_nm=truth.y_nm + noise[0] * axis[1] + noise[1] * axis[0],
    )
    for row in pair_figures(truth, found, separation, tolerance_nm=250, rng=rng()):
        assert row["both"] == 1
        assert row["rmse_along_nm"] == pytest.approx(20, rel=0.06)
        assert row["rmse_across_nm"] == pytest.approx(7, rel=0.06)
        width = row["rmse_along_high_nm"] - row["rmse_along_low_nm"]
        assert width == pytest.approx(2 * 1.96 * 20 / np.sqrt(2 * 1800), rel=0.25)  # sigma / sqrt(2 n)


# ------------------------------------------------------------------------------------------- users' movies


@pytest.fixture
def described(tmp_path):
    """A folder with a small movie, its truth, and a YAML file."""
    recipe = DOMAIN.with_(frames=12, size=(24, 32), density_um2=0.5)
    movie = simulate(recipe, recipe.rng())
    tifffile.imwrite(tmp_path / "frames.tif", movie.frames)
    write_table(movie.emitters, tmp_path / "gt.csv")
    values = {"name": "theirs", "movie": "frames.tif", "truth": "gt.csv", "camera": "epfl-2d", "frames": 8}
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(values))
    return tmp_path, values, movie


def test_a_users_movie_is_read_with_its_truth_and_camera(described):
    folder, values, movie = described
    one = read_user_movie(folder / "theirs.yaml")
    assert one.condition == "foreign"
    there = one.load()
    assert np.array_equal(there.frames, movie.frames[:8])
    assert len(there.emitters) == (movie.emitters.frame < 8).sum()
    assert there.camera == movie.camera
    (cell,) = user_cells([one])
    dataset = cell.dataset(there, dimensions=2)
    assert (dataset.name, dataset.frames, dataset.width) == ("theirs", 8, 32)
    assert dataset.density == pytest.approx(len(there.emitters) / (8 * 3.2 * 2.4))
    before = one.hash
    constants = {"pixel_size_nm": 100, "baseline": 100, "e_per_adu": 0.5}
    (folder / "real.yaml").write_text(
        yaml.safe_dump({**values, "truth": None, "camera": constants, "name": "cells"}, sort_keys=False)
    )
    real = read_user_movie(folder / "real.yaml")
    assert (real.condition, len(real.load().emitters)) == ("real", 0)
    tifffile.imwrite(folder / "frames.tif", movie.frames + 1)
    assert one.hash != before


def test_descriptions_that_are_wrong_say_so(described):
    folder, values, _ = described
    for change, words in (
        ({"colour": 3}, "colour: Extra inputs"),
        ({"camera": None}, "camera"),
        ({"frames": 0}, "frames"),
    ):
        (folder / "bad.yaml").write_text(yaml.safe_dump({**values, **change}))
        with pytest.raises(ValueError, match=words):
            read_user_movie(folder / "bad.yaml")
    (folder / "bad.yaml").write_text(yaml.safe_dump({**values, "movie": "none.tif"}))
    with pytest.raises(FileNotFoundError, match=r"none\.tif"):
        read_user_movie(folder / "bad.yaml")
    (folder / "bad.yaml").write_text(yaml.safe_dump({**values, "camera": {"pixel_size_nm": -1}}))
    with pytest.raises(ValueError, match="the camera of 'theirs'"):
        read_user_movie(folder / "bad.yaml").load()
    with pytest.raises(FileNotFoundError, match="give a YAML file"):
        read_user_movie(folder / "nowhere.yaml")


# -------------------------------------------------------------------------------------------------- study


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A one-block FID-STORM with random weights."""
    torch.manual_seed(3)
    network = zoo.create_model("fid_storm", n_blocks=1)
    torch.nn.init.normal_(network.core.up2.conv.weight, std=0.1)
    network.normalisation.set_statistics(100.0, 50.0)
    card = {"threshold": 0.3, "training": {"config": {"recipe": "epfl-2d"}}}
    zoo.save_weights(network.eval(), tmp_path_factory.mktemp("model") / "tiny", card)
    return next(tmp_path_factory.getbasetemp().glob("model*/tiny"))


def test_cells_are_measured_once_and_a_stopped_study_goes_on(model_folder, described, tmp_path):
    folder, values, _ = described
    (folder / "real.yaml").write_text(yaml.safe_dump({**values, "truth": None, "name": "cells"}))
    movies = [read_user_movie(folder / name) for name in ("theirs.yaml", "real.yaml")]
    study = Study.make(
        [str(model_folder)], conditions=["psf"], user_movies=movies, baselines=("random",), frames=3, quick=True
    )
    assert study.size == 2 * (3 + 2)
    results = run_study(study, tmp_path / "study")
    assert len(results) == study.size
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "study" / "records").iterdir()}
    assert len(stored) == study.size
    of = {(r.model.name, r.dataset.condition, r.dataset.value): r for r in results}
    name = next(r.model.name for r in results if not r.model.baseline)
    wide = of[name, "psf", 20.0]
    assert (wide.model.context_frames, wide.model.trained_on, wide.dataset.dimensions) == (1, "epfl-2d", 2)
    assert wide.settings.threshold_trials == 20
    assert wide.scores.n_truth > 0
    assert of["random", "psf", 20.0].model.baseline
    assert of[name, "foreign", None].scores.n_truth > 0
    assert of[name, "real", None].scores is None
    assert of["random", "real", None].detail.images["found_per_frame"] == 0  # no truth, no density
    said: list[str] = []
    again = run_study(study, tmp_path / "study", say=lambda text, done: None if done else said.append(text))
    assert [r.id for r in again] == [r.id for r in results]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "study" / "records").iterdir()} == stored
    assert all("threshold" in text for text in said)
    (tmp_path / "study" / "records" / f"{wide.id}.json").unlink()  # as if it had been stopped before this one
    said.clear()
    run_study(study, tmp_path / "study", say=lambda text, done: None if done else said.append(text))
    assert [text for text in said if "threshold" not in text] == [f"{name}: psf 20"]


def test_pairs_are_cells_of_a_study(model_folder, tmp_path):
    study = replace(
        Study.make([str(model_folder)], conditions=["pairs"], baselines=("random",), quick=True),
        pairs=PairsPlan(separations_nm=(0, 400), pairs=9),
    )
    results = run_study(study, tmp_path)
    assert sorted((r.dataset.name, round(r.dataset.value, 3), r.dataset.frames) for r in results) == [
        *[("pairs 1:1", 1.0, 2)] * 2,
        *[("pairs 1:3", 0.333, 2)] * 2,
    ]
    rows = results[0].detail.curves["pairs"]
    assert [row["separation_nm"] for row in rows] == [0, 400]
    assert sum(rows[0][name] for name in ("both", "one", "none")) == pytest.approx(1)
    assert results[0].settings.tolerance_nm == 250
    figures = condition_figures(results)
    assert set(figures) == {"pairs.png"}
    other = replace(study, pairs=PairsPlan(separations_nm=(0, 500), pairs=9))
    assert {r.id for r in run_study(other, tmp_path)}.isdisjoint(r.id for r in results)


def test_the_command_writes_a_table_and_figures(model_folder, described, capsys, tmp_path):
    folder, _, _ = described
    words = ["study", model_folder, "--condition", "psf", "--movie", folder / "theirs.yaml", "--seeds", 2]
    words += ["--baseline", "random"]
    assert main([str(w) for w in [*words, "--quick", "--frames", 2, "-o", tmp_path]]) == 0
    out = capsys.readouterr().out
    assert "psf -20" in out
    assert {path.name for path in tmp_path.glob("*.png")} == {"psf.png", "foreign.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))
    with (tmp_path / "study.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (3 * 2 + 1)
    assert {row["condition"] for row in rows} == {"psf", "foreign"}
    assert len({row["seed"] for row in rows if row["condition"] == "psf"}) == 2
    (line,) = {record.command for record in read_results(tmp_path / "records")}
    assert line.startswith(f"smlm-zoo study {model_folder} --condition psf --movie ")
    assert line.endswith("--baseline random --frames 2 --seeds 2 --quick")


def test_a_study_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no model"):
        run_study(Study.make([], baselines=()), tmp_path)
    with pytest.raises(ValueError, match="no baseline named 'rnd'"):
        run_study(Study.make([], baselines=("rnd",), conditions=("psf",), quick=True), tmp_path)
