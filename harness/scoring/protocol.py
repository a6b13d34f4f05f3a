"""The settings of a score."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .matching import Rule

RULES_VERSION = 1
"""Raised whenever the same tables and settings would give another score."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything a score depends on besides the two tables, the field and the wobble table.

    Attributes:
        name: how tables name these settings.
        dimensions: 2 (lateral only) or 3.
        tolerance_nm: largest lateral distance of a pair.
        axial_tolerance_nm: largest axial distance of a pair in 3D; None in 2D.
        border_nm: rows nearer than this to the border of the field are dropped, on both sides, before
            matching.
        quantile: emitters at or below the floor of this quantile of the photons (after the border cut) are
            neither hits nor misses; 0 counts every emitter.
        rule: "greedy" (the challenge's) or "optimal".
        volume_tolerance_nm: largest 3D distance of a pair, as a further limit; None sets none.
    """

    name: str
    dimensions: int
    tolerance_nm: float
    axial_tolerance_nm: float | None
    border_nm: float
    quantile: float
    rule: Rule
    volume_tolerance_nm: float | None = None

    def __post_init__(self) -> None:
        if self.dimensions not in (2, 3):
            raise ValueError(f"dimensions is {self.dimensions}; scores are 2 (lateral) or 3 dimensional")
        if self.dimensions == 3 and self.axial_tolerance_nm is None and self.volume_tolerance_nm is None:
            raise ValueError("a 3D score needs axial_tolerance_nm, e.g. 500")
        for name in ("axial_tolerance_nm", "volume_tolerance_nm"):
            if self.dimensions == 2 and getattr(self, name) is not None:
                raise ValueError(f"{name} is {getattr(self, name)} in a 2D score; leave it None")
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile is {self.quantile}; give a share from 0 to 1, e.g. 0.25")
        if not (math.isfinite(self.border_nm) and self.border_nm >= 0):
            raise ValueError(f"border_nm is {self.border_nm}; give 0 or a positive distance in nm")


CHALLENGE_2D = Protocol(
    name="challenge-2d",
    dimensions=2,
    tolerance_nm=250.0,
    axial_tolerance_nm=None,
    border_nm=450.0,
    quantile=0.25,
    rule="greedy",
)
CHALLENGE_3D = Protocol(
    name="challenge-3d",
    dimensions=3,
    tolerance_nm=250.0,
    axial_tolerance_nm=500.0,
    border_nm=450.0,
    quantile=0.25,
    rule="greedy",
)
