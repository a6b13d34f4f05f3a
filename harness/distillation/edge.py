"""What a model costs on a small machine."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from harness.export import RUNNER
from harness.models import open_model
from harness.timing import time_models

FRAMES = 40
# What a parent used counts in the ru_maxrss of its child, but not in VmHWM.
_MEASURED = r"""
import json, re, resource, runpy, sys
limit = int(sys.argv[1])
sys.argv = sys.argv[2:]
if limit:
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    if end.code:
        raise
used = resource.getrusage(resource.RUSAGE_SELF)
peak = used.ru_maxrss
try:
    with open("/proc/self/status") as status:
        peak = int(re.search(r"VmHWM:\s*(\d+)", status.read()).group(1))
except OSError:
    pass
print(json.dumps([used.ru_utime + used.ru_stime, peak / 1024]))
"""


def cost(
    folder: Path,
    file: str,
    counts: np.ndarray,
    *,
    scratch: Path,
    frames: int = FRAMES,
    threads: int = 1,
    memory_mb: float | None = None,
) -> dict[str, Any]:
    """Processor time and memory of localizing a movie in a process of its own: the runner of the export folder.

    The time of starting and loading is measured on one frame and taken off.

    Args:
        folder: written by export. file: which file of it.
        counts: a movie (frames, rows, columns), of which the first `frames` are used; at least 2.
        scratch: folder for what is written meanwhile.
        memory_mb: the process gets so much memory for its data (`ulimit -d`) and computes one frame at a time.

    Returns:
        "cpu_s_per_1000" frames and "peak_mb" of the whole process; with `memory_mb` also "fits", and where it does not,
        the figures are those without that limit.

    Raises:
        ValueError: a movie too short, or the runner failed for another reason.
    """
    counts = counts[:frames]
    if len(counts) < 2:
        raise ValueError(f"the movie has {len(counts)} frames; at least 2 are needed to measure a rate")
    used = []
    for number in (1, len(counts)):
        part = scratch / f"edge-{number}.tif"
        tifffile.imwrite(part, counts[:number])
        words = [str(part), "-o", str(scratch / "edge.csv"), "--file", file, "--threads", str(threads)]
        if memory_mb is not None:
            words += ["--at-once", "1"]
        command = [sys.executable, "-c", _MEASURED, str(int(1e6 * (memory_mb or 0))), str(folder / RUNNER), *words]
        few = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        answer = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **few})
        if answer.returncode and memory_mb is not None:  # for want of memory, if it runs without the limit
            return {**cost(folder, file, counts, scratch=scratch, frames=frames, threads=threads), "fits": False}
        if answer.returncode:
            raise ValueError(f"{folder / RUNNER} failed on {file}: {answer.stderr.strip()[-300:]}")
        used.append(tuple(json.loads(answer.stdout.splitlines()[-1])))
    seconds = max(used[1][0] - used[0][0], 0.0) / (len(counts) - 1)
    figures = {"cpu_s_per_1000": 1000 * seconds, "peak_mb": used[1][1]}
    return figures if memory_mb is None else {**figures, "fits": True}


def edge_name(threads: int, memory_mb: float | None) -> str:
    """Name of the file that holds what `edge_rows` measured in this way."""
    machine = "" if threads == 1 and memory_mb is None else f"-{threads}"
    return f"edge{machine}{'' if memory_mb is None else f'-{memory_mb:g}MB'}.json"


def edge_rows(
    models: Mapping[str, tuple[Path, str]],
    counts: np.ndarray,
    *,
    scratch: Path,
    threads: int = 1,
    memory_mb: float | None = None,
    seconds: float = 3.0,
    size: int = 64,
) -> dict[str, dict[str, Any]]:
    """Latency (all models interleaved in one run), throughput, memory, file size, processor time.

    Args:
        models: name -> (export folder, file in it).
        counts: of a movie, for `cost`.
        scratch: folder for what is written meanwhile.
        threads: of each model.
        memory_mb: what `cost` may use.
        seconds: of timing. size: side of the timed frame.
    """
    opened = {name: open_model(folder / file, device="cpu", threads=threads) for name, (folder, file) in models.items()}
    times = time_models(opened, size=size, seconds=seconds)
    batches = time_models(opened, batch=8, size=size, seconds=seconds)
    rows = {}
    for name, (folder, file) in models.items():
        rows[name] = {
            "ms": 1e3 * times[name].median,
            "ms_best": 1e3 * times[name].best,
            "ms_worst": 1e3 * times[name].worst,
            "frames_per_second": 1 / min(batches[name].median, times[name].median),
            "mb": (folder / file).stat().st_size / 1e6,
            **cost(folder, file, counts, scratch=scratch, threads=threads, memory_mb=memory_mb),
        }
    return rows


def pareto(rows: Mapping[str, Mapping[str, Any]], *, cost: str = "ms", score: str = "efficiency") -> list[str]:
    """Names that no other one beats: nothing cheaper is as good. Cheapest first.

    Args:
        rows: name -> figures. cost: smaller is better. score: larger is better.
    """
    front: list[str] = []
    best = -math.inf
    for name in sorted(rows, key=lambda name: (rows[name][cost], -rows[name][score])):
        if rows[name][score] > best:
            front.append(name)
            best = rows[name][score]
    return front


def plot_pareto(
    rows: Mapping[str, Mapping[str, Any]], path: Path, *, title: str, threads: int = 1, max_ms: float = math.inf
) -> Path:
    """Efficiency over milliseconds, with intervals, the line of those that none beats, and the limit of the time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from harness.io.atomic import atomic_path

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    names = list(rows)
    for number, name in enumerate(names):
        row = rows[name]
        low, high = row.get("efficiency_low"), row.get("efficiency_high")
        bars = None if low is None or high is None else [[row["efficiency"] - low], [high - row["efficiency"]]]
        axes.errorbar(row["ms"], row["efficiency"], yerr=bars, fmt="o", capsize=3, color=f"C{number % 10}", label=name)
    front = pareto(rows)
    axes.plot([rows[n]["ms"] for n in front], [rows[n]["efficiency"] for n in front], color="0.7", zorder=0)
    if max_ms < math.inf:
        axes.axvline(max_ms, color="0.6", linestyle="--", label=f"limit {max_ms:g} ms")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel(f"milliseconds for a 64x64 frame, ONNX Runtime, {threads} thread{'s' if threads > 1 else ''}")
    axes.set_ylabel("efficiency, with 95 % interval")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="best")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
    return path
