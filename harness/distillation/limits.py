"""What a small machine allows, and the best model within it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KINDS = {  # key of a row -> field of `Limits`, what it is, its unit
    "mb": ("max_mb", "file", "MB"),
    "ms": ("max_ms", "time of a 64x64 frame", "ms"),
    "peak_mb": ("max_peak_mb", "peak memory", "MB"),
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper limits of figures in an edge report.

    Args:
        max_mb: of the file, MB.
        max_ms: of one 64x64 frame, milliseconds.
        max_peak_mb: of the memory of the whole program that localizes a movie, MB.
        memory_mb: memory for data that the program gets on the machine, MB: it must run within it, one frame at a time.

    Raises:
        ValueError: a limit that is not positive.
    """

    max_mb: float = math.inf
    max_ms: float = math.inf
    max_peak_mb: float = math.inf
    memory_mb: float | None = None

    def __post_init__(self) -> None:
        if self.memory_mb is not None and not self.memory_mb > 0:
            raise ValueError(f"memory_mb is {self.memory_mb}; give a positive number of MB")
        for field, what, unit in _KINDS.values():
            if not getattr(self, field) > 0:
                raise ValueError(f"the limit of {what} is {getattr(self, field)} {unit}; give a positive number")

    def given(self) -> dict[str, float]:
        """Key of a row -> its limit, of those that limit anything."""
        limits = {key: getattr(self, field) for key, (field, _, _) in _KINDS.items()}
        return {key: value for key, value in limits.items() if value < math.inf}

    def __str__(self) -> str:
        words = [f"{_KINDS[key][1]} at most {value:g} {_KINDS[key][2]}" for key, value in self.given().items()]
        if self.memory_mb is not None:
            words.append(f"{self.memory_mb:g} MB for data")
        return ", ".join(words) or "no limits"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What limits leave.

    Args:
        limits: that were asked for.
        best: name of the best model within them; None where none is.
        nearest: the model that comes nearest where none is within them: whose worst excess is smallest.
        figures: of the one that is named.
        threads: that were measured with.
    """

    limits: Limits
    best: str | None
    nearest: str | None
    figures: Mapping[str, Any]
    threads: int = 1

    def __str__(self) -> str:
        limits = self.limits.given()
        threads = _threads(self.threads)
        if self.best is not None:
            kept = [
                f"{_KINDS[key][1]} {self.figures[key]:.3g} {_KINDS[key][2]}" for key in _KINDS if key in self.figures
            ]
            return (
                f"best within the limits ({self.limits}; {threads}): {self.best}, efficiency "
                f"{self.figures['efficiency']:.1f}, {', '.join(kept)}"
            )
        over = [
            f"{_KINDS[key][1]} {self.figures[key]:.3g} {_KINDS[key][2]} (limit {value:g})"
            for key, value in limits.items()
        ]
        if not self.figures.get("fits", True):
            over.append(f"it needs more than {self.limits.memory_mb:g} MB for data")
        return f"no model is within the limits ({threads}); nearest is {self.nearest}: {', '.join(over)}"


def pick(rows: Mapping[str, Mapping[str, Any]], limits: Limits, *, threads: int = 1) -> Choice:
    """The model of the highest efficiency within limits.

    Args:
        rows: name -> figures: efficiency, mb, ms, peak_mb.
        limits: that count.
        threads: that the figures were measured with.

    Raises:
        ValueError: nothing to pick from, or a limit on what was not measured.
    """
    if not rows:
        raise ValueError("there is no model to pick from")
    asked = limits.given()
    for name, row in rows.items():
        for key in asked:
            if row.get(key) is None:
                raise ValueError(f"{_KINDS[key][1]} of {name} was not measured; leave that limit out")
    fitting = [
        name
        for name, row in rows.items()
        if row.get("fits", True) and all(row[key] <= value for key, value in asked.items())
    ]
    if fitting:
        best = max(fitting, key=lambda name: (rows[name]["efficiency"], -rows[name]["ms"]))
        return Choice(limits=limits, best=best, nearest=None, figures=rows[best], threads=threads)
    nearest = min(
        rows,
        key=lambda name: (
            not rows[name].get("fits", True),
            max((rows[name][key] / value for key, value in asked.items()), default=rows[name]["ms"]),
        ),
    )
    return Choice(limits=limits, best=None, nearest=nearest, figures=rows[nearest], threads=threads)


def kept_rows(
    folders: Sequence[Path], *, threads: int = 1, memory_mb: float | None = None
) -> dict[str, dict[str, Any]]:
    """Figures that folders keep: of distillations (`report.json`) or quantised exports (`quantized.json`).

    Args:
        folders: written by distill or quantize; of several, names begin with the folder's.
        threads: that the figures must have been measured with. memory_mb: likewise.

    Raises:
        ValueError: a folder without figures, without scores, or measured with other threads or memory.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        report, forms = folder / "report.json", folder / "quantized.json"
        if report.is_file():
            document = json.loads(report.read_text(encoding="utf-8"))
            rows, measured, memory = document["rows"], document.get("threads", 1), document.get("memory_mb")
        elif forms.is_file():
            measured, memory = 1, None
            rows = {row["form"]: {**row, "mb": row["bytes"] / 1e6} for row in json.loads(forms.read_text("utf-8"))}
        else:
            raise ValueError(f"{folder} holds no report.json or quantized.json; give a folder of distill or quantize")
        if measured != threads:
            raise ValueError(
                f"{folder} was measured with {_threads(measured)}, not {threads}; say --threads {measured}, or measure "
                f"anew: smlm-zoo distill ... --threads {threads}"
            )
        if memory != memory_mb:
            raise ValueError(
                f"{folder} was measured with {_memory(memory)}, not {_memory(memory_mb)}; measure anew: smlm-zoo "
                "distill ... --memory-mb"
            )
        for name, row in rows.items():
            if row.get("efficiency") is None:
                raise ValueError(f"{folder} holds no scores; quantise it again with --frames 100")
            found[f"{folder.name}: {name}" if len(folders) > 1 else name] = row
    return found


def _memory(megabytes: float | None) -> str:
    return "all memory" if megabytes is None else f"{megabytes:g} MB for data"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"
