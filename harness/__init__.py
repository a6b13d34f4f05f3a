"""The harness: trains, exports, runs, scores and times every model of the zoo on the same data.

>>> import harness
>>> found = harness.localize(harness.open_model("deep_storm"), Path("movie.tif"), camera=camera).localizations

What is named here loads when it is first used, so that `import harness` costs nothing.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "export_model": "export",
    "localize": "localization",
    "open_model": "models",
    "open_movie": "io.movies",
    "read_table": "io.tables",
    "score": "scoring",
    "show": "showing",
    "train": "training",
    "write_movie": "io.movies",
    "write_table": "io.tables",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"harness has no {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
