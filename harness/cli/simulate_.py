"""smlm-zoo simulate"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ._shared import OptionalOutput


@dataclass(frozen=True)
class Simulate:
    """Make a movie whose molecules are known: frames.tif, emitters.csv and the recipe that made them."""

    recipe: Annotated[str, tyro.conf.Positional]
    """A recipe's name (see `smlm-zoo datasets`) or a YAML file."""
    output: OptionalOutput = None
    """Folder to write; default: smlm-zoo-RECIPE."""
    frames: int | None = None
    """Number of frames, instead of the recipe's."""
    size: tuple[int, int] | None = None
    """Height and width in camera pixels, instead of the recipe's."""
    seed: int | None = None
    """Seed of all random numbers, instead of the recipe's."""
    device: str = "cpu"
    """cpu or cuda."""

    def run(self) -> int:
        import numpy as np

        from harness.io.atomic import atomic_path
        from harness.io.movies import write_movie
        from harness.io.tables import write_table
        from simulators import load_recipe, save_recipe, simulate

        changes = {"frames": self.frames, "size": self.size, "seed": self.seed}
        recipe = load_recipe(self.recipe).with_(**{k: v for k, v in changes.items() if v is not None})
        folder = self.output or Path(f"smlm-zoo-{recipe.name}")
        folder.mkdir(parents=True, exist_ok=True)
        movie = simulate(recipe, np.random.default_rng(recipe.seed), device=self.device)
        write_movie(folder / "frames.tif", [movie.frames], pixel_size_nm=recipe.camera.pixel_size_nm)
        write_table(movie.emitters, folder / "emitters.csv")
        with atomic_path(folder / "recipe.yaml") as temporary:
            save_recipe(recipe, temporary)
        print(f"{folder}: {len(movie.frames)} frames, {len(movie.emitters)} emitters, recipe {recipe.hash}")
        return 0
