"""Training: learns, stops, resumes to the same weights, reads every source of data, and refuses what does not fit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

import zoo
from harness.io.tables import write_table
from harness.shipping import ship
from harness.thresholding import validation_recipes
from harness.training import load_training_recipe, make_config, resolve_config, task, train
from harness.training.config import list_training_recipes
from harness.training.curves import learning_curves, plot_curves
from harness.training.data import MovieFrames, open_sources
from harness.training.fit import flatness, scaled_maps
from simulators import Emitters, Localizations, draw_frames, load_recipe

TINY = {
    "model": "fid_storm",
    "options": {"n_blocks": 1},
    "size": 8,
    "batch_size": 2,
    "validation_frames": 2,
    "validate_every": 100,
    "precision": "float32",
}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


def test_a_run_leaves_all_its_files_and_learns(tmp_path):
    config = make_config({**TINY, "model": "srcnn", "options": {}, "steps": 60, "validate_every": 15})
    result = train(config, tmp_path / "run", progress=False)
    assert result.finished
    assert result.frames == 60 * 2
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "model.safetensors", "card.json", "last.ckpt", "preview.png"} <= names
    lines = (tmp_path / "run" / "csv" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("validation_loss")
    validated = [float(line.split(",")[column]) for line in lines[1:] if line.split(",")[column]]
    assert validated[-1] < 0.5 * validated[0]
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["training"]["steps"] == 60
    assert card["training"]["recipe_hash"] == load_recipe("epfl-2d").hash
    assert card["normalisation"]["mode"] == "dataset"
    assert card["normalisation"]["mean"] > 10  # photons of the domain, stored with the weights
    network, _ = zoo.load_model(tmp_path / "run")
    assert torch.isfinite(network(torch.rand(1, 1, 8, 8) * 100)).all()


def test_weights_of_an_earlier_sitting_are_scored_anew(tmp_path):
    config = make_config({**TINY, "steps": 4, "validate_every": 2})
    train(config, tmp_path / "run", progress=False)
    checkpoint = torch.load(tmp_path / "run" / "last.ckpt", weights_only=False)
    kept = next(state for name, state in checkpoint["callbacks"].items() if "Validate" in name)
    honest = dict(kept["scores"])
    kept["best"] = 1e9  # as another program may have measured it
    kept["scores"]["efficiency"] = 1e9
    torch.save(checkpoint, tmp_path / "run" / "last.ckpt")
    train(make_config({**config.model_dump(), "steps": 6}), tmp_path / "run", resume=True, progress=False)
    scores = json.loads((tmp_path / "run" / "card.json").read_text())["scores"]
    assert scores["efficiency"] < 100
    if scores["step"] == honest["step"]:
        assert scores["efficiency"] == pytest.approx(honest["efficiency"], abs=1e-4)


def test_resumed_training_equals_one_without_a_break(tmp_path):
    config = make_config({**TINY, "steps": 6, "warmup_steps": 0, "decay_share": 0.0, "validate_every": 2})
    train(config, tmp_path / "whole", progress=False)
    train(make_config({**config.model_dump(), "steps": 3}), tmp_path / "parts", progress=False)
    first = (tmp_path / "parts" / "csv" / "metrics.csv").read_text()
    result = train(config, tmp_path / "parts", resume=True, progress=False)
    assert (result.steps, result.frames) == (6, 12)
    assert (tmp_path / "parts" / "csv" / "metrics.csv").read_text() == first  # each sitting has its own
    assert (tmp_path / "parts" / "csv-3" / "metrics.csv").is_file()
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-5, atol=1e-7, msg=lambda text, key=key: f"{key}: {text}")


def test_minutes_stop_a_run_cleanly(tmp_path):
    config = make_config({**TINY, "steps": 100_000, "minutes": 0.03})
    result = train(config, tmp_path / "run", progress=False)
    assert not result.finished
    assert 0 < result.steps < 100_000
    assert (tmp_path / "run" / "card.json").is_file()


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    code = "import sys; from harness.cli import main; sys.exit(main())"
    words = [
        "train",
        "fid_storm",
        "-o",
        str(tmp_path / "run"),
        "--size",
        "8",
        "--batch-size",
        "2",
        "--option",
        "n_blocks=1",
    ]
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "run" / "csv" / "metrics.csv"
    end = time.monotonic() + 120
    while not metrics.exists() and time.monotonic() < end:  # the first logged steps are done
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "--resume" in out
    assert (tmp_path / "run" / "last.ckpt").is_file()
    assert (tmp_path / "run" / "card.json").is_file()
    assert not list((tmp_path / "run").glob(".*part*"))


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    config = make_config({**TINY, "steps": 1})
    train(config, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="already holds a run"):
        train(config, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="has done its 1 steps"):
        train(config, tmp_path / "run", resume=True, progress=False)
    with pytest.raises(ValueError, match=r"no last\.ckpt"):
        train(config, tmp_path / "other", resume=True, progress=False)


def test_two_trainings_do_not_share_a_folder(tmp_path):
    config = make_config({**TINY, "steps": 1})
    hold = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); input()"
    (tmp_path / "run").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "run" / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"1"
        with pytest.raises(ValueError, match="another training is at work in"):
            train(config, tmp_path / "run", progress=False)
        other.kill()
    assert train(config, tmp_path / "run", progress=False).finished  # a process that was killed holds nothing


def test_learning_rate_falls_at_the_end_of_a_sitting(tmp_path):
    from harness.training.task import Task

    config = make_config({**TINY, "steps": 100, "warmup_steps": 10, "decay_share": 0.5})
    task = Task(zoo.create_model("fid_storm", n_blocks=1), torch.nn.functional.mse_loss, config, minutes=None)
    rates = []
    for step in range(100):
        type(task).global_step = property(lambda self, step=step: step)
        rates.append(task.rate())
    del type(task).global_step
    assert rates[0] < 0.2
    assert rates[30] == pytest.approx(1, abs=0.01)
    assert rates[75] == pytest.approx(0.5, abs=0.05)
    assert rates[99] < 0.01


def test_a_resumed_sitting_has_the_learning_rate_that_it_is_given(tmp_path):
    config = make_config({**TINY, "steps": 2, "warmup_steps": 0, "decay_share": 0.0})
    train(config, tmp_path / "run", progress=False)
    train(make_config({**config.model_dump(), "steps": 4, "learning_rate": 1e-5}), tmp_path / "run", resume=True)
    saved = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert config.learning_rate != 1e-5
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(1e-5, rel=2e-3)


@pytest.fixture
def movie(tmp_path) -> tuple[Path, Path]:
    """A movie of 20 frames of 12 x 16 pixels with its table."""
    drawn = draw_frames(load_recipe("epfl-2d"), 20, np.random.default_rng(5), size=(12, 16))
    tifffile.imwrite(tmp_path / "movie.tif", drawn.photons.round().clamp(0).numpy().astype(np.uint16))
    emitters = drawn.emitters()
    inside = (emitters.x_nm > 0) & (emitters.x_nm < 1600) & (emitters.y_nm > 0) & (emitters.y_nm < 1200)
    write_table(emitters.pick(inside), tmp_path / "table.csv")
    return tmp_path / "movie.tif", tmp_path / "table.csv"


def test_trains_on_a_movie_with_its_table(tmp_path, movie):
    config = resolve_config(
        "fid_storm",
        movie=str(movie[0]),
        table=str(movie[1]),
        pixel_size_nm=100.0,
        **{k: v for k, v in TINY.items() if k != "model"},
        steps=2,
    )
    assert config.recipe is None
    assert train(config, tmp_path / "run", progress=False).finished


def test_crops_of_a_movie_keep_emitters_on_their_spots(movie):
    config = make_config(
        {
            **TINY,
            "recipe": None,
            "movie": str(movie[0]),
            "table": str(movie[1]),
            "pixel_size_nm": 100.0,
            "batch_size": 200,
        }
    )
    source, validation = open_sources(config, zoo.create_model("fid_storm"), torch.device("cpu"))
    assert isinstance(source, MovieFrames)
    assert len(validation.frames) == 2
    frames, spikes = source.batch(0)
    expected = torch.nn.functional.avg_pool2d(spikes, 8) * 64  # emitters per camera pixel
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(expected, (1, 1, 1, 1)), 3, stride=1)
    light = (frames - frames.flatten(1).median(1).values[:, None, None, None]).clamp(min=0).sqrt()

    def correlation(spots: torch.Tensor) -> float:
        return torch.corrcoef(torch.stack([light.flatten(), spots.flatten()]))[0, 1].item()

    assert correlation(blurred) > 0.4  # turned and cropped alike
    assert correlation(blurred.flip(-1)) < 0.5 * correlation(blurred)


def test_same_seed_same_batches():
    config = make_config(TINY)
    (first, _), (second, _) = (
        open_sources(config, zoo.create_model("fid_storm"), torch.device("cpu")) for _ in range(2)
    )
    assert torch.equal(first.batch(3)[0], second.batch(3)[0])
    assert not torch.equal(first.batch(3)[0], first.batch(4)[0])


@pytest.fixture
def paired(tmp_path):
    """Settings of a training on noise in image files, whose weights are judged by the loss alone."""
    rng = np.random.default_rng(0)
    for name in ("inputs", "targets"):
        (tmp_path / name).mkdir()
    for index in range(12):
        tifffile.imwrite(tmp_path / "inputs" / f"f{index}.tif", rng.random((8, 8), dtype=np.float32))
        tifffile.imwrite(tmp_path / "targets" / f"f{index}.tif", rng.random((64, 64), dtype=np.float32))
    return {**TINY, "recipe": None, "inputs": str(tmp_path / "inputs"), "targets": str(tmp_path / "targets")}


def test_trains_on_pairs_from_disk(tmp_path, paired):
    config = make_config({**paired, "steps": 2})
    result = train(config, tmp_path / "run", progress=False)
    assert result.finished
    assert "validation_loss" in result.scores
    wrong = make_config({**config.model_dump(), "options": {"n_blocks": 1, "upsampling": 4}})
    with pytest.raises(ValueError, match="upsampling=8"):
        train(wrong, tmp_path / "wrong", progress=False)


def test_every_training_recipe_is_valid_and_names_its_model():
    for name in list_training_recipes():
        model = name.split(".")[0]
        small = make_config({**load_training_recipe(name), "model": model})
        assert small.model in zoo.list_models()
        large = make_config({**load_training_recipe(name, "full"), "model": model})
        assert large.batch_size > small.batch_size  # a GPU's memory and time
        same = {"model", "options", "init", "recipe", "recipe_changes", "loss", "loss_options", "contract", "seed"}
        assert large.model_dump(include=same) == small.model_dump(include=same)
        network = zoo.create_model(model, **large.options)
        assert large.size % network.size_multiple == 0


def test_a_recipe_without_a_larger_tier_says_so(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: epfl-2d\n")
    assert resolve_config("fid_storm", training_recipe=str(path)).recipe == "epfl-2d"
    with pytest.raises(ValueError, match=r"mine\.yaml has no tier 'full'"):
        resolve_config("fid_storm", training_recipe=str(path), tier="full")
    assert (
        resolve_config("fid_storm", tier="full").batch_size
        == load_training_recipe("fid_storm.epfl-2d", "full")["batch_size"]
    )


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="Did you mean 'batch_size'"):
        make_config({"model": "srcnn", "batchsize": 3})
    with pytest.raises(ValueError, match="batch_size"):
        make_config({"model": "srcnn", "batch_size": 0})
    with pytest.raises(ValueError, match="needs its table"):
        make_config({"model": "srcnn", "movie": "a.tif"})
    with pytest.raises(ValueError, match="even number"):
        make_config({"model": "srcnn", "size": 9})
    with pytest.raises(ValueError, match="No training recipe named"):
        load_training_recipe("srcn.epfl-2d")
    with pytest.raises(ValueError, match="Did you mean 'srcnn'"):
        resolve_config("srcn")


def test_a_table_that_reaches_beyond_the_movie_is_refused(tmp_path, movie):
    write_table(Emitters(frame=[25], x_nm=[100.0], y_nm=[100.0], photons=[1000.0]), tmp_path / "late.csv")
    config = make_config(
        {**TINY, "recipe": None, "movie": str(movie[0]), "table": str(tmp_path / "late.csv"), "pixel_size_nm": 100.0}
    )
    with pytest.raises(ValueError, match="names frame 25"):
        open_sources(config, zoo.create_model("fid_storm"), torch.device("cpu"))


def test_begins_from_other_weights_and_says_what_was_copied(tmp_path, caplog):
    first = make_config({**TINY, "steps": 2})
    train(first, tmp_path / "first", progress=False)
    start = zoo.load_model(tmp_path / "first")[0].state_dict()
    same = {key: value for key, value in TINY.items() if key not in ("model", "options")}
    config = resolve_config("fid_storm", **same, init=str(tmp_path / "first"), steps=1)
    assert config.options == {"n_blocks": 1}  # those of the weights
    slow = make_config({**config.model_dump(), "learning_rate": 1e-12})
    train(slow, tmp_path / "second", progress=False)
    ours, card = zoo.load_model(tmp_path / "second")
    for key, value in ours.state_dict().items():
        if "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(value, start[key], rtol=1e-6, atol=1e-7, msg=key)
    assert card["training"]["init"]["source"] == str(tmp_path / "first")
    assert f"{len(start)} tensors copied" in caplog.text
    wider = make_config({**TINY, "options": {"n_blocks": 2}, "steps": 1, "init": str(tmp_path / "first")})
    train(wider, tmp_path / "third", progress=False)
    report = zoo.load_model(tmp_path / "third")[1]["training"]["init"]["report"]
    assert "not in the weights left as they were: core." in report
    with pytest.raises(ValueError, match="no tensor of them fits 'srcnn'"):
        train(make_config({**TINY, "model": "srcnn", "options": {}, "init": str(tmp_path / "first")}), tmp_path / "no")


def test_weights_that_a_training_begins_from_are_kept_where_nothing_better_is_learned(tmp_path, paired):
    train(make_config({**paired, "steps": 2}), tmp_path / "first", progress=False)
    start = zoo.load_model(tmp_path / "first")[0].state_dict()
    spoiling = {"learning_rate": 10.0, "warmup_steps": 0, "decay_share": 0.0, "clip": 1e6, "steps": 3}
    train(make_config({**paired, **spoiling, "init": str(tmp_path / "first")}), tmp_path / "second", progress=False)
    network, card = zoo.load_model(tmp_path / "second")
    torch.testing.assert_close(network.state_dict(), start, rtol=0, atol=0)
    assert card["scores"]["step"] == 0
    assert [(point["step"], point["frames"]) for point in card["training"]["curve"]] == [(0, 0), (3, 6)]
    assert card["training"]["curve"][0]["validation_loss"] < card["training"]["curve"][1]["validation_loss"]
    spoilt = weights(tmp_path / "second")
    assert any(not torch.equal(spoilt[f"network.{key}"], value) for key, value in start.items() if "weight" in key)


def test_maps_begin_with_the_scales_of_the_weights(tmp_path):
    small = {"model": "compact", "options": {"dimensions": 2}, "size": 16, "batch_size": 1, "block": 2, "steps": 1}
    bright = {"photons": {"low": 300, "high": 20000, "scale": "log"}}
    train(make_config({**small, "validation_frames": 1, "recipe_changes": bright}), tmp_path / "a", progress=False)
    config = make_config({**small, "validation_frames": 1, "init": str(tmp_path / "a")})
    train(config, tmp_path / "b", progress=False)
    first, second = (json.loads((tmp_path / name / "card.json").read_text()) for name in "ab")
    assert first["output"]["photons_scale"] == second["output"]["photons_scale"] == 24000
    assert first["normalisation"] == second["normalisation"]
    train(make_config({**config.model_dump(), "recipe_changes": {"photons": 30000}}), tmp_path / "c", progress=False)
    assert json.loads((tmp_path / "c" / "card.json").read_text())["output"]["photons_scale"] == 36000


def test_another_recipe_takes_none_of_the_changes_made_to_the_first():
    assert resolve_config("fid_storm").recipe_changes
    assert not resolve_config("fid_storm", recipe="scmos-2d").recipe_changes


def test_a_run_becomes_shipped_weights(tmp_path):
    train(make_config({**TINY, "recipe": "epfl-2d", "steps": 2}), tmp_path / "run", progress=False)
    told = ship(tmp_path / "run", folder=tmp_path / "weights")
    assert told.startswith("fid_storm.epfl-2d: efficiency ")
    names = {path.name for path in (tmp_path / "weights").iterdir()}
    assert names == {"fid_storm.epfl-2d.json", "fid_storm.epfl-2d.safetensors"}
    run, known = zoo.load_model(tmp_path / "run")
    shipped, card = zoo.load_model(tmp_path / "weights" / "fid_storm.epfl-2d.json")
    for (name, one), other in zip(run.state_dict().items(), shipped.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=1e-6, msg=name)
    assert card["training"] == known["training"]
    hashes = [movie["hash"] for movie in card["threshold_choice"]["movies"]]
    assert hashes == [recipe.hash for recipe in validation_recipes("epfl-2d")]


def test_the_learning_curve_goes_on_over_sittings(tmp_path):
    config = make_config({**TINY, "steps": 4, "validate_every": 2})
    train(config, tmp_path / "run", progress=False)
    train(make_config({**config.model_dump(), "steps": 6}), tmp_path / "run", resume=True, progress=False)
    table = learning_curves([tmp_path / "run"])
    assert list(table["step"]) == [2, 4, 6]
    assert list(table["frames"]) == [4, 8, 12]
    assert table["minutes"].is_monotonic_increasing
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    best = table.loc[table["efficiency"].idxmax()]
    assert best["efficiency"] == pytest.approx(card["scores"]["efficiency"], rel=1e-4)
    assert plot_curves(table, tmp_path / "curves.png", score="validation_loss").stat().st_size > 5000
    with pytest.raises(ValueError, match="no curve holds 'charm'"):
        plot_curves(table, tmp_path / "no.png", score="charm")


def test_shipped_weights_hold_the_curve_that_led_to_them():
    table = learning_curves()
    for name, curve in table.groupby("model"):
        card = zoo.read_card(name)
        assert curve["efficiency"].max() == pytest.approx(card["scores"]["efficiency"], rel=1e-3), name


@pytest.mark.parametrize(("frames", "scale"), [([100, 200], "linear"), ([10, 1000], "log"), ([0, 10, 1000], "symlog")])
def test_curves_are_drawn_in_decades_where_they_are_long(frames, scale, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plt, "close", drawn.append)
    table = pd.DataFrame({"model": "one", "step": frames, "frames": frames, "minutes": frames, "efficiency": 50.0})
    plot_curves(table, tmp_path / "curves.png")
    for axis in drawn[0].axes:
        assert axis.get_xscale() == scale
        assert axis.get_xlim()[0] <= frames[0] < frames[-1] <= axis.get_xlim()[1]


def test_who_trains_a_flat_network_where_spots_tell_z_is_told():
    flat, deep = (zoo.create_model("compact", dimensions=number) for number in (2, 3))
    config = resolve_config("compact", recipe="epfl-as")
    assert config.options == {"dimensions": 3}
    assert flatness(deep, config) is None
    assert "z -700 to 700 nm and a PSF of kind astigmatic" in flatness(flat, config)
    assert "--option dimensions=3" in flatness(flat, config)
    assert flatness(flat, resolve_config("compact", recipe="epfl-2d")) is None
    assert flatness(zoo.create_model("fid_storm"), resolve_config("fid_storm", recipe="epfl-as")) is None


def test_networks_that_tell_z_are_validated_in_three_dimensions(monkeypatch):
    config = resolve_config(
        "compact", recipe="epfl-as", size=32, validation_frames=8, recipe_changes={"density_um2": 0.3}
    )
    assert config.learning_rate == load_training_recipe("compact.epfl-as")["learning_rate"]
    network = zoo.create_model("compact")
    network.output = scaled_maps(network.output, config)
    _, validation = open_sources(config, network, torch.device("cpu"))
    output, truth = network.output, validation.emitters
    found = {}
    for shift in (0.0, 100.0, 2000.0):
        table = Localizations(
            frame=truth.frame,
            x_nm=truth.x_nm,
            y_nm=truth.y_nm,
            z_nm=truth.z_nm + shift,
            photons=truth.photons,
            probability=np.ones(len(truth)),
        )
        monkeypatch.setattr(task, "predict", lambda *_: torch.zeros(1, 1, *validation.frames.shape[-2:]))
        monkeypatch.setattr(type(output), "decode", lambda *_, table=table, **__: table)
        found[shift] = task.evaluate(network, lambda *_: torch.zeros(()), validation, device=torch.device("cpu"))
    assert found[0.0]["efficiency"] == pytest.approx(100)
    assert found[100.0]["rmse_axial_nm"] == pytest.approx(100)
    assert found[100.0]["efficiency"] < 80
    assert found[2000.0]["efficiency"] < 0
