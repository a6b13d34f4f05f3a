"""What the commands on tables share: reading one of any format, writing it, files that appear whole."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simulators import Emitters, Localizations


def read_localizations(path: Path, *, pixel_size_nm: float | None = None) -> "Localizations":
    """The localizations of a table, or of a folder that holds localizations.csv."""
    from harness.io.tables import as_localizations, read_table

    if path.is_dir():
        path = path / "localizations.csv"
    return as_localizations(read_table(path, pixel_size_nm=pixel_size_nm))


def read_emitters(path: Path, *, pixel_size_nm: float | None = None) -> "Emitters":
    """The truth of a table, or of a folder that holds emitters.csv."""
    from harness.io.tables import as_emitters, read_table

    if path.is_dir():
        path = path / "emitters.csv"
    return as_emitters(read_table(path, pixel_size_nm=pixel_size_nm))


def read_image(path: Path) -> "NDArray[np.float64]":
    """A TIFF as one image: its frames summed."""
    import numpy as np

    from harness.io.movies import open_movie

    with open_movie(path) as reader:
        total = None
        for block in reader.blocks(100):
            part = np.asarray(block, np.float64).sum(0)
            total = part if total is None else total + part
    if total is None:
        raise ValueError(f"{path} holds no frame")
    return total


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file that appears complete or not at all."""
    from harness.io.atomic import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
