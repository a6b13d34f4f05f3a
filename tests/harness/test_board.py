"""The leaderboard's cells: what is finished is never repeated, what fails stops nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro

import leaderboard
import zoo
from harness.board import BoardIncomplete, Plan, default_workers, run_board
from harness.board import cells as cells_module
from harness.board import run as run_module
from harness.board.plan import FULL
from harness.cli.leaderboard_ import Leaderboard
from harness.models import suited_weights
from harness.recording import weights_digest
from harness.runtimes.base import RuntimeInfo
from harness.timing_figures import FormTimes
from harness.timing_process import Opened, Turn
from harness.workers import WorkerLost
from simulators import load_recipe

ROOT = Path(__file__).resolve().parents[2]


def bare_model(folder, name, weight):
    """An ONNX file with its card: each frame enlarged eight times, a bright spot in each pixel's middle."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.zeros((1, 1, 8, 8), np.float32)
    kernel[..., 3:5, 3:5] = weight
    node = helper.make_node("ConvTranspose", ["frames", "kernel"], ["image"], strides=[8, 8])
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["n", 1, "h", "w"]) for end in ("frames", "image")]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(kernel, "kernel")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    card = {"model": name, "output": {"upsampling": 8, "target_scale": 1.0}, "threshold": 0.2}
    entry = model.metadata_props.add()
    entry.key, entry.value = "smlm_zoo_card", json.dumps(card)
    onnx.save(model, folder / f"{name}.onnx")
    return str(folder / f"{name}.onnx")


@pytest.fixture
def models(tmp_path):
    return [bare_model(tmp_path, name, weight) for name, weight in (("one", 0.002), ("two", 0.003))]


def small_plan(**changes):
    recipes = tuple(load_recipe(name).with_(size=(24, 24), frames=6) for name in ("tubes-2d-hd", "tubes-2d-uhd"))
    settings = {"seconds_per_cell": 0.1, "rounds": 2, "largest_batch": 1, "movie_frames": 0, "agreement_frames": 2}
    usual = {"recipes": recipes, "validation": 1, "baselines": (), **settings}
    return Plan(title="small", **{**usual, **changes})


def fake_times(forms, plan, step=None):
    """Times without processes."""
    info = RuntimeInfo(name="onnxruntime", provider="CPU", precision="float32", threads=plan.threads)
    opened = Opened(
        info=info, batch=1, best_batch=1, first_call=0.1, warm_calls=6, stable=True, peak_memory=1e8,
        peak_flops=1e10,
    )  # fmt: skip
    turns = tuple(Turn(latency=(0.01,), throughput=(0.01,), cpu=0.01, machine=9e9) for _ in range(plan.rounds))
    return {form.name: FormTimes(form=form.name, opened=opened, turns=turns) for form in forms}


@pytest.fixture
def counted(monkeypatch):
    """Names of what was done: preparing, timing, scoring."""
    done = []

    def counting(kind, function):
        def call(first, *rest, **more):
            done.append(kind)
            return function(first, *rest, **more)

        return call

    def page(results, folder, **more):
        (folder / "index.html").write_text("the page has tests of its own")
        return {"index.html": folder / "index.html"}

    monkeypatch.setattr(leaderboard, "write_all", page)
    monkeypatch.setattr(cells_module, "time_model", counting("time", fake_times))
    monkeypatch.setattr(run_module, "score_cell", counting("score", run_module.score_cell))
    return done


@pytest.mark.parametrize("option", ["", "--quick", "--full"])
def test_the_command_of_a_record_gives_its_movie_again(option):
    plan = Plan.make(quick=option == "--quick", full=option == "--full")
    for recipe in plan.recipes:
        words = plan.command(recipe, "decode.epfl-2d").split()
        asked = tyro.cli(Leaderboard, args=words[2:])
        assert asked.model == ("decode.epfl-2d",)
        again = Plan.make(quick=asked.quick, full=asked.full, datasets=asked.dataset)
        assert again.recipes == (recipe,)
        assert again.timing() == plan.timing()


def files(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "records").glob("*.json")}


