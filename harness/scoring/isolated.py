"""Lone molecules on for one frame: error and predicted sigma of a model against the Cramer-Rao bound.

python -m harness.scoring.isolated decode
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.localization import photons_of
from harness.models import open_model
from harness.ready import MapModel, ReadyModel
from simulators import Emitters, Localizations, Recipe, load_recipe
from simulators.known import simulate_known
from zoo import QUANTITIES, EmitterMaps

from .bounds import emitter_variances
from .matching import match

PITCH_NM = 3200.0  # from one molecule to the next: none lies within 2 um
EDGE_NM = 1200.0
TOLERANCE_NM = 250.0
SCENES = 3
FEWEST = 30  # hits that a calibration needs
GROUPS = 12  # of about the same sigma
LEAST_RANGE = 0.3  # of the logarithms of sigma, for a power to be told
POWERS = (0.5, 2.0)
PLACES = 10  # within a pixel, for bias
_MEDIAN_OF_NORMAL = 0.67449  # of the magnitude of standard normal numbers


def isolated_emitters(
    recipe: Recipe,
    frames: int,
    rng: np.random.Generator,
    *,
    photons: tuple[float, float] = (500.0, 10000.0),
    z_range_nm: tuple[float, float] = (-300.0, 300.0),
) -> Emitters:
    """Molecules on a loose grid, every third frame, on for that frame only; the frames between are empty.

    Photons are even on a logarithmic scale, heights on a linear one.
    """
    height, width = recipe.size
    size_x, size_y = recipe.camera.pixel_size_nm
    columns, rows = (int((side - 2 * EDGE_NM) // PITCH_NM) + 1 for side in (width * size_x, height * size_y))
    count = frames // 3 * rows * columns
    cell = np.arange(count) % (rows * columns)
    place = rng.uniform(-500, 500, (2, count))
    return Emitters(
        frame=np.arange(count) // (rows * columns) * 3 + 1,
        x_nm=EDGE_NM + PITCH_NM * (cell % columns) + place[0],
        y_nm=EDGE_NM + PITCH_NM * (cell // columns) + place[1],
        z_nm=rng.uniform(*z_range_nm, count),
        photons=np.exp(rng.uniform(np.log(photons[0]), np.log(photons[1]), count)),
        background=float(recipe.background) if isinstance(recipe.background, int | float) else 90.0,
    )


def lone_hits(
    model: ReadyModel, truth: Emitters, recipe: Recipe, *, frames: int, rng: np.random.Generator
) -> tuple[Emitters, Localizations, int]:
    """Lone molecules that a model finds on the background of their table, what it says of them, and how many
    localizations it gave in all."""
    movie = simulate_known(truth, recipe, rng, frames=frames, background=float(truth.background[0]))
    maps = model.raw(photons_of(movie.frames, movie.camera), frames, frames)
    found = model.decode(maps, threshold=model.threshold, pixel_size_nm=movie.camera.pixel_size_nm)
    pairs = match(truth=truth, found=found, tolerance_nm=TOLERANCE_NM)
    return truth.pick(pairs.truth_index), found.pick(pairs.found_index), len(found)


def sigma_calibration(model: MapModel, recipe: Recipe, rng: np.random.Generator, *, frames: int = 120) -> EmitterMaps:
    """The network's contract with the `sigma_scale` and `sigma_power` that make its sigmas the spread of its errors on
    lone molecules.

    Among molecules of about the same sigma the spread is taken from the median of their errors, since molecules
    mistaken for others, or found with a sigma of next to nothing, are no measure of the rest. Scale and power are those
    of the line through the logarithms. 1 where the network has no sigma or finds too few.

    Args:
        model: whose own scales and powers count as 1.
        recipe: the domain; its background and PSF width are taken at `SCENES` places of their ranges.
        rng: where randomness comes from.
        frames: of each scene; every third one holds molecules.

    Source: after Levi et al. 2022, doi:10.3390/s22155540, section 4 (scaling of the standard deviation).
    """
    ones = (1.0, 1.0, 1.0, 1.0)
    plain = replace(model, output=model.output.with_(sigma_scale=ones, sigma_power=ones))
    seen_all: dict[str, list[np.ndarray]] = {quantity: [] for quantity in QUANTITIES}
    brightness = recipe.photons
    photons = (500.0, 10000.0) if isinstance(brightness, int | float) else (brightness.low, brightness.high)
    unit = {"photons": model.output.photons_scale, "z": abs(model.output.z_scale_nm)}
    unit["x"], unit["y"] = recipe.camera.pixel_size_nm
    for scene in range(SCENES):
        share = (scene + 0.5) / SCENES
        psf = recipe.psf.model_dump()
        if "sigma_nm" in psf:
            psf["sigma_nm"] = _within(recipe.psf.sigma_nm, (share + 0.5) % 1)
        here = recipe.with_(psf=psf, background=_within(recipe.background, share), size=(64, 64))
        truth = isolated_emitters(here, frames, rng, photons=photons, z_range_nm=recipe.z_range_nm)
        hit, seen, _ = lone_hits(plain, truth, here, frames=frames, rng=rng)
        for quantity in QUANTITIES:
            name = quantity if quantity == "photons" else f"{quantity}_nm"
            sigma = getattr(seen, "photons_sigma" if quantity == "photons" else f"{quantity}_sigma_nm")
            error = getattr(seen, name) - getattr(hit, name)
            known = np.isfinite(sigma) & np.isfinite(error) & (sigma > 0)
            seen_all[quantity].append(np.stack([sigma[known], np.abs(error[known])]) / unit[quantity])
    fits = [_spread_of_errors(*np.concatenate(seen_all[quantity], axis=1)) for quantity in QUANTITIES]
    scale, power = zip(*fits, strict=True)
    return model.output.with_(sigma_scale=scale, sigma_power=power)


def _spread_of_errors(sigma: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """Scale and power with which scale * sigma**power is the spread of the errors; both are magnitudes in one unit."""
    if len(sigma) < FEWEST:
        return 1.0, 1.0
    groups = np.array_split(np.argsort(sigma), min(GROUPS, len(sigma) // FEWEST))
    spread = np.log([np.median(error[group]) / _MEDIAN_OF_NORMAL for group in groups])
    middle = np.array([np.mean(np.log(sigma[group])) for group in groups])
    power = 1.0
    if np.ptp(middle) > LEAST_RANGE:
        power = float(np.clip(np.polyfit(middle, spread, 1)[0], *POWERS))
    return float(np.exp(np.mean(spread - power * middle))), power


def _within(quantity: Any, share: float) -> float:
    """The value at a share of a range, on its own scale; a number is itself."""
    if isinstance(quantity, int | float):
        return float(quantity)
    if quantity.scale == "log":
        return float(quantity.low * (quantity.high / quantity.low) ** share)
    return float(quantity.low + share * (quantity.high - quantity.low))


def pixel_bias(position_nm: np.ndarray, error_nm: np.ndarray, pixel_nm: float) -> tuple[float, float]:
    """The mean error at that tenth of a pixel where it is largest, and its standard error, as shares of the pixel.

    Args:
        position_nm: (N,) true positions along one axis. error_nm: (N,) found minus true ones.
        pixel_nm: size of a pixel along that axis.

    Raises:
        ValueError: a tenth with less than two molecules.
    """
    place = np.minimum((position_nm / pixel_nm % 1 * PLACES).astype(int), PLACES - 1)
    number = np.bincount(place, minlength=PLACES)
    if number.min() < 2:
        raise ValueError(f"{len(place)} molecules are too few for the bias at {PLACES} places of a pixel; more frames")
    mean = np.bincount(place, error_nm, PLACES) / number
    spread = np.sqrt(np.bincount(place, (error_nm - mean[place]) ** 2, PLACES) / (number - 1) / number)
    worst = int(np.argmax(np.abs(mean)))
    return float(mean[worst] / pixel_nm), float(spread[worst] / pixel_nm)


def isolated_study(
    model: ReadyModel, recipe: Recipe, *, frames: int, rng: np.random.Generator, axial: bool = False
) -> tuple[list[dict[str, Any]], dict[str, tuple[float, float]]]:
    """Rows of a table, one for each range of photons and one for all; and `pixel_bias` of x and y.

    Each molecule's error is divided by the square root of its own bound, so that bright and dim ones count alike. The
    mean sigma of molecules of unlike brightness is below their RMS even where every sigma is right: for them the RMS
    sigma over the RMSE tells the calibration.

    Args:
        model: a localization network.
        recipe: camera, PSF (one width) and background.
        frames: of the movie; a third of them hold molecules.
        rng: where randomness comes from.
        axial: whether the height counts as unknown.

    Raises:
        ValueError: the model finds none of the molecules, or too few.
    """
    truth = isolated_emitters(recipe, frames, rng)
    hit, seen, number = lone_hits(model, truth, recipe, frames=frames, rng=rng)
    if not len(hit):
        raise ValueError(f"{model.name} finds none of {len(truth)} lone molecules; check its threshold")
    camera = recipe.camera
    bound = emitter_variances(hit, psf=recipe.psf, camera=camera, dimensions=3 if axial else 2)
    axes = {
        "x": (seen.x_nm - hit.x_nm, seen.x_sigma_nm, bound["x"]),
        "y": (seen.y_nm - hit.y_nm, seen.y_sigma_nm, bound["y"]),
    }
    if axial:
        axes["z"] = (seen.z_nm - hit.z_nm, seen.z_sigma_nm, bound["z"])
    edges = (500, 1000, 2000, 4000, 10000)
    groups = {"all": np.ones(len(hit), dtype=bool)}
    groups |= {f"{a}-{b}": (hit.photons >= a) & (hit.photons < b) for a, b in itertools.pairwise(edges)}
    rows = []
    for name, which in groups.items():
        row: dict[str, Any] = {"photons": name, "molecules": int(which.sum())}
        if name == "all":
            row["found"] = f"{100 * len(hit) / len(truth):.1f} %, {number - len(hit)} more"
        else:
            row["found"] = ""
        for axis, (error, sigma, variance) in axes.items():
            rmse = np.sqrt(np.mean(error[which] ** 2))
            row |= {
                f"RMSE {axis} (nm)": f"{rmse:.2f}",
                f"RMS of error / sqrt(CRLB), {axis}": f"{np.sqrt(np.mean(error[which] ** 2 / variance[which])):.3f}",
                f"RMSE / RMS sqrt(CRLB), {axis}": f"{rmse / np.sqrt(np.mean(variance[which])):.3f}",
                f"mean sigma / RMSE, {axis}": f"{np.mean(sigma[which]) / rmse:.3f}",
                f"RMS sigma / RMSE, {axis}": f"{np.sqrt(np.mean(sigma[which] ** 2)) / rmse:.3f}",
            }
        rows.append(row)
    bias = {
        axis: pixel_bias(getattr(hit, f"{axis}_nm"), axes[axis][0], pixel)
        for axis, pixel in zip("xy", camera.pixel_size_nm, strict=True)
    }
    return rows, bias


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table for one model."""
    from harness.cli._shared import print_table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a shipped localization network, or a folder")
    parser.add_argument("--recipe", default="tubes-2d-hd", help="camera, PSF and background")
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--threshold", type=float, help="instead of the card's")
    given = parser.parse_args(arguments)
    model = open_model(given.model)
    if given.threshold is not None:
        model.card["threshold"] = given.threshold
    recipe = load_recipe(given.recipe)
    rows, bias = isolated_study(model, recipe, frames=given.frames, rng=np.random.default_rng(1))
    print_table(rows)
    for axis, (largest, error) in bias.items():
        print(
            f"largest mean error of {axis} at a tenth of a pixel: {largest:+.2%} of a pixel, standard error {error:.2%}"
        )


if __name__ == "__main__":
    main()
