"""smlm-zoo parity"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Parity:
    """Compare our models, losses and preprocessing with the originals' outputs; a row for each.

    Exit status 1 when a row is off or nothing was compared; with --strict also when something is not covered.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of reference files: NAME_io.npz, losses_io.npz, preprocess_io.npz, ..."""
    weights: Path | None = None
    """Folder of the weight files, where they lie elsewhere."""
    strict: bool = False
    """Fail also on what is not covered."""

    def run(self) -> int:
        from harness.parity import iter_parity, print_parity

        return print_parity(iter_parity(self.folder, weights=self.weights), strict=self.strict)
