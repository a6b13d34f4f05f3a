"""From timed calls to figures: percentiles, throughput, spread, share of the peak, cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.runtimes.base import RuntimeInfo
from harness.timing_process import Opened, Turn
from leaderboard import Timing

NOISY_BEYOND = 0.10


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that at least this share of the values does not exceed; of less than 100 calls
    the 99th percentile is the slowest."""
    if not values:
        raise ValueError("no values to take a percentile of; time at least one call")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def relative_difference(first: float, second: float) -> float:
    """|first - second| as a share of the smaller one."""
    return abs(first - second) / min(first, second)


@dataclass(frozen=True, kw_only=True)
class FormTimes:
    """All that was measured of one form; seconds are per frame.

    Args:
        form: its name.
        opened: before its turns.
        turns: in order; the two halves are compared.
        movie: seconds per frame from movie file to table file; None: not measured.
        usual: what `machine` mostly is in the run that it belongs to, from `as_one_run`; None: not compared.
    """

    form: str
    opened: Opened
    turns: tuple[Turn, ...]
    movie: float | None = None
    usual: float | None = None

    @property
    def info(self) -> RuntimeInfo:
        """What really computed."""
        return self.opened.info

    @property
    def latency(self) -> list[float]:
        """Of every call with one frame."""
        return [taken for turn in self.turns for taken in turn.latency]

    @property
    def median(self) -> float:
        """Of the latency."""
        return statistics.median(self.latency)

    @property
    def throughput(self) -> float:
        """Frames per second at the best batch."""
        return 1 / statistics.median([taken for turn in self.turns for taken in turn.throughput])

    @property
    def spread(self) -> float:
        """Relative difference of the medians of the latency in the first and the second half of the turns."""
        half = len(self.turns) // 2
        first, second = (
            statistics.median([taken for turn in part for taken in turn.latency])
            for part in (self.turns[:half], self.turns[half:])
        )
        return relative_difference(first, second)

    @property
    def machine(self) -> float:
        """Floating-point operations per second of a matrix multiplication beside its turns, the median."""
        return statistics.median(turn.machine for turn in self.turns)

    @property
    def noisy(self) -> bool:
        """Whether the halves differ by more than 10 %, or the machine was then by more than 10 % faster or slower than
        usual: such a row has no place in a ranking by speed."""
        unusual = 0.0 if self.usual is None else relative_difference(self.machine, self.usual)
        return max(self.spread, unusual) > NOISY_BEYOND

    def section(self, *, size: int, macs: int | None = None, price_per_hour: float | None = None) -> Timing:
        """As a record holds it.

        Args:
            size: side of the frames, camera pixels.
            macs: multiply-accumulates per frame; None where unknown.
            price_per_hour: of the machine, in any currency.
        """
        latency, rate = self.latency, self.throughput
        flops = None if macs is None else 2.0 * macs * rate
        hours = 1e6 / rate / 3600
        return Timing(
            ms_p50=1e3 * self.median,
            ms_p90=1e3 * percentile(latency, 0.9),
            ms_p99=1e3 * percentile(latency, 0.99),
            ms_min=1e3 * min(latency),
            ms_max=1e3 * max(latency),
            batch=self.opened.batch,
            frames_per_second=1 / self.median,
            repeats=len(latency),
            best_batch=self.opened.best_batch,
            best_frames_per_second=rate,
            megapixels_per_second=rate * size**2 / 1e6,
            first_call_ms=1e3 * self.opened.first_call,
            peak_memory_mb=None if self.opened.peak_memory is None else self.opened.peak_memory / 1e6,
            spread=self.spread,
            noisy=self.noisy,
            machine_gflops=self.machine / 1e9,
            gflops=None if flops is None else flops / 1e9,
            peak_gflops=self.opened.peak_flops / 1e9,
            peak_share=None if flops is None else flops / self.opened.peak_flops,
            cpu_seconds_per_1000_frames=1e3 * statistics.median([turn.cpu for turn in self.turns]),
            movie_frames_per_second=None if self.movie is None else 1 / self.movie,
            hours_per_million_frames=hours,
            cost_per_million_frames=None if price_per_hour is None else hours * price_per_hour,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> FormTimes:
        """Inverse of `to_dict`.

        Raises:
            ValueError: keys that are missing or unknown.
        """
        try:
            opened = Opened(**{**data["opened"], "info": RuntimeInfo(**data["opened"]["info"])})
            turns = tuple(
                Turn(**{**turn, "latency": tuple(turn["latency"]), "throughput": tuple(turn["throughput"])})
                for turn in data["turns"]
            )
            movie = None if data["movie"] is None else float(data["movie"])
            return cls(**{**data, "opened": opened, "turns": turns, "movie": movie})
        except (TypeError, KeyError) as error:
            raise ValueError(f"no record of times: {error}") from error


def as_one_run(models: Sequence[Mapping[str, FormTimes]]) -> list[dict[str, FormTimes]]:
    """The times of models that are to be compared, each told how fast the machine usually was beside them, so that
    those taken while it was busy with something else, or for once was not, are known. Usual is the speed that most of
    them share within 10 %: a machine with two speeds has one of them, not the middle."""
    speeds: dict[bool, list[float]] = {True: [], False: []}  # of the CPU, of another device
    for one in (one for forms in models for one in forms.values()):
        speeds[one.info.provider == "CPU"].append(one.machine)

    def alike(speed: float, known: Sequence[float]) -> int:
        return sum(relative_difference(speed, other) <= NOISY_BEYOND for other in known)

    usual = {cpu: max(known, key=lambda speed: (alike(speed, known), speed)) for cpu, known in speeds.items() if known}
    return [
        {name: replace(one, usual=usual[one.info.provider == "CPU"]) for name, one in forms.items()} for forms in models
    ]


def speed_ranks(times: Sequence[FormTimes]) -> list[int | None]:
    """Rank of each by median latency, 1 is fastest; None for the noisy ones."""
    order = sorted((one.median, position) for position, one in enumerate(times) if not one.noisy)
    ranks: list[int | None] = [None] * len(times)
    for rank, (_, position) in enumerate(order, start=1):
        ranks[position] = rank
    return ranks
