"""An export folder finds the same on an emulated aarch64; tables are compared fairly."""

import numpy as np
import pytest
import tifffile
import torch

import zoo
from harness.emulation import CannotEmulate, agreement, compare_on, emulated, main
from harness.export import export_model
from harness.models import describe
from simulators import Localizations


def table(frame, x, y):
    columns = {"frame": np.asarray(frame), "x_nm": np.asarray(x, float), "y_nm": np.asarray(y, float)}
    return Localizations(**columns)


def test_rows_are_paired_within_their_frame():
    first = table([0, 0, 1], [100, 300, 100], [50, 50, 50])
    assert agreement(first, first).passed
    moved = table([0, 0, 1], [100.3, 300, 100], [50.4, 50, 50])
    assert agreement(first, moved).largest_nm == pytest.approx(0.5)
    assert agreement(first, moved).passed
    far = table([0, 0, 1], [100, 300, 101], [50, 50, 50])
    assert agreement(first, far).paired == 2
    assert not agreement(first, far).passed
    later = table([0, 0, 2], [100, 300, 100], [50, 50, 50])
    assert agreement(first, later).paired == 2
    twice = table([0, 0, 0, 1], [100, 100.1, 300, 100], [50, 50, 50, 50])
    assert agreement(first, twice).share == 3 / 4
    assert agreement(table([], [], []), table([], [], [])).passed
    assert not agreement(first, table([], [], [])).passed


def test_where_it_cannot_be_tried_it_says_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert main([str(tmp_path), "movie.tif", "--place", str(tmp_path / "machine")]) == 2
    assert "apt-get is missing" in capsys.readouterr().err
    assert not (tmp_path / "machine").exists()


@pytest.mark.slow
def test_aarch64_finds_the_same_molecules(tmp_path):
    try:
        machine = emulated()
    except CannotEmulate as error:
        pytest.skip(f"aarch64 cannot be emulated here: {error}")
    assert machine.run(["-c", "import platform; print(platform.machine())"]).strip() == "aarch64"
    torch.manual_seed(1)
    network = zoo.create_model("fid_storm", width=8, n_blocks=1).eval()
    network.normalisation.set_statistics(100.0, 30.0)
    torch.nn.init.normal_(network.core.up2.conv.weight, std=0.2)
    card = zoo.save_weights(network, tmp_path / "weights", {"threshold": 0.002})
    export_model(network, tmp_path / "model", card | describe(network))
    counts = (100 + np.random.default_rng(5).poisson(60, (5, 24, 24))).astype(np.uint16)
    tifffile.imwrite(tmp_path / "movie.tif", counts)
    found = compare_on(machine, tmp_path / "model", tmp_path / "movie.tif", ["--baseline", "100"])
    assert min(found.rows) > 100
    assert found.passed
