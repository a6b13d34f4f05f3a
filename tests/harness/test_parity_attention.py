"""Parity of the attention U-Net: the checker passes on the originals' files, on restated networks of other widths,
and notices what is wrong."""

import functools
import json
import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import zoo
from harness.parity import run_parity
from harness.parity.attention_checks import original_names, recipe_tensor, recipe_tensors
from zoo._originals import LAYOUTS

FOLDER = "attention_unet"
V2 = next(layout for layout in LAYOUTS if layout.name == "attention_unet_v2")
FILES = ("activations", "extraction", "forward_v1_h8", "forward_v2_h16", "forward_v2_h16_more", "loss", "train_steps")


def at(reference, name):
    path = reference / FOLDER / name
    if not path.is_file():
        pytest.skip(f"no {FOLDER}/{name} in the reference folder")
    return path


def off(rows):
    return [row for row in rows if row.status != "equal"]


@functools.cache
def rows_of(path):
    return run_parity(path, sizes=())


@pytest.mark.parity
@pytest.mark.parametrize("name", FILES)
def test_our_program_equals_the_original(reference, name):
    rows = rows_of(at(reference, f"{name}.npz"))
    assert len(rows) > 1
    assert off(rows) == []


@pytest.mark.parity
def test_stages_and_steps_are_compared_too(reference):
    items = {row.item for row in rows_of(at(reference, "forward_v2_h16.npz"))}
    assert {"norm", "unet", "mha", "unet2", "logits"} <= items
    items = {row.item for row in rows_of(at(reference, "train_steps.npz"))}
    assert any(item.startswith("gradient norms of step 0, 97") for item in items)
    assert "location loss of 6 steps" in items
    assert "param_sum_after_6: weights" in items


@pytest.mark.parity
@pytest.mark.slow
def test_the_full_width_by_its_recipe_and_every_exported_graph(reference):
    rows = run_parity(at(reference, "forward_v2_h96_recipe.npz").parent)
    assert [row for row in rows if row.status == "off"] == []
    files = {row.file for row in rows if "ONNX" in row.item or row.item.startswith("graph")}
    assert files == {f"forward_{n}.npz" for n in ("v1_h8", "v2_h16", "v2_h16_more", "v2_h96_recipe")}
    assert any(row.item == "130 tensors of recipe_checksums_h96.json" for row in rows)


def copied(reference, tmp_path, *names):
    for name in names:
        shutil.copy(at(reference, name), tmp_path / name)
        (tmp_path / name).chmod(0o644)
    return tmp_path


def changed(path, key, change):
    arrays = dict(np.load(path))
    arrays[key] = change(arrays[key].copy())
    np.savez(path, **arrays)


def bump(index, amount):
    def change(array):
        array[index] += amount
        return array

    return change


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "more", "key", "change", "item"),
    [
        ("forward_v1_h8", ["v1_h8.safetensors"], "out", bump((3, 2, 5, 5), 1e-3), "out (torch) channels 0-8"),
        ("forward_v2_h16", ["v2_h16.safetensors"], "mha", bump((0, 0, 0, 0), 0.01), "mha"),
        ("forward_v2_h16", ["v2_h16.safetensors"], "out", bump((0, 9, 0, 0), 0.01), "out (torch) background"),
        ("activations", [], "v2_out", bump((0, 6, 0, 0), 1e-3), "v2_out"),
        ("loss", [], "a_loc_count_bg", bump(1, 1e-3), "a_loc_count_bg: count"),
        ("loss", [], "b_grad_output", bump((1, 2, 3, 3), 0.2), "b_grad_output"),
        ("loss", [], "a_gmmloss8_loc_count_bg", bump(0, 0.01), "a_gmmloss8_loc_count_bg: location"),
        ("loss", [], "a_truth_after", bump((0, 0, 2), 1e-3), "a_truth_after"),
        (
            "extraction",
            [],
            "interior_th0.7_frame_x_y_sigx_sigy_N_p",
            bump((5, 1), 1.0),
            "interior_th0.7_frame_x_y_sigx_sigy_N_p",
        ),
    ],
)
def test_a_wrong_number_is_off(reference, tmp_path, name, more, key, change, item):
    folder = copied(reference, tmp_path, f"{name}.npz", *more)
    changed(folder / f"{name}.npz", key, change)
    wrong = off(run_parity(folder, sizes=()))
    assert [row.item for row in wrong] == [item]
    assert wrong[0].status == "off"


