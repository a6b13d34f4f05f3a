"""Blinking of molecules that switch on more than once: dark states and bleaching, repeated binding."""

from __future__ import annotations

from math import exp, expm1
from typing import Literal

import numpy as np

from ._model import Positive
from .blinking import Blinking, Floats, Ints, Rows, rows_of_one_span, rows_of_spans, start_times


class FourStateBlinking(Blinking):
    """Inactive, on, dark, bleached: a Markov chain in continuous time.

    An inactive molecule switches on at any time of the movie. From on it bleaches or goes dark, whichever comes
    first; from dark it comes back on. The defaults are those of the SMLM challenge: a burst lasts 1 frame on
    average, two of three end in bleaching.

    Args:
        bleaching_frames: mean time until an on molecule bleaches, if it did not go dark before, frames.
        darkening_frames: mean time until an on molecule goes dark, if it did not bleach before, frames.
        dark_frames: mean time in the dark, frames.

    Source: the challenge's simulator, Sage et al. 2019, doi:10.1038/s41592-019-0364-4.
    """

    kind: Literal["four_state"] = "four_state"
    bleaching_frames: Positive = 1.5
    darkening_frames: Positive = 3.0
    dark_frames: Positive = 2.5

    @property
    def mean_on_frames(self) -> float:
        """Mean length of a burst, frames."""
        return 1 / (1 / self.bleaching_frames + 1 / self.darkening_frames)

    @property
    def bursts_per_molecule(self) -> float:
        """Mean number of bursts: 1 / probability that a burst ends in bleaching."""
        return self.bleaching_frames / self.mean_on_frames

    @property
    def lifetime_frames(self) -> float:
        """Mean time from switching on to bleaching: on-time and dark time."""
        return self.bleaching_frames + (self.bursts_per_molecule - 1) * self.dark_frames

    @property
    def rows_per_molecule(self) -> float:
        """Expected number of frames with a row, for a molecule far from both ends of the movie.

        A frame is touched when its start lies within the on-times or less than a frame before them, so the mean is
        the on-time + 1 + the mean of min(dark time, 1) for each dark time. The frames that are touched for less
        than `minimum_share` are taken off as for a single burst.
        """
        dark = (self.bursts_per_molecule - 1) * self.dark_frames
        touched = 1 + self.bleaching_frames - dark * expm1(-1 / self.dark_frames)
        return touched * rows_of_one_span(self.mean_on_frames, self.minimum_share) / (1 + self.mean_on_frames)

    def expected_rows(self, frames: int) -> float:
        return self.rows_per_molecule * frames / (frames + self.lifetime_frames)

    def movie(self, rate: Floats, count: int, rng: np.random.Generator) -> Rows:
        # Those that switched on before the movie and have not bleached are as many as switch on in the mean lifetime;
        # they are on or dark as the two share it, and the chain does not remember for how long.
        time = start_times(rate, self.lifetime_frames, count, rng)
        dark = (time < 0) & (rng.random(count) * self.lifetime_frames >= self.bleaching_frames)
        time = np.maximum(time, 0.0)
        time[dark] += rng.exponential(self.dark_frames, int(dark.sum()))
        spans: list[tuple[Ints, Floats, Floats]] = []
        alive = np.flatnonzero(time < len(rate))
        while len(alive):
            start = time[alive]
            stop = start + rng.exponential(self.mean_on_frames, len(alive))
            spans.append((alive, start, stop))
            goes_on = rng.random(len(alive)) * self.bursts_per_molecule >= 1
            alive = alive[goes_on]
            time[alive] = stop[goes_on] + rng.exponential(self.dark_frames, len(alive))
            alive = alive[time[alive] < len(rate)]
        return _binned(spans, len(rate), self.minimum_share)


class PaintBlinking(Blinking):
    """DNA-PAINT: imagers bind to a site again and again; sites neither bleach nor wear off.

    Where the density varies over a movie, fewer of the visits take place.

    Args:
        bound_frames: mean time that an imager stays, frames.
        unbound_frames: mean time until the next one comes, frames: 1 / (k_on * concentration * frame time).
    """

    kind: Literal["paint"] = "paint"
    bound_frames: Positive = 3.0
    unbound_frames: Positive = 500.0

    def expected_rows(self, frames: int) -> float:
        unbound = self.unbound_frames / (self.bound_frames + self.unbound_frames)
        touched = 1 - unbound * exp(-1 / self.unbound_frames)
        return frames * touched * rows_of_one_span(self.bound_frames, self.minimum_share) / (1 + self.bound_frames)

    def movie(self, rate: Floats, count: int, rng: np.random.Generator) -> Rows:
        bound = rng.random(count) * (self.bound_frames + self.unbound_frames) < self.bound_frames
        time = np.where(bound, 0.0, rng.exponential(self.unbound_frames, count))
        takes_place = rate / rate.max()
        spans: list[tuple[Ints, Floats, Floats]] = []
        some = np.flatnonzero(time < len(rate))
        while len(some):
            start = time[some]
            stop = start + rng.exponential(self.bound_frames, len(some))
            real = rng.random(len(some)) < takes_place[start.astype(np.int64)]
            spans.append((some[real], start[real], stop[real]))
            time[some] = stop + rng.exponential(self.unbound_frames, len(some))
            some = some[time[some] < len(rate)]
        return _binned(spans, len(rate), self.minimum_share)


def _binned(spans: list[tuple[Ints, Floats, Floats]], frames: int, minimum: float) -> Rows:
    if not spans:
        none = np.zeros(0, np.int64)
        return Rows(molecule=none, frame=none, share=np.zeros(0))
    molecule, start, stop = (np.concatenate([span[i] for span in spans]) for i in range(3))
    order = np.lexsort((start, molecule))
    return rows_of_spans(molecule[order], start[order], stop[order], frames=frames, minimum=minimum)
