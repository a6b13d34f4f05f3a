"""smlm-zoo curves"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Curves:
    """Learning curves: validation scores of trainings against the time and the frames they took.

    Without names, those of the shipped weights. Writes PREFIX.csv and PREFIX.png. Examples:

        smlm-zoo curves
        smlm-zoo curves run1 run2 --score rmse_lateral_nm -o compare
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Folders of trainings, or shipped weights."""
    score: str = "efficiency"
    """efficiency, jaccard, rmse_lateral_nm or validation_loss."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("smlm-zoo-curves")
    """Beginning of the two files' names."""

    def run(self) -> int:
        from harness.io.atomic import atomic_path
        from harness.training.curves import learning_curves, plot_curves

        table = learning_curves(self.sources)
        picture = plot_curves(table, self.output.with_name(f"{self.output.name}.png"), score=self.score)
        with atomic_path(self.output.with_name(f"{self.output.name}.csv")) as temporary:
            table.to_csv(temporary, index=False)
        beside = picture.with_suffix(".csv").name
        print(f"{picture} and {beside}: {table['model'].nunique()} trainings, {len(table)} points")
        return 0
