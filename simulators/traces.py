"""Blinking as measured: brightness traces of single molecules, from a file or written into the recipe."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, model_validator

from ._model import RecipeFile
from .blinking import Blinking, Floats, Rows, start_times

Trace = tuple[float, ...]


def _as_tuples(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, list | tuple):
        return tuple(tuple(float(v) for v in trace) if isinstance(trace, list | tuple) else trace for trace in values)
    return values


class TracesBlinking(Blinking):
    """Each molecule repeats one of the given traces, drawn with equal chance, from any frame on.

    A trace holds a number per frame: share of the flux. With `photons: 1` in the recipe it holds photons. Rows below
    `minimum_share` times the mean of the trace's positive numbers are dropped.

    Give either `path` or `values`.

    Args:
        path: .npy, or .npz with one array, of (traces, frames); or .csv with a trace per line, which may differ in
            length. In a recipe file relative to that file's folder.
        values: the traces themselves.
    """

    kind: Literal["traces"] = "traces"
    path: RecipeFile | None = None
    values: Annotated[tuple[Trace, ...] | None, BeforeValidator(_as_tuples)] = None

    @model_validator(mode="after")
    def _one_source(self) -> TracesBlinking:
        if (self.path is None) == (self.values is None):
            raise ValueError("traces need either path or values, one of the two")
        if self.values is not None:
            _checked([np.asarray(trace) for trace in self.values], "values")
        return self

    def expected_rows(self, frames: int) -> float:
        starts, _, _, numbers = self._events()
        return float(np.diff(starts).mean()) * frames / (frames + numbers - 1)

    def movie(self, rate: Floats, count: int, rng: np.random.Generator) -> Rows:
        starts, when, share, longest = self._events()
        first = np.floor(start_times(rate, longest - 1, count, rng)).astype(np.int64)
        which = rng.integers(len(starts) - 1, size=count)
        held = np.diff(starts)[which]
        molecule = np.repeat(np.arange(count), held)
        event = np.arange(len(molecule)) + np.repeat(starts[which] - (np.cumsum(held) - held), held)
        frame = first[molecule] + when[event]
        inside = (frame >= 0) & (frame < len(rate))
        return Rows(molecule=molecule[inside], frame=frame[inside], share=share[event[inside]])

    def _events(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats, int]:
        if self.path is None:
            return _events(tuple(self.values or ()), self.minimum_share)
        path = Path(self.path)
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no file {path} with traces; in a recipe file, paths start at that file's folder"
            )
        return _events(_read(path, path.stat().st_mtime_ns), self.minimum_share)


@lru_cache(maxsize=4)
def _events(
    traces: tuple[Trace, ...], minimum: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats, int]:
    """Rows of all traces in one list: where each trace begins (and the end), frames, shares; frames of the longest."""
    whens, shares = [], []
    for trace in traces:
        numbers = np.asarray(trace, np.float64)
        on = np.flatnonzero((numbers > 0) & (numbers >= minimum * numbers[numbers > 0].mean()))
        whens.append(on)
        shares.append(numbers[on])
    starts = np.concatenate([[0], np.cumsum([len(when) for when in whens])])
    return starts, np.concatenate(whens), np.concatenate(shares), max(len(trace) for trace in traces)


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> tuple[Trace, ...]:
    try:
        if path.suffix == ".csv":
            lines = path.read_text("utf-8").splitlines()
            traces = [np.array([float(cell) for cell in line.split(",")]) for line in lines if line.strip()]
        elif path.suffix in (".npy", ".npz"):
            data = np.load(path, allow_pickle=False)
            if isinstance(data, np.lib.npyio.NpzFile):
                if len(data.files) != 1:
                    raise ValueError(f"holds {len(data.files)} arrays; give one, (traces, frames)")
                data = data[data.files[0]]
            if data.ndim != 2:
                raise ValueError(f"holds an array of shape {data.shape}; give (traces, frames)")
            traces = list(np.asarray(data, np.float64))
        else:
            raise ValueError("has an ending that is not known; give .csv, .npy or .npz")
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} as traces: {error}") from None
    _checked(traces, str(path))
    return tuple(tuple(trace.tolist()) for trace in traces)


def _checked(traces: list[npt.NDArray[Any]], source: str) -> None:
    if not traces:
        raise ValueError(f"{source} holds no traces")
    for number, trace in enumerate(traces):
        if not np.isfinite(trace).all() or (trace < 0).any() or not (trace > 0).any():
            raise ValueError(
                f"{source}: trace {number}, counted from 0, needs finite numbers >= 0, one of them above 0"
            )
