"""smlm-zoo score"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ._shared import OptionalOutput, command_line, print_table
from ._tables import read_emitters, read_image, read_localizations, write_bytes

if TYPE_CHECKING:
    from harness.scoring import Report


@dataclass(frozen=True)
class Score:
    """Score localizations, of any program, against the truth by the rules of the SMLM Challenge; or an image.

    Intervals are from resampled blocks of 20 frames. The JSON file holds all settings, the counts by block for
    comparisons, the calibration of predicted sigmas, and with --curves the curves. Examples:

        smlm-zoo score out/localizations.csv --truth gt.csv --field-nm 6400 6400
        smlm-zoo score out --truth gt.csv --field-nm 6400 6400 --three-d --wobble wobble.csv -o score.json
        smlm-zoo score super_resolved.tif --truth gt.csv --field-nm 6400 6400

    With --record the score becomes an entry of the leaderboard. The truth is then best the folder of smlm-zoo simulate,
    whose recipe says which test it is, so that the entry stands beside the models that read the same movie. Examples:

        smlm-zoo simulate tubes-2d-hd --frames 300 --size 40 40 -o movie    # as the leaderboard has it
        smlm-zoo score theirs.csv --truth movie --name ThunderSTORM --record theirs.json
        smlm-zoo leaderboard --add theirs.json
    """

    found: Annotated[Path, tyro.conf.Positional]
    """Table of localizations, a folder that holds localizations.csv, or a super-resolved image of the field (TIFF)."""
    truth: Path
    """Table of the emitters, or a folder that holds emitters.csv."""
    field_nm: tuple[float, float] | None = None
    """Width and height of the field, nm; default: that of the recipe."""
    pixel_size_nm: float | None = None
    """For tables whose positions are in pixels."""
    tolerance_nm: float = 250.0
    """Largest lateral distance of a pair."""
    axial_tolerance_nm: float = 500.0
    """Largest axial distance of a pair (3D)."""
    volume_tolerance_nm: float | None = None
    """Largest 3D distance of a pair as well (3D)."""
    rule: Literal["greedy", "optimal"] = "greedy"
    """greedy: nearest pair first, as the challenge; optimal: most pairs, then least distance."""
    border_nm: float = 450.0
    """Molecules nearer to the border than this are left out."""
    quantile: float = 0.25
    """Share of the weakest molecules that are neither asked for nor punished; 0 counts all."""
    three_d: bool = False
    """Score z as well."""
    wobble: Path | None = None
    """Table of dx, dy, z in nm that is added to the truth, e.g. from smlm-zoo wobble."""
    frames: int | None = None
    """Frames of the movie; default: those of the recipe, or up to the last one in either table."""
    resamples: int = 1000
    """Resampled movies for the intervals; 0: none."""
    seed: int = 0
    """Seed of the resampling."""
    curves: bool = False
    """Also curves over z, photons, density, crowding and threshold, for the JSON file."""
    images: bool = False
    """Also image scores: both tables rendered with a FWHM of 20 nm on 10 nm pixels."""
    output: OptionalOutput = None
    """JSON file to write the scores to."""
    record: Path | None = None
    """JSON file to write a record of the leaderboard to; needs --name."""
    name: str = ""
    """What the leaderboard calls the entry."""
    dataset: str | None = None
    """Recipe of the test movie, a name or a YAML file; default: recipe.yaml beside the truth, where there is one."""

    def run(self) -> int:
        from dataclasses import replace

        from harness import foreign
        from harness.recording import score_table
        from harness.scoring import CHALLENGE_2D, CHALLENGE_3D
        from harness.scoring.image_quality import score_image, score_rendered
        from harness.scoring.wobble import read_wobble

        if self.record is not None and not self.name.strip():
            raise ValueError("a record needs the name of its entry; give --name, e.g. --name ThunderSTORM")
        recipe = foreign.recipe_of(self.truth, self.dataset)
        field = self.field_nm or (foreign.field_of(recipe) if recipe is not None else None)
        if field is None:
            raise ValueError(f"no recipe.yaml beside {self.truth} says its field; give --field-nm WIDTH HEIGHT")
        if recipe is not None and self.record is not None:
            foreign.check_field(recipe, field)
        frames = self.frames if self.frames is not None or recipe is None else recipe.frames
        truth = read_emitters(self.truth, pixel_size_nm=self.pixel_size_nm)
        dimensions = 3 if self.three_d else 2
        test = foreign.dataset_of(recipe, name=self.truth.stem, n_frames=frames, truth=truth, dimensions=dimensions)
        if self.found.suffix.lower() in (".tif", ".tiff"):
            image = read_image(self.found)
            figures = score_image(image, truth=truth, field_nm=field)
            self._show([{"score": key, "value": _shown(value)} for key, value in figures.items()], figures)
            if self.record is not None:
                own = foreign.image_record(
                    image, name=self.name, dataset=test, truth=truth, field_nm=field, command=command_line(self)
                )
                self._keep(own.to_json())
            return 0
        protocol = replace(
            CHALLENGE_3D if self.three_d else CHALLENGE_2D,
            tolerance_nm=self.tolerance_nm,
            axial_tolerance_nm=self.axial_tolerance_nm if self.three_d else None,
            volume_tolerance_nm=self.volume_tolerance_nm,
            border_nm=self.border_nm,
            quantile=self.quantile,
            rule=self.rule,
        )
        found = read_localizations(self.found, pixel_size_nm=self.pixel_size_nm)
        wobble = None if self.wobble is None else read_wobble(self.wobble)
        if self.record is not None and not self.resamples:
            raise ValueError("a record holds intervals; leave --resamples at 1000")
        result = score_table(
            found,
            truth=truth,
            field_nm=field,
            protocol=protocol,
            wobble=wobble,
            n_frames=frames,
            recipe=recipe if self.record is not None else None,
            seed=self.seed,
            resamples=self.resamples,
            curves=self.curves or self.record is not None,
        )
        rows, figures = _rows(result), result.to_dict()
        if self.images:
            pictures = score_rendered(truth=truth, found=found, field_nm=field, n_frames=frames)
            figures["images"] = pictures
            rows += [{"score": f"image: {k}", "value": _shown(v), "95 % interval": ""} for k, v in pictures.items()]
        self._show(rows, figures)
        for flag in result.flags:
            print(f"suspicious: {flag}")
        if self.record is not None:
            own = foreign.table_record(
                result,
                name=self.name,
                dataset=test,
                found=found,
                truth=truth,
                field_nm=field,
                n_frames=frames,
                wobble=wobble,
                command=command_line(self),
            )
            self._keep(own.to_json())
        return 0

    def _keep(self, text: str) -> None:
        if self.record is not None:
            write_bytes(text.encode(), self.record)
            print(f"{self.record}: show it with smlm-zoo leaderboard --add {self.record}")

    def _show(self, rows: list[dict[str, Any]], figures: dict[str, Any]) -> None:
        from harness.io.json_files import write_json

        print_table(rows)
        if self.output is not None:
            write_json(self.output, figures, allow_nan=False)


def _rows(result: "Report") -> list[dict[str, Any]]:
    """Scores with their intervals, then what has none."""
    figures = result.to_dict()
    rows = []
    for name, value in figures.items():
        if isinstance(value, dict | list) or value is None or name == "rules_version":
            continue
        interval = result.intervals.get(name)
        spread = (
            "" if interval is None or interval.low != interval.low else f"{interval.low:.4g} .. {interval.high:.4g}"
        )
        rows.append({"score": name, "value": _shown(value), "95 % interval": spread})
    molecules = result.molecules
    rows += [
        {"score": f"molecules: {name}", "value": _shown(molecules[name]), "95 % interval": ""}
        for name in ("molecules", "molecules_found", "recall", "rmse_lateral_nm")
        if molecules[name] is not None and molecules["rows_per_molecule"] != 1
    ]
    for axis, one in result.calibration.items():
        rows.append({"score": f"{axis}: std of error/sigma", "value": _shown(one.z_std), "95 % interval": ""})
    return rows


def _shown(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value
