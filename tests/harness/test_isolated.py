"""Lone molecules against the bound: a model that errs by just the bound is told to."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from harness.scoring.bounds import emitter_variances
from harness.scoring.isolated import isolated_emitters, isolated_study, pixel_bias, sigma_calibration
from simulators import Emitters, Localizations, load_recipe
from zoo import EmitterMaps

RECIPE = load_recipe("tubes-2d-hd")


def test_molecules_are_alone_in_space_and_time():
    emitters = isolated_emitters(RECIPE, 30, np.random.default_rng(1))
    assert set(emitters.frame % 3) == {1}
    for frame in np.unique(emitters.frame):
        here = emitters.pick(emitters.frame == frame)
        apart = np.hypot(*(np.subtract.outer(c, c) for c in (here.x_nm, here.y_nm)))
        assert apart[~np.eye(len(here), dtype=bool)].min() > 2000
        assert here.x_nm.min() > 0
        assert here.x_nm.max() < 6400


def test_bias_within_a_pixel_is_what_was_put_in():
    rng = np.random.default_rng(4)
    place = rng.uniform(0, 6400, 50_000)
    drawn = 3 * np.sin(2 * np.pi * place / 160)  # towards the middle of a pixel of 160 nm
    largest, error = pixel_bias(place, drawn + rng.normal(0, 8, len(place)), 160)
    mean = 3 * np.sin(np.pi / 10) / (np.pi / 10)  # of the tenth around a quarter
    assert abs(largest) == pytest.approx(mean / 160, rel=0.1)
    assert error == pytest.approx(8 / np.sqrt(5000) / 160, rel=0.05)
    largest, error = pixel_bias(place, rng.normal(0, 8, len(place)), 160)
    assert abs(largest) < 4 * error
    with pytest.raises(ValueError, match="5 molecules are too few"):
        pixel_bias(place[:5], place[:5], 160)


@dataclass
class Oracle:
    """Knows the truth and errs by `factor` times the bound; says it errs by the bound."""

    factor: float
    frames: int
    threshold: float = 0.5
    name: str = "oracle"

    def raw(self, read: Any, total: int, count: int) -> torch.Tensor:
        assert read(0, total).shape == (total, 64, 64)
        return torch.zeros(0)

    def decode(self, raw: torch.Tensor, *, threshold: float, pixel_size_nm: Any) -> Localizations:
        truth = isolated_emitters(RECIPE, self.frames, np.random.default_rng(1))
        variances = emitter_variances(truth, psf=RECIPE.psf, camera=RECIPE.camera)
        rng = np.random.default_rng(9)
        sigma = {axis: np.sqrt(variances[axis]) for axis in ("x", "y")}
        return Localizations(
            frame=truth.frame,
            x_nm=truth.x_nm + self.factor * sigma["x"] * rng.standard_normal(len(truth)),
            y_nm=truth.y_nm + self.factor * sigma["y"] * rng.standard_normal(len(truth)),
            x_sigma_nm=sigma["x"],
            y_sigma_nm=sigma["y"],
        )


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_error_over_bound_is_what_was_put_in(factor):
    rows, bias = isolated_study(Oracle(factor, 900), RECIPE, frames=900, rng=np.random.default_rng(1))
    assert all(abs(largest) < 4 * error for largest, error in bias.values())
    assert rows[0]["molecules"] == 1200
    assert rows[0]["found"].startswith("100.0 %")
    for axis in ("x", "y"):
        assert float(rows[0][f"RMS of error / sqrt(CRLB), {axis}"]) == pytest.approx(factor, rel=0.07)
        assert float(rows[0][f"RMS sigma / RMSE, {axis}"]) == pytest.approx(1 / factor, rel=0.1)
    bright = rows[-1]
    assert float(bright["mean sigma / RMSE, x"]) == pytest.approx(1 / factor, rel=0.2)
    assert sum(row["molecules"] for row in rows[1:]) == 1200


@dataclass
class Overconfident:
    """Sees the truth with errors of 20, 30 and 400 (x, y, photons) and says they are 10, 40 and 400."""

    output: EmitterMaps
    seen: list[EmitterMaps]
    truths: list[Emitters]
    threshold: float = 0.5
    name: str = "overconfident"

    def raw(self, read: Any, total: int, count: int) -> torch.Tensor:
        return torch.zeros(0)

    def decode(self, raw: torch.Tensor, *, threshold: float, pixel_size_nm: Any) -> Localizations:
        self.seen.append(self.output)
        truth = self.truths.pop(0)
        rng = np.random.default_rng(len(self.seen))
        noise = rng.standard_normal((3, len(truth)))
        wrong = rng.random(len(truth)) < 0.01  # another molecule's
        return Localizations(
            frame=truth.frame,
            x_nm=truth.x_nm + np.where(wrong, 200.0, 20 * noise[0]),
            y_nm=truth.y_nm + 30 * noise[1],
            photons=truth.photons + 400 * noise[2],
            x_sigma_nm=np.full(len(truth), 10.0),
            y_sigma_nm=np.full(len(truth), 40.0),
            photons_sigma=np.full(len(truth), 400.0),
        )


@pytest.fixture
def truths(monkeypatch):
    """The molecules of each scene of a calibration, as they are drawn."""
    drawn: list[Emitters] = []

    def kept(*given: Any, **more: Any) -> Emitters:
        drawn.append(isolated_emitters(*given, **more))
        return drawn[-1]

    monkeypatch.setattr("harness.scoring.isolated.isolated_emitters", kept)
    return drawn


def test_the_calibration_finds_by_how_much_a_network_is_too_sure(truths):
    model = Overconfident(EmitterMaps(sigma_scale=(9.0, 9.0, 9.0, 9.0)), [], truths)
    domain = load_recipe("epfl-2d")
    found = sigma_calibration(model, domain, np.random.default_rng(1), frames=600)  # type: ignore[arg-type]
    photons, x, y, z = found.sigma_scale
    assert (photons, x, y) == pytest.approx((1.0, 2.0, 0.75), rel=0.06)
    assert z == 1.0
    assert found.sigma_power == (1.0, 1.0, 1.0, 1.0)  # its sigmas are all the same
    assert all(output.sigma_scale == (1.0, 1.0, 1.0, 1.0) for output in model.seen)  # its own do not count


@dataclass
class Flattering(Overconfident):
    """Errs by 5 to 40 nm in x, and says so in y only; of x it says 2 * error**0.5."""

    def decode(self, raw: torch.Tensor, *, threshold: float, pixel_size_nm: Any) -> Localizations:
        self.seen.append(self.output)
        truth = self.truths.pop(0)
        rng = np.random.default_rng(len(self.seen))
        spread = np.exp(rng.uniform(np.log(5), np.log(40), len(truth)))
        return Localizations(
            frame=truth.frame,
            x_nm=truth.x_nm + spread * rng.standard_normal(len(truth)),
            y_nm=truth.y_nm + spread * rng.standard_normal(len(truth)),
            x_sigma_nm=2 * spread**0.5,
            y_sigma_nm=spread,
        )


def test_the_calibration_finds_how_sigmas_must_be_bent(truths):
    model = Flattering(EmitterMaps(sigma_power=(2.0, 2.0, 2.0, 2.0)), [], truths)
    domain = load_recipe("epfl-2d")
    output = sigma_calibration(model, domain, np.random.default_rng(1), frames=1800)  # type: ignore[arg-type]
    assert all(output.sigma_power == (1.0, 1.0, 1.0, 1.0) for output in model.seen)  # its own do not count
    assert output.sigma_power[1:3] == pytest.approx((2.0, 1.0), rel=0.08)
    said = torch.tensor([10.0, 20.0, 40.0])
    bent = 100 * output.calibrated("x_sigma", 2 * said**0.5 / 100)
    assert bent.tolist() == pytest.approx(said.tolist(), rel=0.06)
    assert (100 * output.calibrated("y_sigma", said / 100)).tolist() == pytest.approx(said.tolist(), rel=0.06)
