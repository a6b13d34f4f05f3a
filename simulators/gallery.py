"""Pictures of structures, blinking, backgrounds, PSFs and recipes: `python -m simulators.gallery FOLDER`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .background import HazeBackground, PerlinBackground, SmoothBackground
from .blinking import OnTimeBlinking
from .movie import simulate
from .particles import ClustersStructure, GridsStructure, MaskStructure, PointsStructure, RingsStructure
from .psf import AstigmaticPSF, GaussianPSF
from .pupil import DoubleHelix, PupilPSF, Tetrapod
from .recipe import list_recipes, load_recipe
from .spline import SplinePSF
from .states import FourStateBlinking, PaintBlinking
from .structures import (
    FilamentsStructure,
    ReticulumStructure,
    Space,
    TubesStructure,
    UniformStructure,
)
from .traces import TracesBlinking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SPACE = Space(width_nm=6400, height_nm=6400, margin_nm=500, z_low_nm=-300, z_high_nm=300)


def structures(rng: np.random.Generator) -> Figure:
    """Molecules of every structure, coloured by height; the field is 6.4 um wide, or as the title says."""
    with tempfile.TemporaryDirectory() as folder:
        y, x = np.mgrid[-200:200, -200:200] + 0.5
        star = (np.hypot(x, y) < 190) & (np.hypot(x, y) > 20) & (np.sin(12 * np.arctan2(y, x)) > 0)
        np.save(Path(folder) / "star.npy", star)
        turn = np.linspace(0.5, 18, 400)
        spiral = 32 * turn[:, None] * np.column_stack([np.cos(turn), np.sin(turn)])
        shown: list[tuple[str, Any, float]] = [
            ("uniform", UniformStructure(), 6400),
            ("tubes", TubesStructure(), 6400),
            ("filaments, 12 crossing", FilamentsStructure(count=12), 6400),
            ("filaments, wide and hollow", FilamentsStructure(count=2, outer_radius_nm=100, wall_nm=25), 1500),
            ("er, 4 tubes", ReticulumStructure(count=4), 6400),
            ("rings, 70 % labelled", RingsStructure(per_um2=12), 1000),
            ("grids, 70 % labelled", GridsStructure(per_um2=15, rows=3, columns=4, apart_nm=120), 1000),
            ("clusters", ClustersStructure(), 6400),
            ("mask", MaskStructure(path=str(Path(folder) / "star.npy")), 6400),
            ("points", PointsStructure(values=tuple(map(tuple, spiral.tolist())), centred=True, linker_nm=10), 1500),
        ]
        figure, axes = _grid(len(shown), 5)
        for axis, (title, structure, wide) in zip(axes, shown, strict=True):
            space = Space(width_nm=wide, height_nm=wide, margin_nm=500, z_low_nm=-300, z_high_nm=300)
            x, y, z = structure.build(space, rng).place(6000, rng)
            inside = space.inside(x, y)
            axis.scatter(x[inside], y[inside], c=z[inside], s=0.6, cmap="turbo", vmin=-300, vmax=300, linewidths=0)
            axis.set(title=title, xlim=(0, wide), ylim=(wide, 0), aspect="equal")
            axis.set_facecolor("black")
            _bar(axis, wide)
    return figure


def _bar(axis: Axes, wide: float) -> None:
    """A scale bar of a round length."""
    length = 1000 if wide > 3000 else 200
    axis.plot([0.05 * wide, 0.05 * wide + length], [0.95 * wide] * 2, color="white", linewidth=3)
    text = f"{length // 1000} um" if length >= 1000 else f"{length} nm"
    axis.text(0.05 * wide, 0.92 * wide, text, color="white", fontsize=8)


def blinking(rng: np.random.Generator) -> Figure:
    """Share of the frame that 30 molecules with a row are on."""
    decay = (tuple(np.exp(-np.arange(12) / 4).tolist()), (0.3, 0.9, 1.0, 0.9, 0.3, 0, 0, 0.5, 0.5))
    shown = [
        ("on_time, mean 4 frames", OnTimeBlinking(mean_on_frames=4)),
        ("four_state, of the challenge", FourStateBlinking()),
        ("four_state, long dark", FourStateBlinking(bleaching_frames=12, darkening_frames=4, dark_frames=15)),
        ("paint, bound 3, unbound 25", PaintBlinking(bound_frames=3, unbound_frames=25)),
        ("traces, two of them", TracesBlinking(values=decay)),
    ]
    figure, axes = _grid(len(shown), 5)
    for axis, (title, kind) in zip(axes, shown, strict=True):
        rows = kind.movie(np.ones(80), 60, rng)
        image = np.zeros((60, 80))
        image[rows.molecule, rows.frame] = rows.share
        image = image[image.any(1)][:30]
        axis.imshow(image, cmap="magma", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axis.set(title=title, xlabel="frame", ylabel="molecule")
    return figure


def backgrounds(rng: np.random.Generator) -> Figure:
    """Backgrounds relative to their level; in time from left to right."""
    geometry = TubesStructure().build(_SPACE, rng)
    shown: list[tuple[str, Any, int]] = [
        ("smooth", SmoothBackground(), 0),
        ("perlin", PerlinBackground(), 0),
        ("perlin, fine", PerlinBackground(scales_nm=(400, 800)), 0),
        ("haze of the tubes", HazeBackground(share=0.8), 0),
    ]
    for kind in (PerlinBackground(drift_nm=15), PerlinBackground(change_frames=80)):
        word = "drifting" if kind.drift_nm else "changing"
        shown += [(f"perlin, {word}: frame {frame}", kind, frame) for frame in (0, 30, 60, 90)]
    figure, axes = _grid(len(shown), 4)
    seed = int(rng.integers(2**32))
    for axis, (title, kind, frame) in zip(axes, shown, strict=True):
        field = kind.build(_SPACE, (64, 64), geometry, np.random.default_rng(seed))
        image = field.at(np.array([frame]))[0]
        low, high = (0.4, 1.6) if image.max() < 1.7 else (0.0, float(image.max()))
        axis.imshow(image, cmap="viridis", vmin=low, vmax=high)
        axis.set(title=title)
    return figure


def psfs(rng: np.random.Generator) -> Figure:
    """A bright molecule at five heights, 100 nm pixels; the optical ones are drawn as splines made of their pupils."""
    heights = (-500, -250, 0, 250, 500)

    def optical(**optics: Any) -> SplinePSF:
        return SplinePSF.of(PupilPSF(**optics).to_spline(pixel_size_nm=100, size_px=31, z_range_nm=(-600, 600)))

    named: tuple[tuple[str, Any], ...] = (
        ("gaussian", GaussianPSF(sigma_nm=115, defocus_nm=420)),
        ("astigmatic", AstigmaticPSF(sigma_nm=115)),
        ("pupil, astigm.", optical(zernike_nm={6: 70})),
        ("double helix", optical(mask=DoubleHelix())),
        ("tetrapod", optical(mask=Tetrapod())),
    )
    figure, axes = _grid(len(named) * len(heights), len(heights))
    pairs = [(name, psf, z) for name, psf in named for z in heights]
    for axis, (name, psf, z) in zip(axes, pairs, strict=True):
        place = {"x_nm": 1550.0, "y_nm": 1550.0, "z_nm": float(z), "photons": 1000.0}
        image = psf.expected(
            frame=torch.tensor([0]),
            frames=1,
            shape=(31, 31),
            pixel_size_nm=(100, 100),
            **{key: torch.tensor([value]) for key, value in place.items()},
        )
        axis.imshow(image[0].numpy(), cmap="gray")
        axis.set(title=f"{name}, z {z} nm")
    return figure


def recipes(rng: np.random.Generator) -> Figure:
    """A frame of every named recipe, photons."""
    names = list_recipes()
    figure, axes = _grid(len(names), 5)
    for axis, name in zip(axes, names, strict=True):
        recipe = load_recipe(name).with_(frames=20)
        movie = simulate(recipe, recipe.rng())
        axis.imshow(movie.photons()[10], cmap="gray")
        axis.set(title=name)
    return figure


PICTURES: dict[str, Callable[[np.random.Generator], Figure]] = {
    "structures": structures,
    "blinking": blinking,
    "backgrounds": backgrounds,
    "psfs": psfs,
    "recipes": recipes,
}


def _grid(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(2.5 * columns, 2.65 * rows), layout="constrained", dpi=64)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.title.set_fontsize(9)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, list(axes[:count])


def make(folder: str | Path, *, seed: int = 1) -> Iterator[Path]:
    """Write every picture as NAME.png into a folder, and say each as soon as it is there."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        path = target / f"{name}.png"
        draw(np.random.default_rng(seed)).savefig(path, metadata={"Software": None})
        yield path


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(prog="python -m simulators.gallery", description=(__doc__ or "").split(":")[0])
    parser.add_argument("folder", help="where the pictures go")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    for path in make(options.folder, seed=options.seed):
        print(path)


if __name__ == "__main__":
    main()
