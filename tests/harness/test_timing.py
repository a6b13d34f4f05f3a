"""Times: the statistics against numbers by hand, multiply-accumulates against arithmetic written out, own processes."""

import importlib.util
import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import harness.timing_process as process
import zoo
from harness.forms import forms_of, kept_source
from harness.models import open_model
from harness.runtimes import OnnxMaps, OnnxRuntime, OpenVinoRuntime, is_quantised
from harness.runtimes.base import RuntimeInfo
from harness.timing import time_models
from harness.timing_figures import FormTimes, as_one_run, percentile, relative_difference, speed_ranks
from harness.timing_forms import ModelTimes, latency_rows, model_rows, repeat_rows, throughput_rows
from harness.timing_process import Opened, TimingPlan, Turn, _Timed, matmul_peak, timed, timed_movie, warm_up
from harness.workers import Worker

OPENED = Opened(
    info=RuntimeInfo(name="torch", provider="CPU", precision="float32", threads=2),
    batch=1,
    best_batch=4,
    first_call=0.5,
    warm_calls=6,
    stable=True,
    peak_memory=300e6,
    peak_flops=100e9,
)


def times(*latencies, throughput=0.05, movie=0.1125, machine=90e9, **changes):
    turns = tuple(Turn(latency=tuple(each), throughput=(throughput,), cpu=0.09, machine=machine) for each in latencies)
    return FormTimes(form="torch float32", opened=replace(OPENED, **changes), turns=turns, movie=movie)


def test_percentiles_are_of_the_nearest_rank():
    values = [float(v) for v in range(10, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.91, 0.99, 1.0)] == [5, 9, 10, 10, 10]
    assert percentile([3.0], 0.5) == 3.0
    assert percentile(list(range(200)), 0.99) == 197
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_form_whose_halves_differ_by_more_than_a_tenth_is_noisy_and_has_no_rank():
    calm = times([0.10, 0.10], [0.10], [0.108], [0.109])
    loud = times([0.05, 0.05], [0.05], [0.056], [0.056])
    assert calm.spread == pytest.approx(0.085)  # 0.1085 against 0.10
    assert loud.spread == pytest.approx(0.12)
    assert (calm.noisy, loud.noisy) == (False, True)
    assert relative_difference(4.0, 5.0) == relative_difference(5.0, 4.0) == 0.25
    slow = times([0.2], [0.2])
    assert speed_ranks([slow, loud, calm]) == [2, None, 1]


def test_a_form_is_noisy_where_the_machine_beside_it_was_not_as_usual():
    calm = [times([0.1], [0.1], machine=speed) for speed in (88e9, 90e9, 92e9)]
    slow, fast = times([0.2], [0.2], machine=70e9), times([0.05], [0.05], machine=130e9)
    on_gpu = times([0.01], [0.01], machine=9e12, info=replace(OPENED.info, provider="NVIDIA"))
    alone = as_one_run([{"a": slow}])[0]["a"]
    assert not alone.noisy  # nothing to compare it with
    models = as_one_run([{"a": calm[0], "b": slow}, {}, {"a": calm[1], "gpu": on_gpu}, {"a": calm[2], "b": fast}])
    assert [list(forms) for forms in models] == [["a", "b"], [], ["a", "gpu"], ["a", "b"]]
    assert models[0]["a"].usual == 92e9  # of the three that share it the fastest; the GPU is another machine
    assert [one.noisy for forms in models for one in forms.values()] == [False, True, False, False, False, True]
    assert speed_ranks([one for forms in models for one in forms.values()]) == [2, None, 3, 1, 4, None]
    uneven = replace(calm[1], turns=calm[1].turns + times([0.1], machine=50e9).turns)
    assert uneven.machine == 90e9
    assert as_one_run([{"a": calm[0]}, {"a": slow}])[1]["a"].section(size=64).machine_gflops == 70


