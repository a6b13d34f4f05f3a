"""Recipes from estimated numbers: one as measured, one with ranges for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from simulators import Camera, Recipe, SplinePSF, parse_recipe


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What a recipe is made of: photons per frame of a molecule that is on, their spread as a standard deviation of the
    logarithm, photons per pixel, nm, relative spread of the width, frames, rows per frame and square micrometre."""

    flux: float
    flux_spread: float
    background: float
    sigma_nm: float
    sigma_spread: float
    on_frames: float
    density_um2: float
    z_range_nm: tuple[float, float] = (0.0, 0.0)


def _range(middle: float, spread: float, *, log: bool) -> Any:
    """A number, or an even range with this standard deviation (relative, or of the logarithm)."""
    if spread < 0.05:
        return float(f"{middle:.4g}")
    reach = float(np.sqrt(3)) * spread
    low, high = (middle * np.exp(-reach), middle * np.exp(reach)) if log else (
        middle * max(0.3, 1 - reach), middle * (1 + reach)
    )  # fmt: skip
    return {"low": float(f"{low:.4g}"), "high": float(f"{high:.4g}"), "scale": "log" if log else "linear"}


def recipe_of(
    numbers: Numbers, camera: Camera, psf: SplinePSF | None, *, name: str, size: tuple[int, int], frames: int, seed: int
) -> Recipe:
    """The recipe of these numbers: molecules anywhere, on for an exponential time."""
    spot: Any = psf or {"kind": "gaussian", "sigma_nm": _range(numbers.sigma_nm, numbers.sigma_spread, log=False)}
    return parse_recipe(
        {
            "name": name,
            "summary": "Estimated from a movie; molecules anywhere, on once for an exponential time",
            "seed": seed,
            "frames": frames,
            "size": size,
            "structure": {"kind": "uniform"},
            "blinking": {"kind": "on_time", "mean_on_frames": float(f"{numbers.on_frames:.4g}")},
            "photons": _range(numbers.flux, numbers.flux_spread, log=True),
            "density_um2": float(f"{numbers.density_um2:.4g}"),
            "background": float(f"{numbers.background:.4g}"),
            "psf": spot,
            "camera": camera.model_dump(),
            "z_range_nm": numbers.z_range_nm,
        },
        source="the estimate",
    )


def training_recipe(recipe: Recipe, numbers: Numbers, spread: float, psf: SplinePSF | None) -> Recipe:
    """Ranges that surround what was measured, so that a network meets more than one movie.

    Args:
        recipe: as measured.
        numbers: that it was made of.
        spread: standard deviation of the logarithm of the background over field and time.
        psf: where one was given.
    """

    def around(middle: float, factor: float) -> dict[str, Any]:
        return {"low": float(f"{middle / factor:.3g}"), "high": float(f"{middle * factor:.3g}"), "scale": "log"}

    reach = float(np.exp(np.sqrt(3) * numbers.flux_spread))
    low, high = numbers.z_range_nm
    changes: dict[str, Any] = {
        "name": f"{recipe.name}-training",
        "summary": "Training domain round what was estimated from a movie",
        "frames": 1000,
        "size": (64, 64) if not recipe.camera.map_shape else recipe.size,
        "photons": around(numbers.flux, max(2.0, 1.5 * reach)),
        "density_um2": around(numbers.density_um2, 4.0),
        "background": around(numbers.background, 1.5 * float(np.exp(2 * spread))),
        "z_range_nm": (low - 0.1 * (high - low), high + 0.1 * (high - low)) if psf is None else numbers.z_range_nm,
    }
    if psf is None:
        wide = max(0.08, float(np.sqrt(3)) * numbers.sigma_spread + 0.04)
        low_width, high_width = numbers.sigma_nm * max(0.3, 1 - wide), numbers.sigma_nm * (1 + wide)
        changes["psf"] = {
            "kind": "gaussian",
            "sigma_nm": {"low": float(f"{low_width:.4g}"), "high": float(f"{high_width:.4g}"), "scale": "linear"},
        }
    return recipe.with_(**changes)
