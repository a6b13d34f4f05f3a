"""The memory of this process."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def keep_memory() -> None:
    """Have this process keep the memory of tensors that it is done with for the next ones, until it ends.

    Otherwise the C library gives each tensor of more than 32 MB back to the system and gets the next one page by page,
    which takes longer than many a convolution on it. Acts where the C library is glibc; elsewhere nothing changes.
    """
    _set(1 << 30, (1 << 31) - 1)


@contextmanager
def kept_memory() -> Iterator[None]:
    """`keep_memory` meanwhile; afterwards as the C library does at its most patient (32 MB)."""
    keep_memory()
    try:
        yield
    finally:
        _set(32 << 20, 64 << 20)


def _set(mapped: int, trimmed: int) -> None:
    try:
        change = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    change(M_MMAP_THRESHOLD, mapped)
    change(M_TRIM_THRESHOLD, trimmed)
