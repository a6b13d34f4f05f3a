"""How sure a score is, and who is better than whom. Needs numpy only.

Molecules stay on for several frames, so frames are not independent: all resampling is by blocks of consecutive
frames. Two models are compared on the same resampled blocks (paired), all pairs of a table together are corrected
by Holm's method, and models that cannot be told apart share a rank.

Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13 (percentile intervals) and 16 (tests); Holm
1979, Scand. J. Statist. 6:65.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK_FRAMES = 20
RESAMPLES = 1000
LEVEL = 0.95
NO_HIT_EFFICIENCY = -100.0
_AT_ONCE = 2_000_000  # weights held at a time

SCORES = (
    "jaccard", "precision", "recall", "f1", "rmse_lateral_nm", "rmse_axial_nm", "efficiency_lateral",
    "efficiency_axial", "efficiency",
)  # fmt: skip
"""Scores that follow from `Blocks`, percent and nm."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """Counts of one model on one movie, summed over blocks of consecutive frames.

    Attributes:
        tp, fp, fn: (B,) hits, false alarms, misses.
        lateral_nm2, axial_nm2: (B,) sums over hits of dx^2 + dy^2 and of dz^2.
        dimensions: 2 or 3; the axial sum counts in 3D only.
        frames: frames in a block.
    """

    tp: NDArray[np.float64]
    fp: NDArray[np.float64]
    fn: NDArray[np.float64]
    lateral_nm2: NDArray[np.float64]
    axial_nm2: NDArray[np.float64]
    dimensions: int = 2
    frames: int = BLOCK_FRAMES

    def __post_init__(self) -> None:
        lengths = set()
        for name in _COUNTS:
            array = np.asarray(getattr(self, name), np.float64)
            object.__setattr__(self, name, array)
            lengths.add(array.shape)
            if array.ndim != 1 or not np.isfinite(array).all() or (array < 0).any():
                raise ValueError(f"blocks: {name} is no list of numbers from 0 up")
        if len(lengths) != 1:
            raise ValueError(f"blocks: lists of different lengths {sorted(lengths)}; give one number per block")
        if self.dimensions not in (2, 3):
            raise ValueError(f"blocks: dimensions is {self.dimensions}; expected 2 or 3")

    def __len__(self) -> int:
        return len(self.tp)

    @classmethod
    def of_frames(
        cls,
        *,
        frame: ArrayLike,
        tp: ArrayLike,
        fp: ArrayLike,
        fn: ArrayLike,
        lateral_nm2: ArrayLike,
        axial_nm2: ArrayLike,
        n_frames: int,
        dimensions: int = 2,
        block_frames: int = BLOCK_FRAMES,
    ) -> Blocks:
        """From counts by frame; frames that are not listed count nothing but belong to their block.

        Args:
            frame: frame numbers from 0; the other lists belong to them.
            n_frames: frames of the movie; a shorter last block is a block.

        Raises:
            ValueError: a frame outside 0..n_frames - 1.
        """
        number = np.asarray(frame, np.int64)
        if len(number) and (number.min() < 0 or number.max() >= n_frames):
            raise ValueError(f"frames {number.min()} to {number.max()} do not fit a movie of {n_frames} frames")
        count = max(math.ceil(n_frames / block_frames), 1)
        given = {"tp": tp, "fp": fp, "fn": fn, "lateral_nm2": lateral_nm2, "axial_nm2": axial_nm2}
        sums = {
            name: np.bincount(number // block_frames, np.asarray(values, np.float64), minlength=count).astype(
                np.float64
            )
            for name, values in given.items()
        }
        return cls(**sums, dimensions=dimensions, frames=block_frames)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Blocks:
        """Inverse of `to_dict`.

        Raises:
            ValueError: a key is missing, or lists that are no counts.
        """
        missing = [item.name for item in fields(cls) if item.name not in data]
        if missing:
            raise ValueError(f"blocks: {', '.join(missing)} missing")
        return cls(**{item.name: data[item.name] for item in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, ready for JSON; squares to 0.001 nm^2."""
        counts = {name: [int(v) for v in getattr(self, name)] for name in ("tp", "fp", "fn")}
        squares = {name: [round(float(v), 3) for v in getattr(self, name)] for name in ("lateral_nm2", "axial_nm2")}
        return {**counts, **squares, "dimensions": self.dimensions, "frames": self.frames}

    def scores(self) -> dict[str, float]:
        """The scores of the whole movie; nan where undefined."""
        sums = np.array([[getattr(self, name).sum() for name in _COUNTS]])
        return {name: float(values[0]) for name, values in _scores(sums, self.dimensions).items()}


