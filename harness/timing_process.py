"""What is timed of one form of one model, in a process of its own.

Frames are fixed; the device is waited for after each call. One call with one frame at a time gives the latency; then
the batch size of largest throughput is looked for among powers of 2. Both are measured in turns, between which other
processes have theirs. The peak of the machine is that of a matrix multiplication in the same process.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.devices import synchronise
from harness.forms import Form
from harness.ready import MapModel, ReadyModel
from harness.runtimes.base import RuntimeInfo
from simulators import Movie, load_recipe, simulate

WARM_GROUP, WARM_WITHIN = 3, 0.05
MOVIE_RECIPE, MOVIE_BLOCK, SHORTEST_MOVIE = "tubes-2d-hd", 64, 4
BATCH_GAIN, BATCH_LOSS = 1.03, 0.8
BESIDE_SECONDS = 0.05  # of the matrix multiplication beside a turn


@dataclass(frozen=True, kw_only=True)
class TimingPlan:
    """How long and how often.

    Args:
        size: side of a frame, camera pixels.
        seconds: of timed calls, for each form; shared between latency and throughput.
        rounds: turns of each form, an even number: the first and the second half are compared.
        largest_batch: of the search for the best batch; 1: no search.
        movie_frames: longest movie of the time from file to table; 0: not timed.
        threads: of every form, fixed.
    """

    threads: int
    size: int = 64
    seconds: float = 5.0
    rounds: int = 6
    largest_batch: int = 64
    movie_frames: int = 1000

    def __post_init__(self) -> None:
        if self.rounds < 2 or self.rounds % 2:
            raise ValueError(f"{self.rounds} rounds; give an even number, so that two halves can be compared")
        if self.threads < 1 or self.size < 1 or self.seconds <= 0 or self.largest_batch < 1:
            raise ValueError("threads, size, seconds and largest batch must be positive")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What is known of a form before its turns. `warm_calls` until the times were stable, if `stable`."""

    info: RuntimeInfo
    batch: int
    best_batch: int
    first_call: float
    warm_calls: int
    stable: bool
    peak_memory: float | None
    peak_flops: float


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Seconds per frame of each call at batch 1 and at the best batch, and CPU seconds per frame there. `machine`:
    floating-point operations per second of a float32 matrix multiplication just before."""

    latency: tuple[float, ...]
    throughput: tuple[float, ...]
    cpu: float
    machine: float


class _Timed:
    """A form at work in this process."""

    def __init__(self, form: Form, plan: TimingPlan) -> None:
        self.plan = plan
        self.model = form.open()
        self.graphics = self.model.info.provider != "CPU"
        self.where = "cuda" if self.graphics else "cpu"
        self.free = torch.cuda.mem_get_info()[0] if self.graphics and torch.cuda.is_available() else 0
        start = time.perf_counter()
        self.one, self.batch = self.model.repeatable(fixed_batch(1, plan.size))
        self.one()
        self.first_call = time.perf_counter() - start
        self.warm_calls, self.stable, self.seconds_per_call = warm_up(self.one, seconds=plan.seconds)
        self.peak_memory = peak_memory() if not self.graphics else self._graphics_memory()
        self.many, self.best_batch = self._search()

    def opened(self) -> Opened:
        return Opened(
            info=self.model.info,
            batch=self.batch,
            best_batch=self.best_batch,
            first_call=self.first_call,
            warm_calls=self.warm_calls,
            stable=self.stable,
            peak_memory=self.peak_memory,
            peak_flops=matmul_peak(self.model.info.precision, self.where),
        )

    def _graphics_memory(self) -> float | None:
        if self.model.info.name == "torch":
            return float(torch.cuda.max_memory_allocated())
        return float(max(0, self.free - torch.cuda.mem_get_info()[0])) if torch.cuda.is_available() else None

    def _search(self) -> tuple[Callable[[], Any], int]:
        """The call of largest throughput, and its frames."""
        best, rate = (self.one, self.batch), self.batch / self.seconds_per_call
        if isinstance(self.model, MapModel) and self.model.context is not None:
            return best  # its windows are what they are
        per_frame, batch = 1 / rate, 2
        while batch <= self.plan.largest_batch and 3 * batch * per_frame <= self.plan.seconds:
            call, frames = self.model.repeatable(fixed_batch(batch, self.plan.size))
            call()
            per_frame = statistics.median(timed(call, seconds=0.1 * self.plan.seconds, least=2)) / frames
            if 1 / per_frame > BATCH_GAIN * rate:
                best, rate = (call, frames), 1 / per_frame
            elif 1 / per_frame < BATCH_LOSS * rate:
                break
            batch *= 2
        return best

    def turn(self, seconds: float) -> Turn:
        machine = matmul_peak(device=self.where, seconds=BESIDE_SECONDS)
        if self.seconds_per_call < 0.5 * seconds:
            self.one()  # others have had the caches
        share = seconds if self.best_batch == self.batch else 0.5 * seconds
        before = time.process_time()
        latency = timed(self.one, seconds=share)
        cpu, frames = time.process_time() - before, self.batch * len(latency)
        throughput = latency
        if self.best_batch != self.batch:
            self.many()
            before = time.process_time()
            throughput = timed(self.many, seconds=share)
            cpu, frames = time.process_time() - before, self.best_batch * len(throughput)
        return Turn(
            latency=tuple(taken / self.batch for taken in latency),
            throughput=tuple(taken / self.best_batch for taken in throughput),
            cpu=cpu / frames,
            machine=machine,
        )

    def movie(self, seconds: float, movie: Movie) -> float | None:
        """Seconds per frame from movie file to table file; None without a threshold."""
        if self.model.card.get("threshold") is None:
            return None
        length = int(min(self.plan.movie_frames, max(SHORTEST_MOVIE, seconds / self.seconds_per_call * self.batch)))
        return movie_to_table(self.model, movie, frames=length)


def warm_up(call: Callable[[], Any], *, seconds: float) -> tuple[int, bool, float]:
    """Call until times are stable: the medians of the last three calls and of the three before differ by less than
    5 %; or until the seconds are over.

    Returns:
        The number of calls, whether the times became stable, and the median of the last three, s.
    """
    taken: list[float] = []
    while True:
        taken += timed(call, seconds=0.0)
        last, before = taken[-WARM_GROUP:], taken[-2 * WARM_GROUP : -WARM_GROUP]
        median = statistics.median(last)
        if len(before) == WARM_GROUP and abs(median / statistics.median(before) - 1) < WARM_WITHIN:
            return len(taken), True, median
        if sum(taken) >= seconds:
            return len(taken), False, median


def timed(call: Callable[[], Any], *, seconds: float, least: int = 1) -> list[float]:
    """Seconds of each call; calls until so many seconds are over, at least `least`."""
    taken: list[float] = []
    while len(taken) < least or sum(taken) < seconds:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


def fixed_batch(batch: int, size: int) -> torch.Tensor:
    """The frames that every form of every model is timed on, (batch, size, size) photons."""
    rng = np.random.default_rng(2016)
    return torch.from_numpy(rng.gamma(4.0, 25.0, (batch, size, size)).astype(np.float32))


def peak_memory() -> float | None:
    """Largest resident memory of this process so far, bytes; None where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="utf-8") as lines:
            return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
        import sys
    except ImportError:
        return None
    largest = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return largest if sys.platform == "darwin" else 1024 * largest


