"""Speed of matching and scoring: ``python -m harness.scoring.benchmark``.

100,000 emitters in 4,000 frames, 25 a frame, against as many localizations, on fields from sparse to a heap; best and
median of several runs. Then 1,000,000 emitters in 40,000 frames: the challenge's scores, and the whole report with
intervals from 1,000 resampled movies.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from simulators.emitters import Emitters, Localizations

from .matching import match
from .metrics import score
from .reports import report

FRAMES, PER_FRAME, REPEATS = 4000, 25, 7
LONG_FRAMES, LONG_FIELD_NM = 40_000, 6400.0


def crowd(field_nm: float, rng: np.random.Generator, *, frames: int = FRAMES) -> tuple[Emitters, Localizations]:
    """Random truth, and found positions 20 nm off; a tenth of them anywhere instead."""
    frame = np.repeat(np.arange(frames), PER_FRAME)
    x, y = rng.uniform(0, field_nm, (2, len(frame)))
    truth = Emitters(frame=frame, x_nm=x, y_nm=y, photons=rng.uniform(500, 5000, len(frame)))
    stray = rng.random(len(frame)) < 0.1
    found_x = np.where(stray, rng.uniform(0, field_nm, len(frame)), x + rng.normal(0, 20, len(frame)))
    found_y = np.where(stray, rng.uniform(0, field_nm, len(frame)), y + rng.normal(0, 20, len(frame)))
    order = rng.permutation(len(frame))
    return truth, Localizations(frame=frame, x_nm=found_x, y_nm=found_y).pick(order)


def main() -> None:
    print(f"{FRAMES * PER_FRAME:,} emitters in {FRAMES:,} frames, tolerance 250 nm")
    for field_nm in (25_600, 6_400, 4_000, 2_000, 1_000, 200):
        truth, found = crowd(field_nm, np.random.default_rng(0))
        density = PER_FRAME / (field_nm / 1000) ** 2
        for rule in ("greedy", "optimal"):
            times = []
            for _ in range(REPEATS if rule == "greedy" else 1):
                begin = time.perf_counter()
                pairs = len(match(truth=truth, found=found, tolerance_nm=250, rule=rule))
                times.append(time.perf_counter() - begin)
            print(
                f"  {density:7.2f} per um^2  {rule:8} best {min(times):.3f} s  median "
                f"{statistics.median(times):.3f} s  "
                f"{pairs:,} pairs"
            )
    truth, found = crowd(LONG_FIELD_NM, np.random.default_rng(0), frames=LONG_FRAMES)
    print(f"{len(truth):,} emitters in {LONG_FRAMES:,} frames, {LONG_FIELD_NM / 1000:g} um wide")
    field = (LONG_FIELD_NM, LONG_FIELD_NM)
    begin = time.perf_counter()
    efficiency = score(truth=truth, found=found, field_nm=field).efficiency
    print(f"  scores {time.perf_counter() - begin:.1f} s, efficiency {efficiency:.1f}")
    begin = time.perf_counter()
    whole = report(truth=truth, found=found, field_nm=field, n_frames=LONG_FRAMES, curves=False)
    taken, interval = time.perf_counter() - begin, whole.intervals["efficiency"]
    print(f"  report with intervals {taken:.1f} s, efficiency {interval.low:.2f} to {interval.high:.2f}")


if __name__ == "__main__":
    main()
