"""The parity checker: our program equals the originals, and the checker notices when it does not."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import harness.parity as parity
from harness.parity import Row, exit_status, run_parity
from harness.parity.loss_checks import parse_key
from losses import create_loss

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
FILES = sorted(path.name for path in REFERENCE.glob("*.npz")) or ["none"]


@pytest.mark.parity
@pytest.mark.parametrize("name", FILES)
def test_our_program_equals_the_original(reference, name):
    rows = run_parity(reference / name, sizes=())
    assert any(row.status == "equal" for row in rows), rows
    assert [row for row in rows if row.status != "equal"] == []


@pytest.mark.parity
@pytest.mark.parametrize("name", ["fidstorm_onnx5_io.npz", "dsir_published_io.npz"])
def test_the_shipped_graph_equals_our_network(reference, name):
    if not (reference / name).is_file():
        pytest.skip(f"no {name} in the reference folder")
    rows = [row for row in run_parity(reference / name) if row.item.startswith("shipped graph")]
    shapes = {f"shipped graph {size} batch {n}" for size in ("24x40", "33x57", "64x64") for n in (1, 5)}
    assert {row.item for row in rows} == shapes
    assert [row for row in rows if row.status != "equal"] == []


@pytest.mark.parity
@pytest.mark.slow
def test_the_whole_reference_folder_passes_strictly(reference):
    rows = run_parity(reference)
    assert exit_status(rows, strict=True) == 0, [row for row in rows if row.status != "equal"]


# ------------------------------------------------------ networks restated from the layer tables, other sizes


def folded_fid(n_blocks, seed, activation):
    """FID-STORM's folded form, restated: tensors, and its function."""
    rng = torch.Generator().manual_seed(seed)
    shapes = {"first": (64, 1), **{f"body.{i}": (64, 64) for i in range(n_blocks)}}
    shapes |= {"convup1": (32, 64), "convup2": (16, 32), "convup3": (1, 16)}
    tensors = {}
    for name, (out, into) in shapes.items():
        tensors[f"{name}.weight"] = torch.randn(out, into, 3, 3, generator=rng) * (2 / (9 * into)) ** 0.5
        if name.startswith("body"):
            tensors[f"{name}.bias"] = 0.1 * torch.randn(out, generator=rng)

    def run(x):
        s = x = F.leaky_relu(F.conv2d(x, tensors["first.weight"], padding=1), 0.01)
        for i in range(n_blocks):
            x = activation(F.conv2d(x, tensors[f"body.{i}.weight"], tensors[f"body.{i}.bias"], padding=1))
        x = s + x
        for i in (1, 2, 3):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu(F.conv2d(x, tensors[f"convup{i}.weight"], padding=1), 0.01)
        return x

    return tensors, run


def srcnn(seed):
    """DL4SMLM's SRCNN, restated."""
    rng = torch.Generator().manual_seed(seed)
    names = ("feature_representation", "non_linear_mapping", "reconstruction")
    tensors = {}
    for name, (out, into, kernel) in zip(names, ((64, 1, 3), (32, 64, 1), (1, 32, 3)), strict=True):
        tensors[f"{name}.0.weight"] = 0.2 * torch.randn(out, into, kernel, kernel, generator=rng)
        for key in ("0.bias", "1.weight", "1.bias", "1.running_mean"):
            tensors[f"{name}.{key}"] = torch.randn(out, generator=rng)
        tensors[f"{name}.1.running_var"] = 0.5 + torch.rand(out, generator=rng)

    def run(x):
        for name in names:
            t = {key: tensors[f"{name}.{key}"] for key in ("0.weight", "0.bias", "1.weight", "1.bias")}
            x = F.conv2d(x, t["0.weight"], t["0.bias"], padding=t["0.weight"].shape[-1] // 2)
            mean, var = tensors[f"{name}.1.running_mean"], tensors[f"{name}.1.running_var"]
            x = F.batch_norm(x, mean, var, t["1.weight"], t["1.bias"], eps=1e-5)
            x = x if name == "reconstruction" else F.relu(x)
        return x

    return tensors, run


def write_case(folder, stem, tensors, run, *shapes, **more):
    """NAME.safetensors and NAME_io.npz with one pair (input, output) or several (input1, output1, ...)."""
    folder.mkdir(exist_ok=True)
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / f"{stem}.safetensors")
    rng = np.random.default_rng(3)
    arrays = dict(more)
    for number, shape in enumerate(shapes, start=1):
        suffix = "" if len(shapes) == 1 else str(number)
        frames = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
        arrays |= {f"input{suffix}": frames.numpy(), f"output{suffix}": run(frames).numpy()}
    np.savez(folder / f"{stem}_io.npz", **arrays)


