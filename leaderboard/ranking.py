"""Records -> cells and ranks.

Rules of the ranking (they hold for tables, plots and page):

- Records are compared only on the same test: dataset, recipe hash, size, seed, dimensions, tolerance, border,
  quantile, wobble and matching rule. Records that differ in one of these become columns of their own.
- 2D and 3D are ranked apart, and so is every condition other than the matched simulation (density, PSF, ...).
- Where a cell has several records, torch counts before other runtimes, then the newest date.
- Where every record of a column holds its counts by blocks of frames, models share a rank unless the paired block
  bootstrap, with Holm's correction, tells them apart (`leaderboard.statistics`); otherwise only equal scores share one.
- A model that lacks a score on one of the columns gets no mean and no mean rank.
- Models are ordered by mean efficiency, then mean rank, then name; those without a mean come last.
- Times whose two halves differ by more than 10 %, or beside which the machine ran by so much faster or slower than
  beside most others of the run, are noisy: they are shown, but left out of the speed ranking.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .labels import all_labels, has_images, is_scored
from .record import Result
from .statistics import Blocks, Rank, compare, ranks

# Okabe-Ito and seaborn's colour-blind set, ordered so that the first seven stand on white and on black.
PALETTE = (
    "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc",
    "#56b4e9", "#8f6bbf", "#ca9161", "#b8a800", "#e58fc9",
)  # fmt: skip
GREYS = ("#8c8c8c", "#b5b5b5", "#6b6b6b", "#a1a1a1", "#7b8794")
"""For baselines."""

MATCHED = "matched"
_CONDITIONS = (MATCHED, "density", "photons", "background", "psf", "defocus", "foreign", "real")


def entry_colors(entries: Mapping[str, bool]) -> dict[str, str]:
    """A colour for each model, a grey for each baseline; by the names only, so that they stay when ranks change.

    Args:
        entries: label -> whether it is a baseline.
    """
    found: dict[str, str] = {}
    for baseline, palette in ((False, PALETTE), (True, GREYS)):
        names = sorted(name for name, is_baseline in entries.items() if is_baseline == baseline)
        found |= {name: palette[i % len(palette)] for i, name in enumerate(names)}
    return found


@dataclass(frozen=True, kw_only=True)
class Group:
    """Columns that are ranked together: one number of dimensions and one condition."""

    dimensions: int
    condition: str
    conditions: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """2D, 3D; with the condition where it is not the matched simulation."""
        return f"{self.dimensions}D" + ("" if self.condition == MATCHED else f" · {self.condition or 'other'}")


@dataclass(frozen=True, kw_only=True)
class Board:
    """The records sorted into cells. `entries` are in the order of the ranking.

    Attributes:
        entries, conditions, engines: labels of models, tests and runtimes.
        results: all records, oldest first.
        of_entry: entry -> newest record.
        scored: (entry, condition) -> the record whose scores count; imaged: the same for scores of images.
        timed: (entry, engine) -> the newest time.
        shared: condition -> entry -> rank, where blocks allow it.
        groups: the conditions that are ranked together; the first one is the main table.
    """

    entries: list[str]
    conditions: list[str]
    engines: list[str]
    results: list[Result]
    of_entry: dict[str, Result]
    scored: dict[tuple[str, str], Result]
    timed: dict[tuple[str, str], Result]
    shared: dict[str, dict[str, Rank]]
    imaged: dict[tuple[str, str], Result]
    groups: list[Group]

    @property
    def colors(self) -> dict[str, str]:
        """A colour for each entry, from `entry_colors`."""
        return entry_colors({entry: result.model.baseline for entry, result in self.of_entry.items()})

    def score(self, entry: str, condition: str, name: str = "efficiency") -> float:
        """A score of one cell; NaN where it was not measured."""
        result = self.scored.get((entry, condition))
        value = getattr(result.scores, name) if result and result.scores else None
        return math.nan if value is None else float(value)

    def place(self, entry: str, condition: str) -> str:
        """The rank as text: "2", or "1-3" for a shared one; empty if missing."""
        rank = self.rank(entry, condition)
        if math.isnan(rank):
            return ""
        return str(self.shared[condition][entry]) if condition in self.shared else f"{rank:g}"

    def noisy(self, entry: str, engine: str) -> bool:
        """Whether the time is left out of the speed ranking."""
        result = self.timed.get((entry, engine))
        return bool(result and result.timing and result.timing.noisy)

    def fastest(self, entry: str) -> tuple[float, str]:
        """Shortest median time that is not noisy, and its runtime; (NaN, "") without."""
        times = [
            (self.ms(entry, engine), engine)
            for engine in self.engines
            if (entry, engine) in self.timed and not self.noisy(entry, engine)
        ]
        return min(times, default=(math.nan, ""))

    def front(self, points: Sequence[tuple[float, float, str, str]]) -> list[int]:
        """Indices of the (ms, value, entry, engine) on the Pareto front; noisy times and baselines are not on it."""
        own = [i for i, p in enumerate(points) if not self.noisy(p[2], p[3]) and not self.of_entry[p[2]].model.baseline]
        return [own[i] for i in pareto([points[i][:2] for i in own])]

    def part(self, group: Group) -> "Board":
        """The board of one group: its conditions, and the models that have a score there."""
        here = [e for e in self.entries if any((e, c) in self.scored for c in group.conditions)]
        return _ordered(replace(self, entries=here, conditions=group.conditions, groups=[group]))

    @property
    def main(self) -> "Board":
        """The board of the first group; models without any score (times only) come last in it."""
        if not self.groups:
            return self
        scored = {entry for entry, _ in self.scored}
        part = self.part(self.groups[0])
        return replace(part, entries=part.entries + [e for e in self.entries if e not in scored])

    @property
    def image_conditions(self) -> list[str]:
        """Tests with scores of images only."""
        return sorted({condition for _, condition in self.imaged} - set(self.conditions))

    def ms(self, entry: str, engine: str) -> float:
        """Median milliseconds per 64x64 frame; NaN where it was not measured."""
        result = self.timed.get((entry, engine))
        value = result.timing.ms_p50 if result and result.timing else None
        return math.nan if value is None else float(value)

    def mean(self, entry: str) -> float:
        """Mean efficiency over all conditions; NaN where one is missing."""
        values = [self.score(entry, condition) for condition in self.conditions]
        return math.fsum(values) / len(values) if values and not any(map(math.isnan, values)) else math.nan

    def rank(self, entry: str, condition: str) -> float:
        """Rank by efficiency on one condition, 1 is best; those that share it have the mean place; NaN if missing."""
        if condition in self.shared:
            place = self.shared[condition].get(entry)
            return math.nan if place is None else place.mean
        own = self.score(entry, condition)
        if math.isnan(own):
            return math.nan
        others = [self.score(other, condition) for other in self.entries]
        return 1 + sum(v > own for v in others) + (sum(v == own for v in others) - 1) / 2

    def mean_rank(self, entry: str) -> float:
        """Mean of the ranks over all conditions; NaN where one is missing."""
        values = [self.rank(entry, condition) for condition in self.conditions]
        return math.fsum(values) / len(values) if values and not any(map(math.isnan, values)) else math.nan


def make_board(results: Iterable[Result]) -> Board:
    """Sort records into cells (entry x condition, entry x engine) by the rules at the top of this file."""
    results = sorted(results, key=lambda r: (r.when, r.id))
    entries, conditions, engines = all_labels(results)
    scored: dict[tuple[str, str], Result] = {}
    timed: dict[tuple[str, str], Result] = {}
    imaged: dict[tuple[str, str], Result] = {}
    of_entry: dict[str, Result] = {}
    of_group: dict[tuple[int, str], dict[str, tuple[float, float]]] = {}
    for result, entry, condition, engine in zip(results, entries, conditions, engines, strict=True):
        of_entry[entry] = result
        if result.timing and result.timing.ms_p50 is not None:
            timed[entry, engine] = result
        if has_images(result):
            imaged[entry, condition] = result
        if is_scored(result):
            data = result.dataset
            order = (_or_last(data.value), _or_last(data.density))
            of_group.setdefault((data.dimensions, data.condition), {})[condition] = order
            before = scored.get((entry, condition))
            if before is None or result.runtime.name == "torch" or before.runtime.name != "torch":
                scored[entry, condition] = result
    groups = [
        Group(dimensions=dimensions, condition=kind, conditions=sorted(of, key=lambda name: (*of[name], name)))
        for (dimensions, kind), of in sorted(of_group.items(), key=lambda item: _group_order(*item[0]))
    ]
    columns = [condition for group in groups for condition in group.conditions]
    board = Board(
        entries=sorted(of_entry),
        conditions=columns,
        engines=sorted({engine for _, engine in timed}, key=lambda name: (not name.startswith("torch"), name)),
        results=results,
        of_entry=of_entry,
        scored=scored,
        timed=timed,
        shared={condition: places for condition in columns if (places := _shared_ranks(scored, condition))},
        imaged=imaged,
        groups=groups,
    )
    board = _ordered(board)
    if len(groups) < 2:
        return board
    main = board.part(groups[0]).entries  # the order of the main table comes first
    return replace(board, entries=main + [entry for entry in board.entries if entry not in main])


def _ordered(board: Board) -> Board:
    def order(entry: str) -> tuple[float, float, str]:
        mean, rank = board.mean(entry), board.mean_rank(entry)
        return (math.inf, math.inf, entry) if math.isnan(mean) else (-mean, rank, entry)

    return replace(board, entries=sorted(board.entries, key=order))


def _group_order(dimensions: int, condition: str) -> tuple[int, int, str]:
    """2D and 3D matched first, then the other conditions of each."""
    known = _CONDITIONS.index(condition) if condition in _CONDITIONS else len(_CONDITIONS)
    return (int(condition != MATCHED), 100 * dimensions + known, condition)


def _or_last(value: float | None) -> float:
    return math.inf if value is None else value


def _shared_ranks(scored: dict[tuple[str, str], Result], condition: str) -> dict[str, Rank]:
    """Ranks from the paired bootstrap on one condition; empty where a record lacks its blocks or cuts differ."""
    of_model: dict[str, Blocks] = {}
    for (entry, where), result in scored.items():
        if where == condition:
            try:
                of_model[entry] = Blocks.from_dict(result.detail.blocks if result.detail else {})
            except (ValueError, TypeError):
                return {}
    if len({(len(b), b.frames, b.dimensions) for b in of_model.values()}) != 1:
        return {}
    if len(next(iter(of_model.values()))) < 2:
        return {}
    return ranks(of_model, compare(dict(sorted(of_model.items())), rng=np.random.default_rng(0)))


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, value) that no other beats in both, by rising cost; NaN points never."""
    best, front = -math.inf, []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        cost, value = points[i]
        if not math.isnan(cost) and value > best:
            best = value
            front.append(i)
    return front
