"""The whole path on tiny networks: stages, resume, unlabelled movies, refusals, quantised files, edge figures."""

import json

import numpy as np
import onnx
import pytest
import tifffile
import torch

import zoo
from distill import Settings
from distill.calibration import calibration_frames, corners
from harness.cli import main
from harness.distillation import DistillPlan, Limits, distill, pareto, pick
from harness.distillation.edge import cost, edge_name
from harness.distillation.plan import keep_plan
from harness.distillation.report import enough
from harness.distillation.run import compared
from harness.distillation.sources import Mixed, MovieBlocks, SimulatedBlocks
from harness.distillation.teaching import Lessons, check_card
from harness.io.movies import open_movie
from harness.models import load_network
from harness.quantization import half_file, int8_file
from harness.training import resolve_config, train
from harness.training.data import SimulatedFrames
from leaderboard.statistics import Blocks
from simulators import Camera, load_recipe
from zoo import SRImage

TINY = {"size": 8, "batch_size": 2, "validation_frames": 4, "validate_every": 100, "precision": "float32"}
STUDENT = {"width": 4, "n_blocks": 1}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A folder as `train` leaves it; random weights."""
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    network = zoo.create_model("fid_storm", n_blocks=1, width=8)
    torch.nn.init.normal_(network.core.up2.conv.weight, std=0.1)
    network.normalisation.set_statistics(80.0, 60.0)
    card = {"threshold": 0.3, "valid_range": {"pixel_size_nm": [100.0, 100.0]}}
    zoo.save_weights(network.eval(), folder, card)
    return folder


def lessons(teacher, movie=None, share=0.0, **settings):
    network, card = load_network(teacher)
    return Lessons(network, card, Settings(**settings), name="teacher", movie=movie, share=share)


def test_training_by_a_teacher_resumes_to_the_same_weights(teacher, tmp_path):
    def config(steps):
        fixed = {"warmup_steps": 0, "decay_share": 0.0, **TINY}
        return resolve_config("fid_storm", recipe="epfl-2d", options=STUDENT, steps=steps, **fixed)

    def run(steps, folder, resume=False):
        pair = (("core.body", "core.body"),)
        taught = lessons(teacher, hints=pair, hint_steps=2, freeze=False)
        return train(config(steps), tmp_path / folder, progress=False, resume=resume, teaching=taught)

    run(6, "whole")
    run(3, "parts")
    run(6, "parts", resume=True)
    whole, parts = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("whole", "parts")
    )
    assert any("regressors" in key for key in whole)
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-5, atol=1e-7)
    card = json.loads((tmp_path / "whole" / "card.json").read_text())
    assert card["training"]["teaching"]["teacher_unchanged"]
    names = set(zoo.load_model(tmp_path / "whole")[0].state_dict())
    assert not any("regressors" in name or "teacher" in name for name in names)


def test_teacher_and_frames_of_other_pixels_are_refused(teacher, tmp_path):
    recipe = load_recipe("epfl-2d")
    assert check_card({"valid_range": {"pixel_size_nm": [100, 100]}}, recipe, name="t") == []
    with pytest.raises(ValueError, match="cannot be aligned"):
        check_card({"valid_range": {"pixel_size_nm": [160, 160]}}, recipe, name="t")
    narrow = {"valid_range": {"pixel_size_nm": [100, 100], "density_um2": {"low": 0.1, "high": 0.5}}}
    assert "density_um2" in check_card(narrow, recipe, name="t")[0]


def test_blocks_have_the_spikes_of_the_frames_between():
    recipe = load_recipe("epfl-2d").with_(density_um2=1.0)
    source = SimulatedBlocks(recipe, SRImage(), 2, 3, 1, 1, 12, 100.0, 5, torch.device("cpu"))
    frames, target = source.batch(4)
    assert frames.shape == (2, 5, 12, 12)
    assert target.shape == (6, 1, 96, 96)
    again = source.batch(4)
    assert torch.equal(frames, again[0])
    assert torch.equal(target, again[1])
    # the light of a block's middle frames lies where its spikes are
    dark = target.sum((1,)).view(6, 12, 8, 12, 8).sum((2, 4)) == 0
    middle = frames[:, 1:4].flatten(0, 1)
    assert middle[~dark].mean() > middle[dark].mean()


def test_movies_without_a_truth_are_mixed_in(teacher, tmp_path):
    rng = np.random.default_rng(2)
    tifffile.imwrite(tmp_path / "cells.tif", (100 + rng.poisson(50, (6, 20, 24))).astype(np.uint16))
    camera = Camera(pixel_size_nm=100, baseline=100, e_per_adu=1)
    with open_movie(tmp_path / "cells.tif") as reader:
        crops = MovieBlocks(reader, camera, 3, 2, 16, 8, 1, torch.device("cpu"))
        frames, target = crops.batch(0)
        assert frames.shape == (3, 2, 16, 16)
        assert target is None
        assert abs(frames.mean().item() - 50) < 3
        labelled = SimulatedFrames(load_recipe("epfl-2d"), SRImage(), 1, 8, 100.0, 1, torch.device("cpu"))
        mixed = Mixed(labelled, crops, 0.25)
        assert [mixed.batch(number)[1] is None for number in range(8)] == [False] * 3 + [True] + [False] * 3 + [True]
        taught = lessons(teacher, movie=(reader, camera), share=1.0)
        config = resolve_config("fid_storm", recipe="epfl-2d", options=STUDENT, steps=2, **TINY)
        result = train(config, tmp_path / "run", progress=False, teaching=taught)
    assert result.steps == 2
    assert result.frames == 4


def plan_for(teacher, **changes):
    return DistillPlan(
        **{
            "teacher": str(teacher),
            "model": "fid_storm",
            "options": STUDENT,
            "steps": 2,
            "training": TINY,
            "compare": True,
            "test_frames": 41,
            "test_size": (24, 24),
            "validation_movies": 1,
            **changes,
        }
    )


@pytest.mark.slow
def test_the_whole_path_and_that_nothing_is_done_twice(teacher, tmp_path):
    plan = plan_for(teacher)
    report = distill(plan, tmp_path / "run", progress=False, say=lambda text: None)
    text = report.read_text()
    assert "Taught or alone" in text
    assert "student int8" in text
    for name in ("distilled-1/card.json", "alone-1/card.json", "student/model.int8.onnx", "student/localize.py"):
        assert (tmp_path / "run" / name).is_file(), name
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.onnx")}
    said = []
    distill(plan, tmp_path / "run", limits=Limits(max_mb=1e-4), progress=False, say=said.append)
    assert not any("scoring" in line or "measuring" in line for line in said)
    assert any("no model is within the limits" in line for line in said)
    assert "No model is within the limits" in report.read_text()
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.onnx")}
    figures = json.loads((tmp_path / "run" / "report.json").read_text())
    assert figures["rows"]["student"]["peak_mb"] > 10
    assert figures["rows"]["student"]["cpu_s_per_1000"] >= 0


def test_a_folder_keeps_its_plan(tmp_path):
    keep_plan(plan_for("fid_storm"), tmp_path / "run")
    keep_plan(plan_for("fid_storm"), tmp_path / "run")
    with pytest.raises(ValueError, match=r"alpha 0\.5, now it is 0\.25"):
        keep_plan(plan_for("fid_storm", alpha=0.25), tmp_path / "run")


def test_paired_comparison_joins_the_seeds():
    def blocks(hits):
        return Blocks(tp=hits, fp=[2] * 6, fn=[3] * 6, lateral_nm2=[h * 400.0 for h in hits], axial_nm2=[0] * 6)

    scores = {f"distilled-{seed}": {"blocks": blocks([9, 8, 9, 8, 9, 8]).to_dict()} for seed in (1, 2)}
    scores |= {f"alone-{seed}": {"blocks": blocks([6, 5, 6, 5, 6, 5]).to_dict()} for seed in (1, 2)}
    rows = compared(scores, (1, 2))
    whole = next(row for row in rows if row["pair"] == "all seeds" and row["score"] == "jaccard")
    assert whole["delta"] == pytest.approx(100 * 51 / (51 + 30) - 100 * 33 / (33 + 30))
    assert whole["better"] == "distilled"


ROWS = {
    "a": {"ms": 1.0, "efficiency": 50.0, "mb": 1.0, "peak_mb": 80.0},
    "b": {"ms": 2.0, "efficiency": 45.0, "mb": 0.1, "peak_mb": 60.0},
    "c": {"ms": 9.0, "efficiency": 70.0, "mb": 8.0, "peak_mb": 90.0},
}


def test_pareto_and_limits():
    assert pareto(ROWS) == ["a", "c"]
    assert pick(ROWS, Limits(max_mb=5, max_ms=20)).best == "a"
    assert pick(ROWS, Limits(max_mb=0.1)).best == "b"  # a limit may be reached
    assert pick(ROWS, Limits()).best == "c"
    none = pick(ROWS, Limits(max_mb=0.05, max_ms=1.5))
    assert (none.best, none.nearest) == (None, "b")  # twice the size; a has 20 times, c 160 times
    assert "nearest is b: file 0.1 MB (limit 0.05), time of a 64x64 frame 2 ms (limit 1.5)" in str(none)
    with pytest.raises(ValueError, match="give a positive number"):
        Limits(max_ms=0)
    with pytest.raises(ValueError, match="peak memory of d was not measured"):
        pick({"d": {"ms": 1.0, "efficiency": 1.0, "mb": 1.0}}, Limits(max_peak_mb=5))


def test_a_finished_folder_is_asked_for_other_limits(tmp_path, capsys):
    run, small = tmp_path / "run", tmp_path / "small"
    run.mkdir()
    small.mkdir()
    (run / "report.json").write_text(json.dumps({"rows": ROWS, "threads": 1}))
    forms = [{"form": "int8", "bytes": 200_000, "ms": 0.5, "efficiency": 60.0}]
    (small / "quantized.json").write_text(json.dumps(forms))
    assert main(["pick", str(run), "--max-mb", "5", "--max-ms", "20"]) == 0
    assert "file at most 5 MB, time of a 64x64 frame at most 20 ms; 1 thread): a, efficiency 50.0" in said(capsys)
    assert main(["pick", str(run), str(small), "--max-mb", "5"]) == 0
    assert "small: int8, efficiency 60.0" in said(capsys)
    assert main(["pick", str(run), "--max-ms", "0.5"]) == 1
    assert "nearest is a: time of a 64x64 frame 1 ms (limit 0.5)" in said(capsys)
    assert main(["pick", str(run), "--threads", "2"]) == 2
    assert "measured with 1 thread, not 2" in capsys.readouterr().err
    assert main(["pick", str(run), "--memory-mb", "100"]) == 2
    assert "measured with all memory, not 100 MB for data" in capsys.readouterr().err
    assert main(["pick", str(tmp_path)]) == 2
    assert "no report.json" in capsys.readouterr().err


def test_models_that_do_not_run_in_the_memory_are_not_picked():
    rows = {"a": {**ROWS["a"], "fits": True}, "large": {**ROWS["a"], "efficiency": 99.0, "fits": False}}
    limits = Limits(memory_mb=100)
    assert pick(rows, limits).best == "a"
    none = pick({"large": rows["large"]}, limits)
    assert none.best is None
    assert "it needs more than 100 MB for data" in str(none)
    with pytest.raises(ValueError, match="positive number of MB"):
        Limits(memory_mb=0)


def said(capsys):
    """What was printed, in one line."""
    return " ".join(capsys.readouterr().out.split())


def test_each_way_to_measure_has_a_file_of_its_own():
    names = [edge_name(*way) for way in ((1, None), (2, None), (1, 200.0), (2, 200.0), (1, 62.5))]
    assert names == ["edge.json", "edge-2.json", "edge-1-200MB.json", "edge-2-200MB.json", "edge-1-62.5MB.json"]


def test_memory_of_this_process_does_not_count_in_its_child_s(tmp_path):
    (tmp_path / "localize.py").write_text("import numpy as np\nhere = np.ones(5_000_000)\n")  # 40 MB
    large = np.ones(50_000_000)  # 400 MB
    used = cost(tmp_path, "model.onnx", np.zeros((3, 4, 4), np.uint16), scratch=tmp_path)
    assert 40 < used["peak_mb"] < 300
    assert len(large)
    with pytest.raises(ValueError, match="1 frames; at least 2"):
        cost(tmp_path, "model.onnx", np.zeros((1, 4, 4), np.uint16), scratch=tmp_path)


def test_a_small_machine_s_memory_is_a_limit_for_its_child(tmp_path):
    (tmp_path / "localize.py").write_text("import numpy as np\nhere = np.ones(50_000_000)\n")  # 400 MB
    frames = np.zeros((3, 4, 4), np.uint16)
    assert cost(tmp_path, "model.onnx", frames, scratch=tmp_path, memory_mb=1000)["fits"] is True
    little = cost(tmp_path, "model.onnx", frames, scratch=tmp_path, memory_mb=300)
    assert little["fits"] is False
    assert little["peak_mb"] > 400  # what it needs
    (tmp_path / "localize.py").write_text("raise SystemExit('no such file')")
    with pytest.raises(ValueError, match="no such file"):
        cost(tmp_path, "model.onnx", frames, scratch=tmp_path, memory_mb=1000)


def test_what_comes_nearest_to_most_of_the_teacher_in_a_tenth_of_its_time():
    rows = {
        "teacher": {"efficiency": 80.0, "ms": 100.0},
        "good": {"efficiency": 78.0, "ms": 20.0},
        "fast": {"efficiency": 60.0, "ms": 5.0},
    }
    assert "fast, 75.0% at 5.0% (short in accuracy)" in enough(rows)
    rows["both"] = {"efficiency": 76.5, "ms": 9.0}
    assert "both, 95.6% at 9.0% (what was aimed at)" in enough(rows)


def test_calibration_covers_the_extremes():
    recipe = load_recipe("epfl-2d")
    found = corners(recipe)
    assert len(found) == 1 + 2**3
    assert {corner.photons for corner in found[1:]} == {300, 10000}
    frames = calibration_frames(recipe, np.random.default_rng(0), each=1, size=16)
    brightest = [float(batch.max()) for batch in frames]
    assert max(brightest) > 10 * min(brightest)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A file of three convolutions, weights known."""
    from harness.export import export_onnx

    torch.manual_seed(4)
    network = zoo.create_model("srcnn", width=8, kernels=(3, 3, 3)).eval()
    network.normalisation.set_statistics(50.0, 30.0)
    path = tmp_path_factory.mktemp("chain") / "model.onnx"
    return export_onnx(network, path, metadata={"smlm_zoo_card": "{}"})


