"""Two models on the same movies: paired differences with intervals and p-values, per data set and over all.

Both models are scored on the same resampled blocks of frames, so that what is hard for both does not count as noise.
The p-values of one score are corrected over the data sets by Holm's method. Over all data sets, each movie is resampled
in itself and the difference is the mean of those of the movies; it is one test and needs no correction.

Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 16; Holm 1979, Scand. J. Statist. 6:65.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .labels import all_labels, is_scored
from .record import Result
from .statistics import LEVEL, Blocks, _ends, _scores, _table, _two_sided, _weights, holm

SCORES = ("efficiency", "jaccard", "rmse_lateral_nm", "rmse_axial_nm")
ALL = "all"
RESAMPLES = 4000


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One score of two models on one data set, or over all.

    Attributes:
        dataset: its label, or "all". score: a name of `SCORES`.
        first, second: the scores; delta: first minus second; low, high: its 95 % interval.
        p_value: two-sided, never below 2^(1 - blocks); adjusted: after Holm's correction over the data sets (over all:
            the same).
        better: "first", "second" or "" where they cannot be told apart.
    """

    dataset: str
    score: str
    first: float
    second: float
    delta: float
    low: float
    high: float
    p_value: float
    adjusted: float
    better: str


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The answer for two models.

    Attributes:
        first, second: their names.
        blocks: data set -> the counts of both by blocks of frames.
        differences: every score on every data set, then over all data sets where there are several.
        level: of the intervals; resamples: resampled movies.
    """

    first: str
    second: str
    blocks: dict[str, tuple[Blocks, Blocks]]
    differences: tuple[Difference, ...]
    level: float
    resamples: int

    @property
    def verdict(self) -> str:
        """One sentence: who has the better efficiency, over all data sets."""
        last = [d for d in self.differences if d.score == "efficiency"][-1]
        where = f"over {len(self.blocks)} datasets" if last.dataset == ALL else f"on {last.dataset}"
        size = f"{abs(last.delta):.1f} points (95 % interval of the difference {last.low:.1f} to {last.high:.1f})"
        if not last.better:
            return f"{self.first} and {self.second} cannot be told apart {where}: their efficiencies differ by {size}."
        better, other = (self.first, self.second) if last.better == "first" else (self.second, self.first)
        return f"{better} has a higher efficiency than {other} {where}, by {size}."

    def frame(self) -> pd.DataFrame:
        """One row per difference; `better` names the model."""
        names = {"first": self.first, "second": self.second, "": ""}
        rows = [
            {
                "dataset": d.dataset,
                "score": d.score,
                self.first: d.first,
                self.second: d.second,
                "difference": d.delta,
                "low": d.low,
                "high": d.high,
                "p": d.p_value,
                "p (Holm)": d.adjusted,
                "better": names[d.better],
            }
            for d in self.differences
        ]
        return pd.DataFrame(rows)


def compare(
    first: Iterable[Result] | Mapping[str, Blocks],
    second: Iterable[Result] | Mapping[str, Blocks],
    *,
    names: tuple[str, str] | None = None,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Paired:
    """Compare two models on the data sets that both were scored on.

    Args:
        first, second: records of one model each, or data set -> counts by blocks of frames.
        names: of the two; needed with counts, otherwise taken from the records.
        rng: the same seed gives the same answer.
        resamples: resampled movies.
        level: of the intervals.

    Raises:
        ValueError: records of several models on one side, no data set in common, counts that are cut differently,
            or movies of fewer than two blocks.

    Example:
        >>> both = Blocks(tp=[8, 9, 7], fp=[1, 0, 1], fn=[2, 1, 3], lateral_nm2=[800, 900, 700], axial_nm2=[0, 0, 0])
        >>> one = compare({"ld": both}, {"ld": both}, names=("a", "b"), rng=np.random.default_rng(0))
        >>> one.differences[0].delta, one.differences[0].better
        (0.0, '')
    """
    sides = _sides(first, second)
    if names is None:
        names = (_name(first, "first"), _name(second, "second"))
    if names[0] == names[1]:
        names = (f"{names[0]} (A)", f"{names[1]} (B)")
    shared = [dataset for dataset in sides[0] if dataset in sides[1]]
    if not shared:
        raise ValueError(
            f"no test in common: {names[0]} has {_some(sides[0])}, {names[1]} has {_some(sides[1])}. Only scores of "
            "the same movie, size, frames, seed and rules can be compared"
        )
    pairs = {dataset: (sides[0][dataset], sides[1][dataset]) for dataset in shared}
    drawn: dict[str, dict[str, NDArray[np.float64]]] = {}
    for dataset, (a, b) in pairs.items():
        shapes = [(len(one), one.frames, one.dimensions) for one in (a, b)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{dataset}: blocks differ in (number, frames, dimensions): {shapes[0]} and {shapes[1]}; score both "
                "tables against the same truth with the same number of frames"
            )
        if len(a) < 2:
            raise ValueError(f"{dataset} has {len(a)} block of {a.frames} frames; a comparison needs at least 2")
        drawn[dataset] = _drawn(a, b, rng, resamples)
    rows: list[Difference] = []
    for score in SCORES:
        own = [
            _measured(d, score, a.scores()[score], b.scores()[score], drawn[d][score], blocks=len(a), level=level)
            for d, (a, b) in pairs.items()
        ]
        own = [one for one in own if not (math.isnan(one.first) and math.isnan(one.second))]
        rows += [_judged(one, p, level) for one, p in zip(own, holm([one.p_value for one in own]), strict=True)]
        if len(own) > 1:
            mean = np.mean([drawn[one.dataset][score] for one in own], axis=0)
            count = sum(len(pairs[one.dataset][0]) for one in own)
            rows.append(_overall(own, score, mean, blocks=count, level=level))
    rows.sort(key=lambda one: (SCORES.index(one.score), one.dataset == ALL))
    return Paired(
        first=names[0], second=names[1], blocks=pairs, differences=tuple(rows), level=level, resamples=resamples
    )


def _sides(
    first: Iterable[Result] | Mapping[str, Blocks], second: Iterable[Result] | Mapping[str, Blocks]
) -> tuple[dict[str, Blocks], dict[str, Blocks]]:
    """Both as data set -> blocks, under labels that mean the same test on both sides."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return dict(first), dict(second)
    if isinstance(first, Mapping) or isinstance(second, Mapping):
        raise ValueError("one side is records, the other counts by data set; give both alike")
    records = [[r for r in side if is_scored(r)] for side in (first, second)]
    for which, side in zip(("first", "second"), records, strict=True):
        if not side:
            raise ValueError(f"the {which} side holds no record with scores")
    _, labels, _ = all_labels(records[0] + records[1])
    out: list[dict[str, Blocks]] = []
    for side, of in zip(records, (labels[: len(records[0])], labels[len(records[0]) :]), strict=True):
        best: dict[str, Result] = {}
        for result, label in sorted(zip(side, of, strict=True), key=lambda pair: (pair[0].when, pair[0].id)):
            before = best.get(label)
            if before is None or result.runtime.name == "torch" or before.runtime.name != "torch":
                best[label] = result
        out.append({label: blocks_of(result) for label, result in best.items()})
    return out[0], out[1]


