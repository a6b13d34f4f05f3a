"""`smlm-zoo import` of the attention U-Net's checkpoints."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import zoo
from harness.import_weights import import_weights
from harness.parity.attention_checks import recipe_tensors
from zoo._originals import LAYOUTS

LAYOUT = {layout.name: layout for layout in LAYOUTS}


def tensors_of(form, width=8):
    return recipe_tensors(LAYOUT[f"attention_unet_{form}"], width=width, salt=3)


def checkpoint(tensors):
    """What the original's trainer writes: weights beside the optimiser's and the losses."""
    counters = {"unet.d_path.0.maxpool_conv.1.double_conv.1.num_batches_tracked": torch.tensor(600)}
    return {
        "epoch": 12,
        "model_state_dict": tensors | counters,
        "optimizer_state_dict": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 4e-4}]},
        "loss": [[1.0, np.float64(2.0)]],
        "optimizer_params": {"lr": 4e-4},
        "training_time": 12.5,
    }


def test_a_checkpoint_becomes_a_model_that_runs(tmp_path):
    tensors = tensors_of("v2", width=16)
    torch.save(checkpoint(tensors), tmp_path / "AttentionUNetV2.pt")
    report = import_weights(tmp_path / "AttentionUNetV2.pt", output=tmp_path / "out")
    assert (report.model, report.layout, dict(report.options)["width"]) == ("attention_unet", "attention_unet_v2", 16)
    assert len(report.copied) == len(tensors)
    assert len(report.skipped) == 1
    model, card = zoo.load_model(tmp_path / "out")
    assert torch.equal(model.core.time.attention.key.bias, tensors["mha.mha.k.bias"])
    assert torch.equal(model.core.first.up2[3].weight, tensors["unet.u_path.1.conv.double_conv.3.weight"])
    assert torch.equal(model.core.heads.wide[1].weight, tensors["final.1.first.0.weight"])  # holds channel 1
    assert model.normalisation.mode == "block"
    assert model.output.reference_px == (1.0, 1.0)
    assert model.output.rule == "plus"
    assert model.output.background_scale == 0.25
    assert card["threshold"] == 0.7
    frames = 100 + 30 * torch.randn(1, 3, 9, 10, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = model(frames)
    found = model.output.decode(maps[0], threshold=0.1, pixel_size_nm=100)
    assert len(found)
    assert np.isnan(found.photons).all()  # relative brightness is no number of photons
    assert "photons_scale" in str(report)
    assert "block_min_max" in str(report)
    assert "positions from (1, 1) camera pixels" in str(report)


def test_positions_are_those_of_the_program_in_our_coordinates(tmp_path):
    """Theirs: 100 nm (index + 1/2 + offset) from the centre of the first pixel, rows first; ours from its corner."""
    save_file(tensors_of("v2"), tmp_path / "a.safetensors")
    import_weights(tmp_path / "a.safetensors", output=tmp_path / "out")
    model, _ = zoo.load_model(tmp_path / "out")
    maps = torch.zeros(1, 10, 12, 12)
    maps[0, 0, 4, 7], maps[0, 2, 4, 7], maps[0, 3, 4, 7] = 0.9, -0.4, -0.6  # row, then column offset
    maps[0, 5, 4, 7], maps[0, 6, 4, 7] = 0.1, 0.2
    found = model.output.decode(maps, threshold=0.7, pixel_size_nm=100)
    row_from_centre, column_from_centre = 100 * (4 + 0.5 - 0.4), 100 * (7 + 0.5 - 0.6)
    assert found.y_nm[0] == pytest.approx(row_from_centre + 50, abs=1e-3)
    assert found.x_nm[0] == pytest.approx(column_from_centre + 50, abs=1e-3)
    assert (found.y_sigma_nm[0], found.x_sigma_nm[0]) == pytest.approx((10, 20), abs=1e-3)


def test_v1_drops_what_the_original_never_uses(tmp_path):
    unused = {f"decoder.{part}.norm.weight": torch.ones(32) for part in ("mha2", "mlp2")}
    save_file(tensors_of("v1") | unused, tmp_path / "a.safetensors")
    report = import_weights(tmp_path / "a.safetensors", output=tmp_path / "out")
    assert report.model == "attention_unet_v1"
    assert set(report.dead) == set(unused)
    model, card = zoo.load_model(tmp_path / "out")
    assert model.normalisation.mode == card["normalisation"]["mode"] == "block_max"


def test_what_the_file_does_not_tell_can_be_given(tmp_path):
    save_file(tensors_of("v2"), tmp_path / "a.safetensors")
    options = {
        "photons_scale": 4000,
        "background_scale": 1.0,
        "reference_px": [0.5, 0.5],
        "threshold": 0.55,
        "normalisation": "block_min_max",
    }
    report = import_weights(tmp_path / "a.safetensors", output=tmp_path / "out", options=options)
    assert report.warnings == ()
    model, card = zoo.load_model(tmp_path / "out")
    assert model.output.channels == zoo.get_spec("attention_unet").output.channels
    assert (model.output.photons_scale, model.output.background_scale) == (4000.0, 1.0)
    assert model.output.reference_px == (0.5, 0.5)
    assert model.normalisation.mode == "block_min_max"
    assert card["threshold"] == 0.55
    with pytest.raises(TypeError, match="offset_px"):
        import_weights(tmp_path / "a.safetensors", output=tmp_path / "b", options={"offset_px": 0.0})


def test_a_tensor_that_does_not_fit_is_named(tmp_path):
    tensors = tensors_of("v2")
    tensors["mha.mlp.lin1.weight"] = torch.zeros(16, 9)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"mha\.mlp\.lin1\.weight.*\(16, 9\)"):
        import_weights(tmp_path / "a.safetensors", output=tmp_path / "out")