def run_file(path, frames):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: frames})[0]


def test_half_files_hold_rounded_weights(chain, tmp_path):
    frames = np.random.default_rng(0).gamma(2, 40, (1, 1, 8, 8)).astype(np.float32)
    reference = run_file(chain, frames)
    for kind, error in (("float16", 2**-9), ("bfloat16", 2**-6)):
        path = half_file(chain, tmp_path / f"{kind}.onnx", kind)
        assert path.stat().st_size < chain.stat().st_size
        gap = np.abs(run_file(path, frames) - reference).max() / np.abs(reference).max()
        assert 0 < gap < error
    with pytest.raises(ValueError, match="float16, bfloat16"):
        half_file(chain, tmp_path / "x.onnx", "int4")


def test_int8_files_are_static_and_per_channel(chain, tmp_path):
    rng = np.random.default_rng(1)
    batches = [torch.from_numpy(rng.gamma(2, 40, (2, 1, 8, 8)).astype(np.float32)) for _ in range(4)]
    path = int8_file(chain, tmp_path / "int8.onnx", batches)
    model = onnx.load(str(path))
    kinds = [node.op_type for node in model.graph.node]
    assert "QuantizeLinear" in kinds
    assert "DynamicQuantizeLinear" not in kinds
    scales = [i for i in model.graph.initializer if i.data_type == onnx.TensorProto.INT8]
    assert scales  # weights in 8 bits
    assert any(list(i.dims) == [4] for i in model.graph.initializer if i.name.endswith("_scale"))  # one per channel
    assert any(entry.key == "smlm_zoo_card" for entry in model.metadata_props)
    frames = batches[0].numpy()
    reference = run_file(chain, frames)
    assert np.abs(run_file(path, frames) - reference).max() < 0.1 * np.abs(reference).max()
    with pytest.raises(ValueError, match="no frames"):
        int8_file(chain, tmp_path / "none.onnx", [])


