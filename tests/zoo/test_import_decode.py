"""DECODE's state dicts become runnable models with the program's scaling, axes and z sign."""

import numpy as np
import pytest
import torch

import zoo
from harness.import_weights import import_weights

SCALING = {
    "mean": 90.0,
    "std": 30.0,
    "photons_scale": 12000.0,
    "background_scale": 150.0,
    "z_scale_nm": -800.0,
    "threshold": 0.3,
}


@pytest.fixture
def imported(reference, tmp_path):
    path = reference / "decode" / "net_3frame.safetensors"
    report = import_weights(path, output=tmp_path / "model", options=SCALING)
    assert report.dead == ("sigma_eps",)
    return zoo.load_model(tmp_path / "model")


def test_frames_are_scaled_as_the_program_does(imported, reference):
    network, card = imported
    assert card["threshold"] == 0.3
    io = np.load(reference / "decode" / "net_3frame_io.npz")
    with torch.no_grad():
        maps = network(torch.from_numpy(io["x_a"]) * 30.0 + 90.0)[:, 0]
    np.testing.assert_allclose(maps.numpy(), io["y_a"], atol=2e-5)


def test_positions_come_in_our_axes(imported):
    network, _ = imported
    output = network.output
    assert output.rule == "program"
    maps = torch.zeros(1, 10, 8, 8)
    maps[0, 0, 2, 5] = 0.9
    maps[0, 1:5, 2, 5] = torch.tensor([0.5, 0.25, -0.25, 0.1])  # photons, their x (rows), y (columns), z
    found = output.decode(maps, threshold=0.3, pixel_size_nm=100.0)
    assert found.y_nm[0] == pytest.approx(275.0)
    assert found.x_nm[0] == pytest.approx(525.0)
    assert found.z_nm[0] == pytest.approx(-80.0)
    assert found.photons[0] == pytest.approx(6000.0)


def test_what_the_file_does_not_hold_is_said(reference, tmp_path):
    report = import_weights(reference / "decode" / "net_1frame.safetensors", output=tmp_path / "model")
    assert report.options["frames"] == 1
    assert any("param_run.yaml" in text for text in report.warnings)
