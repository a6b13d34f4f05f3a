"""smlm-zoo quality"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ._shared import OptionalOutput, print_table
from ._tables import read_image, read_localizations


@dataclass(frozen=True)
class Quality:
    """What can be said without a truth: Fourier ring correlation of two halves, agreement with the widefield image.

    Of a table: resolution at which its even and odd blocks of frames agree. Of a table or an image, with a widefield
    image or the raw movie: correlation (RSP) and error (RSE) of the image blurred to it. Neither proves that structure
    is right: report them, do not rank by them. Examples:

        smlm-zoo quality out/localizations.csv --field-nm 6400 6400 --movie movie.tif
        smlm-zoo quality super_resolved.tif --widefield widefield.tif
    """

    found: Annotated[Path, tyro.conf.Positional]
    """Table of localizations, a folder that holds localizations.csv, or a super-resolved image (TIFF)."""
    field_nm: tuple[float, float] | None = None
    """Width and height of the field, nm; needed for a table."""
    widefield: Path | None = None
    """Widefield image of the same field (TIFF)."""
    movie: Path | None = None
    """The raw movie, whose mean is taken as the widefield image."""
    blocks: int = 10
    """Blocks of frames; even ones against odd ones."""
    pixel_nm: float = 5.0
    """Pixel of the images of the two halves."""
    pixel_size_nm: float | None = None
    """For tables whose positions are in pixels."""
    output: OptionalOutput = None
    """JSON file to write, with the curve of the correlation."""

    def run(self) -> int:
        from harness.io.json_files import write_json
        from harness.scoring.frc import resolution_of_halves
        from harness.scoring.image_quality import widefield_agreement
        from harness.scoring.images import render

        is_image = self.found.suffix.lower() in (".tif", ".tiff")
        reference = self.widefield if self.widefield is not None else self.movie
        if is_image and reference is None:
            raise ValueError("an image needs --widefield or --movie to be compared with")
        report: dict[str, Any] = {}
        rows: list[dict[str, Any]] = []
        if is_image:
            image = read_image(self.found)
        else:
            if self.field_nm is None:
                raise ValueError("a table needs --field-nm WIDTH HEIGHT, e.g. --field-nm 6400 6400")
            table = read_localizations(self.found, pixel_size_nm=self.pixel_size_nm)
            halves = resolution_of_halves(table, field_nm=self.field_nm, blocks=self.blocks, pixel_nm=self.pixel_nm)
            report["halves"] = {**halves.to_dict(), "blocks": self.blocks, "pixel_nm": self.pixel_nm}
            rows.append({"check": "frc_halves_nm", "value": f"{halves.resolution_nm:.4g}"})
            if not halves.crosses:
                rows.append({"check": "the curve never falls below 1/7", "value": "two pixels are given"})
            image = render(table, field_nm=self.field_nm).astype("float64")
        if reference is not None:
            agreement = asdict(widefield_agreement(image, read_image(reference)))
            report["widefield"] = agreement
            rows += [{"check": key, "value": f"{value:.4g}"} for key, value in agreement.items()]
        print_table(rows)
        if self.output is not None:
            write_json(self.output, report, allow_nan=False)
        return 0