def test_what_a_record_holds_follows_from_the_calls():
    section = times([0.10, 0.12], [0.11, 0.50]).section(size=64, macs=2_000_000_000, price_per_hour=0.72)
    assert (section.ms_p50, section.ms_min, section.ms_max) == pytest.approx((115, 100, 500))
    assert (section.ms_p90, section.ms_p99) == pytest.approx((500, 500))
    assert section.frames_per_second == pytest.approx(1 / 0.115)
    assert (section.repeats, section.batch, section.best_batch) == (4, 1, 4)
    assert section.best_frames_per_second == pytest.approx(20)  # 0.05 s per frame
    assert section.megapixels_per_second == pytest.approx(20 * 4096 / 1e6)
    assert section.gflops == pytest.approx(2 * 2 * 20)  # two operations for each of 2 GMAC, 20 times a second
    assert section.peak_share == pytest.approx(0.8)
    assert section.cpu_seconds_per_1000_frames == pytest.approx(90)
    assert section.hours_per_million_frames == pytest.approx(1e6 / 20 / 3600)
    assert section.cost_per_million_frames == pytest.approx(10.0)  # 13.9 hours at 0.72
    assert section.movie_frames_per_second == pytest.approx(1 / 0.1125)
    assert (section.first_call_ms, section.peak_memory_mb) == (500, 300)
    assert section.noisy
    bare = times([0.1], [0.1], movie=None, peak_memory=None).section(size=64)
    assert (bare.gflops, bare.movie_frames_per_second, bare.peak_memory_mb, bare.cost_per_million_frames) == (None,) * 4


def test_times_survive_a_file():
    one = times([0.1], [0.2])
    assert FormTimes.from_dict(one.to_dict()) == one
    with pytest.raises(ValueError, match="no record of times"):
        FormTimes.from_dict({"form": "x"})
    with pytest.raises(ValueError, match="times"):
        FormTimes.from_dict(one.to_dict() | {"movie": [0.1, 0.125]})  # as earlier versions wrote it


def test_tables_say_noisy_where_there_is_no_rank_and_two_runs_are_compared():
    forms = {"a": times([0.1], [0.1]), "b": times([0.1], [0.2])}
    forms = {name: replace(form, form=name) for name, form in forms.items()}
    model = ModelTimes(
        source="m", size=64, parameters=8129, macs=2_000_000_000, receptive_field_px=1.6, file_bytes=33_000, forms=forms
    )
    assert [row["rank"] for row in latency_rows([model])] == [1, "noisy"]
    assert throughput_rows([model], price_per_hour=0.72)[0]["cost / million"] == "10.00"
    assert throughput_rows([model])[0]["of peak"] == "80 % of 100"
    assert model_rows([model])[0]["GMAC per 64x64 frame"] == "2.00"
    other = replace(model, forms={"a": replace(forms["a"], turns=times([0.12], [0.12]).turns), "b": forms["b"]})
    rows, right = repeat_rows([model], [other])
    assert [row[""] for row in rows] == ["DIFFERS", "noisy"]
    assert right == 1
    assert repeat_rows([model], [model])[1] == 2


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when a call says so."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(process.time, "perf_counter", lambda: now.seconds)
    return now


def test_warming_up_ends_when_times_are_stable_or_the_time_is_over(clock):
    taken = itertools.chain([9.0, 4.0, 2.0, 1.5, 1.02, 1.0, 0.99], itertools.repeat(1.0))

    def call():
        clock.seconds += next(taken)

    # after 8 calls: 2, 1.5, 1.02 against 1, 0.99, 1, medians 1.5 and 1; after 9: 1.02 and 1
    assert warm_up(call, seconds=100.0) == (9, True, 1.0)
    doubling = (2.0**n for n in itertools.count())

    def slower():
        clock.seconds += next(doubling)

    assert warm_up(slower, seconds=100.0)[:2] == (7, False)  # 1 + 2 + ... + 64 = 127


class _Scaling:
    """A model with 1 s per call and 0.1 s per frame, that slows down beyond 8 frames."""

    info = RuntimeInfo(name="torch", provider="CPU", precision="float32", threads=1)
    network = None
    card: dict = {}  # noqa: RUF012

    def __init__(self, clock):
        self.clock, self.batches = clock, []

    def repeatable(self, frames):
        count = len(frames)

        def call():
            self.batches.append(count)
            self.clock.seconds += 1 + (0.1 if count <= 8 else 0.5) * count

        return call, count


