"""smlm-zoo compare"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ._shared import OptionalOutput, Plugins, command_line, load_plugins, print_table, progress_bar
from ._tables import read_emitters, read_localizations, write_bytes

if TYPE_CHECKING:
    from leaderboard import Paired, Picture, Result


@dataclass(frozen=True)
class Compare:
    """Which of two is better, and how sure that is: differences on the same blocks of frames.

    Of models, records or tables. Differences have intervals and p-values, corrected for the number of datasets by
    Holm's method. The answer is printed and written as a page, with the difference block by block and
    pictures. Examples:

        smlm-zoo compare decode fid_storm                       # both read the test movies; minutes
        smlm-zoo compare decode fid_storm --records smlm-zoo-leaderboard    # measured before; seconds
        smlm-zoo compare old/records new/records                # one model each
        smlm-zoo compare mine.csv theirs.csv --truth movie      # a folder of smlm-zoo simulate, or a table
    """

    first: Annotated[str, tyro.conf.Positional]
    """A model (shipped, folder or ONNX file), records (file or folder), or a table of localizations."""
    second: Annotated[str, tyro.conf.Positional]
    """The other one."""
    records: tuple[Path, ...] = ()
    """Take records from these files or folders (a leaderboard's folder will do); the two are then models' names."""
    truth: Path | None = None
    """For tables: the emitters, or the folder of smlm-zoo simulate."""
    field_nm: tuple[float, float] | None = None
    """For tables: width and height of the field, nm; default: that of the recipe beside the truth."""
    pixel_size_nm: float | None = None
    """For tables whose positions are in pixels."""
    frames: int | None = None
    """For tables: frames of the movie; default: those of the recipe, or up to the last one in any table."""
    three_d: bool = False
    """For tables: score z as well."""
    dataset: tuple[str, ...] = ()
    """For models: recipes to read; default: the leaderboard's."""
    quick: bool = False
    """For models: 40 frames of each movie: a check, not a result."""
    resamples: int = 4000
    """Resampled movies."""
    seed: int = 0
    """Seed of the resampling."""
    device: str = "auto"
    """auto, cpu, cuda."""
    output: OptionalOutput = None
    """Folder to write: index.html, comparison.csv; default: smlm-zoo-compare."""
    plugin: Plugins = ()
    """Python files that register further models."""

    def run(self) -> int:
        from harness.comparing import holds_records, read_all, records_named

        load_plugins(self.plugin)
        folder = self.output or Path("smlm-zoo-compare")
        places = (Path(self.first), Path(self.second))
        sides: list[list[Result]]
        pictures: list[Picture] = []
        if self.records:
            known = read_all(self.records)
            sides = [records_named(known, name) for name in (self.first, self.second)]
        elif self.truth is not None:
            sides, pictures = self._tables(folder, self.truth)
        elif all(holds_records(p / "records" if (p / "records").is_dir() else p) for p in places):
            sides = [read_all([place]) for place in places]
        else:
            for name, place in zip((self.first, self.second), places, strict=True):
                if place.suffix.lower() in (".csv", ".parquet", ".txt") or (place / "localizations.csv").is_file():
                    raise ValueError(f"{name} is a table of localizations; give its --truth")
            sides, pictures = self._models(folder)
        return self._answer(sides, pictures, folder)

    def _models(self, folder: Path) -> "tuple[list[list[Result]], list[Picture]]":
        from harness.board.plan import Plan
        from harness.comparing import run_models

        plan = Plan.make(datasets=self.dataset)
        recipes = [r.with_(frames=40) for r in plan.recipes] if self.quick else list(plan.recipes)
        with progress_bar("comparing", 2 * len(recipes)) as bar:
            done = 0

            def say(text: str, finished: int) -> None:
                nonlocal done
                done += finished
                bar(done)

            return run_models(
                (self.first, self.second),
                recipes,
                folder,
                validation=1 if self.quick else plan.validation,
                device=self.device,
                say=say,
            )

    def _tables(self, folder: Path, truth_at: Path) -> "tuple[list[list[Result]], list[Picture]]":
        from harness import foreign
        from harness.comparing import table_pictures
        from harness.recording import score_table
        from harness.scoring import CHALLENGE_2D, CHALLENGE_3D

        truth = read_emitters(truth_at, pixel_size_nm=self.pixel_size_nm)
        names = [Path(name).name for name in (self.first, self.second)]
        if names[0] == names[1]:
            names = [self.first, self.second]
        tables = [read_localizations(Path(p), pixel_size_nm=self.pixel_size_nm) for p in (self.first, self.second)]
        recipe = foreign.recipe_of(truth_at)
        field = self.field_nm or (foreign.field_of(recipe) if recipe is not None else None)
        if field is None:
            raise ValueError(f"no recipe.yaml beside {truth_at} says its field; give --field-nm WIDTH HEIGHT")
        frames = self.frames or (recipe.frames if recipe is not None else None)
        if frames is None:
            frames = 1 + max(int(t.frame.max(initial=-1)) for t in (truth, *tables))
        dimensions = 3 if self.three_d else 2
        test = foreign.dataset_of(recipe, name=truth_at.stem, n_frames=frames, truth=truth, dimensions=dimensions)
        sides = []
        for name, found in zip(names, tables, strict=True):
            one = score_table(
                found,
                truth=truth,
                field_nm=field,
                protocol=CHALLENGE_3D if self.three_d else CHALLENGE_2D,
                n_frames=frames,
                curves=False,
            )
            sides.append(
                [
                    foreign.table_record(
                        one, name=name, dataset=test, found=found, truth=truth, field_nm=field, n_frames=frames
                    )
                ]
            )
        drawn = {"truth": truth, **dict(zip(names, tables, strict=True))}
        return sides, table_pictures(drawn, dataset=test.name, field_nm=field, folder=folder / "pictures")

    def _answer(self, sides: "list[list[Result]]", pictures: "list[Picture]", folder: Path) -> int:
        import numpy as np

        import leaderboard
        from leaderboard.table import to_csv

        paired = leaderboard.compare(sides[0], sides[1], rng=np.random.default_rng(self.seed), resamples=self.resamples)
        print_table(_rows(paired))
        print(paired.verdict)
        page = leaderboard.build_comparison(
            paired, folder, records=[*sides[0], *sides[1]], pictures=pictures, command=command_line(self)
        )
        write_bytes(to_csv(paired.frame()).encode(), folder / "comparison.csv")
        print(f"open {page}")
        return 0


def _rows(paired: "Paired") -> list[dict[str, object]]:
    from leaderboard.page.comparison import p_text

    names = {"first": paired.first, "second": paired.second, "": "-"}
    return [
        {
            "dataset": d.dataset,
            "score": d.score,
            paired.first: f"{d.first:.1f}",
            paired.second: f"{d.second:.1f}",
            "difference": f"{d.delta:+.1f}",
            "95 % interval": "" if d.low != d.low else f"{d.low:+.1f} .. {d.high:+.1f}",
            "p": p_text(d.p_value),
            "p (Holm)": p_text(d.adjusted),
            "better": names[d.better],
        }
        for d in paired.differences
    ]
