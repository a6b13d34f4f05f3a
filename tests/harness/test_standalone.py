"""The runner in an export folder finds what `localize` finds, with numpy, onnxruntime and tifffile alone."""

import ast
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import zoo
from harness import standalone
from harness.export import export_model
from harness.io.tables import read_table
from harness.localization import localize
from harness.models import describe, open_model
from simulators import Camera

CAMERA = Camera(pixel_size_nm=110, baseline=100, e_per_adu=2, quantum_efficiency=0.8, read_noise_e=1, rounding="floor")
WORDS = ["--pixel-size-nm", "110", "--baseline", "100", "--e-per-adu", "2", "--rounding", "floor"]
WORDS += ["--quantum-efficiency", "0.8"]


def exported(folder: Path, name: str, **options) -> Path:
    torch.manual_seed(1)
    network = zoo.create_model(name, **options).eval()
    network.normalisation.set_statistics(100.0, 30.0)
    if name == "compact":
        network.core.give.bias.data[0] = -0.5  # some pixels above the threshold
        network.core.give.weight.data.mul_(10)
        network.output = network.output.with_(sigma_scale=(1.5, 1.25, 0.75, 2.0), sigma_power=(1.0, 1.2, 0.9, 1.5))
    elif name == "attention_unet":
        network.core.get_parameter("heads.last.0.bias").data.zero_()
        network.core.get_parameter("heads.last.0.weight").data.mul_(10)
    else:
        torch.nn.init.normal_(network.core.up2.conv.weight, std=0.2)
    known = {"threshold": 0.002 if name == "fid_storm" else 0.4, "tile_px": 64}
    card = zoo.save_weights(network, folder / "weights", known)
    export_model(network, folder / "model", card | describe(network))
    return folder / "model"


@pytest.fixture(scope="module")
def movie(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("movie") / "movie.tif"
    rng = np.random.default_rng(5)
    tifffile.imwrite(path, (100 + rng.poisson(60, (11, 41, 101))).astype(np.uint16))
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fid_storm", {"width": 8, "n_blocks": 1}),
        ("compact", {"width": 24, "blocks": 1, "dimensions": 2}),
        ("attention_unet", {"width": 8, "context": 4}),  # its tiles are those of the card
    ],
)
def test_the_runner_finds_what_localize_finds(name, options, movie, tmp_path):
    folder = exported(tmp_path, name, **options)
    table = tmp_path / "found.csv"
    assert standalone.main([str(movie), "-o", str(table), "--model", str(folder), *WORDS]) == 0
    fewer = tmp_path / "fewer.csv"
    assert standalone.main([str(movie), "-o", str(fewer), "--model", str(folder), "--at-once", "3", *WORDS]) == 0
    assert len(read_table(fewer)) == len(read_table(table))
    expected = localize(open_model(folder / "model.onnx"), movie, camera=CAMERA).localizations
    found = read_table(table)
    assert len(found) > 100
    assert len(found) == len(expected)
    np.testing.assert_array_equal(found.frame, expected.frame)
    for column in ("x_nm", "y_nm", "probability", *(() if name == "fid_storm" else ("photons", "x_sigma_nm"))):
        np.testing.assert_allclose(getattr(found, column), getattr(expected, column), rtol=2e-4, atol=2e-2)


@pytest.mark.parametrize("error", [MemoryError(), ValueError("bfc_arena.cc: Failed to allocate memory")], ids=str)
def test_a_machine_with_too_little_memory_is_told_what_to_do(error, movie, tmp_path, monkeypatch):
    folder = exported(tmp_path, "fid_storm", width=8, n_blocks=1)

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(standalone.Network, "__call__", fails)
    with pytest.raises(SystemExit, match="not enough memory for 8 frames at once"):
        standalone.main([str(movie), "-o", str(tmp_path / "t.csv"), "--model", str(folder), *WORDS])
    assert not list(tmp_path.glob("t.csv*"))


def test_the_runner_imports_three_packages_only(tmp_path):
    text = Path(standalone.__file__).read_text(encoding="utf-8")
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
    assert names - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "tifffile"}


@pytest.mark.slow
def test_in_a_fresh_environment(movie, tmp_path):
    folder = exported(tmp_path, "fid_storm", width=8, n_blocks=1)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "numpy", "onnxruntime", "tifffile"], check=True, timeout=600)
    answer = subprocess.run(
        [python, folder / "localize.py", movie, "-o", tmp_path / "found.csv", *WORDS],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert "localizations in 11 frames" in answer.stdout
