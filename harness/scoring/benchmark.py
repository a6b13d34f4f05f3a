"""Speed of the matching: ``python -m harness.scoring.benchmark``.

100,000 emitters in 4,000 frames, 25 a frame, against as many localizations, on fields from sparse to a heap.
Prints the best and the median of several runs.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from simulators.emitters import Emitters, Localizations

from .matching import match

FRAMES, PER_FRAME, REPEATS = 4000, 25, 7


def crowd(field_nm: float, rng: np.random.Generator) -> tuple[Emitters, Localizations]:
    """Random truth, and found positions 20 nm off; a tenth of them anywhere instead."""
    frame = np.repeat(np.arange(FRAMES), PER_FRAME)
    x, y = rng.uniform(0, field_nm, (2, len(frame)))
    truth = Emitters(frame=frame, x_nm=x, y_nm=y, photons=1000.0)
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


if __name__ == "__main__":
    main()