def test_every_head_stays_float32(tmp_path):
    from harness.export import export_onnx
    from harness.quantization.tuning import places_of

    torch.manual_seed(0)
    network = zoo.create_model("u_storm", width=4).eval()
    network.normalisation.set_statistics(50.0, 30.0)
    plain = export_onnx(network, tmp_path / "model.onnx", metadata={})
    frames = np.random.default_rng(2).gamma(2, 40, (1, 1, 16, 16)).astype(np.float32)
    places = places_of(int8_file(plain, tmp_path / "int8.onnx", [torch.from_numpy(frames)]))
    kept = [place.kernel for place in places if not place.rounded]
    assert [kernel[0] for kernel in kept].count(1) == 2  # both convolutions that make the image
    assert [kernel[1] for kernel in kept].count(1) == 1  # the one that sees the frame
    assert len(kept) == 3 < len(places)


def test_the_commands_explain_themselves(capsys):
    assert main(["students"]) == 0
    assert "fid-dsir-size" in capsys.readouterr().out
    assert main(["distill", "fid_storm", "fid-55"]) == 2
    assert "Did you mean 'fid-5'" in capsys.readouterr().err
    assert main(["distill", "fid_storm", "fid-5", "--hint", "core.body"]) == 2
    assert "teacher=student" in capsys.readouterr().err


def test_pruning_shows_the_scores_before_and_after(tmp_path, capsys):
    assert main(["prune", "srcnn", "32", "-o", str(tmp_path / "pruned"), "--frames", "2"]) == 0
    shown = said(capsys)
    assert "8,129 ->" in shown
    assert "efficiency" in shown
