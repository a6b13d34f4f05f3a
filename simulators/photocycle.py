"""Photon counts of a fluorophore from the rates between its molecular states.

The cycle of excitation and emission lasts about a microsecond, far less than a frame; these traces show what it adds
up to. Write them to a file for `blinking: {kind: traces}`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .blinking import Floats, Ints

_PIECE = 1000  # steps whose random numbers are drawn at once


class PhotoCycle:
    """States and rates of a Markov chain in continuous time.

    Args:
        rates: (from, to) -> rate per second, all above 0. A pair that occurs twice, as by radiative and
            non-radiative decay, is told apart by a third word: (from, to, "dark").

    Raises:
        ValueError: a rate is not above 0, or a state is never left.

    Example:
        >>> cycle = PhotoCycle({("S0", "S1"): 1e6, ("S1", "S0"): 5e7, ("S1", "S0", "dark"): 7e7})
        >>> round(cycle.share("S1", ("S1", "S0")), 4)
        0.4167
    """

    def __init__(self, rates: Mapping[tuple[str, ...], float]) -> None:
        for step, rate in rates.items():
            if not (len(step) in (2, 3) and np.isfinite(rate) and rate > 0):
                raise ValueError(f"the rate of {step} is {rate}; give (from, to) -> a rate above 0 per second")
        self.states = tuple(dict.fromkeys(state for step in rates for state in step[:2]))
        self.steps = tuple(rates)
        left = {step[0] for step in rates}
        if left != set(self.states):
            raise ValueError(f"no rate leads out of {', '.join(sorted(set(self.states) - left))}")
        self.rates = dict(rates)

    def share(self, state: str, step: tuple[str, ...]) -> float:
        """Probability that a stay in `state` ends in this step."""
        return self.rates[step] / sum(rate for other, rate in self.rates.items() if other[0] == state)

    def walk(
        self, molecules: int, events: int, rng: np.random.Generator, *, count: tuple[str, ...], start: str | None = None
    ) -> list[Floats]:
        """Times of one kind of step, seconds, for each molecule; all start in `start` and make `events` steps.

        Args:
            count: the step to report, one of those given.
            start: first state; the first one named if left out.
        """
        numbers = {state: index for index, state in enumerate(self.states)}
        leaving = [[step for step in self.steps if step[0] == state] for state in self.states]
        total = np.array([sum(self.rates[step] for step in steps) for steps in leaving])
        most = max(len(steps) for steps in leaving)
        edges = np.full((len(self.states), most), 2.0)
        goal = np.zeros((len(self.states), most), np.int64)
        counted = np.zeros((len(self.states), most), bool)
        for row, steps in enumerate(leaving):
            edges[row, : len(steps)] = np.cumsum([self.rates[step] for step in steps]) / total[row]
            goal[row, : len(steps)] = [numbers[step[1]] for step in steps]
            counted[row, : len(steps)] = [step == count for step in steps]
            edges[row, len(steps) - 1 :] = 2.0  # the last step takes what is left
        if not counted.any():
            raise ValueError(f"{count} is no step of this cycle; the steps are {', '.join(map(str, self.steps))}")
        state = np.full(molecules, numbers[start or self.states[0]])
        time = np.zeros(molecules)
        who: list[Ints] = []
        when: list[Floats] = []
        mean, goals, marks = 1 / total, goal.reshape(-1), counted.reshape(-1)
        for begin in range(0, events, _PIECE):
            piece = min(_PIECE, events - begin)
            stay, chance = rng.standard_exponential((piece, molecules)), rng.random((piece, molecules, 1))
            moments, taken = np.empty((piece, molecules)), np.empty((piece, molecules), np.int64)
            for step in range(piece):
                time = time + stay[step] * mean[state]
                moments[step] = time
                taken[step] = state * most + (chance[step] >= edges[state]).sum(1)
                state = goals[taken[step]]
            seen = marks[taken]
            who.append(np.nonzero(seen)[1])
            when.append(moments[seen])
        molecule, times = np.concatenate(who), np.concatenate(when)
        order = np.argsort(molecule, kind="stable")
        return np.split(times[order], np.cumsum(np.bincount(molecule, minlength=molecules))[:-1])


def frame_counts(times: list[Floats], frame_s: float) -> list[npt.NDArray[np.int64]]:
    """Steps per frame, from the first frame to that of the molecule's last step.

    Args:
        times: of each molecule's steps, seconds, as `PhotoCycle.walk` gives them.
        frame_s: length of a frame, seconds.
    """
    return [np.bincount((time / frame_s).astype(np.int64)) for time in times]