@pytest.mark.parity
def test_wrong_figures_of_training_are_off(reference, tmp_path):
    folder = copied(reference, tmp_path, "train_steps.npz", "train_steps.json", "train_init_v2_h8.safetensors")
    changed(folder / "train_steps.npz", "out_step0", bump((0, 0, 0, 0), 1e-3))
    figures = json.loads((folder / "train_steps.json").read_text())
    figures["loss_total_loc_count_bg_per_step"][5][3] *= 1.0001
    figures["grad_norm_step0"]["unet.final.weight"] *= 1.01
    figures["param_sum_after_6"]["unet.final.bias"][1] += 8 * 6 * 4e-4
    (folder / "train_steps.json").write_text(json.dumps(figures))
    rows = run_parity(folder, sizes=())
    assert {row.item for row in off(rows)} == {
        "out_step0 (train_init_v2_h8.safetensors) channels 0-8",
        "background loss of 6 steps",
        "gradient norms of step 0, 97 tensors",
        "param_sum_after_6: weights",
    }
    assert len(rows) == 9


@pytest.mark.parity
def test_a_wrong_weight_is_off(reference, tmp_path):
    folder = copied(reference, tmp_path, "forward_v2_h16.npz", "v2_h16.safetensors")
    tensors = load_file(folder / "v2_h16.safetensors")
    tensors["mha.groupnorm.weight"] *= 1.01
    save_file(tensors, folder / "v2_h16.safetensors")
    rows = run_parity(folder, sizes=())
    assert {row.item for row in rows if row.status == "equal"} == {"norm", "unet"}


@pytest.mark.parity
def test_weights_start_as_published(reference):
    """Mean, deviation and extremes of each tensor, as wide as two random draws of its size may differ."""
    table = at(reference, "init_stats_v2_h96.csv")
    torch.manual_seed(5)
    core = zoo.create_model("attention_unet", width=96).core
    names = original_names("attention_unet_v2", core)
    state = {names[key]: value for key, value in core.state_dict().items() if key in names}
    for line in table.read_text().splitlines()[1:]:
        key, shape, mean, deviation, *_ = line.split(",")
        if key.endswith(("num_batches_tracked", ".pe")):
            continue
        ours, count = state[key].double(), state[key].numel()
        assert "x".join(map(str, ours.shape)) == shape, key
        mean, deviation = float(mean), float(deviation)
        if (deviation == 0 and count > 1) or key in ("final.0.out_conv.bias", "final.3.first.0.bias"):
            assert torch.allclose(ours, torch.tensor(mean, dtype=torch.float64), atol=1e-6), key
        elif count >= 90:
            assert ours.std().item() == pytest.approx(deviation, rel=6 / math.sqrt(2 * count)), key
            assert abs(ours.mean().item() - mean) < 6 * deviation * math.sqrt(2 / count), key


# --------------------------------------------------------------- the network restated from the tables, other widths


