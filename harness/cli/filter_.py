"""smlm-zoo filter"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ._shared import Output
from ._tables import read_localizations


@dataclass(frozen=True)
class Filter:
    """Keep the localizations that are trusted: within limits, then those with the smallest predicted errors.

    Limits belong to what is kept; a limit on a column that the table lacks is an error. Examples:

        smlm-zoo filter out/localizations.csv -o good.csv --max-xy-sigma-nm 40 --min-photons 300
        smlm-zoo filter out -o best.csv --keep 0.75
    """

    table: Annotated[Path, tyro.conf.Positional]
    """Table of localizations, of any readable format, or a folder that holds localizations.csv."""
    output: Output
    """Table to write: .csv, or .parquet."""
    keep: float | None = None
    """Share to keep, 0..1, by predicted sigma: sx^2 + (var sx / var sy) sy^2 (+ the like of z)."""
    dimensions: int | None = None
    """2 or 3: whether --keep looks at z; default: if any z is known and not 0."""
    max_xy_sigma_nm: float | None = None
    """Largest sigma of x and of y, nm; 40 is usual."""
    max_z_sigma_nm: float | None = None
    """Largest sigma of z, nm; 80 is usual."""
    min_probability: float | None = None
    """Smallest probability, 0..1."""
    min_photons: float | None = None
    """Smallest number of photons."""
    max_photons: float | None = None
    """Largest number of photons."""
    first_frame: int | None = None
    """First frame to keep, from 0."""
    last_frame: int | None = None
    """Last frame to keep."""
    pixel_size_nm: float | None = None
    """For tables whose positions are in pixels."""
    format: str | None = None
    """Format to write: csv (own), parquet, thunderstorm ...; default: by the name of the output."""

    def run(self) -> int:
        from harness.analysis import keep_best_sigma, within_limits
        from harness.io.tables import write_table

        limits: dict[str, tuple[float | None, float | None]] = {
            "x_sigma_nm": (None, self.max_xy_sigma_nm),
            "y_sigma_nm": (None, self.max_xy_sigma_nm),
            "z_sigma_nm": (None, self.max_z_sigma_nm),
            "probability": (self.min_probability, None),
            "photons": (self.min_photons, self.max_photons),
            "frame": (self.first_frame, self.last_frame),
        }
        if self.keep is None and all(limit == (None, None) for limit in limits.values()):
            raise ValueError("nothing to filter by; give a limit or --keep, see smlm-zoo filter --help")
        table = read_localizations(self.table, pixel_size_nm=self.pixel_size_nm)
        kept = table.pick(within_limits(table, **limits))
        if self.keep is not None:
            kept = kept.pick(keep_best_sigma(kept, self.keep, dimensions=self.dimensions))
        write_table(kept, self.output, format=self.format)
        share = 100 * len(kept) / len(table) if len(table) else 0.0
        print(f"{self.output}: {len(kept)} of {len(table)} localizations ({share:.1f} %)")
        return 0
