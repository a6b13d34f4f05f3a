"""When molecules are on, and which share of a frame they spend on."""

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
    """One entry per molecule and frame: which molecule, which frame, share of the frame on (0..1)."""

    molecule: Ints
    frame: Ints
    share: Floats


class OnTimeBlinking(StrictModel):
    """A molecule switches on once, at any time, and stays on for an exponentially distributed time.

    Times are in frames. Rows in which the molecule is on for less than `minimum_share` of the frame are
    dropped.

    A molecule that is on for T, switched on at a uniform time, overlaps a frame by at least e during a
    stretch of 1 - 2 e + T of start times (T >= e). Its mean over the exponential T with mean m is the
    expected number of rows,

        exp(-e/m) * (1 + m - e).

    Args:
        mean_on_frames: mean on-time m, frames.
        minimum_share: smallest share e of a frame that makes a row (challenge: 1 % of the flux).
    """

    kind: Literal["on_time"] = "on_time"
    mean_on_frames: Positive = 1.0
    minimum_share: Annotated[float, Field(ge=0, lt=1)] = 0.01

    @property
    def rows_per_molecule(self) -> float:
        """Expected number of frames with a row, for a molecule far from both ends of the movie."""
        m, e = self.mean_on_frames, self.minimum_share
        return exp(-e / m) * (1 + m - e)

    def spans(self, rate: Floats, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Switch-on and switch-off times of `count` molecules of a movie, frames.

        Those already on when the movie starts are among them, with start 0: their remaining time is
        exponential with the same mean, and they are `mean_on_frames` times as many as switch on within the
        first frame. So the first frame is like every other.

        Args:
            rate: relative number of molecules that switch on in each frame.
        """
        # Frames of equal rate make one step, so that a constant rate is a plain scaling.
        ends = np.append(np.flatnonzero(np.diff(rate)) + 1, len(rate)).astype(np.float64)
        begins = np.concatenate([[0.0], ends[:-1]])
        steps = rate[begins.astype(np.int64)] * (ends - begins)
        edges = np.concatenate([[0.0], rate[0] * self.mean_on_frames + np.concatenate([[0.0], np.cumsum(steps)])])
        start = np.interp(rng.random(count) * edges[-1], edges, np.concatenate([[0.0, 0.0], ends]))
        stop = start + rng.exponential(self.mean_on_frames, count)
        return start, stop

    def rows(self, start: Floats, stop: Floats, *, frames: int) -> Rows:
        """One row per molecule and frame of 0..frames-1 in which it is on long enough."""
        first = np.floor(start).astype(np.int64)
        last = np.minimum(np.floor(stop).astype(np.int64), frames - 1)
        length = np.maximum(last - first + 1, 0)
        molecule = np.repeat(np.arange(len(start)), length)
        before = np.repeat(np.cumsum(length) - length - first, length)
        frame = np.arange(len(molecule)) - before
        share = np.minimum(stop[molecule], frame + 1.0) - np.maximum(start[molecule], frame)
        keep = (share >= self.minimum_share) & (share > 0)
        return Rows(molecule=molecule[keep], frame=frame[keep], share=share[keep])

    def snapshots(self, wanted: Floats, rng: np.random.Generator) -> Rows:
        """Rows of independent single frames, each a moment of a movie that never began.

        A row's molecule was on when the frame began (m out of 1 + m candidates) or switched on within it.

        Args:
            wanted: mean number of rows of each frame; the number drawn is Poisson distributed.
        """
        candidates = wanted / self.rows_per_molecule * (1 + self.mean_on_frames)
        counts = rng.poisson(candidates)
        total = int(counts.sum())
        frame = np.repeat(np.arange(len(wanted)), counts)
        start = np.maximum(rng.random(total) * (1 + self.mean_on_frames) - self.mean_on_frames, 0.0)
        share = np.minimum(rng.exponential(self.mean_on_frames, total), 1.0 - start)
        keep = (share >= self.minimum_share) & (share > 0)
        frame, share = frame[keep], share[keep]
        return Rows(molecule=np.arange(len(frame)), frame=frame, share=share)
