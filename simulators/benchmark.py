"""How fast movies are made: `python -m simulators.benchmark`.

Frames per second from the sampler to the counts, for an ideal camera, an sCMOS with maps and an EMCCD, with a Gaussian
and with a spline PSF of 25 x 25 pixels: best and median of interleaved runs, against a plain baseline (one frame at a
time, every emitter over the whole frame, a Gaussian). The last column tells whether the cost is linear: time per frame
of all frames over that of a fifth of them.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.special import erf

from .camera import Camera
from .movie import simulate
from .pupil import PupilPSF
from .recipe import Recipe, load_recipe
from .spline import save_spline


def bench_recipe(frames: int, size: int, emitters: float, camera: str, *, spline: Path | None = None) -> Recipe:
    """Uniform molecules, `emitters` rows in each frame, in the brightness of the domain epfl-2d.

    Args:
        camera: ideal, scmos (with maps) or emccd.
        spline: PSF file instead of the Gaussian.
    """
    scmos = load_recipe("tubes-2d-hd-scmos")
    cameras = {"ideal": Camera.ideal(100), "emccd": Camera.challenge_emccd(100), "scmos": scmos.camera}
    recipe = load_recipe("epfl-2d").with_(
        name="benchmark",
        frames=frames,
        size=size,
        camera=cameras[camera],
        sensor=scmos.sensor if camera == "scmos" else None,
        density_um2=emitters / (size * size * 0.01),  # pixels of 100 nm
    )
    return recipe.with_(psf={"kind": "spline", "file": str(spline)}) if spline else recipe


def plain(recipe: Recipe, frames: int, emitters: int, rng: np.random.Generator) -> None:
    """The baseline: numpy, a frame at a time, a whole-frame image for each emitter."""
    height, width = recipe.size
    pixel_x, pixel_y = recipe.camera.pixel_size_nm
    for _ in range(frames):
        expected = np.full((height, width), 100.0)
        for _ in range(emitters):
            x, y = rng.uniform(0, width * pixel_x), rng.uniform(0, height * pixel_y)
            across = np.diff(erf((np.arange(width + 1) * pixel_x - x) / (115 * 2**0.5))) / 2
            down = np.diff(erf((np.arange(height + 1) * pixel_y - y) / (115 * 2**0.5))) / 2
            expected += 1000 * np.outer(down, across)
        recipe.camera.expose(torch.from_numpy(expected), rng)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m simulators.benchmark", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=40, help="pixels along either side")
    parser.add_argument("--emitters", type=float, default=25, help="in the field, per frame")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None, help="all processors if left out")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        _run(options, Path(folder) / "spline.npz")


def _run(options: argparse.Namespace, spline: Path) -> None:
    save_spline(PupilPSF().to_spline(pixel_size_nm=100, z_range_nm=(-400, 400)), spline)
    cells = {
        (psf, camera): bench_recipe(options.frames, options.size, options.emitters, camera, spline=file)
        for psf, file in (("gaussian", None), ("spline", spline))
        for camera in ("ideal", "scmos", "emccd")
    }
    times: dict[tuple[str, str, str], list[float]] = {
        (*c, w): [] for c in cells for w in ("all", "plain", "busy", "line")
    }
    few = max(options.frames // 50, 1)
    for recipe in cells.values():
        simulate(recipe.with_(frames=min(640, options.frames)), np.random.default_rng(0), device=options.device)
    for repeat in range(options.repeats):
        for cell, recipe in cells.items():
            rng = np.random.default_rng(repeat)
            part = recipe.with_(frames=max(options.frames // 5, 1))
            start = time.perf_counter()
            simulate(part, rng, device=options.device, threads=options.threads)
            short = (time.perf_counter() - start) / part.frames
            start, busy = time.perf_counter(), time.process_time()
            simulate(recipe, rng, device=options.device, threads=options.threads)
            times[*cell, "busy"].append((time.process_time() - busy) / options.frames * 1e6)
            times[*cell, "all"].append((time.perf_counter() - start) / options.frames)
            times[*cell, "line"].append(times[*cell, "all"][-1] / short)
            start = time.perf_counter()
            plain(recipe, few, round(options.emitters), rng)
            times[*cell, "plain"].append((time.perf_counter() - start) / few)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"{options.frames} frames of {options.size}x{options.size}, {options.emitters:g} emitters a frame, "
        f"{options.device}"
    )
    print(
        f"{_processor()}, {processors} processors; load {_load()}; Python {platform.python_version()}, "
        f"numpy {np.__version__}, torch {torch.__version__}"
    )
    print(f"{'PSF':9} {'camera':7} {'best':>8} {'median':>8} {'busy':>8} {'plain':>8} {'ratio':>7} {'linear':>7}")
    for psf, camera in cells:
        made, base, line = (statistics.median(times[psf, camera, what]) for what in ("all", "plain", "line"))
        best, busy = 1 / min(times[psf, camera, "all"]), min(times[psf, camera, "busy"])
        print(
            f"{psf:9} {camera:7} {best:8.0f} {1 / made:8.0f} {busy:8.0f} {1 / base:8.0f} {base / made:7.1f} {line:7.2f}"
        )
    print("best, median, plain: frames/s; busy: processor microseconds a frame, least; ratio: plain time / median time")


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
