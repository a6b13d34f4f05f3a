"""Export, localize, show, time, leaderboard: the stages joined, on a network small enough to be quick."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import leaderboard
import zoo
from harness.board import Plan, run_board
from harness.devices import fastest_precision, pick_device, pick_precision
from harness.export import export_model, export_onnx
from harness.forms import forms_of
from harness.io.tables import read_table
from harness.localization import localize, localize_to
from harness.models import open_model
from harness.ready import ImageModel
from harness.runtimes import OnnxRuntime, TorchRuntime
from harness.timing import interleaved, time_training
from harness.timing_forms import time_model
from harness.timing_process import TimingPlan
from simulators import Camera


def small_model(folder: Path, **card) -> Path:
    """A folder as `train` leaves it: a one-block FID-STORM with random weights."""
    torch.manual_seed(3)
    network = zoo.create_model("fid_storm", n_blocks=1)
    torch.nn.init.normal_(network.core.up2.conv.weight, std=0.1)
    network.normalisation.set_statistics(100.0, 50.0)
    network.eval()
    zoo.save_weights(network, folder, {"threshold": 0.3, **card})
    return folder


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def exported(model_folder, tmp_path_factory) -> Path:
    from harness.models import load_network, receptive_field

    folder = tmp_path_factory.mktemp("exported")
    network, card = load_network(model_folder)
    card["receptive_field_px"] = receptive_field(network)
    export_model(network, folder, card)
    return folder


@pytest.fixture
def movie(tmp_path) -> Path:
    rng = np.random.default_rng(1)
    tifffile.imwrite(tmp_path / "movie.tif", rng.poisson(100, (7, 21, 33)).astype(np.uint16))
    return tmp_path / "movie.tif"


def test_the_exported_file_equals_torch_at_other_sizes(model_folder, exported):
    card = json.loads((exported / "card.json").read_text())
    assert card["onnx_deviation"] < 1e-4
    network, _ = zoo.load_model(model_folder)
    frames = torch.rand(3, 1, 17, 50) * 300
    expected = TorchRuntime(network, precision="float32")(frames)
    torch.testing.assert_close(OnnxRuntime(exported / "model.onnx")(frames), expected, rtol=1e-4, atol=1e-5)


def test_the_exported_file_tells_nothing_of_this_machine(exported):
    content = (exported / "model.onnx").read_bytes()
    assert str(Path.home()).encode() not in content
    assert b"site-packages" not in content
    assert b"pkg.torch" not in content


def test_an_exported_file_is_a_model_by_itself(exported, tmp_path):
    shutil.copy(exported / "model.onnx", tmp_path / "alone.onnx")
    model = open_model(tmp_path / "alone.onnx")
    assert model.output.upsampling == 8
    assert model.threshold == 0.3


def test_localize_streams_whole_movies_of_odd_size(model_folder, exported, movie, tmp_path):
    camera = Camera(pixel_size_nm=100.0, baseline=0.0, e_per_adu=1.0)
    seen: list[int] = []
    torch_model = open_model(model_folder, precision="float32")
    found = localize(torch_model, movie, camera=camera, threshold=0.05, progress=seen.append)
    assert found.image.shape == (168, 264)
    assert seen[-1] == found.frames == 7
    assert len(found.localizations) > 0
    assert found.localizations.frame.max() <= 6
    onnx = localize(open_model(exported, runtime="onnx"), movie, camera=camera, threshold=0.05)
    np.testing.assert_allclose(onnx.image, found.image, rtol=1e-3, atol=1e-3 * found.image.max())
    result, rows = localize_to(torch_model, movie, tmp_path / "out", camera=camera, threshold=0.05)
    np.testing.assert_array_equal(result.image, found.image)
    written = read_table(tmp_path / "out" / "localizations.csv")
    assert rows == len(written) == len(found.localizations)
    np.testing.assert_array_equal(written.x_nm, found.localizations.x_nm)
    np.testing.assert_array_equal(written.id, np.arange(rows))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"localizations.csv", "image.tif", "image.png", "preview.png", "localize.json"}


def test_tiles_equal_the_whole(model_folder):
    model = open_model(model_folder, precision="float32")
    assert model.receptive_field_px is not None
    frames = torch.rand(1, 100, 230) * 300
    whole = model._batched(frames)
    torch.testing.assert_close(model.image(frames), whole, rtol=1e-4, atol=1e-4 * whole.abs().max().item())


def test_sizes_that_are_no_multiple_are_padded_and_cropped():
    torch.manual_seed(0)
    network = zoo.create_model("u_storm", upsampling=4).eval()
    model = ImageModel(
        name="padded",
        runtime=lambda frames: network(frames),
        output=network.output,
        card={},
        size_multiple=4,
    )
    with torch.no_grad():
        assert model.image(torch.rand(2, 9, 14)).shape == (2, 1, 36, 56)


def test_every_form_is_timed_in_its_own_process(model_folder, exported):
    forms = forms_of(str(model_folder), exported / "model.onnx", openvino=False)
    assert [form.name for form in forms] == ["torch float32", "torch bfloat16", "ONNX Runtime float32"]
    plan = TimingPlan(threads=1, size=16, seconds=0.1, rounds=2, largest_batch=2, movie_frames=16)
    times = time_model(forms, plan)
    assert list(times) == [form.name for form in forms]
    assert [one.info.name for one in times.values()] == ["torch", "torch", "onnxruntime"]
    for one in times.values():
        assert one.info.threads == 1
        assert len(one.turns) == 2
        assert one.movie > 0
        assert one.opened.first_call > 0
        assert 0 < min(one.latency) <= one.median
    rows = time_training("fid_storm", batch=1, size=8, seconds=0.01)
    assert len(rows) == 4
    assert all(float(row["GFLOP/s"]) >= 0 for row in rows)


def test_calls_are_timed_in_turn():
    order: list[str] = []
    times = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=0.0, least=3)
    assert order == ["a", "b"] * 4  # one round to warm up
    assert len(times["a"].seconds) == 3
    assert times["a"].best <= times["a"].median <= times["a"].worst


@pytest.fixture(scope="module")
def board(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    plan = Plan.make(quick=True, datasets=("tubes-2d-hd",))
    page = run_board(folder, plan, models=[str(model_folder)])
    return folder, plan, page


def test_the_board_writes_records_tables_plots_and_page(board):
    folder, plan, page = board
    everything = leaderboard.read_results(folder / "records")
    assert {r.model.name for r in everything if r.model.baseline} == set(plan.baselines)
    results = [result for result in everything if not result.model.baseline]
    scored = [result for result in results if result.scores is not None]
    assert len(scored) == 1
    assert scored[0].dataset.recipe_hash == plan.recipes[0].hash
    assert scored[0].scores.n_truth > 20
    assert {result.runtime.name for result in results} == {"torch", "onnxruntime"}
    text = page.read_text(encoding="utf-8")
    assert "fid_storm" in text
    assert text.count("data:image/png") >= 3  # raw, truth, model
    assert (folder / "results.csv").is_file()
    assert (folder / "leaderboard.md").is_file()
    detail, settings = scored[0].detail, scored[0].settings
    assert settings.threshold_source == "1 validation movies of epfl-2d, 8 frames, 20 trials"
    assert settings.threshold_trials == 20
    assert sum(detail.blocks["tp"]) == scored[0].scores.tp
    assert detail.images["fwhm_nm"] == 20
    assert 0 < detail.images["nmse"] < 2
    assert detail.crlb["x"]["bound"] > 1
    assert detail.settings["rules_version"] == 1


def test_a_second_run_measures_nothing_again(board, model_folder):
    folder, plan, _ = board
    before = {path: path.stat().st_mtime_ns for path in (folder / "records").iterdir()}
    run_board(folder, plan, models=[str(model_folder)])
    assert {path: path.stat().st_mtime_ns for path in (folder / "records").iterdir()} == before


def test_records_of_others_join(board, model_folder, tmp_path):
    folder, plan, _ = board
    result = leaderboard.read_results(folder / "records")[0]
    data = json.loads(result.to_json())
    data["model"]["name"] = "<script>alert(1)</script>"
    data["model"]["weights_sha256"] = "ab" * 32
    (tmp_path / "theirs.json").write_text(json.dumps(data))
    page = run_board(folder, plan, models=[str(model_folder)], add=[tmp_path / "theirs.json"])
    assert "<script>alert(1)" not in page.read_text(encoding="utf-8")


def test_a_plugin_and_a_bare_onnx_file_run_through_the_board(exported, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from torch import nn\nimport zoo\n\n"
        "@zoo.register_model(output=zoo.SRImage(upsampling=4), loss='deepstorm', source='a test')\n"
        "def tiny_plugin(*, upsampling=4):\n"
        "    output = zoo.SRImage(upsampling=upsampling)\n"
        "    core = nn.Conv2d(1, 1, 3, padding=1)\n"
        "    return zoo.ImageNetwork(core, output=output, enlarge='nearest')\n"
    )
    assert zoo.load_plugin(plugin) == ["tiny_plugin"]
    network = zoo.create_model("tiny_plugin").eval()
    zoo.save_weights(network, tmp_path / "tiny", {"threshold": 0.5})
    plan = Plan.make(quick=True, datasets=("tubes-2d-ld",))
    page = run_board(tmp_path / "board", plan, models=[str(tmp_path / "tiny"), str(exported / "model.onnx")])
    names = {result.model.name for result in leaderboard.read_results(tmp_path / "board" / "records")}
    assert any("tiny_plugin" in name for name in names)
    assert any("fid_storm" in name for name in names)
    assert page.is_file()


def test_unknown_models_and_runtimes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'srcnn'"):
        open_model("srcn")
    with pytest.raises(ValueError, match="no ONNX file"):
        open_model(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(ValueError, match="not a network"):
        open_model(tmp_path / "bad.onnx")
    export_onnx(zoo.create_model("srcnn"), tmp_path / "plain.onnx")
    with pytest.raises(ValueError, match="has no card"):
        open_model(tmp_path / "plain.onnx")


def test_a_device_that_is_not_there_is_refused():
    assert pick_device("cpu").type == "cpu"
    assert fastest_precision(torch.device("cpu")) in ("float32", "bfloat16")
    with pytest.raises(ValueError, match="no device named"):
        pick_device("gpuu")
    with pytest.raises(ValueError, match="no precision named"):
        pick_precision("float8", torch.device("cpu"))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="finds no CUDA"):
            pick_device("cuda")


def test_nothing_is_made_on_another_device(monkeypatch):
    """The GPU path without a GPU: with the meta device as the place, every tensor of the network is there."""
    network = zoo.create_model("deep_storm").to("meta")
    assert network(torch.empty(2, 1, 16, 24, device="meta")).device.type == "meta"
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}
