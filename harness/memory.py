"""The memory of this process."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def keep_memory() -> None:
    """Have this process keep the memory of tensors that it is done with for the next ones, until it ends.

    Otherwise the C library gives each tensor of more than 32 MB back to the system and gets the next one page by page,
    which takes longer than many a convolution on it. Acts where the C library is glibc; elsewhere nothing changes.
    """
    try:
        change = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    change(M_MMAP_THRESHOLD, 1 << 30)
    change(M_TRIM_THRESHOLD, (1 << 31) - 1)