def states(rows: list[Row]) -> dict[str, str]:
    return {row.item: row.status for row in rows}


def test_other_seeds_sizes_and_depths_are_recognised(tmp_path):
    write_case(tmp_path, "dl4smlm_srcnn_again", *srcnn(5), (1, 1, 20, 12), (3, 1, 8, 9))
    write_case(tmp_path, "fid_two", *folded_fid(2, 6, lambda x: F.leaky_relu(x, 0.01)), (1, 1, 9, 14))
    write_case(tmp_path, "fid_three_untold", *folded_fid(3, 8, F.relu), (2, 1, 8, 8))
    rows = run_parity(tmp_path, sizes=())
    assert {row.status for row in rows} == {"equal"}, [row for row in rows if row.status != "equal"]
    items = {(row.file, row.item) for row in rows}
    assert ("dl4smlm_srcnn_again_io.npz", "output2 (ONNX)") in items
    assert ("fid_two_io.npz", "output (torch)") in items
    assert exit_status(rows, strict=True) == 0


def test_a_perturbed_weight_is_off(tmp_path):
    write_case(tmp_path, "net", *srcnn(5), (1, 1, 20, 12))
    tensors = load_file(tmp_path / "net.safetensors")
    tensors["reconstruction.1.running_var"] *= 1.001
    save_file(tensors, tmp_path / "net.safetensors")
    rows = run_parity(tmp_path, sizes=())
    assert set(states(rows).values()) == {"off"}
    assert all(1e-4 < row.deviation < 1e-2 for row in rows)
    assert exit_status(rows) == 1


def test_weights_may_lie_elsewhere_and_missing_ones_are_said(tmp_path):
    write_case(tmp_path / "io", "net", *srcnn(5), (1, 1, 8, 8))
    (tmp_path / "weights").mkdir()
    (tmp_path / "io" / "net.safetensors").rename(tmp_path / "weights" / "net.safetensors")
    rows = run_parity(tmp_path / "io", sizes=())
    assert [row.status for row in rows] == ["not covered"]
    assert "net.safetensors" in rows[0].note
    assert exit_status(rows) == 1  # nothing was compared
    rows = run_parity(tmp_path / "io", weights=tmp_path / "weights", sizes=())
    assert states(rows) == {"output (torch)": "equal", "output (ONNX)": "equal"}


def test_shapes_that_do_not_fit_are_off_with_both_shapes(tmp_path):
    tensors, run = srcnn(5)
    write_case(tmp_path, "net", tensors, run, (1, 1, 8, 8))
    tensors["non_linear_mapping.0.weight"] = torch.zeros(32, 60, 1, 1)
    save_file(tensors, tmp_path / "net.safetensors")
    (row,) = run_parity(tmp_path, sizes=())
    assert row.status == "off"
    assert "(32, 60, 1, 1)" in row.note
    assert "(32, 64, 1, 1)" in row.note


def loss_arrays(**changed):
    target = np.zeros((2, 1, 12, 10), np.float32)
    target[0, 0, 4, 4] = target[1, 0, 9, 2] = 1
    prediction = np.random.default_rng(0).normal(size=target.shape).astype(np.float32)
    frames = torch.from_numpy(prediction).requires_grad_()
    value = create_loss("dl4smlm_mse", lambda_=12.5)(frames, torch.from_numpy(target))
    value.backward()
    key = "dl4smlm_weighted_mse__lambda12.5"
    arrays = {
        "pred": prediction,
        "target_spikes": target,
        f"loss__{key}": np.float64(value.item()),
        f"grad__{key}": frames.grad.numpy(),
    }
    return arrays | changed