def test_the_best_batch_is_the_one_of_largest_throughput(clock, monkeypatch):
    monkeypatch.setattr(process, "matmul_peak", lambda **_: 1e9)
    model = _Scaling(clock)
    plan = TimingPlan(threads=1, size=8, seconds=60.0)
    one = _Timed(SimpleNamespace(open=lambda: model), plan)
    assert one.best_batch == 8  # 8 frames in 1.8 s; 16 in 9 s
    assert one.first_call == pytest.approx(1.1)
    assert one.movie(1.0, timed_movie(8, 2)) is None  # no threshold
    turn = one.turn(8.0)
    assert turn.latency == pytest.approx([1.1] * 4)
    assert turn.throughput == pytest.approx([1.8 / 8] * 3)
    assert turn.machine == 1e9
    none = _Timed(SimpleNamespace(open=lambda: _Scaling(clock)), replace(plan, largest_batch=1))
    assert none.best_batch == 1
    short = _Timed(SimpleNamespace(open=lambda: _Scaling(clock)), replace(plan, seconds=1.0))
    assert short.best_batch == 1  # there is no time to look further


def test_forms_that_are_open_here_are_timed_in_turn(clock):
    models = {"a": _Scaling(clock), "b": _Scaling(clock)}
    found = time_models(models, batch=4, size=8, seconds=3.0)
    assert {name: one.median for name, one in found.items()} == pytest.approx({"a": 0.35, "b": 0.35})  # 1.4 s / 4
    assert models["a"].batches == models["b"].batches == [4] * 4  # one round untimed, then three


@pytest.mark.parametrize("wrong", [{"rounds": 3}, {"rounds": 0}, {"threads": 0}, {"seconds": 0.0}])
def test_plans_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=r"rounds|positive"):
        TimingPlan(**{"threads": 1, **wrong})


def test_multiply_accumulates_of_srcnn_by_hand():
    pixels = (8 * 64) ** 2  # convolutions run on the fine grid, eight times the 64x64 frame each way
    extract = 9 * 9 * 1 * 64
    map_ = 1 * 1 * 64 * 32
    rebuild = 5 * 5 * 32 * 1
    assert (
        zoo.count_macs(zoo.create_model("srcnn"), 64, 64).done == pixels * (extract + map_ + rebuild) == 2_105_540_608
    )


def test_multiply_accumulates_of_decode_by_hand():
    full, half, quarter = 64 * 64, 32 * 32, 16 * 16  # pixels at the three stages of a U-Net

    def unet(channels_in):
        down = 9 * (channels_in * 48 + 48 * 48) * full + 9 * (48 * 96 + 96 * 96) * half
        pools = 4 * 48 * 48 * half + 4 * 96 * 96 * quarter  # 2x2 convolutions with stride 2
        base = 9 * (96 * 192 + 192 * 192) * quarter
        shrink = 192 * 96 * quarter + 96 * 48 * half  # 1x1, here before the upsampling
        up = 9 * (192 * 96 + 96 * 96) * half + 9 * (96 * 48 + 48 * 48) * full
        return down + pools + base + shrink + up + 48 * 48 * full

    model = zoo.create_model("decode", dimensions=3)
    heads = sum(9 * 48 * 48 + 48 * channels for channels in (1, 4, 4, 1)) * full  # p; N, x, y, z; their sigmas; bg
    counted = zoo.count_macs(model, 64, 64)
    assert counted.done == unet(1) + unet(3 * 48) + heads  # in a movie each frame passes the first U-Net once
    assert counted.published == 3 * unet(1) + unet(3 * 48) + heads


def test_the_peak_is_that_of_a_matrix_multiplication(clock, monkeypatch):
    def multiply(a, b):
        clock.seconds += 0.05 if a.dtype == torch.float32 else 0.02
        return a

    monkeypatch.setattr(process.torch, "mm", multiply)
    assert matmul_peak() == pytest.approx(2 * 1024**3 / 0.05)
    assert matmul_peak("int8") == pytest.approx(2 * 1024**3 / 0.02)  # the larger of float32 and bfloat16
    assert timed(lambda: multiply(torch.ones(1), None), seconds=0.12) == pytest.approx([0.05] * 3)


