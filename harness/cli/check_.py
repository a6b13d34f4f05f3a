"""smlm-zoo check"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ._shared import OptionalOutput, print_table
from ._tables import read_emitters, read_localizations, write_bytes


@dataclass(frozen=True)
class Check:
    """Can positions and predicted errors be trusted? Writes check.json, uniformity.png and, with a truth,
    reliability.png.

    Positions within the camera pixel should be even (unevenness 0, reduced chi2 1). Against a truth, errors should
    be as large as the predicted sigmas (std of error/sigma 1, expected calibration error 0). Examples:

        smlm-zoo check out/localizations.csv --camera-pixel-nm 100 -o check
        smlm-zoo check out --camera-pixel-nm 100 --truth emitters.csv --field-nm 6400 6400 -o check
    """

    table: Annotated[Path, tyro.conf.Positional]
    """Table of localizations, of any readable format, or a folder that holds localizations.csv."""
    camera_pixel_nm: float
    """Camera pixel in the sample, nm."""
    output: OptionalOutput = None
    """Folder to write; default: smlm-zoo-check-TABLE."""
    truth: Path | None = None
    """Table of the emitters, or a folder that holds emitters.csv."""
    field_nm: tuple[float, float] | None = None
    """Width and height of the field, nm; needed with a truth."""
    three_d: bool = False
    """Check z as well."""
    tolerance_nm: float = 250.0
    """Largest lateral distance of a pair."""
    bins: int = 10
    """Equally filled bins of predicted sigma."""
    pixel_size_nm: float | None = None
    """For tables whose positions are in pixels."""

    def run(self) -> int:
        from dataclasses import replace

        from harness.analysis import reliability_png, subpixel_uniformity, uniformity_png
        from harness.io.json_files import write_json
        from harness.scoring import CHALLENGE_2D, CHALLENGE_3D, assess
        from harness.scoring.calibration import calibrations

        if self.truth is not None and self.field_nm is None:
            raise ValueError("a truth needs --field-nm WIDTH HEIGHT, e.g. --field-nm 6400 6400")
        table = read_localizations(self.table, pixel_size_nm=self.pixel_size_nm)
        even = subpixel_uniformity(table, pixel_size_nm=self.camera_pixel_nm)
        report: dict[str, Any] = {
            "localizations": len(table),
            "camera_pixel_nm": self.camera_pixel_nm,
            "uniformity": {axis: one.to_dict() for axis, one in zip("xy", even, strict=True)},
        }
        rows: list[dict[str, Any]] = []
        for axis, one in zip("xy", even, strict=True):
            rows.append({"check": f"{axis}: unevenness within the pixel", "value": _shown(one.unevenness), "even": "0"})
            rows.append({"check": f"{axis}: reduced chi2", "value": _shown(one.chi2_reduced), "even": "1"})
        picture = None
        if self.truth is not None and self.field_nm is not None:
            protocol = replace(CHALLENGE_3D if self.three_d else CHALLENGE_2D, tolerance_nm=self.tolerance_nm)
            protocol = replace(protocol, quantile=0.0)
            truth = read_emitters(self.truth, pixel_size_nm=self.pixel_size_nm)
            calibrated = calibrations(
                assess(truth=truth, found=table, field_nm=self.field_nm, protocol=protocol), bins=self.bins
            )
            picture = reliability_png(calibrated)
            report["calibration"] = {axis: value.to_dict() for axis, value in calibrated.items()}
            for axis, value in calibrated.items():
                rows.append({"check": f"{axis}: std of error/sigma", "value": _shown(value.z_std), "even": "1"})
                rows.append({"check": f"{axis}: mean sigma/RMSE", "value": _shown(value.sigma_over_rmse), "even": "1"})
                rows.append(
                    {"check": f"{axis}: expected calibration error", "value": _shown(value.expected_error), "even": "0"}
                )
        stem = self.table.name if self.table.is_dir() else self.table.stem
        folder = self.output or Path(f"smlm-zoo-check-{stem}")
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(uniformity_png(*even), folder / "uniformity.png")
        if picture is not None:
            write_bytes(picture, folder / "reliability.png")
        write_json(folder / "check.json", report, allow_nan=False)
        print_table(rows)
        print(f"{folder}: check.json, uniformity.png{', reliability.png' if picture is not None else ''}")
        return 0


def _shown(value: float) -> str:
    return f"{value:.3g}"
