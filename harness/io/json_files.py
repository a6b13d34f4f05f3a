"""JSON files that appear complete or not at all, and are read without fear."""

import json
from pathlib import Path
from typing import Any

from .atomic import atomic_path


def write_json(path: Path, value: Any, *, allow_nan: bool = True) -> None:
    """Write a value as JSON, indented.

    Args:
        path: file, in a folder that is there.
        value: what `json` can write.
        allow_nan: nan and infinity are written as Python reads them; otherwise they are refused.

    Raises:
        OutputError: the file cannot be written.
        ValueError: nan or infinity where they are refused; nothing is written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=allow_nan) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none or it cannot be read, so that its maker makes it anew."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
