"""How fast movies are made: `python -m simulators.benchmark`.

Frames per second from the sampler to the counts, for an ideal camera and for an EMCCD, best and median of
interleaved runs, against a plain baseline: one frame at a time, every emitter over the whole frame.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import erf

from .camera import Camera
from .movie import simulate
from .recipe import Recipe, load_recipe


def bench_recipe(frames: int, size: int, emitters: float, camera: Camera) -> Recipe:
    """Uniform molecules, `emitters` rows in each frame, in the brightness of the domain epfl-2d."""
    recipe = load_recipe("epfl-2d").with_(
        name="benchmark",
        frames=frames,
        size=size,
        camera=camera,
        density_um2=emitters / (size * size * 1e-6 * camera.pixel_size_nm[0] * camera.pixel_size_nm[1]),
    )
    return recipe


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
    cameras = {"ideal": Camera.ideal(100), "emccd": Camera.challenge_emccd(100)}
    recipes = {n: bench_recipe(options.frames, options.size, options.emitters, c) for n, c in cameras.items()}
    times: dict[tuple[str, str], list[float]] = {(n, w): [] for n in cameras for w in ("simulate", "plain", "busy")}
    few = max(options.frames // 50, 1)
    for recipe in recipes.values():
        simulate(recipe.with_(frames=min(640, options.frames)), np.random.default_rng(0), device=options.device)
    for repeat in range(options.repeats):
        for name, recipe in recipes.items():
            rng = np.random.default_rng(repeat)
            start, busy = time.perf_counter(), time.process_time()
            simulate(recipe, rng, device=options.device, threads=options.threads)
            times[name, "busy"].append((time.process_time() - busy) / options.frames * 1e6)
            times[name, "simulate"].append(options.frames / (time.perf_counter() - start))
            start = time.perf_counter()
            plain(recipe, few, round(options.emitters), rng)
            times[name, "plain"].append(few / (time.perf_counter() - start))
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"{options.frames} frames of {options.size}x{options.size}, {options.emitters:g} emitters a frame, "
        f"{options.device}"
    )
    print(
        f"{_processor()}, {processors} processors; load {_load()}; Python {platform.python_version()}, "
        f"numpy {np.__version__}, torch {torch.__version__}"
    )
    print(f"{'camera':8} {'best':>9} {'median':>9} {'busy':>9} {'plain':>9} {'ratio':>7}")
    for name in cameras:
        made, base = times[name, "simulate"], times[name, "plain"]
        middle, plainly = statistics.median(made), statistics.median(base)
        print(
            f"{name:8} {max(made):9.0f} {middle:9.0f} {min(times[name, 'busy']):9.0f} {plainly:9.0f} "
            f"{middle / plainly:7.1f}"
        )
    print("best, median, plain: frames/s; busy: processor microseconds a frame, least; ratio: median / plain")


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
