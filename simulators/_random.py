"""Normal, Poisson and gamma numbers on the CPU, many at a time, from numpy's generator.

numpy draws number by number; here each step of an algorithm runs over a whole piece of the array. Everything is
float32, in pieces whose arrays stay in the cache.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincc, ndtr, pdtr, pdtrik

Float32 = npt.NDArray[np.float32]

_PIECE = 1 << 14  # numbers at a time
_DARK, _BRIGHT = 6.0, 60_000.0  # Poisson means outside are left to numpy
_LOW, _HIGH = -1.0, 1.6  # of s = w / sqrt(mean), where the polynomials below hold

# Quantiles of the Poisson distribution, x = mean r(s) + h(s) + c(s) / mean, with r = 1 + s + s^2 g(s) the solution of
# s^2 / 2 = 1 - r + r ln r and h = ln(s sqrt(r) / (r - 1)) / ln r (Giles 2016). Chebyshev fits, lowest power first.
_G = (0.1666755, -0.01382286, 0.003586277, -0.001520403, 0.0008287141, -0.0002240237)
_H = (0.3331906, -0.02724652, 0.009468145, -0.005160785, 0.001534123)
_C = (-0.01932214, 0.02782259, -0.0196752)
_ERROR, _ERROR_DARK = 1.2e-3, 0.016  # the fits miss x by at most the first + the second / mean


def normal(count: int, rng: np.random.Generator) -> Float32:
    """Standard normal numbers, (count,), up to 6.6 in magnitude.

    Source: Box & Muller 1958, doi:10.1214/aoms/1177706645.
    """
    half = (count + 1) // 2
    bits = _bits(2 * half, rng)
    angle = bits[half:].astype(np.float32)
    angle *= np.float32(np.pi * 2.0**-31)
    radius = _even(bits[:half])
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    result = np.empty(2 * half, np.float32)
    np.multiply(np.cos(angle), radius, out=result[:half])
    np.multiply(np.sin(angle, out=angle), radius, out=result[half:])
    return result[:count]


def _bits(count: int, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    # 64 at a time; by way of `integers`, since not every bit generator gives 64 at once.
    return rng.integers(-(2**63), 2**63 - 1, (count + 1) // 2, np.int64, endpoint=True).view(np.int32)[:count]


def _even(bits: npt.NDArray[np.int32]) -> Float32:
    """Even numbers in (0, 1] from all bits but the sign, fine near 0."""
    even = (bits & np.int32(0x7FFFFFFF)).astype(np.float32)
    even += np.float32(0.5)
    even *= np.float32(2.0**-31)
    return even


def poisson(mean: Float32, rng: np.random.Generator) -> Float32:
    """Poisson numbers of the given means (0 or more), same shape.

    Inversion: a normal number w stands for the probability Phi(w), and the result is the smallest k whose cumulative
    probability reaches it. Polynomials give k; where they come close enough to a step to be wrong, the cumulative
    probability itself decides in double precision. Means below 6 or above 60,000 go to numpy.

    Source: Giles 2016, Algorithm 955: approximation of the inverse Poisson cumulative distribution function,
    doi:10.1145/2699466.
    """
    flat = np.ascontiguousarray(mean, dtype=np.float32).reshape(-1)
    result = np.empty(flat.shape, np.float32)
    for begin in range(0, len(flat), _PIECE):
        piece, out = flat[begin : begin + _PIECE], result[begin : begin + _PIECE]
        if piece.min() >= _DARK and piece.max() <= _BRIGHT:
            _invert(piece, normal(len(piece), rng), out)
            continue
        other = np.flatnonzero((piece < _DARK) | (piece > _BRIGHT))
        out[other] = rng.poisson(piece[other])
        if len(other) < len(piece):
            fitting = np.flatnonzero((piece >= _DARK) & (piece <= _BRIGHT))
            numbers = np.empty(len(fitting), np.float32)
            _invert(piece[fitting], normal(len(fitting), rng), numbers)
            out[fitting] = numbers
    return result.reshape(mean.shape)


def _invert(mean: Float32, w: Float32, out: Float32) -> None:
    """Into `out` the smallest k whose cumulative probability reaches Phi(w)."""
    root = np.sqrt(mean)
    s: Float32 = np.divide(w, root)
    far = np.flatnonzero((s < np.float32(_LOW)) | (s > np.float32(_HIGH)))
    per = np.reciprocal(mean)
    x = _horner(_G, s)
    x *= w
    x += root
    x *= w
    x += _horner(_H, s)
    correction = _horner(_C, s)
    correction *= per
    x += correction
    x += mean
    np.floor(x, out=out)
    # Closer to a step than the fits can tell: 0.5 - |x - floor(x) - 0.5| <= error.
    correction = np.subtract(x, out, out=correction)
    correction -= np.float32(0.5)
    np.abs(correction, out=correction)
    per *= np.float32(_ERROR_DARK)
    per += np.float32(_ERROR - 0.5)
    correction += per
    close = np.flatnonzero(correction >= 0)
    if len(close):
        step = np.rint(x[close]).astype(np.float64)
        reached = ndtr(w[close].astype(np.float64)) > gammaincc(np.maximum(step, 1), mean[close].astype(np.float64))
        out[close] = np.where(reached | (step < 1), np.maximum(step, 0), step - 1)
    if len(far):
        out[far] = _quantile(mean[far], w[far])


def _quantile(mean: Float32, w: Float32) -> npt.NDArray[np.float64]:
    """The same from the cumulative probabilities alone, slowly."""
    m, share = mean.astype(np.float64), ndtr(w.astype(np.float64))
    above = np.maximum(np.ceil(pdtrik(share, m)), 0)
    before = np.maximum(above - 1, 0)
    return np.where(pdtr(before, m) >= share, before, above)


def _horner(coefficients: tuple[float, ...], s: Float32) -> Float32:
    result = s * np.float32(coefficients[-1])
    for coefficient in coefficients[-2:0:-1]:
        result += np.float32(coefficient)
        result *= s
    result += np.float32(coefficients[0])
    return result


def gamma(shape: Float32, rng: np.random.Generator) -> Float32:
    """Gamma numbers of scale 1 for whole shapes; 0 where the shape is 0. Same array shape.

    Rejection, one proposal each; what that rejects (below 5 in 100, less for large shapes) goes to numpy.

    Source: Marsaglia & Tsang 2000, A simple method for generating gamma variables, doi:10.1145/358407.358414.
    """
    flat = np.ascontiguousarray(shape, dtype=np.float32).reshape(-1)
    result = np.empty(flat.shape, np.float32)
    for begin in range(0, len(flat), _PIECE):
        piece, out = flat[begin : begin + _PIECE], result[begin : begin + _PIECE]
        again = _propose(piece, out, rng)
        if len(again):
            out[again] = rng.standard_gamma(piece[again])
    return result.reshape(shape.shape)


def _propose(shape: Float32, out: Float32, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """One proposal for each shape into `out`; returns where it is rejected."""
    count = len(shape)
    w = normal(count, rng)
    u = _even(_bits(count, rng))
    d = shape - np.float32(1 / 3)
    dark = np.flatnonzero(shape == 0) if shape.min() == 0 else None
    if dark is not None:
        d[dark] = 1
    # The proposal is d v^3, v = 1 + y, y = w / sqrt(9 d).
    y = np.sqrt(d)
    y *= np.float32(3)
    np.divide(w, y, out=y)
    v = y + np.float32(1)
    cube = v * v
    cube *= v
    np.multiply(cube, d, out=out)
    # It stands where ln u < w^2 / 2 + d (1 - v^3 + 3 ln v) = -(w^4 / 108 d) k(y), k = 1 - 4 y / 5 + 4 y^2 / 6 - ...,
    # and k(y) < 2 from y = -0.6 on: surely where u < 1 - 2.16 w^4 / 108 d = 1 - 0.18 w^2 y^2.
    squeeze = y * w
    squeeze *= squeeze
    squeeze *= np.float32(0.18)
    squeeze += u
    doubtful = np.flatnonzero((squeeze >= 1) | (y < np.float32(-0.6)))
    if dark is not None:
        out[dark] = 0
        doubtful = doubtful[shape[doubtful] > 0]
    c, wide, chance, half = (column[doubtful].astype(np.float64) for column in (cube, d, u, w))
    with np.errstate(divide="ignore", invalid="ignore"):
        stands = (c > 0) & (np.log(chance) < 0.5 * half * half + wide * (1 - c + np.log(c)))
    return doubtful[~stands]
