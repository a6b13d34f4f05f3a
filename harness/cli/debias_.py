"""smlm-zoo debias"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ._shared import Output
from ._tables import read_localizations


@dataclass(frozen=True)
class Debias:
    """Make positions fall evenly within the camera pixel, group by group of predicted sigma.

    A correction for methods that prefer the centre or the border of pixels; `smlm-zoo check` shows whether it is
    needed. It needs many localizations, thousands at least, on a structure that does not follow the pixels.

    Example: smlm-zoo debias out/localizations.csv -o even.csv --camera-pixel-nm 100
    """

    table: Annotated[Path, tyro.conf.Positional]
    """Table of localizations, of any readable format, or a folder that holds localizations.csv."""
    output: Output
    """Table to write: .csv, or .parquet."""
    camera_pixel_nm: float
    """Camera pixel in the sample, nm."""
    groups: int = 10
    """Groups of sigma, each evened out by itself; fewer in small tables."""
    pixel_size_nm: float | None = None
    """For tables whose positions are in pixels."""
    format: str | None = None
    """Format to write: csv (own), parquet, thunderstorm ...; default: by the name of the output."""

    def run(self) -> int:
        from harness.analysis import debias, subpixel_uniformity
        from harness.io.tables import write_table

        table = read_localizations(self.table, pixel_size_nm=self.pixel_size_nm)
        even = debias(table, pixel_size_nm=self.camera_pixel_nm, groups=self.groups)
        write_table(even, self.output, format=self.format)
        before = subpixel_uniformity(table, pixel_size_nm=self.camera_pixel_nm)
        after = subpixel_uniformity(even, pixel_size_nm=self.camera_pixel_nm)
        changes = (f"{a} {b.unevenness:.3f} -> {c.unevenness:.3f}" for a, b, c in zip("xy", before, after, strict=True))
        print(f"{self.output}: {len(even)} localizations; unevenness within the pixel {', '.join(changes)}")
        return 0
