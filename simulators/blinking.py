"""When molecules are on, and which share of a frame they spend on.

Times are in frames. What a movie, a short movie or a single frame needs is the same: rows of some molecules
(`movie`), and how many rows to expect of one (`expected_rows`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ._model import Positive, StrictModel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One entry per molecule and frame: which molecule, which frame, share of the frame on.

    The share is 0..1, of measured traces any positive number. Sorted by molecule, then frame.
    """

    molecule: Ints
    frame: Ints
    share: Floats


class Blinking(StrictModel):
    """What every kind of blinking can do.

    Args:
        minimum_share: smallest share of a frame that makes a row (challenge: 1 % of the flux).
    """

    minimum_share: Annotated[float, Field(ge=0, lt=1)] = 0.01

    def expected_rows(self, frames: int) -> float:
        """Mean number of rows of one of the molecules that `movie` draws, at a constant rate."""
        raise NotImplementedError

    def movie(self, rate: Floats, count: int, rng: np.random.Generator) -> Rows:
        """Rows of `count` molecules in a movie of len(rate) frames, whose first frame is like every other.

        Args:
            rate: relative number of molecules that switch on in each frame, some above 0.
        """
        raise NotImplementedError

    def snapshots(self, wanted: Floats, rng: np.random.Generator) -> Rows:
        """Rows of independent single frames, each a moment of a movie that never began.

        Args:
            wanted: mean number of rows of each frame; the number drawn is Poisson distributed.
        """
        counts = rng.poisson(wanted / self.expected_rows(1))
        frame = np.repeat(np.arange(len(wanted)), counts)
        rows = self.movie(np.ones(1), len(frame), rng)
        return Rows(molecule=np.arange(len(rows.molecule)), frame=frame[rows.molecule], share=rows.share)


def start_times(rate: Floats, lead: float, count: int, rng: np.random.Generator) -> Floats:
    """Times between -lead and len(rate), as dense as `rate` says; before 0 as in the first frame."""
    # Frames of equal rate make one step, so that a constant rate is a plain scaling.
    ends = np.append(np.flatnonzero(np.diff(rate)) + 1, len(rate)).astype(np.float64)
    begins = np.concatenate([[0.0], ends[:-1]])
    steps = rate[begins.astype(np.int64)] * (ends - begins)
    edges = np.concatenate([[0.0], rate[0] * lead + np.concatenate([[0.0], np.cumsum(steps)])])
    return np.interp(rng.random(count) * edges[-1], edges, np.concatenate([[-lead, 0.0], ends]))


def rows_of_spans(molecule: Ints, start: Floats, stop: Floats, *, frames: int, minimum: float) -> Rows:
    """Shares of frames 0..frames-1 that spans of time cover; those of one molecule in one frame are added.

    Args:
        molecule: of each span, rising.
        start, stop: of each span, frames; spans of one molecule follow each other and do not overlap.
        minimum: smallest share that makes a row.
    """
    from ._spans import cover

    most = int(np.maximum(np.minimum(np.floor(stop) + 1, frames) - np.maximum(np.floor(start), 0), 0).sum())
    owner, frame, share = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.float64)
    found = cover(molecule, start, stop, frames, float(minimum), owner, frame, share)
    return Rows(molecule=owner[:found], frame=frame[:found], share=share[:found])


def rows_of_one_span(mean: float, minimum: float) -> float:
    """Expected rows of a span of exponential length, see `OnTimeBlinking`."""
    return exp(-minimum / mean) * (1 + mean - minimum)


class OnTimeBlinking(Blinking):
    """A molecule switches on once, at any time, and stays on for an exponentially distributed time.

    Rows in which the molecule is on for less than `minimum_share` of the frame are
    dropped.

    A molecule that is on for T, switched on at a uniform time, overlaps a frame by at least e during a
    stretch of 1 - 2 e + T of start times (T >= e). Its mean over the exponential T with mean m is the
    expected number of rows,

        exp(-e/m) * (1 + m - e).

    Args:
        mean_on_frames: mean on-time m, frames.
    """

    kind: Literal["on_time"] = "on_time"
    mean_on_frames: Positive = 1.0

    @property
    def rows_per_molecule(self) -> float:
        """Expected number of frames with a row, for a molecule far from both ends of the movie."""
        return rows_of_one_span(self.mean_on_frames, self.minimum_share)

    def expected_rows(self, frames: int) -> float:
        return self.rows_per_molecule * frames / (frames + self.mean_on_frames)

    def movie(self, rate: Floats, count: int, rng: np.random.Generator) -> Rows:
        start, stop = self.spans(rate, count, rng)
        return self.rows(start, stop, frames=len(rate))

    def spans(self, rate: Floats, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Switch-on and switch-off times of `count` molecules of a movie, frames.

        Those already on when the movie starts are among them, with start 0: their remaining time is
        exponential with the same mean, and they are `mean_on_frames` times as many as switch on within the
        first frame. So the first frame is like every other.

        Args:
            rate: relative number of molecules that switch on in each frame.
        """
        start = np.maximum(start_times(rate, self.mean_on_frames, count, rng), 0.0)
        stop = start + rng.exponential(self.mean_on_frames, count)
        return start, stop

    def rows(self, start: Floats, stop: Floats, *, frames: int) -> Rows:
        """One row per molecule and frame of 0..frames-1 in which it is on long enough."""
        return rows_of_spans(np.arange(len(start)), start, stop, frames=frames, minimum=self.minimum_share)