def restated(t, frames):
    """AttentionUNetV2 of the original's tensors, step by step: (T, 1, H, W) -> (T, 10, H, W)."""

    def norm(x, key):
        return F.batch_norm(x, *(t[f"{key}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")), eps=1e-5)

    def double(x, key):
        for conv, bn in ((0, 1), (3, 4)):
            x = F.relu(norm(F.conv2d(x, t[f"{key}.{conv}.weight"], padding=1), f"{key}.{bn}"))
        return x

    def up(skip, x, key):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        dy, dx = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        x = F.pad(x, (dx // 2, dx - dx // 2, dy // 2, dy - dy // 2))
        return double(torch.cat([skip, x], 1), key)

    def unet(x, key):
        skip0 = F.conv2d(x, t[f"{key}.initial_conv.weight"], t[f"{key}.initial_conv.bias"])
        skip1 = double(F.max_pool2d(skip0, 2), f"{key}.d_path.0.maxpool_conv.1.double_conv")
        x = double(F.max_pool2d(skip1, 2), f"{key}.d_path.1.maxpool_conv.1.double_conv")
        x = up(skip1, x, f"{key}.u_path.0.conv.double_conv")
        x = up(skip0, x, f"{key}.u_path.1.conv.double_conv")
        return F.conv2d(x, t[f"{key}.final.weight"], t[f"{key}.final.bias"])

    def linear(y, key):
        return F.linear(y, t[f"{key}.weight"], t[f"{key}.bias"])

    x = unet((frames - frames.mean()) / frames.std(), "unet")
    count, width, height, columns = x.shape
    y = F.group_norm(x, 8, t["mha.groupnorm.weight"], t["mha.groupnorm.bias"], eps=1e-6)
    y = F.conv2d(y, t["mha.conv_input.weight"], t["mha.conv_input.bias"])
    y = y.permute(2, 3, 0, 1).reshape(-1, count, width)
    place, index = torch.arange(count)[:, None], torch.arange(0, width, 2)
    angle = place * torch.exp(index * (-math.log(10000.0) / width))
    y = y + torch.stack([angle.sin(), angle.cos()], -1).reshape(count, width)
    n = F.layer_norm(y, (width,), t["mha.mha.norm.weight"], t["mha.mha.norm.bias"])
    inner, shift = t["mha.mha.mha.in_proj_weight"].chunk(3), t["mha.mha.mha.in_proj_bias"].chunk(3)
    q, k, v = (F.linear(linear(n, f"mha.mha.{name}"), inner[i], shift[i]) for i, name in enumerate("qkv"))
    q, k, v = (part.reshape(-1, count, 8, width // 8).transpose(1, 2) for part in (q, k, v))
    share = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(width / 8), -1)
    y = y + linear((share @ v).transpose(1, 2).reshape(-1, count, width), "mha.mha.mha.out_proj")
    z = F.layer_norm(y, (width,), t["mha.mlp.layernorm.weight"], t["mha.mlp.layernorm.bias"])
    y = y + linear(linear(z, "mha.mlp.lin1") * F.gelu(linear(y, "mha.mlp.lin2")), "mha.mlp.lin3")
    y = y.reshape(height, columns, count, width).permute(2, 3, 0, 1)
    x = unet(x + F.conv2d(y, t["mha.conv_output.weight"], t["mha.conv_output.bias"]), "unet2")
    parts = []
    for head in range(4):
        wide = F.conv2d(x, t[f"final.{head}.first.0.weight"], t[f"final.{head}.first.0.bias"], padding=1)
        parts.append(F.conv2d(F.leaky_relu(wide), *(t[f"final.{head}.out_conv.{k}"] for k in ("weight", "bias"))))
    o = torch.cat(parts, 1)
    p, one, mean, sigma, light = o.split((1, 1, 3, 4, 1), 1)
    p = torch.sigmoid(p.clamp(-8, 8))
    return torch.cat([p, torch.sigmoid(one), torch.tanh(mean), 3 * torch.sigmoid(sigma) + 0.001, light], 1)


def frames_of(*shape, seed=3):
    return torch.from_numpy(np.random.default_rng(seed).gamma(4.0, 50.0, shape).astype(np.float32))


@pytest.mark.parametrize(("width", "shape"), [(8, (5, 1, 13, 10)), (24, (3, 1, 8, 12))])
def test_other_widths_sizes_and_seeds_are_recognised(tmp_path, width, shape):
    tensors = recipe_tensors(V2, width=width, salt=7)
    frames = frames_of(*shape)
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "v2_mine.safetensors")
    np.savez(tmp_path / "forward_v2_mine.npz", input=frames.numpy(), out=restated(tensors, frames).numpy())
    rows = run_parity(tmp_path, sizes=())
    assert off(rows) == []
    assert len(rows) == 2


def test_a_recipe_takes_its_width_from_the_name_and_its_salt_from_the_folder(tmp_path):
    frames = frames_of(4, 1, 8, 8)
    expected = restated(recipe_tensors(V2, width=8, salt=55), frames)
    np.savez(tmp_path / "forward_v2_h8_recipe.npz", input=frames.numpy(), out=expected.numpy())
    rows = run_parity(tmp_path, sizes=())
    assert [row.status for row in rows] == ["not covered"]
    assert "generation.json" in rows[0].note
    (tmp_path / "generation.json").write_text('{"seed": 55}')
    sums = {"final.0.out_conv.bias": [0.0, 0.0]}
    (tmp_path / "recipe_checksums_h8.json").write_text(json.dumps(sums))
    states = {row.item: row.status for row in run_parity(tmp_path, sizes=())}
    assert states.pop("1 tensors of recipe_checksums_h8.json") == "off"
    assert set(states.values()) == {"equal"}
    (tmp_path / "generation.json").write_text('{"seed": 56}')
    assert "equal" not in {row.status for row in run_parity(tmp_path / "forward_v2_h8_recipe.npz", sizes=())}


def test_the_recipe_is_its_formula():
    """Element 5 of a kernel, by whole numbers."""
    import zlib

    a = (5 * 2654435761 + zlib.crc32(b"unet.final.weight") + 101) % 2**32
    a ^= a >> 16
    a = a * 0x85EBCA6B % 2**32
    a ^= a >> 13
    a = a * 0xC2B2AE35 % 2**32
    a ^= a >> 16
    u = 2 * a / 2**32 - 1
    kernel = recipe_tensor("unet.final.weight", (4, 3, 1, 1), 101).flatten()
    assert kernel[5].item() == pytest.approx(u * math.sqrt(3 / 3), rel=1e-6)
    assert recipe_tensor("a.running_var", (200,), 1).mean().item() == pytest.approx(1, abs=0.05)


def test_weights_of_another_network_are_refused(tmp_path):
    frames = frames_of(2, 1, 8, 8)
    save_file({"strange.weight": torch.zeros(2)}, tmp_path / "v2_a.safetensors")
    np.savez(tmp_path / "forward_v2_a.npz", input=frames.numpy(), out=np.zeros((2, 10, 8, 8), np.float32))
    rows = run_parity(tmp_path, sizes=())
    assert [row.status for row in rows] == ["off"]
    assert "no known original" in rows[0].note
