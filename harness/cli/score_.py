"""smlm-zoo score"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ._shared import OptionalOutput, print_table


@dataclass(frozen=True)
class Score:
    """Score localizations, of any program, against the truth by the rules of the SMLM Challenge.

    Example: smlm-zoo score out/localizations.csv --truth gt.csv --field-nm 6400 6400
    """

    found: Annotated[Path, tyro.conf.Positional]
    """Table of localizations, or a folder that holds localizations.csv."""
    truth: Path
    """Table of the emitters."""
    field_nm: tuple[float, float]
    """Width and height of the field, nm."""
    pixel_size_nm: float | None = None
    """For tables whose positions are in pixels."""
    tolerance_nm: float = 250.0
    """Largest lateral distance of a pair."""
    axial_tolerance_nm: float = 500.0
    """Largest axial distance of a pair (3D)."""
    border_nm: float = 450.0
    """Molecules nearer to the border than this are left out."""
    quantile: float = 0.25
    """Share of the weakest molecules that are neither asked for nor punished; 0 counts all."""
    three_d: bool = False
    """Score z as well."""
    output: OptionalOutput = None
    """JSON file to write the scores to."""

    def run(self) -> int:
        from dataclasses import replace

        from harness.io.atomic import atomic_path
        from harness.io.tables import read_table
        from harness.scoring import CHALLENGE_2D, CHALLENGE_3D, score
        from simulators import Localizations

        path = self.found / "localizations.csv" if self.found.is_dir() else self.found
        found = read_table(path, pixel_size_nm=self.pixel_size_nm)
        if not isinstance(found, Localizations):
            columns = {name: getattr(found, name) for name in ("frame", "x_nm", "y_nm", "z_nm", "photons")}
            found = Localizations(**columns)
        protocol = replace(
            CHALLENGE_3D if self.three_d else CHALLENGE_2D,
            tolerance_nm=self.tolerance_nm,
            axial_tolerance_nm=self.axial_tolerance_nm if self.three_d else None,
            border_nm=self.border_nm,
            quantile=self.quantile,
        )
        truth = read_table(self.truth, pixel_size_nm=self.pixel_size_nm)
        result = score(truth=truth, found=found, field_nm=self.field_nm, protocol=protocol)
        figures = result.to_dict()
        print_table(
            [{"score": key, "value": _shown(value)} for key, value in figures.items() if not isinstance(value, dict)]
        )
        if self.output is not None:
            with atomic_path(self.output) as temporary:
                temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        return 0


def _shown(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value
