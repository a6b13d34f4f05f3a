"""Ground truths of other programs, rendered by our PSF and camera, must explain those programs' frames."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from simulators import Camera, GaussianPSF

# NAIRR: a count per photon, offset 500, Gaussian noise of variance 300, background of 500 photons.
NAIRR = Camera(pixel_size_nm=100, baseline=500, read_noise_e=300**0.5)
# Deep-STORM: two counts per photon, excess noise 2, background of 20 photons; the source does not say.
DEEP_STORM = Camera(pixel_size_nm=100, baseline=100, em_gain=300, e_per_adu=150)


def fit(folder: Path, part: str, *, camera: Camera, sigma_nm: float, background: float):
    """Frames used, reduced chi-square of all pixels and of a border of 2 pixels, slope of a weighted line."""
    frames = tifffile.imread(folder / f"{part}frames.tif").astype(np.float64)
    with open(folder / f"{part}gt.csv", newline="") as lines:
        rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(lines)]
    column = {key: torch.tensor([float(row[key]) for row in rows]) for key in rows[0]}
    light = GaussianPSF(sigma_nm=sigma_nm).expected(
        frame=column["frame"].long() - 1,
        x_nm=column["xnano"],
        y_nm=column["ynano"],
        z_nm=column["znano"],
        photons=column["intensity"],
        frames=len(frames),
        shape=frames.shape[1:],
        pixel_size_nm=camera.pixel_size_nm,
    )
    good = frames.any((1, 2))  # LD train has one frame of zeros, its generator's fault
    light, frames = light.double()[torch.from_numpy(good)], frames[good]
    expected = camera.mean_counts(light + background).numpy()
    variance = camera.variance_counts(light + background).numpy()
    square = (frames - expected) ** 2 / variance
    edge = np.ones(frames.shape[1:], bool)
    edge[2:-2, 2:-2] = False
    signal = camera.mean_counts(light).numpy() - camera.baseline
    design = np.stack([np.ones(signal.size), signal.ravel()])
    weighted = design / variance.ravel()
    _, slope = np.linalg.solve(weighted @ design.T, weighted @ frames.ravel())
    return len(frames), square.mean(), square[:, edge].mean(), slope


@pytest.mark.parametrize("part", ["train_", "validate_"])
@pytest.mark.parametrize("density", ["LD", "MD", "HD"])
def test_nairr_frames_are_explained(data, density, part):
    frames, chi, border, slope = fit(
        data / f"nairr_2dgauss_{density}", part, camera=NAIRR, sigma_nm=108.8, background=500
    )
    assert frames == {"train_": 1000, "validate_": 500}[part] - (density == "LD" and part == "train_")
    assert 0.97 < chi < 1.03
    assert 0.97 < border < 1.03
    assert 0.99 < slope < 1.01


def test_deep_storm_frames_are_explained(data):
    _, chi, border, slope = fit(data / "deepstorm_training", "", camera=DEEP_STORM, sigma_nm=106, background=20)
    assert 0.95 < chi < 1.10
    assert 0.95 < border < 1.10
    assert 0.98 < slope < 1.02


def test_a_wrong_width_or_a_shift_would_be_noticed(data):
    folder = data / "nairr_2dgauss_HD"
    assert fit(folder, "validate_", camera=NAIRR, sigma_nm=120, background=500)[1] > 1.1
    shifted = GaussianPSF.expected

    def moved(self, *, x_nm, **rest):
        return shifted(self, x_nm=x_nm + 50, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GaussianPSF, "expected", moved)
        assert fit(folder, "validate_", camera=NAIRR, sigma_nm=108.8, background=500)[1] > 1.2