def test_a_run_that_is_stopped_goes_on_without_repeating_anything(models, counted, tmp_path, monkeypatch):
    folder, plan = tmp_path / "board", small_plan()
    whole = run_module.score_cell

    def stopped(*arguments):
        if len(counted) >= 2 + 3:  # two models timed, three of four movies scored
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(run_module, "score_cell", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_board(folder, plan, models=models, workers=1)
    assert counted == ["time", "time", "score", "score", "score"]
    before = files(folder)
    assert len(before) == 3
    monkeypatch.setattr(run_module, "score_cell", whole)
    counted.clear()
    page = run_board(folder, plan, models=models, workers=1)
    assert counted == ["score"]
    after = files(folder)
    assert len(after) == 4
    assert {name: after[name] for name in before} == before
    results = leaderboard.read_results(folder / "records")
    assert {(r.model.name, r.dataset.name) for r in results} == {
        (model, movie) for model in ("one", "two") for movie in ("tubes-2d-hd", "tubes-2d-uhd")
    }
    assert all(r.timing.ms_p50 == pytest.approx(10) and r.timing.noisy is False for r in results)
    assert {r.command for r in results} == {
        plan.command(recipe, source) for recipe in plan.recipes for source in models
    }
    assert page.is_file()
    counted.clear()
    run_board(folder, plan, models=models, workers=1)
    assert counted == []
    (folder / "pictures" / "tubes-2d-hd" / "one-one.onnx.png").unlink()
    run_board(folder, plan, models=models, workers=1)
    assert counted == ["score"]  # the picture alone
    assert files(folder) == after


def test_cells_that_fail_are_named_and_all_others_are_measured(models, counted, tmp_path, monkeypatch):
    folder = tmp_path / "board"
    whole = run_module.score_cell

    def failing(entry, form, recipe, *more):
        if entry.record.name == "one" and recipe.name == "tubes-2d-hd":
            raise RuntimeError("out of luck")
        return whole(entry, form, recipe, *more)

    lost = []

    def times(forms, plan, step=None):
        if "two" in forms[0].source:
            lost.append(forms[0].source)
            raise WorkerLost("killed")
        return fake_times(forms, plan)

    monkeypatch.setattr(run_module, "score_cell", failing)
    monkeypatch.setattr(cells_module, "time_model", times)
    with pytest.raises(BoardIncomplete, match=r"2 cells failed: timing .*two.*out of luck"):
        run_board(folder, small_plan(), models=models, workers=1)
    assert len(lost) == 2  # tried once more
    results = leaderboard.read_results(folder / "records")
    assert sorted((r.model.name, r.dataset.name, r.timing is None) for r in results) == [
        ("one", "tubes-2d-uhd", False),
        ("two", "tubes-2d-hd", True),
        ("two", "tubes-2d-uhd", True),
    ]
    assert (folder / "index.html").is_file()


def test_another_threshold_or_timing_plan_is_another_cell(models, counted, tmp_path):
    folder = tmp_path / "board"
    run_board(folder, small_plan(), models=models[:1], workers=1)
    assert counted == ["time", "score", "score"]
    counted.clear()
    run_board(folder, small_plan(validation=2), models=models[:1], workers=1)
    thresholds = {r.settings.threshold for r in leaderboard.read_results(folder / "records")}
    assert counted in ([], ["score", "score"])  # times are kept; scores are, if two movies give the same threshold
    assert len(thresholds) == (2 if counted else 1)


def test_there_are_as_many_workers_as_threads_within_memory(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2_000_000}[name])
    assert default_workers("cpu") == 4  # 8.2 GB
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 20_000_000}[name])
    assert default_workers("cpu") == 6


@pytest.mark.slow
def test_a_board_that_is_killed_goes_on_in_processes(models, tmp_path):
    """The whole program, two workers, killed as soon as the first record is there, and started again."""
    folder = tmp_path / "board"
    code = (
        "import sys; from pathlib import Path; from harness.board import run_board\n"
        "from tests.harness.test_board import small_plan\n"
        "run_board(Path(sys.argv[1]), small_plan(), models=sys.argv[2:], workers=2)"
    )
    command = [sys.executable, "-c", code, str(folder), *models]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    deadline = time.monotonic() + 300
    while not files(folder) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = files(folder)
    assert before
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    after = files(folder)
    assert {name: after[name] for name in before} == before
    results = leaderboard.read_results(folder / "records")
    assert len(results) == len({(r.model.name, r.dataset.name) for r in results}) == 4


def test_without_names_the_weights_that_suit_the_movies_are_taken(monkeypatch):
    movies = [load_recipe(name) for name in ("tubes-2d-hd", "tubes-2d-ld")]
    names = suited_weights(movies)
    assert {"decode.epfl-2d", "srcnn.epfl-2d"} <= set(names)
    assert "decode.scmos-2d" not in names
    assert suited_weights([load_recipe("tubes-2d-hd-scmos")]) == ["decode.scmos-2d"]
    assert "decode.scmos-2d" in suited_weights([*movies, load_recipe("tubes-2d-hd-scmos")])
    monkeypatch.setattr(zoo, "list_weights", lambda: ["own"])
    monkeypatch.setattr(zoo, "read_card", lambda name: {"model": "srcnn"})
    assert suited_weights(movies) == ["own"]  # its card does not say


def test_thresholds_come_from_the_domain_of_the_movies():
    def domain(*names):
        return Plan.make(datasets=names).domain

    assert domain("tubes-2d-hd", "er-2d-ld") == Plan.make().domain == "epfl-2d"
    assert domain("tubes-as-ld", "tubes-as-hd") == "epfl-as"
    assert domain("tubes-2d-hd-scmos") == "scmos-2d"
    with pytest.raises(ValueError, match=r"several domains.*tubes-2d-hd \(epfl-2d\), tubes-as-hd \(epfl-as\).*--add"):
        domain("tubes-2d-hd", "tubes-as-hd")


def test_models_that_give_z_are_scored_in_three_dimensions_and_others_apart(tmp_path, models, monkeypatch):
    monkeypatch.setattr(cells_module, "time_model", fake_times)
    recipe = load_recipe("tubes-as-hd").with_(size=(24, 24), frames=6)
    plan = small_plan(recipes=(recipe,), baselines=("blank",))
    run_board(tmp_path / "board", plan, models=["compact.epfl-as", models[0]], workers=1)
    results = leaderboard.read_results(tmp_path / "board" / "records")
    scored = {r.model.name: r for r in results if r.scores is not None}
    assert {name: r.dataset.dimensions for name, r in scored.items()} == {"compact": 3, "one": 2, "blank": 3}
    assert scored["compact"].scores.rmse_axial_nm > 0
    assert "epfl-as" in scored["compact"].settings.threshold_source


def test_the_committed_leaderboard_is_of_the_shipped_weights():
    results = [r for r in leaderboard.shipped_results() if not r.model.baseline]
    measured = {f"{r.model.name}.{r.model.tag}": r.model.weights_sha256 for r in results}
    assert measured == {name: weights_digest(zoo.read_card(name)) for name in zoo.list_weights() if name in measured}
    assert set(suited_weights(load_recipe(name) for name in FULL)) <= measured.keys()
    assert {r.dataset.recipe_hash for r in results} == {r.hash for r in Plan.make(full=True).recipes}
