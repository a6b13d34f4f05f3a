"""Loops over numbers compiled to machine code (numba). Import what uses this where it is needed: numba costs time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """The function as machine code that other threads run beside.

    Compiled at the first call and kept beside the source, else in the user's cache folder; where neither can be
    written, every process compiles for itself.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        kept: _Function = njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to keep it in
        kept = njit(**options)(function)
    return kept
