"""smlm-zoo datasets"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from ._shared import print_table


@dataclass(frozen=True)
class Datasets:
    """List the recipes that test movies and training frames are made from."""

    pattern: Annotated[str, tyro.conf.Positional] = "*"
    """Names to list, with wildcards, e.g. "tubes-*"."""

    def run(self) -> int:
        from simulators import list_recipes, load_recipe

        names = list_recipes(self.pattern)
        if not names:
            raise ValueError(f"no recipe matches {self.pattern!r}; there are: {', '.join(list_recipes())}")
        rows = []
        for name in names:
            recipe = load_recipe(name)
            rows.append(
                {
                    "recipe": name,
                    "frames": recipe.frames,
                    "size": f"{recipe.size[0]} x {recipe.size[1]}",
                    "emitters per um2": str(recipe.density_um2),
                    "photons": str(recipe.photons),
                    "background": str(recipe.background),
                    "hash": recipe.hash,
                }
            )
        print_table(rows)
        return 0