def matmul_peak(precision: str = "float32", device: str = "cpu", *, seconds: float = 0.2) -> float:
    """Floating-point operations per second of a large square matrix multiplication, the fastest of several.

    In float32; for narrower arithmetics the larger of float32 and bfloat16, so that the peak of a machine without units
    for them is not the slow way round. On GPUs float32 uses TF32 where convolutions do.
    """
    where = torch.device(device)
    side = 1024 if where.type == "cpu" else 8192
    best = 0.0
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        for kind in (torch.float32,) if precision == "float32" else (torch.float32, torch.bfloat16):
            matrix = torch.rand(side, side, device=where).to(kind)

            def multiply(matrix: torch.Tensor = matrix) -> None:
                torch.mm(matrix, matrix)
                synchronise(where)

            multiply()
            best = max(best, 2.0 * side**3 / min(timed(multiply, seconds=seconds, least=3)))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    return best


@cache
def timed_movie(size: int, frames: int) -> Movie:
    """What every form localizes: `frames` frames, or as many as are repeated then."""
    recipe = load_recipe(MOVIE_RECIPE).with_(frames=min(frames, MOVIE_BLOCK), size=size)
    return simulate(recipe, recipe.rng())


def movie_to_table(model: ReadyModel, movie: Movie, *, frames: int) -> float:
    """Seconds per frame from a movie file (TIFF) to a table file (CSV), at the model's threshold; the movie is repeated
    to `frames` frames."""
    from harness.io.movies import write_movie
    from harness.localization import localize_rows

    repeated = np.arange(frames) % len(movie)
    with tempfile.TemporaryDirectory() as folder:
        file, table = Path(folder) / "movie.tif", Path(folder) / "table.csv"
        write_movie(file, movie.frames[repeated], pixel_size_nm=movie.camera.pixel_size_nm)
        start = time.perf_counter()
        localize_rows(model, file, table, camera=movie.camera)
        return (time.perf_counter() - start) / frames


_here: _Timed | None = None


def start(form: Form, plan: TimingPlan) -> Opened:
    """Open a form in this process, warm it up and find its best batch."""
    global _here
    _here = _Timed(form, plan)
    return _here.opened()


def take_turn(seconds: float) -> Turn:
    """Time the form that was opened here."""
    if _here is None:
        raise RuntimeError("no form was opened in this process; call start before")
    return _here.turn(seconds)


def take_movie(seconds: float, movie: Movie) -> float | None:
    """Time the form that was opened here from movie file to table file; `movie` is from `timed_movie`."""
    if _here is None:
        raise RuntimeError("no form was opened in this process; call start before")
    return _here.movie(seconds, movie)
