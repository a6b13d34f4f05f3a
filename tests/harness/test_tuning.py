"""Fine-tuning for int8: the trained rounding is that of the file, and only better weights are kept."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

import zoo
from harness.export import export_model
from harness.models import describe
from harness.quantization import Tuning, activation_ranges, int8_file, quantize, rounding, tune
from harness.quantization.tuning import places_of, rounded_kernel
from harness.training import resolve_config
from zoo import inference_form

SMALL = {"size": 12, "batch_size": 2, "validation_frames": 4}
QUIET = {"say": lambda text: None, "seconds": 0.01, "size": 16}


def randomised(name, **options):
    """A network with random weights whose norms are not trivial."""
    torch.manual_seed(3)
    network = zoo.create_model(name, **options).eval()
    network.normalisation.set_statistics(80.0, 60.0)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2)
            torch.nn.init.normal_(layer.running_mean, std=0.3)
    return network


def frames_of(seed, size=16):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.gamma(2, 40, (2, 1, size, size)).astype(np.float32)) for _ in range(3)]


def run_file(path, frames):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: frames.numpy()})[0]


def gap(first, second):
    return float(np.linalg.norm(first - second) / np.linalg.norm(second))


@pytest.fixture(scope="module")
def fid(tmp_path_factory):
    """A small network with a skip connection, its export folder, and its static int8 file."""
    network = randomised("fid_storm", n_blocks=3, width=4)
    torch.nn.init.normal_(network.core.up2.conv.weight, std=0.2)
    folder = tmp_path_factory.mktemp("fid")
    card = zoo.save_weights(network, tmp_path_factory.mktemp("weights"), {"threshold": 0.3})
    export_model(network, folder, card | describe(network))
    int8_file(folder / "model.onnx", folder / "static.onnx", frames_of(0))
    return network, folder


def test_a_kernel_s_8_bits():
    weight = torch.tensor([[1.27, 0.634, -0.006], [0.0, 0.0, 0.0]])[:, :, None, None].requires_grad_()
    rounded = rounded_kernel(weight)
    torch.testing.assert_close(rounded[0].flatten(), torch.tensor([1.27, 0.63, -0.01]))  # steps of 0.01
    assert not rounded[1].any()
    rounded.sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))  # straight through


def test_the_rounding_is_that_of_the_file(fid):
    network, folder = fid
    places = places_of(folder / "static.onnx")
    assert [place.rounded for place in places] == [False, True, True, False]  # up1 to up3 are transposed
    module = rounding(inference_form(network), folder / "static.onnx")
    used = [node for node in module.graph.nodes if node.target is torch.fake_quantize_per_tensor_affine]
    assert len(used) == len(activation_ranges(folder / "static.onnx")) == 4  # two convolutions, in and out
    for frames in frames_of(1, size=24):
        with torch.no_grad():
            exact, found = network(frames).numpy(), module(frames).numpy()
        expected = run_file(folder / "static.onnx", frames)
        noise = gap(exact, expected)
        assert noise > 1e-3
        assert gap(found, expected) < 0.2 * noise  # the same but where a value lies between two steps


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("compact", {"width": 24, "blocks": 1}),
        pytest.param("decode", {"width": 8}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_networks_that_look_at_neighbouring_frames_round_as_their_files(name, options, tmp_path):
    network = randomised(name, dimensions=2, **options)
    export_model(network, tmp_path, {"model": name, "threshold": 0.3} | describe(network))
    rng = np.random.default_rng(2)
    first, other = (
        torch.from_numpy(rng.gamma(2, 40, shape).astype(np.float32)) for shape in ((1, 5, 16, 16), (2, 6, 16, 24))
    )
    file = int8_file(tmp_path / "model.onnx", tmp_path / "int8.onnx", [first])
    module = rounding(inference_form(network), file)
    with torch.no_grad():
        exact, found = network(other[:1]).numpy(), module(other[:1]).numpy()
        assert module(other).shape[:2] == (2, 4)
    expected = run_file(file, other[:1])
    noise = gap(exact, expected)
    assert noise > 1e-3
    assert gap(found, expected) < 0.75 * noise  # random weights magnify what falls to the other side of a step


@pytest.mark.slow
def test_norms_that_the_exporter_folds_are_folded_here_too(tmp_path):
    network = randomised("dsir", separate_norm=True, width=4)
    export_model(network, tmp_path, {"model": "dsir", "threshold": 0.3})
    file = int8_file(tmp_path / "model.onnx", tmp_path / "int8.onnx", frames_of(0))
    module = rounding(inference_form(network), file)
    for frames in frames_of(1):
        with torch.no_grad():
            exact, found = network(frames).numpy(), module(frames).numpy()
        expected = run_file(file, frames)
        assert gap(found, expected) < 0.3 * gap(exact, expected)


def test_a_file_of_another_network_is_refused(fid):
    other = randomised("fid_storm", n_blocks=2, width=4)
    with pytest.raises(ValueError, match="quantise the network"):
        rounding(inference_form(other), fid[1] / "static.onnx")


def test_what_is_tuned_is_what_runs(fid, tmp_path):
    from harness.export import export_onnx

    network, folder = fid
    before = {key: value.clone() for key, value in network.state_dict().items()}
    config = resolve_config("fid_storm", recipe="epfl-2d", **SMALL)
    tuned = tune(network, folder / "static.onnx", config, minutes=5, steps=15, progress=False)
    assert tuned.steps == 15
    assert tuned.better  # of random weights, any training is
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    plain = export_onnx(tuned.network, tmp_path / "plain.onnx")
    ranges = activation_ranges(folder / "static.onnx")
    file = int8_file(plain, tmp_path / "tuned.onnx", frames_of(5)[:1], ranges=ranges)
    assert activation_ranges(file) == ranges
    module = rounding(tuned.network, file)
    frames = frames_of(1)[0]
    with torch.no_grad():
        exact, found = tuned.network(frames).numpy(), module(frames).numpy()
    expected = run_file(file, frames)
    assert gap(found, expected) < 0.2 * gap(exact, expected)
    assert gap(expected, run_file(folder / "static.onnx", frames)) > 1e-3  # other weights


@pytest.mark.slow
def test_only_where_int8_loses_too_much(fid):
    network, folder = fid
    config = resolve_config("fid_storm", recipe="epfl-2d", **SMALL)
    jaccard = {"model.onnx": 80.0, "model.int8.onnx": 79.5, "model.int8-tuned.onnx": 79.9}

    def scores(path):
        return {"jaccard": jaccard.get(path.name, 80.0), "efficiency": 50.0}

    def forms(**changes):
        tuning = Tuning(network=network, config=config, minutes=5, steps=15, progress=False, **changes)
        return {row["form"]: row for row in quantize(folder, scores=scores, tuning=tuning, **QUIET)}

    assert "int8-tuned" in forms(above=0.4)
    assert (folder / "model.int8-tuned.onnx").is_file()
    rows = forms()  # loses half a point, less than one
    assert "int8-tuned" not in rows
    assert not (folder / "model.int8-tuned.onnx").exists()
    jaccard["model.int8.onnx"] = 78.5
    rows = forms()
    assert rows["int8"]["jaccard_lost"] == pytest.approx(1.5)
    assert rows["int8-tuned"]["jaccard_lost"] == pytest.approx(0.1)
    assert json.loads((folder / "quantized.json").read_text())[2]["tuning_steps"] == 15


def test_ctrl_c_leaves_nothing_half_written(fid, monkeypatch):
    network, folder = fid
    config = resolve_config("fid_storm", recipe="epfl-2d", **SMALL)
    (folder / "model.int8-tuned.onnx").unlink(missing_ok=True)

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", stop)
    tuning = Tuning(network=network, config=config, minutes=5, progress=False)
    with pytest.raises(KeyboardInterrupt):
        quantize(folder, tuning=tuning, **QUIET)
    left = {path.name for path in folder.iterdir()} - {"quantized.json"}
    forms = {f"model.{form}.onnx" for form in ("int8", "float16", "bfloat16")}
    assert left == forms | {"model.onnx", "card.json", "localize.py", "static.onnx"}


def test_several_models_make_one_table(monkeypatch, capsys):
    from harness.cli import main
    from harness.cli.quantize_ import Quantize

    plain = {"form": "float32", "ms": 8.0, "bytes": 4_000_000, "speed": 1.0, "jaccard": 80.0, "efficiency": 70.0}
    small = {"form": "int8", "ms": 4.0, "bytes": 1_000_000, "speed": 2.0, "jaccard": 79.5, "efficiency": 69.0}

    def quantized(command, name, *, among_others=False):
        if name == "b":
            raise ValueError("no convolutions")
        return name, [plain, {**small, "jaccard_lost": 0.5}, {**plain, "form": "float16", "jaccard_lost": 0.0}]

    monkeypatch.setattr(Quantize, "_quantized", quantized)
    assert main(["quantize", "a", "b", "c"]) == 1
    shown = capsys.readouterr()
    rows = [line.split("│") for line in shown.out.splitlines() if "│" in line]
    assert [row[1].strip() for row in rows] == ["a", "c"]
    assert [cell.strip() for cell in rows[0][3:-1]] == [
        *("8.00", "4.00", "2.00x", "4.000", "1.000", "0.25", "80.0 -> 79.5", "+0.5", "70.0 -> 69.0")
    ]
    assert "b was left out: no convolutions" in shown.err
    assert main(["quantize"]) == 2
    assert "no model named" in capsys.readouterr().err
