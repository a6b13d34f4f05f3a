"""smlm-zoo import"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ._shared import OptionalOutput, parse_options


@dataclass(frozen=True)
class Import:
    """Turn an original program's weight file into a model folder that every command reads.

    Reads torch state dicts and pickles (nothing in them is executed), Keras HDF5, ONNX and safetensors. Model and
    options are found from the tensors' names and shapes.
    """

    file: Annotated[Path, tyro.conf.Positional]
    """The original's weight file."""
    output: OptionalOutput = None
    """Folder to write; default: smlm-zoo-import-FILE."""
    model: str | None = None
    """Model of the zoo, where the file does not tell."""
    option: tuple[str, ...] = ()
    """Options of the model, key=value."""

    def run(self) -> int:
        from harness.import_weights import import_weights

        folder = self.output or Path(f"smlm-zoo-import-{self.file.stem}")
        report = import_weights(self.file, model=self.model, output=folder, options=parse_options(self.option))
        print(report)
        return 0
