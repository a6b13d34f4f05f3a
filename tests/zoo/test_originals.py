"""Readers of foreign weight files: they read what is there and run nothing."""

import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import h5py
import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save_model
from safetensors.torch import save_file
from torch import nn

import zoo
from zoo._originals import LAYOUTS, OriginalFileError, fill, read_original, recognise, translate


def fid_tensors(n_blocks: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors under the names of FID-STORM's published pickle, dead ones included."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return 0.1 * torch.randn(*shape, generator=rng)

    tensors = {"first_part.0.weight": draw(64, 1, 3, 3)}
    for i in range(n_blocks):
        tensors[f"resBlocks.{i}.conv.weight"] = draw(64, 64, 3, 3)
        tensors |= {f"resBlocks.{i}.norm_layer.{name}": draw(64) for name in ("weight", "bias", "running_mean")}
        tensors[f"resBlocks.{i}.norm_layer.running_var"] = 1 + draw(64).abs()
        tensors[f"resBlocks.{i}.norm_layer.num_batches_tracked"] = torch.tensor(7)
    widths = (64, 32, 16, 1)
    for i in range(3):
        tensors[f"convup{i + 1}.weight"] = draw(widths[i + 1], widths[i], 3, 3)
    tensors["last_part.0.weight"] = draw(64, 64, 3, 3)
    tensors["normlayerUp1.weight"] = draw(32)
    return tensors


class Branch(nn.Module):
    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


def fid_module(tensors, activation) -> nn.Module:
    """A module whose state dict is `tensors`, of classes that live in a module of another program."""
    foreign = types.ModuleType("somebodys_program")
    foreign.Branch = type("Branch", (Branch,), {"__module__": "somebodys_program"})
    sys.modules["somebodys_program"] = foreign
    count = sum(name.endswith("conv.weight") for name in tensors)
    blocks = [
        foreign.Branch(conv=nn.Conv2d(64, 64, 3, bias=False), norm_layer=nn.BatchNorm2d(64), activation=activation())
        for _ in range(count)
    ]
    module = foreign.Branch(
        first_part=nn.Sequential(nn.Conv2d(1, 64, 3, bias=False)),
        resBlocks=nn.Sequential(*blocks),
        convup1=nn.Conv2d(64, 32, 3, bias=False),
        convup2=nn.Conv2d(32, 16, 3, bias=False),
        convup3=nn.Conv2d(16, 1, 3, bias=False),
    )
    module.load_state_dict({name: t for name, t in tensors.items() if "last_part" not in name and "Up1." not in name})
    return module


@pytest.fixture
def no_foreign_module():
    yield
    sys.modules.pop("somebodys_program", None)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickled_module_is_read_without_its_classes(tmp_path, zipped, no_foreign_module):
    tensors = fid_tensors()
    path = tmp_path / "best.pkl"
    torch.save(fid_module(tensors, nn.ReLU), path, _use_new_zipfile_serialization=zipped)
    del sys.modules["somebodys_program"]
    original = read_original(path)
    assert original.format == "torch"
    assert original.notes == {"body_activation": "relu"}
    expected = {name: t for name, t in tensors.items() if "last_part" not in name and "Up1." not in name}
    assert set(original.tensors) == set(expected)
    assert all(torch.equal(original.tensors[name], value) for name, value in expected.items())
    assert translate(original).options == {"n_blocks": 3, "body_activation": "relu"}
    assert "somebodys_program" not in sys.modules


def test_a_state_dict_is_found_inside_a_checkpoint(tmp_path):
    tensors = fid_tensors()
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": t for name, t in tensors.items()}}, path)
    layout, options, found = recognise(read_original(path))
    assert (layout.name, options["n_blocks"]) == ("fidstorm", 3)
    assert set(found) == set(tensors)


class Bomb:
    """An object whose unpickling would run a command."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_a_hostile_pickle_is_not_run(tmp_path, form):
    mark, path = tmp_path / "ran", tmp_path / "evil.pth"
    content = OrderedDict(weight=torch.zeros(3), trap=Bomb(mark))
    if form == "plain":
        path.write_bytes(pickle.dumps(Bomb(mark)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    try:
        tensors = dict(read_original(path).tensors)
    except OriginalFileError:
        tensors = {}
    assert not mark.exists()
    assert "trap" not in tensors


def test_a_pickled_call_to_getattr_and_eval_stays_inert(tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "evil.pth"
    code = f"cbuiltins\neval\n(V__import__('pathlib').Path({str(mark)!r}).touch()\ntR."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", code)
    with pytest.raises(OriginalFileError):
        read_original(path)
    assert not mark.exists()


def test_a_tensor_that_reaches_past_its_data_is_refused(tmp_path):
    whole, cut = tmp_path / "whole.pth", tmp_path / "cut.pth"
    module = Branch(conv=nn.Conv2d(4, 4, 3))
    torch.save(module, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(cut, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            target.writestr(entry.filename, content[:8] if "/data/" in entry.filename else content)
    assert set(read_original(whole).tensors) == {"conv.weight", "conv.bias"}
    with pytest.raises(OriginalFileError, match="past its data block"):
        read_original(cut)


@pytest.mark.parametrize("size", [0, 5, 100, 3000])
def test_damaged_files_are_refused_with_their_name(tmp_path, size):
    torch.save(fid_tensors(1), tmp_path / "a.pth")
    save_file(fid_tensors(1), tmp_path / "a.safetensors")
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["model_weights/conv-CNNF1/conv-CNNF1/kernel:0"] = np.zeros((3, 3, 1, 32), np.float32)
    for name in ("a.pth", "a.safetensors", "a.hdf5"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(OriginalFileError, match=name):
            read_original(path)


def test_nan_weights_are_refused(tmp_path):
    tensors = fid_tensors(1)
    tensors["convup3.weight"][0, 0, 0, 0] = float("nan")
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(OriginalFileError, match=r"convup3.weight.*not finite"):
        read_original(tmp_path / "a.safetensors")


def onnx_graph(path, tensors, activation, *, external=False):
    """FID-STORM's graph with the norms folded: only what an importer looks at."""
    nodes, initialisers, last = [], [], "frames"
    body = sorted({name.split(".")[1] for name in tensors if name.startswith("body.")}, key=int)
    steps = ["first", *(f"body.{i}" for i in body), "convup1", "convup2", "convup3"]
    for number, step in enumerate(steps):
        inputs = [last, f"w{number}"]
        initialisers.append(numpy_helper.from_array(tensors[f"{step}.weight"].numpy(), f"w{number}"))
        if f"{step}.bias" in tensors:
            inputs.append(f"b{number}")
            initialisers.append(numpy_helper.from_array(tensors[f"{step}.bias"].numpy(), f"b{number}"))
        kind = activation if step.startswith("body") else "LeakyRelu"
        nodes.append(helper.make_node("Conv", inputs, [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node(kind, [f"c{number}"], [f"a{number}"]))
        last = f"a{number}"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "fid",
        [value("frames", TensorProto.FLOAT, [1, 1, 64, 64])],
        [value(last, TensorProto.FLOAT, None)],
        initialisers,
    )
    save_model(helper.make_model(graph), str(path), save_as_external_data=external, size_threshold=0)


def folded_tensors(n_blocks: int) -> dict[str, torch.Tensor]:
    plain = fid_tensors(n_blocks)
    tensors = {"first.weight": plain["first_part.0.weight"]}
    for i in range(n_blocks):
        tensors[f"body.{i}.weight"] = plain[f"resBlocks.{i}.conv.weight"]
        tensors[f"body.{i}.bias"] = plain[f"resBlocks.{i}.norm_layer.bias"]
    return tensors | {f"convup{i}.weight": plain[f"convup{i}.weight"] for i in (1, 2, 3)}


@pytest.mark.parametrize(("activation", "ours"), [("Relu", "relu"), ("LeakyRelu", "leaky_relu")])
def test_onnx_initialisers_are_read_in_graph_order(tmp_path, activation, ours):
    tensors = folded_tensors(6)
    onnx_graph(tmp_path / "fid.onnx", tensors, activation)
    original = read_original(tmp_path / "fid.onnx")
    assert original.format == "onnx"
    assert all(torch.equal(original.tensors[name], value) for name, value in tensors.items())
    translation = translate(original)
    assert translation.options == {"n_blocks": 6, "folded": True, "body_activation": ours}
    assert not translation.guessed


def test_onnx_with_data_in_another_file_is_refused(tmp_path):
    onnx_graph(tmp_path / "fid.onnx", folded_tensors(2), "Relu", external=True)
    with pytest.raises(OriginalFileError, match="another file"):
        read_original(tmp_path / "fid.onnx")


def test_keras_kernels_are_turned_and_links_are_not_followed(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 5, 7)).astype(np.float32)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones(4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["model_weights/conv-CNNF1/conv-CNNF1/kernel:0"] = kernel
        file["model_weights/elsewhere"] = h5py.ExternalLink("other.h5", "/secret")
    tensors = read_original(tmp_path / "a.h5").tensors
    assert set(tensors) == {"conv-CNNF1/kernel"}
    assert np.array_equal(tensors["conv-CNNF1/kernel"].numpy(), kernel.transpose(3, 2, 0, 1))


def test_fill_names_tensor_and_shapes_and_changes_nothing(tmp_path):
    tensors = fid_tensors(2)
    tensors["convup2.weight"] = torch.zeros(16, 30, 3, 3)
    save_file(tensors, tmp_path / "a.safetensors")
    translation = translate(read_original(tmp_path / "a.safetensors"))
    core = zoo.create_model("fid_storm", **translation.options).core
    before = {name: t.clone() for name, t in core.state_dict().items()}
    with pytest.raises(OriginalFileError, match=r"convup2.weight.*\(16, 30, 3, 3\).*\(16, 32, 3, 3\)"):
        fill(core, translation, file="a.safetensors")
    assert all(torch.equal(before[name], t) for name, t in core.state_dict().items())


def translate_and_fill(path):
    translation = translate(read_original(path))
    fill(zoo.create_model("fid_storm", **translation.options).core, translation, file=path.name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("convup3.weight"), "nothing in the file for our 'up3.conv.weight'"),
        (lambda t: t.update({"stranger.weight": torch.zeros(1)}), "stranger.weight"),
        (lambda t: t.pop("resBlocks.0.conv.weight"), "no known original"),
        (lambda t: t["resBlocks.1.norm_layer.running_var"].fill_(-1), "variance is negative"),
    ],
    ids=["missing", "unknown", "gap", "variance"],
)
def test_files_that_do_not_fit_are_refused(tmp_path, change, message):
    tensors = fid_tensors(2)
    change(tensors)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(OriginalFileError, match=message):
        translate_and_fill(tmp_path / "a.safetensors")


def test_every_reference_weight_file_is_recognised_and_used_up(reference):
    files = sorted(reference.glob("*.safetensors")) + sorted(reference.glob("*.hdf5"))
    if not files:
        pytest.skip("no weight files in the reference folder")
    for path in files:
        original = read_original(path)
        translation = translate(original)
        used = len(translation.copied) + len(translation.dead) + len(translation.skipped)
        assert used == len(original.tensors), path.name
        core = zoo.create_model(translation.layout.model, **translation.options).core
        fill(core, translation, file=path.name)


def test_layout_names_are_unique_and_their_models_exist():
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS)
    assert {layout.model for layout in LAYOUTS} <= set(zoo.list_models())
