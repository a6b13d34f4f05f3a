"""Recipes from estimated numbers: one as measured, one with ranges for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq

from simulators import Camera, GaussianPSF, Recipe, SplinePSF, parse_recipe

# To either side of the focus, where widths vary: they tell the depth in units of the depth of focus only.
DEPTH_NM = 300.0
LEAST_WIDTH_SPREAD = 0.01


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What a recipe is made of: photons per frame of a molecule that is on, their spread as a standard deviation of the
    logarithm, photons per pixel, median width in nm and its relative spread from molecule to molecule (half the
    distance of the 16 % and 84 % quantiles), frames, rows per frame and square micrometre."""

    flux: float
    flux_spread: float
    background: float
    sigma_nm: float
    sigma_spread: float
    on_frames: float
    density_um2: float
    z_range_nm: tuple[float, float] = (0.0, 0.0)


def _range(middle: float, spread: float) -> Any:
    """A number, or a range, even in the logarithm, with this standard deviation of it."""
    if spread < 0.05:
        return float(f"{middle:.4g}")
    reach = float(np.exp(np.sqrt(3) * spread))
    return {"low": float(f"{middle / reach:.4g}"), "high": float(f"{middle * reach:.4g}"), "scale": "log"}


def _width_at(share: float, depths: float) -> float:
    """Width in units of that in focus which a share of the molecules stays below, even in depth up to `depths` times
    the depth of focus."""
    return float(np.hypot(1.0, share * depths))


def _gaussian(sigma_nm: float, spread: float) -> dict[str, Any]:
    """A Gaussian PSF whose widths over +- `DEPTH_NM` have this median and relative spread."""
    if spread < LEAST_WIDTH_SPREAD:
        return {"kind": "gaussian", "sigma_nm": float(f"{sigma_nm:.4g}")}

    def excess(depths: float) -> float:
        return (_width_at(0.84, depths) - _width_at(0.16, depths)) / 2 / _width_at(0.5, depths) - spread

    depths = float(brentq(excess, 0.0, 10.0))
    return {
        "kind": "gaussian",
        "sigma_nm": float(f"{sigma_nm / _width_at(0.5, depths):.4g}"),
        "defocus_nm": float(f"{DEPTH_NM / depths:.4g}"),
    }


def recipe_of(
    numbers: Numbers, camera: Camera, psf: SplinePSF | None, *, name: str, size: tuple[int, int], frames: int, seed: int
) -> Recipe:
    """The recipe of these numbers: molecules anywhere, on for an exponential time, as deep as their widths say where
    no PSF is given."""
    spot: Any = psf or _gaussian(numbers.sigma_nm, numbers.sigma_spread)
    deep = psf is None and "defocus_nm" in spot
    return parse_recipe(
        {
            "name": name,
            "summary": "Estimated from a movie; molecules anywhere, on once for an exponential time",
            "seed": seed,
            "frames": frames,
            "size": size,
            "structure": {"kind": "uniform"},
            "blinking": {"kind": "on_time", "mean_on_frames": float(f"{numbers.on_frames:.4g}")},
            "photons": _range(numbers.flux, numbers.flux_spread),
            "density_um2": float(f"{numbers.density_um2:.4g}"),
            "background": float(f"{numbers.background:.4g}"),
            "psf": spot,
            "camera": camera.model_dump(),
            "z_range_nm": (-DEPTH_NM, DEPTH_NM) if deep else numbers.z_range_nm,
        },
        source="the estimate",
    )


def training_recipe(recipe: Recipe, numbers: Numbers, spread: float) -> Recipe:
    """Ranges that surround what was measured, so that a network meets more than one movie.

    Args:
        recipe: as measured.
        numbers: that it was made of.
        spread: standard deviation of the logarithm of the background over field and time.
    """

    def around(middle: float, factor: float) -> dict[str, Any]:
        return {"low": float(f"{middle / factor:.3g}"), "high": float(f"{middle * factor:.3g}"), "scale": "log"}

    reach = float(np.exp(np.sqrt(3) * numbers.flux_spread))
    changes: dict[str, Any] = {
        "name": f"{recipe.name}-training",
        "summary": "Training domain round what was estimated from a movie",
        "frames": 1000,
        "size": (64, 64) if not recipe.camera.map_shape else recipe.size,
        "photons": around(numbers.flux, max(2.0, 1.5 * reach)),
        "density_um2": around(numbers.density_um2, 4.0),
        "background": around(numbers.background, 1.5 * float(np.exp(2 * spread))),
    }
    if isinstance(recipe.psf, GaussianPSF) and isinstance(recipe.psf.sigma_nm, float):
        narrow, wide = (float(f"{factor * recipe.psf.sigma_nm:.4g}") for factor in (0.92, 1.08))
        changes["psf"] = recipe.psf.model_dump() | {"sigma_nm": {"low": narrow, "high": wide, "scale": "linear"}}
        changes["z_range_nm"] = tuple(1.2 * z for z in recipe.z_range_nm)
    return recipe.with_(**changes)
