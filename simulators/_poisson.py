"""Exact Poisson numbers on the CPU, many at a time, from numpy's generator."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

Float32 = npt.NDArray[np.float32]

_PIECE = 1 << 15  # numbers at a time: their arrays stay in the second-level cache
_FEW = 1000  # fewer are left to numpy's own routine
_LOG_FACTORIAL = gammaln(np.arange(1, 1 << 16, dtype=np.float64))  # log k!


def poisson(mean: Float32, rng: np.random.Generator) -> Float32:
    """Poisson numbers of the given means (0 or more), float32, same shape.

    Transformed rejection, each step for a whole piece of the array; numpy goes number by number.
    One proposal each; what that rejects (about one in seven) and means below 10 go to numpy.

    Source: Hoermann 1993, The transformed rejection method for generating Poisson random variables,
    doi:10.1016/0167-6687(93)90997-4, algorithm PTRS.
    """
    flat = np.ascontiguousarray(mean, dtype=np.float32).reshape(-1)
    result = np.empty(flat.shape, np.float32)
    for begin in range(0, len(flat), _PIECE):
        piece, out = flat[begin : begin + _PIECE], result[begin : begin + _PIECE]
        if len(piece) < _FEW or piece.max() > 60_000 or np.count_nonzero(piece < 10) > len(piece) // 2:
            out[:] = rng.poisson(piece)
        else:
            again = _propose(np.maximum(piece, np.float32(10)), out, rng)
            if piece.min() < 10:
                again = np.union1d(again, np.flatnonzero(piece < 10))
            out[again] = rng.poisson(piece[again])
    return result.reshape(mean.shape)


def _propose(mean: Float32, out: Float32, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """One proposal for each mean (10 to 60,000) into `out`; returns where it is rejected."""
    b = np.sqrt(mean)
    b *= np.float32(2.53)
    b += np.float32(0.931)
    # u even between -1/2 and 1/2, never at either end.
    u = rng.random(len(mean), dtype=np.float32)
    u -= np.float32(0.5 - 2.0**-25)
    v = rng.random(len(mean), dtype=np.float32)
    us = np.abs(u)
    np.subtract(np.float32(0.5), us, out=us)
    # floor((2 a / us + b) u + mean + 0.43) with a = 0.02483 b - 0.059
    k = b * np.float32(0.04966)
    k -= np.float32(0.118)
    k /= us
    k += b
    k *= u
    k += np.float32(0.43)
    k += mean
    np.floor(k, out=out)
    # Accepted at once where us >= 0.07 and v <= 0.9277 - 3.6224 / (b - 2).
    limit = np.subtract(b, np.float32(2), out=k)
    np.divide(np.float32(-3.6224), limit, out=limit)
    limit += np.float32(0.9277)
    limit -= v
    doubtful = np.flatnonzero((limit < 0) | (us < np.float32(0.07)))
    number, depth, height = (column[doubtful].astype(np.float64) for column in (out, us, v))
    spread, middle = b[doubtful].astype(np.float64), mean[doubtful].astype(np.float64)
    a = 0.02483 * spread - 0.059
    height *= 1.1239 + 1.1328 / (spread - 3.4)
    height /= a / (depth * depth) + spread
    whole = np.clip(number, 0, len(_LOG_FACTORIAL) - 1).astype(np.int32)
    logarithm = number * np.log(middle) - middle - _LOG_FACTORIAL[whole]
    stands = (np.log(np.maximum(height, 1e-300)) <= logarithm) & (number >= 0) & (number < len(_LOG_FACTORIAL))
    stands &= (depth >= 0.013) | (v[doubtful] <= depth)
    return doubtful[np.flatnonzero(~stands)]