_COUNTS = ("tp", "fp", "fn", "lateral_nm2", "axial_nm2")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A score with its percentile interval and the standard deviation over the resamples."""

    value: float
    low: float
    high: float
    deviation: float

    def to_dict(self) -> dict[str, float | None]:
        """Plain numbers; undefined ones are None."""
        values = {"value": self.value, "low": self.low, "high": self.high, "deviation": self.deviation}
        return {name: None if math.isnan(value) else value for name, value in values.items()}


def intervals(
    blocks: Blocks, *, rng: np.random.Generator, resamples: int = RESAMPLES, level: float = LEVEL
) -> dict[str, Interval]:
    """Block bootstrap intervals of every score of `SCORES`.

    Args:
        blocks: of one model on one movie.
        rng: the same seed gives the same intervals.
        resamples: number of resampled movies.
        level: share of the resamples within the interval.

    Returns:
        name -> interval; nan ends where there are fewer than two blocks or no resample has the score.

    Raises:
        ValueError: no resamples, or a level outside 0..1.
    """
    _check(resamples, level)
    whole = blocks.scores()
    if len(blocks) < 2:
        return {n: Interval(value=whole[n], low=math.nan, high=math.nan, deviation=math.nan) for n in SCORES}
    table = _table(blocks)
    parts = [_scores(weights @ table, blocks.dimensions) for weights in _weights(len(blocks), resamples, rng)]
    result = {}
    for name in SCORES:
        drawn = np.concatenate([part[name] for part in parts])
        drawn = drawn[np.isfinite(drawn)]
        low, high = np.quantile(drawn, _ends(level)) if len(drawn) else (math.nan, math.nan)
        spread = float(drawn.std(ddof=1)) if len(drawn) > 1 else math.nan
        result[name] = Interval(value=whole[name], low=float(low), high=float(high), deviation=spread)
    return result


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same movie.

    Attributes:
        first, second: their names.
        delta: score of the first minus score of the second; low, high: its percentile interval.
        p_value: two-sided, from the paired block bootstrap; adjusted: after Holm's correction over the pairs that
            were compared together.
        better: the name of the better one, or "" if they cannot be told apart.
    """

    first: str
    second: str
    delta: float
    low: float
    high: float
    p_value: float
    adjusted: float
    better: str


def compare(
    models: Mapping[str, Blocks],
    *,
    rng: np.random.Generator,
    score: str = "efficiency",
    resamples: int | None = None,
    level: float = LEVEL,
) -> list[Comparison]:
    """Every pair of models, on the same resampled blocks.

    One of a pair is better when the interval of the difference excludes 0 and the p-value, corrected by Holm's
    method over all pairs, is below 1 - level. A resample without the score on one side (no hit, for an RMSE)
    counts for neither.

    Args:
        models: name -> blocks, all of one movie, cut alike.
        rng: the same seed gives the same answer.
        score: a name of `SCORES`; of RMSEs the smaller is better.
        resamples: number of resampled movies; None takes 1000, or 100 per pair if that is more, since Holm's
            correction needs p-values below (1 - level) / pairs.

    Raises:
        ValueError: an unknown score, blocks that do not belong together, or fewer than two blocks.
    """
    if score not in SCORES:
        raise ValueError(f"no score named {score!r}; there are {', '.join(SCORES)}")
    names = list(models)
    shapes = {(len(b), b.frames, b.dimensions) for b in models.values()}
    if len(shapes) > 1:
        raise ValueError(
            f"the models' blocks differ in (number, frames, dimensions): {sorted(shapes)}; compare models on one movie"
        )
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    if not pairs:
        return []
    (number, _, dimensions) = next(iter(shapes))
    if number < 2:
        raise ValueError(f"the movie has {number} block; a comparison needs at least 2, i.e. a longer movie")
    resamples = max(RESAMPLES, 100 * len(pairs)) if resamples is None else resamples
    _check(resamples, level)
    tables = [_table(models[name]) for name in names]
    values = np.empty((len(names), resamples))
    done = 0
    for weights in _weights(number, resamples, rng):
        for i, table in enumerate(tables):
            values[i, done : done + len(weights)] = _scores(weights @ table, dimensions)[score]
        done += len(weights)
    whole = [models[name].scores()[score] for name in names]
    drawn = []
    for i, j in pairs:
        difference = values[i] - values[j]
        drawn.append(difference[np.isfinite(difference)])
    p = [_two_sided(difference) for difference in drawn]
    rows = []
    sign = -1 if score.startswith("rmse") else 1
    for (i, j), difference, own, adjusted in zip(pairs, drawn, p, holm(p), strict=True):
        low, high = np.quantile(difference, _ends(level)) if len(difference) else (math.nan, math.nan)
        delta = whole[i] - whole[j]
        told_apart = (low > 0 or high < 0) and adjusted < 1 - level
        rows.append(
            Comparison(
                first=names[i],
                second=names[j],
                delta=float(delta),
                low=float(low),
                high=float(high),
                p_value=own,
                adjusted=adjusted,
                better="" if not told_apart else names[i] if sign * low > 0 else names[j],
            )
        )
    return rows


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down method, in the order given.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    count = len(p_values)
    adjusted = [0.0] * count
    highest = 0.0
    for place, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (count - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True, kw_only=True)
