"""Which localization belongs to which emitter, and what each row of both tables counts as."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulators.emitters import Emitters, Localizations

from .matching import Matches, match
from .protocol import CHALLENGE_2D, Protocol
from .wobble import shift_by_wobble


@dataclass(frozen=True, kw_only=True, eq=False)
class Assessment:
    """Truth and localizations after wobble and border cut, and what each row is.

    Every score follows from this; make it once (`assess`) and ask it for all of them.

    Attributes:
        protocol: the settings.
        field_nm: width and height of the field.
        wobble: the table used, or None.
        threshold_photons: emitters at or below are weak; 0 when none is excused.
        truth: emitters inside the border; truth_row: their rows in the table given.
        found: localizations inside the border; found_row: their rows in the table given.
        neighbours: all emitters, those near the border too, where spots appear.
        matches: all accepted pairs, rows of `truth` and of `found`.
        weak: (rows of truth,) True where the emitter is excused.
        hit_truth, hit_found: rows of `truth` and of `found` that make the hits, ordered by truth row.
        on_weak: (rows of found,) True where paired with a weak emitter.
        false_alarm: (rows of found,); missed: (rows of truth,).
    """

    protocol: Protocol
    field_nm: tuple[float, float]
    wobble: NDArray[np.float64] | None
    threshold_photons: float
    truth: Emitters
    found: Localizations
    truth_row: NDArray[np.int64]
    found_row: NDArray[np.int64]
    neighbours: Emitters
    matches: Matches
    weak: NDArray[np.bool_]
    hit_truth: NDArray[np.int64]
    hit_found: NDArray[np.int64]
    on_weak: NDArray[np.bool_]
    false_alarm: NDArray[np.bool_]
    missed: NDArray[np.bool_]

    def error(self, axis: str) -> NDArray[np.float64]:
        """found - true of the hits, nm; axis "x", "y" or "z"."""
        return getattr(self.found, f"{axis}_nm")[self.hit_found] - getattr(self.truth, f"{axis}_nm")[self.hit_truth]

    def with_quantile(self, quantile: float) -> Assessment:
        """The same pairs with another share of weak emitters excused; no second matching."""
        protocol = dataclasses.replace(self.protocol, quantile=quantile)
        return dataclasses.replace(
            self, protocol=protocol, **_decide(self.truth, len(self.found), self.matches, quantile)
        )

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that are scored."""
        return ("x", "y", "z")[: self.protocol.dimensions]


def assess(
    *,
    truth: Emitters,
    found: Localizations,
    field_nm: tuple[float, float],
    protocol: Protocol = CHALLENGE_2D,
    wobble: ArrayLike | None = None,
) -> Assessment:
    """Decide what each row counts as.

    Steps: the wobble is added to the truth; rows nearer to the border than `border_nm` are dropped (a row
    exactly on that line stays), each by its own position; all emitters are matched; then weak ones are
    excused together with the localizations paired with them. When the weak rule would excuse every emitter
    (all equally bright), it excuses none.

    Args:
        truth: emitters with photons in that frame, unless quantile is 0.
        found: localizations.
        field_nm: width (x) and height (y) of the field in nm, the frame's columns and rows times the pixel
            size.
        wobble: rows (dx, dy, z) in nm: by how much a spot of that z lies off its emitter; the nearest z
            holds.

    Raises:
        ValueError: impossible settings, a truth without photons where the quantile needs them, a malformed
            wobble table.
    """
    width, height = (float(length) for length in field_nm)
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise ValueError(f"field_nm is {tuple(field_nm)}; give the field's width and height in nm, e.g. (6400, 6400)")
    if wobble is not None:
        truth = shift_by_wobble(truth, wobble)
    everyone = truth
    truth_row = np.flatnonzero(_inside(truth, width, height, protocol.border_nm))
    found_row = np.flatnonzero(_inside(found, width, height, protocol.border_nm))
    truth, found = truth.pick(truth_row), found.pick(found_row)
    matches = match(
        truth=truth,
        found=found,
        tolerance_nm=protocol.tolerance_nm,
        axial_tolerance_nm=protocol.axial_tolerance_nm,
        volume_tolerance_nm=protocol.volume_tolerance_nm,
        rule=protocol.rule,
    )
    return Assessment(
        protocol=protocol,
        field_nm=(width, height),
        wobble=None if wobble is None else np.asarray(wobble, np.float64),
        truth=truth,
        found=found,
        truth_row=truth_row,
        found_row=found_row,
        neighbours=everyone,
        matches=matches,
        **_decide(truth, len(found), matches, protocol.quantile),
    )


def _decide(truth: Emitters, n_found: int, matches: Matches, quantile: float) -> dict[str, Any]:
    """Who is weak, and what follows from it for each row."""
    threshold = weak_threshold(truth, quantile)
    weak = truth.photons <= threshold if threshold > 0 else np.zeros(len(truth), bool)
    hit = ~weak[matches.truth_index]
    on_weak = np.zeros(n_found, bool)
    on_weak[matches.found_index[~hit]] = True
    false_alarm = np.ones(n_found, bool)
    false_alarm[matches.found_index] = False
    missed = ~weak
    missed[matches.truth_index] = False
    return {
        "threshold_photons": threshold,
        "weak": weak,
        "hit_truth": matches.truth_index[hit],
        "hit_found": matches.found_index[hit],
        "on_weak": on_weak,
        "false_alarm": false_alarm,
        "missed": missed,
    }


def weak_threshold(truth: Emitters, quantile: float) -> float:
    """Photons at or below which an emitter is weak: the floor of the quantile (linear between order
    statistics).

    0 (nobody is weak) for quantile 0, for an empty truth, and where no emitter lies above the floor of the
    quantile.

    Raises:
        ValueError: the quantile is not 0 and photons are missing.
    """
    if quantile == 0 or not len(truth):
        return 0.0
    unknown = int((~np.isfinite(truth.photons)).sum())
    if unknown:
        raise ValueError(
            f"{unknown} of {len(truth)} emitters of the truth have no photons, which the weak-molecule rule "
            f"(quantile {quantile}) needs; give photons or quantile=0"
        )
    threshold = float(np.floor(np.quantile(truth.photons, quantile)))
    if threshold <= 0 or not (truth.photons > threshold).any():
        return 0.0
    return threshold


def _inside(table: Emitters, width: float, height: float, border: float) -> NDArray[np.bool_]:
    x, y = table.x_nm, table.y_nm
    return (x >= border) & (x <= width - border) & (y >= border) & (y <= height - border)
