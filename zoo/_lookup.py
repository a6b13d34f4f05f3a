"""A function of one bfloat16 as a table of its 65,536 values. Import it where it is needed: numba costs time."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulators._compiled import compiled


@compiled
def _look_up(table: NDArray[np.int16], numbers: NDArray[np.uint16], results: NDArray[np.int16]) -> None:
    for i in range(numbers.size):
        results[i] = table[numbers[i]]


def look_up(table: Tensor, x: Tensor, result: Tensor) -> None:
    """result = table[x], in one thread, which leaves other Python threads free.

    Args:
        table: bfloat16 (65536), for every pattern of 16 bits, taken as an unsigned number.
        x, result: bfloat16 on the CPU, of one layout in memory and without gaps.
    """
    _look_up(_bits(table), _bits(x).view(np.uint16), _bits(result))


def _bits(x: Tensor) -> NDArray[np.int16]:
    """The numbers in the order in which they lie in memory, as one axis."""
    flat = x.as_strided((x.numel(),), (1,), x.storage_offset())
    bits: NDArray[np.int16] = flat.view(torch.int16).numpy()
    return bits
