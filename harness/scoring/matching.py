"""Pairing of found localizations with true emitters, frame by frame.

Source: rules of the SMLM Challenge 2016 (Sage et al. 2019, doi:10.1038/s41592-019-0364-4): lateral tolerance,
in 3D a cylinder with an axial tolerance as well, pairs taken greedily, nearest first. DECODE's evaluation
(Speiser et al. 2021, doi:10.1038/s41592-021-01236-x) has a sphere as a further rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from simulators.emitters import Emitters, Localizations

Rule = Literal["greedy", "optimal"]

ROUNDING_NM = 1e-6
"""Slack on the tolerances: 250 nm stays 250 nm after the rounding of float64 coordinates."""

_CANDIDATES_AT_ONCE = 200_000  # intermediate arrays stay in the cache


@dataclass(frozen=True, kw_only=True)
class Matches:
    """The accepted pairs, ordered by truth row.

    Attributes:
        truth_index: rows of the truth table, int64, each at most once.
        found_index: rows of the table of localizations, int64, each at most once.
        distance: what was minimised, nm: lateral or 3D distance.
    """

    truth_index: NDArray[np.int64]
    found_index: NDArray[np.int64]
    distance: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.truth_index)


@dataclass(frozen=True)
class _Pairs:
    """Allowed pairs, in no particular order."""

    truth: NDArray[np.int64]
    found: NDArray[np.int64]
    distance: NDArray[np.float64]

    def pick(self, index: NDArray) -> _Pairs:
        return _Pairs(self.truth[index], self.found[index], self.distance[index])


def match(
    *,
    truth: Emitters,
    found: Localizations,
    tolerance_nm: float,
    axial_tolerance_nm: float | None = None,
    volume_tolerance_nm: float | None = None,
    order_dimensions: int | None = None,
    rule: Rule = "greedy",
) -> Matches:
    """Pair localizations with emitters of the same frame, each used once.

    Args:
        truth: the emitters, any order of rows.
        found: the localizations, any order of rows.
        tolerance_nm: largest lateral distance of a pair; the tolerance itself still is a pair.
        axial_tolerance_nm: largest |dz|; None sets no limit.
        volume_tolerance_nm: largest 3D distance; None sets no limit. A sphere alone has the same
            tolerance_nm.
        order_dimensions: 2 ranks pairs by lateral distance, 3 by 3D distance; None takes 3 where one of the
            two limits above is given, else 2.
        rule: "greedy" takes the nearest pair of the frame first, ties broken by truth row, then found row;
            "optimal" makes as many pairs as possible, with the smallest sum of distances among those.

    Returns:
        The pairs. Both rules are exact; rows of frames that one side lacks stay unpaired.

    Raises:
        ValueError: a tolerance that is not positive, an unknown rule, or 3D matching without z.

    Example:
        >>> truth = Emitters(frame=[0, 0], x_nm=[100.0, 900.0], y_nm=[100.0, 900.0])
        >>> found = Localizations(frame=[0, 1], x_nm=[103.0, 900.0], y_nm=[104.0, 900.0])
        >>> match(truth=truth, found=found, tolerance_nm=250).distance
        array([5.])
    """
    if not tolerance_nm > 0:
        raise ValueError(f"tolerance_nm is {tolerance_nm}; give a positive distance in nm, e.g. 250")
    if axial_tolerance_nm is not None and not axial_tolerance_nm > 0:
        raise ValueError(f"axial_tolerance_nm is {axial_tolerance_nm}; give a positive distance, or None for 2D")
    if volume_tolerance_nm is not None and not volume_tolerance_nm > 0:
        raise ValueError(f"volume_tolerance_nm is {volume_tolerance_nm}; give a positive distance, or None for 2D")
    if order_dimensions not in (None, 2, 3):
        raise ValueError(f"order_dimensions is {order_dimensions}; give 2 (lateral), 3 or None")
    if rule not in ("greedy", "optimal"):
        raise ValueError(f"no matching rule named {rule!r}; there are 'greedy' and 'optimal'")
    solid = axial_tolerance_nm is not None or volume_tolerance_nm is not None
    if solid or order_dimensions == 3:
        unknown = int((~np.isfinite(found.z_nm)).sum())
        if unknown:
            raise ValueError(
                f"{unknown} of {len(found)} localizations have no z_nm; match in 2D (axial_tolerance_nm=None) "
                "or give every localization a z"
            )
    limits = _Limits(
        lateral=float(tolerance_nm),
        axial=axial_tolerance_nm,
        volume=volume_tolerance_nm,
        by_volume=order_dimensions == 3 or (order_dimensions is None and solid),
    )
    pairs = _allowed_pairs(truth, found, limits)
    taken = _greedy(pairs, len(truth), len(found)) if rule == "greedy" else _optimal(pairs, len(truth), len(found))
    taken = taken[np.argsort(pairs.truth[taken], kind="stable")]
    chosen = pairs.pick(taken)
    return Matches(truth_index=chosen.truth, found_index=chosen.found, distance=chosen.distance)


@dataclass(frozen=True, kw_only=True)
class _Limits:
    lateral: float
    axial: float | None = None
    volume: float | None = None
    by_volume: bool = False


def neighbours_within(
    of: Emitters, among: Emitters, radius_nm: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """All pairs of equal frame that are at most the radius apart laterally.

    Returns:
        Rows of `of`, rows of `among` and their distances in nm, in no particular order. A table among itself
        gives each row with itself as well.
    """
    pairs = _allowed_pairs(of, among, _Limits(lateral=radius_nm))
    return pairs.truth, pairs.found, pairs.distance


def _allowed_pairs(truth: Emitters, found: Emitters, limits: _Limits) -> _Pairs:
    """All pairs of equal frame within the limits, through a grid of cells at least one tolerance wide.

    The localizations are sorted by (frame, cell row, cell column); the neighbours of an emitter then lie in
    three runs of that order (the cell rows above, at and below it), which two binary searches each delimit.
    """
    nothing = np.empty(0, np.int64)
    if not len(truth) or not len(found):
        return _Pairs(nothing, nothing, np.empty(0))
    x0, y0 = min(truth.x_nm.min(), found.x_nm.min()), min(truth.y_nm.min(), found.y_nm.min())
    width = max(truth.x_nm.max(), found.x_nm.max()) - x0
    height = max(truth.y_nm.max(), found.y_nm.max()) - y0
    limit = limits.lateral + ROUNDING_NM
    cell = max(limit * (1 + 1e-9), width / 2**18, height / 2**18)
    columns = int(width / cell) + 4  # a free cell on either side, so that runs never reach into the next row
    rows = int(height / cell) + 4
    frames = np.unique(found.frame)

    def cell_of(table: Emitters) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        place = np.minimum(np.searchsorted(frames, table.frame), len(frames) - 1)
        column = ((table.x_nm - x0) / cell).astype(np.int64) + 1
        row = ((table.y_nm - y0) / cell).astype(np.int64) + 1
        return place, (place * rows + row) * columns + column

    _, found_key = cell_of(found)
    order = np.argsort(found_key, kind="stable")
    sorted_key = found_key[order]
    place, truth_key = cell_of(truth)
    in_both = np.flatnonzero(frames[place] == truth.frame)
    in_both = in_both[np.argsort(truth_key[in_both], kind="stable")]  # sorted queries search much faster
    starts, counts, owners = [], [], []
    for step in (-columns, 0, columns):
        key = truth_key[in_both] + step
        start = np.searchsorted(sorted_key, key - 1, side="left")
        starts.append(start)
        counts.append(np.searchsorted(sorted_key, key + 1, side="right") - start)
        owners.append(in_both)
    start, count, owner = np.concatenate(starts), np.concatenate(counts), np.concatenate(owners)
    used = count > 0
    start, count, owner = start[used], count[used], owner[used]

    by_cell = found.pick(order)
    kept: list[_Pairs] = []
    total = np.cumsum(count)
    first = 0
    while first < len(count):
        done = total[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(total, done + _CANDIDATES_AT_ONCE, side="right")))
        n = count[first:last]
        own = owner[first:last]
        t = np.repeat(own, n)
        f = np.repeat(start[first:last] - (np.cumsum(n) - n), n)
        f += np.arange(len(t))
        dx = np.repeat(truth.x_nm[own], n) - by_cell.x_nm[f]
        dy = np.repeat(truth.y_nm[own], n) - by_cell.y_nm[f]
        squared = dx * dx + dy * dy
        near = squared <= limit * limit
        if limits.by_volume or limits.axial is not None or limits.volume is not None:
            dz = truth.z_nm[t] - by_cell.z_nm[f]
            if limits.axial is not None:
                near &= np.abs(dz) <= limits.axial + ROUNDING_NM
            if limits.volume is not None:
                near &= squared + dz * dz <= (limits.volume + ROUNDING_NM) ** 2
            if limits.by_volume:
                squared += dz * dz
        kept.append(_Pairs(t[near], order[f[near]], np.sqrt(squared[near])))
        first = last
    if not kept:
        return _Pairs(nothing, nothing, np.empty(0))
    t = np.concatenate([p.truth for p in kept])
    f = np.concatenate([p.found for p in kept])
    distance = np.concatenate([p.distance for p in kept])
    return _Pairs(t, f, distance)


def _greedy(pairs: _Pairs, n_truth: int, n_found: int) -> NDArray[np.int64]:
    """Indices of the pairs that a walk over all pairs in the order (distance, truth row, found row) would
    take.

    A pair that comes first among all pairs of its emitter and of its localization is taken by that walk in
    any case; taking all such pairs at once and repeating on what is left gives the same result without the
    walk.
    """
    alive = np.arange(len(pairs.truth))
    truth, found, distance = pairs.truth, pairs.found, pairs.distance
    taken: list[NDArray[np.int64]] = []
    nearest_truth, nearest_found = np.empty(n_truth), np.empty(n_found)
    first_truth, first_found = np.empty(n_truth, np.int64), np.empty(n_found, np.int64)
    free_truth, free_found = np.ones(n_truth, bool), np.ones(n_found, bool)
    while len(alive):
        nearest_truth[truth] = np.inf
        nearest_found[found] = np.inf
        np.minimum.at(nearest_truth, truth, distance)
        np.minimum.at(nearest_found, found, distance)
        by_truth = np.flatnonzero(distance == nearest_truth[truth])
        by_found = np.flatnonzero(distance == nearest_found[found])
        _write_lowest(first_truth, truth, by_truth, other=found)
        _write_lowest(first_found, found, by_found, other=truth)
        mutual = by_truth[first_truth[truth[by_truth]] == by_truth]
        mutual = mutual[first_found[found[mutual]] == mutual]
        taken.append(alive[mutual])
        free_truth[truth[mutual]] = False
        free_found[found[mutual]] = False
        left = np.flatnonzero(free_truth[truth] & free_found[found])
        slow = len(left) > 0.9 * len(alive)
        alive, truth, found, distance = alive[left], truth[left], found[left], distance[left]
        if slow:  # long chains of ever nearer neighbours: walk them one by one
            taken.append(alive[_walk(truth, found, distance)])
            break
    return np.concatenate(taken) if taken else np.empty(0, np.int64)


def _write_lowest(
    first: NDArray[np.int64], side: NDArray[np.int64], nearest: NDArray[np.int64], *, other: NDArray[np.int64]
) -> None:
    """first[row of `side`] = the pair among `nearest` that it is in; of several, the one with the lowest
    `other`.
    """
    first[side[nearest]] = nearest
    if (first[side[nearest]] != nearest).any():
        nearest = nearest[np.argsort(-other[nearest])]  # the one written last stays
        first[side[nearest]] = nearest


def _walk(truth: NDArray[np.int64], found: NDArray[np.int64], distance: NDArray[np.float64]) -> NDArray[np.int64]:
    used_truth: set[int] = set()
    used_found: set[int] = set()
    taken = []
    order = np.lexsort((found, truth, distance))
    for index, t, f in zip(order.tolist(), truth[order].tolist(), found[order].tolist(), strict=True):
        if t not in used_truth and f not in used_found:
            used_truth.add(t)
            used_found.add(f)
            taken.append(index)
    return np.array(taken, np.int64)


def _optimal(pairs: _Pairs, n_truth: int, n_found: int) -> NDArray[np.int64]:
    """Most pairs, then least distance, solved for each group of connected emitters and localizations
    alone.
    """
    if not len(pairs.truth):
        return np.empty(0, np.int64)
    size = n_truth + n_found
    links = coo_array((np.ones(len(pairs.truth), np.int8), (pairs.truth, n_truth + pairs.found)), shape=(size, size))
    _, label = connected_components(links.tocsr(), directed=False)
    group = label[pairs.truth]
    order = np.argsort(group, kind="stable")
    bounds = np.flatnonzero(np.diff(group[order], prepend=-1, append=-1))
    sizes = np.diff(bounds)
    taken = [order[bounds[:-1][sizes == 1]]]
    for begin, end in zip(bounds[:-1][sizes > 1].tolist(), bounds[1:][sizes > 1].tolist(), strict=True):
        members = order[begin:end]
        rows, row = np.unique(pairs.truth[members], return_inverse=True)
        columns, column = np.unique(pairs.found[members], return_inverse=True)
        forbidden = (1 + pairs.distance[members].max()) * (1 + min(len(rows), len(columns)))  # never pays
        cost = np.full((len(rows), len(columns)), forbidden)
        cost[row, column] = pairs.distance[members]
        which = np.full(cost.shape, -1, np.int64)
        which[row, column] = members
        chosen = which[linear_sum_assignment(cost)]
        taken.append(chosen[chosen >= 0])
    return np.concatenate(taken)
