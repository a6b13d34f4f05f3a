"""smlm-zoo group"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ._shared import Output
from ._tables import read_localizations


@dataclass(frozen=True)
class Group:
    """Join localizations of one molecule in consecutive frames into one row.

    Photons are summed, positions averaged; frame is the first one. The radius is from one localization to the next.

    Example: smlm-zoo group out/localizations.csv -o molecules.csv --radius-nm 50 --gap-frames 1 --weights sigma
    """

    table: Annotated[Path, tyro.conf.Positional]
    """Table of localizations, of any readable format, or a folder that holds localizations.csv."""
    output: Output
    """Table to write: .csv, or .parquet."""
    radius_nm: float
    """Largest lateral distance of successive localizations of a molecule, e.g. 2 to 3 sigma."""
    gap_frames: int = 0
    """Frames that a molecule may miss in between."""
    weights: Literal["none", "photons", "sigma"] = "none"
    """How positions are averaged: equally, by photons, or by 1/sigma^2 of each axis."""
    axial_radius_nm: float | None = None
    """Largest distance in z as well; default: z is not looked at."""
    pixel_size_nm: float | None = None
    """For tables whose positions are in pixels."""
    format: str | None = None
    """Format to write: csv (own), parquet, thunderstorm ...; default: by the name of the output."""

    def run(self) -> int:
        from harness.analysis import group
        from harness.io.tables import write_table

        table = read_localizations(self.table, pixel_size_nm=self.pixel_size_nm)
        joined = group(
            table,
            radius_nm=self.radius_nm,
            gap_frames=self.gap_frames,
            weights=self.weights,
            axial_radius_nm=self.axial_radius_nm,
        )
        write_table(joined.localizations, self.output, format=self.format)
        mean, largest = len(table) / max(len(joined.size), 1), int(joined.size.max(initial=0))
        print(f"{self.output}: {len(joined.size)} groups of {len(table)} localizations")
        print(f"localizations in a group: {mean:.2f} on average, at most {largest}")
        return 0
