"""smlm-zoo wobble"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ._shared import Output
from ._tables import read_emitters, read_localizations


@dataclass(frozen=True)
class Wobble:
    """Measure how far spots lie beside their emitters, over z: a table of dx, dy, z for `smlm-zoo score --wobble`.

    Localize the bead stack with the model first; the table holds for that model and that PSF.

    Example: smlm-zoo localize deep_storm beads.tif -o beads && smlm-zoo wobble beads --beads beads_gt.csv -o wobble.csv
    """

    found: Annotated[Path, tyro.conf.Positional]
    """What the model found in the bead stack: a table, or a folder that holds localizations.csv."""
    beads: Path
    """Where the beads are: a table with a row per bead and frame, with its z."""
    output: Output
    """CSV to write: dx, dy, z in nm."""
    radius_nm: float = 500.0
    """Largest distance of a localization from its bead."""
    breaks: int = 10
    """Breaks of the splines over z."""
    step_nm: float = 10.0
    """Step of the table in z."""
    pixel_size_nm: float | None = None
    """For tables whose positions are in pixels."""

    def run(self) -> int:
        from harness.scoring.wobble import measure_wobble, wobble_settings, write_wobble

        table = measure_wobble(
            found=read_localizations(self.found, pixel_size_nm=self.pixel_size_nm),
            beads=read_emitters(self.beads, pixel_size_nm=self.pixel_size_nm),
            radius_nm=self.radius_nm,
            breaks=self.breaks,
            step_nm=self.step_nm,
        )
        write_wobble(table, self.output)
        settings = wobble_settings(table) or {}
        low, high = table[0, 2], table[-1, 2]
        print(f"{self.output}: {len(table)} heights from {low:g} to {high:g} nm, up to {settings['largest_nm']:.1f} nm")
        return 0