def test_losses_of_other_parameters_pass_and_another_value_is_off(tmp_path):
    np.savez(tmp_path / "losses_more_io.npz", **loss_arrays())
    assert set(states(run_parity(tmp_path)).values()) == {"equal"}
    arrays = loss_arrays()
    key = "loss__dl4smlm_weighted_mse__lambda12.5"
    arrays[key] = arrays[key] * 1.0001
    np.savez(tmp_path / "losses_more_io.npz", **arrays)
    rows = run_parity(tmp_path)
    assert states(rows)[key] == "off"
    assert exit_status(rows) == 1


def test_unknown_losses_and_parameters_are_not_covered(tmp_path):
    extra = {"loss__brand_new__lambda1": 1.0, "loss__dsir_mse__shape_round": 1.0, "metric__psnr": 3.0}
    np.savez(tmp_path / "losses_io.npz", **loss_arrays(**extra))
    rows = run_parity(tmp_path)
    assert {item for item, status in states(rows).items() if status == "not covered"} == set(extra)
    assert exit_status(rows) == 0
    assert exit_status(rows, strict=True) == 1


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("loss__x_y__lambda50__alpha0.3", ("loss", "x_y", {"lambda": 50.0, "alpha": 0.3}, None)),
        (
            "grad__keras_deepstorm_l1l2__target46p9",
            ("grad", "keras_deepstorm_l1l2", {"target": 46.9}, "46p9"),
        ),
        ("loss__dsir_mse__width5_fwhm3", ("loss", "dsir_mse", {"width": 5.0, "fwhm": 3.0}, None)),
        ("loss__plain", ("loss", "plain", {}, None)),
    ],
)
def test_keys_tell_their_parameters(key, expected):
    assert parse_key(key) == expected


def test_hostile_and_damaged_files_are_off_and_run_nothing(tmp_path):
    mark = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return mark.touch, ()

    np.savez(tmp_path / "objects_io.npz", input=np.array([Bomb()], dtype=object))
    (tmp_path / "noise.npz").write_bytes(b"PK\x03\x04 not a zip")
    write_case(tmp_path, "net", *srcnn(5), (1, 1, 8, 8))
    whole = (tmp_path / "net_io.npz").read_bytes()
    (tmp_path / "net_io.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "table.csv").write_text("a,b\n")
    rows = {row.file: row for row in run_parity(tmp_path)}
    assert not mark.exists()
    assert {name: row.status for name, row in rows.items()} == {
        "objects_io.npz": "off",
        "noise.npz": "off",
        "net_io.npz": "off",
        "table.csv": "not covered",
    }


def test_an_empty_folder_compared_nothing(tmp_path, capsys):
    assert parity.print_parity(run_parity(tmp_path)) == 1
    assert "0 equal, 0 off, 0 not covered" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run_parity(tmp_path / "nowhere")


def test_nan_in_our_result_or_theirs_is_off():
    assert parity.compare("f", "i", [1.0, float("nan")], [1.0, 2.0], tolerance=1.0).status == "off"
    assert parity.compare("f", "i", [1.0, 2.0], [1.0, float("nan")], tolerance=1.0).status == "off"
    assert parity.compare("f", "i", [], [], tolerance=1.0).status == "off"
    assert parity.compare("f", "i", [1.0], [1.0, 1.0], tolerance=1.0).status == "off"


def test_a_new_kind_of_file_joins_by_registering(tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "KINDS", dict(parity.KINDS))
    np.savez(tmp_path / "sums.npz", terms=np.arange(4), total=6)
    assert states(run_parity(tmp_path)) == {"file": "not covered"}
    parity.register_kind(
        "sums",
        lambda case: "terms" in case.arrays,
        lambda case: [
            parity.compare(case.path.name, "total", case.arrays["terms"].sum(), case.arrays["total"], tolerance=0)
        ],
    )
    assert states(run_parity(tmp_path)) == {"total": "equal"}
    with pytest.raises(ValueError, match="registered already"):
        parity.register_kind("sums", lambda case: True, lambda case: [])