def test_peak_memory_is_that_of_the_process_itself():
    ours = np.ones(60_000_000)  # 480 MB here, written to
    with Worker(threads=1) as first, Worker(threads=1) as second:
        first.call(np.ones, 50_000_000 // 100)
        assert first.call(process.peak_memory) < process.peak_memory()
        before = second.call(process.peak_memory)
        second.call(_take, 30_000_000)
        assert second.call(process.peak_memory) - before == pytest.approx(240e6, rel=0.1)
    assert ours.nbytes == 480_000_000


def _take(count):
    np.ones(count)


def test_a_turn_needs_a_form_that_was_opened():
    with pytest.raises(RuntimeError, match="call start before"):
        process.take_turn(1.0)


def test_openvino_gives_what_onnx_runtime_gives(tmp_path):
    pytest.importorskip("openvino")
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)
    node = helper.make_node("ConvTranspose", ["frames", "weight"], ["image"], strides=[8, 8])
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["n", 1, "h", "w"]) for end in ("frames", "image")]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(weight, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    file = tmp_path / "model.onnx"
    onnx.save(model, file)
    frames = torch.rand(2, 1, 16, 24) * 300
    runtime = OpenVinoRuntime(file, threads=1)
    assert (runtime.info.name, runtime.info.precision, runtime.info.threads) == ("openvino", "float32", 1)
    expected = OnnxRuntime(file, device="cpu", threads=1)(frames)
    assert expected.shape == (2, 1, 128, 192)
    first = runtime(frames)
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-3)
    runtime(frames * 2)
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-3)  # the next call does not write into it
    (tmp_path / "card.json").write_text('{"model": "m", "output": {"upsampling": 8}, "threshold": 0.2}')
    opened = open_model(file, runtime="openvino")
    assert (opened.info.name, opened.upsampling) == ("openvino", 8)


def test_forms_of_exported_folders_and_names(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # as if OpenVINO were not there
    for name in ("model.onnx", "model.int8.onnx"):
        (tmp_path / name).write_bytes(b"QuantizeLinear" if "int8" in name else b"")
    kept = kept_source(str(tmp_path), tmp_path)
    assert kept == str(tmp_path / "model.onnx")
    forms = forms_of(kept, Path(kept), device="cpu")
    assert [(form.name, Path(form.source).name) for form in forms] == [
        ("ONNX Runtime float32", "model.onnx"),
        ("ONNX Runtime int8", "model.int8.onnx"),
    ]
    (tmp_path / "alone.onnx").write_bytes(b"QuantizeLinear")
    alone = forms_of(str(tmp_path / "alone.onnx"), tmp_path / "alone.onnx", device="cpu")
    assert [(form.name, form.precision) for form in alone] == [("ONNX Runtime int8", "int8")]
    assert kept_source("fid_storm", tmp_path) == "fid_storm"  # its weights are shipped
    random = kept_source("attention_unet_v1", tmp_path / "new")
    assert zoo.load_model(random)[1]["model"] == "attention_unet_v1"


def test_quantised_files_are_known_by_their_nodes(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    def written(kinds, name):
        scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [2.0])
        zero = helper.make_tensor("zero", TensorProto.INT8, [], [0])
        steps = ["frames", *(f"step{n}" for n in range(len(kinds) - 1)), "image"]
        nodes = [
            helper.make_node(kind, [a] if kind == "Relu" else [a, "scale", "zero"], [b])
            for kind, (a, b) in zip(kinds, itertools.pairwise(steps), strict=True)
        ]
        shape = ["n", 1, "h", "w"]
        ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, shape) for end in ("frames", "image")]
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [scale, zero])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    small, plain = written(["QuantizeLinear", "DequantizeLinear"], "small.onnx"), written(["Relu"], "plain.onnx")
    assert (is_quantised(small), is_quantised(plain)) == (True, False)
    runtime = OnnxRuntime(small, device="cpu", threads=1)
    assert runtime.info.precision == "int8"
    assert OnnxRuntime(plain, device="cpu", threads=1).info.precision == "float32"
    assert runtime(torch.full((1, 1, 1, 2), 3.2)).flatten().tolist() == [4.0, 4.0]  # steps of 2
    assert OnnxMaps(runtime).info.precision == "int8"
    if "CUDAExecutionProvider" not in OnnxRuntime(plain).session.get_providers():
        with pytest.raises(ValueError, match="TensorrtExecutionProvider asked for"):
            OnnxRuntime(plain, device="tensorrt")
