"""Lone molecules on for one frame: error and predicted sigma of a model against the Cramer-Rao bound.

python -m harness.scoring.isolated decode
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from harness.models import open_model
from harness.ready import ReadyModel
from simulators import Emitters, Recipe, load_recipe

from .bounds import emitter_variances
from .matching import match

PITCH_NM = 3200.0  # from one molecule to the next: none lies within 2 um
EDGE_NM = 1200.0


def isolated_emitters(recipe: Recipe, frames: int, rng: np.random.Generator) -> Emitters:
    """Molecules on a loose grid, every third frame, on for that frame only; the frames between are empty.

    Photons are 500 to 10,000 on a logarithmic scale, heights even within 300 nm of the focus.
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
        z_nm=rng.uniform(-300, 300, count),
        photons=np.exp(rng.uniform(np.log(500), np.log(10000), count)),
        background=float(recipe.background) if isinstance(recipe.background, int | float) else 90.0,
    )


def isolated_study(
    model: ReadyModel, recipe: Recipe, *, frames: int, rng: np.random.Generator, axial: bool = False
) -> list[dict[str, Any]]:
    """Rows of a table, one for each range of photons and one for all.

    Each molecule's error is divided by the square root of its own bound, so that bright and dim ones count alike.

    Args:
        model: a localization network.
        recipe: camera, PSF (one width) and background.
        frames: of the movie; a third of them hold molecules.
        rng: where randomness comes from.
        axial: whether the height counts as unknown.

    Raises:
        ValueError: the model finds none of the molecules.
    """
    truth = isolated_emitters(recipe, frames, rng)
    camera, pixel = recipe.camera, recipe.camera.pixel_size_nm
    columns = [torch.from_numpy(c).float() for c in (truth.x_nm, truth.y_nm, truth.z_nm, truth.photons)]
    expected = recipe.psf.expected(
        frame=torch.from_numpy(truth.frame),
        x_nm=columns[0],
        y_nm=columns[1],
        z_nm=columns[2],
        photons=columns[3],
        frames=frames,
        shape=recipe.size,
        pixel_size_nm=pixel,
    )
    counts = camera.expose(expected + float(truth.background[0]), rng)
    photons = camera.to_photons(counts)
    maps = model.raw(lambda first, last: photons[first:last], frames, frames)
    found = model.decode(maps, threshold=model.threshold, pixel_size_nm=pixel)
    pairs = match(truth=truth, found=found, tolerance_nm=250.0)
    if not len(pairs.truth_index):
        raise ValueError(f"{model.name} finds none of {len(truth)} lone molecules; check its threshold")
    hit, seen = truth.pick(pairs.truth_index), found.pick(pairs.found_index)
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
            row["found"] = f"{100 * len(hit) / len(truth):.1f} %, {len(found) - len(hit)} more"
        else:
            row["found"] = ""
        for axis, (error, sigma, variance) in axes.items():
            rmse = np.sqrt(np.mean(error[which] ** 2))
            row |= {
                f"RMSE {axis} (nm)": f"{rmse:.2f}",
                f"RMS of error / sqrt(CRLB), {axis}": f"{np.sqrt(np.mean(error[which] ** 2 / variance[which])):.3f}",
                f"RMSE / RMS sqrt(CRLB), {axis}": f"{rmse / np.sqrt(np.mean(variance[which])):.3f}",
                f"mean sigma / RMSE, {axis}": f"{np.mean(sigma[which]) / rmse:.3f}",
            }
        rows.append(row)
    return rows


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
    print_table(isolated_study(model, recipe, frames=given.frames, rng=np.random.default_rng(1)))


if __name__ == "__main__":
    main()