class Rank:
    """The place of a model among others on one movie.

    Attributes:
        best, worst: 1 + how many are better than it, and how many it is not better than: places that it may have.
        mean: their mean; models that nothing tells apart share it.
    """

    best: int
    worst: int

    @property
    def mean(self) -> float:
        return (self.best + self.worst) / 2

    def __str__(self) -> str:
        return str(self.best) if self.best == self.worst else f"{self.best}-{self.worst}"


def ranks(names: Iterable[str], comparisons: Iterable[Comparison]) -> dict[str, Rank]:
    """Shared ranks: who is better only where a comparison says so.

    Args:
        names: all models that were compared.
        comparisons: from `compare`.
    """
    names = list(names)
    better = dict.fromkeys(names, 0)
    worse = dict.fromkeys(names, 0)
    for one in comparisons:
        if one.better:
            other = one.second if one.better == one.first else one.first
            better[other] += 1
            worse[one.better] += 1
    return {name: Rank(best=1 + better[name], worst=len(names) - worse[name]) for name in names}


def mean_rank(of_dataset: Sequence[Mapping[str, Rank]], names: Iterable[str]) -> dict[str, float]:
    """Mean rank of each model over data sets; nan for a model that lacks one of them, or without data sets."""
    result = {}
    for name in names:
        own = [table[name].mean for table in of_dataset if name in table]
        result[name] = math.fsum(own) / len(own) if own and len(own) == len(of_dataset) else math.nan
    return result


def mean_score(values: Iterable[float | None]) -> float:
    """Mean over data sets; nan if one is missing (None or nan), or without data sets."""
    given = [math.nan if value is None else float(value) for value in values]
    return math.fsum(given) / len(given) if given and not any(map(math.isnan, given)) else math.nan


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """One score of several trainings that differ in their seed."""

    values: tuple[float, ...]
    median: float
    low: float
    high: float
    governs: str


def over_seeds(values: Iterable[float], interval: Interval | None = None) -> Seeds:
    """Median and range over training seeds, and which is wider: the range over seeds or the interval over frames.

    Args:
        values: a score for each seed.
        interval: of the frames, for `governs`: "seeds", "frames", or "" where one of them is unknown (a single
            seed tells nothing of their spread).

    Raises:
        ValueError: no values.
    """
    given = tuple(float(value) for value in values)
    if not given:
        raise ValueError("no values; give the score of at least one seed")
    low, high = min(given), max(given)
    governs = ""
    if len(given) > 1 and interval is not None and not math.isnan(interval.low):
        governs = "seeds" if high - low > interval.high - interval.low else "frames"
    return Seeds(values=given, median=float(np.median(given)), low=low, high=high, governs=governs)


def _table(blocks: Blocks) -> NDArray[np.float64]:
    return np.column_stack([getattr(blocks, name) for name in _COUNTS])


def _weights(number: int, resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """How often each block is drawn in each resample, some resamples at a time."""
    part = max(_AT_ONCE // number, 1)
    for begin in range(0, resamples, part):
        size = min(part, resamples - begin)
        drawn = rng.integers(0, number, (size, number)) + number * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * number).reshape(size, number).astype(np.float64)


def _scores(sums: NDArray[np.float64], dimensions: int) -> dict[str, NDArray[np.float64]]:
    """Every score from rows of summed counts, (R, 5) -> (R,) each."""
    tp, fp, fn, lateral, axial = sums.T

    def share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
        return 100 * np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

    def rmse(squares: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sqrt(np.divide(squares, tp, out=np.full_like(tp, math.nan), where=tp > 0))

    jaccard = share(tp, tp + fp + fn)
    result = {
        "jaccard": jaccard,
        "precision": share(tp, tp + fp),
        "recall": share(tp, tp + fn),
        "f1": share(2 * tp, 2 * tp + fp + fn),
        "rmse_lateral_nm": rmse(lateral),
        "rmse_axial_nm": rmse(axial) if dimensions == 3 else np.full_like(tp, math.nan),
    }
    for axis, alpha in (("lateral", 1.0), ("axial", 0.5)):
        value = 100 - np.hypot(100 - jaccard, alpha * result[f"rmse_{axis}_nm"])
        result[f"efficiency_{axis}"] = np.where(tp > 0, value, NO_HIT_EFFICIENCY)
    if dimensions == 2:
        result["efficiency_axial"] = np.full_like(tp, math.nan)
        result["efficiency"] = result["efficiency_lateral"]
    else:
        result["efficiency"] = (result["efficiency_lateral"] + result["efficiency_axial"]) / 2
    return result


def _two_sided(difference: NDArray[np.float64]) -> float:
    if not len(difference):
        return 1.0
    tail = min(int((difference <= 0).sum()), int((difference >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(difference) + 1))


def _ends(level: float) -> tuple[float, float]:
    return (1 - level) / 2, (1 + level) / 2


def _check(resamples: int, level: float) -> None:
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; give at least 1, usually {RESAMPLES}")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; give a share between 0 and 1, usually {LEVEL}")