def blocks_of(result: Result) -> Blocks:
    """The counts of a record.

    Raises:
        ValueError: it holds none that can be read.
    """
    try:
        return Blocks.from_dict(result.detail.blocks if result.detail else {})
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"record {result.id} of {result.model.name} on {result.dataset.name} has no counts by blocks of frames "
            f"({error}); measure it again with this version"
        ) from error


def _name(side: Iterable[Result] | Mapping[str, Blocks], which: str) -> str:
    if isinstance(side, Mapping):
        raise ValueError("counts by data set carry no name; give names=(first, second)")
    records = [r for r in side if is_scored(r)]
    found = sorted(set(all_labels(records)[0]))
    if len(found) != 1:
        raise ValueError(
            f"the {which} side holds records of {len(found)} models ({', '.join(found)}); name one of them"
        )
    return found[0]


def _some(side: Mapping[str, Blocks]) -> str:
    names = list(side)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _drawn(a: Blocks, b: Blocks, rng: np.random.Generator, resamples: int) -> dict[str, NDArray[np.float64]]:
    """Differences of every score on the same resampled blocks; nan where one side has no score."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; give at least 1, usually {RESAMPLES}")
    parts: list[dict[str, NDArray[np.float64]]] = []
    for weights in _weights(len(a), resamples, rng):
        left, right = (_scores(weights @ _table(one), one.dimensions) for one in (a, b))
        parts.append({name: left[name] - right[name] for name in SCORES})
    return {name: np.concatenate([part[name] for part in parts]) for name in SCORES}


def _measured(
    dataset: str, score: str, first: float, second: float, drawn: NDArray[np.float64], *, blocks: int, level: float
) -> Difference:
    """A difference without its verdict.

    Few blocks cannot say much, however large the difference: no p-value is below 2^(1 - blocks), the smallest one of
    a test that flips the signs of paired blocks.
    """
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, _ends(level)) if len(known) else (math.nan, math.nan)
    p = max(_two_sided(known), 2.0 ** (1 - blocks))
    return Difference(
        dataset=dataset,
        score=score,
        first=first,
        second=second,
        delta=first - second,
        low=float(low),
        high=float(high),
        p_value=p,
        adjusted=p,
        better="",
    )


def _judged(one: Difference, adjusted: float, level: float) -> Difference:
    sign = -1 if one.score.startswith("rmse") else 1
    told_apart = (one.low > 0 or one.high < 0) and adjusted < 1 - level
    better = "" if not told_apart else "first" if sign * one.low > 0 else "second"
    return Difference(**{**one.__dict__, "adjusted": adjusted, "better": better})


def _overall(
    rows: Sequence[Difference], score: str, drawn: NDArray[np.float64], *, blocks: int, level: float
) -> Difference:
    first, second = (math.fsum(getattr(one, side) for one in rows) / len(rows) for side in ("first", "second"))
    one = _measured(ALL, score, first, second, drawn, blocks=blocks, level=level)
    return _judged(one, one.p_value, level)
