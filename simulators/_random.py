"""Normal, Poisson and gamma numbers on the CPU, and camera counts made of them, many at a time.

Bits come from numpy's generator; the rest runs in compiled loops without branches, which the processor's vector units
take. What such a loop cannot decide it marks, and that little goes through an exact computation.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import gammainc, gammaincc, ndtr

from ._compiled import compiled

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Marks = npt.NDArray[np.uint8]

_DARK, _ENDLESS = 6.0, 2.0**50  # Poisson means below are counted up; those above are their own number
_LOW, _HIGH = -1.0, 1.6  # of s = w / sqrt(mean), where the polynomials below hold

# Quantiles of the Poisson distribution, x = mean r(s) + h(s) + c(s) / mean, with r = 1 + s + s^2 g(s) the solution of
# s^2 / 2 = 1 - r + r ln r and h = ln(s sqrt(r) / (r - 1)) / ln r (Giles 2016). Chebyshev fits of g and h, least
# squares for c, lowest power first.
_G0, _G1, _G2, _G3, _G4 = 1.66665985e-01, -1.38894350e-02, 3.72069563e-03, -1.33346060e-03, 4.92783276e-04
_G5, _G6, _G7, _G8 = -2.24543601e-04, 1.99186128e-04, -1.25801379e-04, 2.93661108e-05
_H0, _H1, _H2, _H3 = 0.33335611, -0.02782557, 0.00832323, -0.00315542
_H4, _H5, _H6 = 0.00221636, -0.00154533, 0.00042292
_C0, _C1, _C2, _C3, _C4 = -0.0191665, 0.01546079, -0.01741442, 0.01763657, -0.00636002
_ERROR, _ERROR_DARK = 6e-5, 0.006  # the fits miss x by at most the first + the second / mean
_SURE, _CLOSE, _FAR = 0, 1, 2  # marks

# Logarithm, sine and cosine in single precision (Moshier's Cephes library: logf, sinf, cosf).
_L0, _L1, _L2 = np.float32(3.3333331174e-1), np.float32(-2.4999993993e-1), np.float32(2.0000714765e-1)
_L3, _L4, _L5 = np.float32(-1.6668057665e-1), np.float32(1.4249322787e-1), np.float32(-1.2420140846e-1)
_L6, _L7, _L8 = np.float32(1.1676998740e-1), np.float32(-1.1514610310e-1), np.float32(7.0376836292e-2)
_S0, _S1, _S2 = np.float32(-1.6666654611e-1), np.float32(8.3321608736e-3), np.float32(-1.9515295891e-4)
_K0, _K1, _K2 = np.float32(4.166664568298827e-2), np.float32(-1.388731625493765e-3), np.float32(2.443315711809948e-5)
_HALF, _ONE, _TWO, _LN2 = np.float32(0.5), np.float32(1), np.float32(2), np.float32(math.log(2))
_TURN = np.float32(2 * math.pi * 2.0**-32)
_EIGHTH, _ROOT_HALF = np.int32(1 << 29), np.int32(0x3F3504F3)  # of a turn; the bits of sqrt(1 / 2)
_FRACTION, _SIZE = np.int32(0x007FFFFF), np.int32(0x7FFFFFFF)  # bits of a float's fraction; all but the sign


def normal(count: int, rng: np.random.Generator) -> Float32:
    """Standard normal numbers, (count,), up to 6.6 in magnitude.

    Source: Box & Muller 1958, doi:10.1214/aoms/1177706645.
    """
    pairs = np.empty(2 * ((count + 1) // 2), np.float32)
    _pairs(_bits(len(pairs), rng), pairs)
    return pairs[:count]


def _bits(count: int, rng: np.random.Generator) -> Int32:
    # 64 at a time; by way of `integers`, since not every bit generator gives 64 at once.
    return rng.integers(-(2**63), 2**63 - 1, (count + 1) // 2, np.int64, endpoint=True).view(np.int32)[:count]


@compiled
def _pairs(bits: Int32, out: Float32) -> None:
    """Two normal numbers of every two words: radius sqrt(-2 ln u) and angle."""
    half = bits.size // 2
    for i in range(half):
        # ln u = ln(n 2^-31) of n = 2^power (1 + x), sqrt(1 / 2) <= 1 + x < sqrt 2.
        n = np.float32(bits[i] & _SIZE) + _HALF
        word = np.int32(np.float32(n).view(np.int32) - _ROOT_HALF)
        power = np.float32((word >> np.int32(23)) - np.int32(31))
        x = np.int32(np.int32(word & _FRACTION) + _ROOT_HALF).view(np.float32) - _ONE
        p = _L3 + x * (_L4 + x * (_L5 + x * (_L6 + x * (_L7 + x * _L8))))
        p = x * x * (x * (_L0 + x * (_L1 + x * (_L2 + x * p))) - _HALF)
        radius = math.sqrt(max(-_TWO * (power * _LN2 + (x + p)), np.float32(0)))
        # The angle is a number of quarter turns and an eighth at most to either side.
        quarters = np.int32(bits[half + i] + _EIGHTH) >> np.int32(30)
        t = np.float32(np.int32(bits[half + i] - np.int32(quarters << np.int32(30)))) * _TURN
        y = t * t
        sine = t + t * y * (_S0 + y * (_S1 + y * _S2))
        cosine = _ONE - _HALF * y + y * y * (_K0 + y * (_K1 + y * _K2))
        across = sine if quarters & 1 else cosine
        along = cosine if quarters & 1 else sine
        out[i] = radius * (-across if (quarters + 1) & 2 else across)
        out[half + i] = radius * (-along if quarters & 2 else along)


def poisson(mean: Float32, rng: np.random.Generator, *, scale: float = 1.0, more: float = 0.0) -> Float32:
    """Poisson numbers of means scale * mean + more, same shape.

    Inversion: a normal number w stands for the probability Phi(w), and the result is the smallest k whose cumulative
    probability reaches it, see `invert`.

    Raises:
        ValueError: a mean is negative or nan.
    """
    return invert(mean, normal(mean.size, rng), scale=scale, more=more)


def invert(mean: Float32, w: Float32, *, scale: float = 1.0, more: float = 0.0) -> Float32:
    """The smallest k whose cumulative Poisson probability reaches Phi(w); shape of `mean`.

    Polynomials give k; where they come close enough to a step to be wrong, the cumulative probability itself decides,
    in double precision. For means below 6, and in the far tails of those below 50, k is counted up.

    Source: Giles 2016, Algorithm 955: approximation of the inverse Poisson cumulative distribution function,
    doi:10.1145/2699466.
    """
    flat = np.ascontiguousarray(mean, dtype=np.float32).reshape(-1)
    out, marks = np.empty(flat.shape, np.float32), np.empty(flat.shape, np.uint8)
    scale, more = float(scale), float(more)
    if not _quantiles(flat, scale, more, w, out, marks):
        raise ValueError("photons are negative or nan somewhere; expected 0 or more in every pixel")
    close = np.empty(len(flat), np.int64)
    close = close[: _count_up(flat, scale, more, w, out, marks, close)]
    m, k, v = (column[close].astype(np.float64) for column in (flat, out, w))
    m = m * scale + more
    below = v < 0  # compared on the side whose probability is small
    reached = np.empty(len(close), np.bool_)
    reached[below] = ndtr(v[below]) > gammaincc(k[below], m[below])
    reached[~below] = ndtr(-v[~below]) < gammainc(k[~below], m[~below])
    out[close] = np.where(reached, k, k - 1)
    return out.reshape(mean.shape)


@compiled
def _quantiles(mean: Float32, scale: float, more: float, w: Float32, out: Float32, marks: Marks) -> bool:
    """By polynomials; where they are too close to a step the upper number. False where a mean is no mean."""
    bad = 0
    for i in range(mean.size):
        given = mean[i] * scale + more
        bad += 0 if mean[i] >= 0 else 1
        m = min(max(given, _DARK), _ENDLESS)
        root = math.sqrt(m)
        per = 1 / m
        s = w[i] * root * per
        g = _G5 + s * (_G6 + s * (_G7 + s * _G8))
        g = _G0 + s * (_G1 + s * (_G2 + s * (_G3 + s * (_G4 + s * g))))
        h = _H0 + s * (_H1 + s * (_H2 + s * (_H3 + s * (_H4 + s * (_H5 + s * _H6)))))
        c = _C0 + s * (_C1 + s * (_C2 + s * (_C3 + s * _C4)))
        x = m + w[i] * (root + w[i] * g) + (h + c * per)
        k = np.floor(x)
        close = abs(x - k - 0.5) >= 0.5 - _ERROR - _ERROR_DARK * per
        far = (s < _LOW) | (s > _HIGH) | (given < _DARK)
        endless = given > _ENDLESS
        out[i] = given if endless else (np.floor(x + 0.5) if close else k)
        marks[i] = _SURE if endless else (_FAR if far else (_CLOSE if close else _SURE))
    return bad == 0


@compiled
def _count_up(mean: Float32, scale: float, more: float, w: Float32, out: Float32, marks: Marks, close: Indices) -> int:
    """What is marked as far, one k after the other; into `close` where it is close, returns how often."""
    found = 0
    for i in range(mean.size):
        if marks[i] == _CLOSE:
            close[found] = i
            found += 1
        if marks[i] == _FAR:
            m = mean[i] * scale + more
            share = 0.5 * math.erfc(-w[i] * math.sqrt(0.5))
            k, chance = 0.0, math.exp(-m)
            while share > chance > 0:
                share -= chance
                k += 1
                chance *= m / k
            out[i] = k if m > 0 else 0.0
    return found


def gamma(shape: Float32, rng: np.random.Generator) -> Float32:
    """Gamma numbers of scale 1 for shapes of 1 or more; 0 where the shape is 0. Same array shape.

    Rejection, one proposal each; what that rejects (below 5 in 100, less for large shapes) goes to numpy.

    Source: Marsaglia & Tsang 2000, A simple method for generating gamma variables, doi:10.1145/358407.358414.
    """
    flat = np.ascontiguousarray(shape, dtype=np.float32).reshape(-1)
    out, marks = np.empty(flat.shape, np.float32), np.empty(flat.shape, np.uint8)
    w, bits = normal(len(flat), rng), _bits(len(flat), rng)
    _propose(flat, w, bits, out, marks)
    again = np.empty(len(flat), np.int64)
    again = again[: _decide(flat, w, bits, marks, again)]
    out[again] = rng.standard_gamma(flat[again])
    return out.reshape(shape.shape)


@compiled
def _propose(shape: Float32, w: Float32, bits: Int32, out: Float32, marks: Marks) -> None:
    """One proposal for each shape; marked where it may have to be rejected.

    The proposal is d v^3, v = 1 + y, y = w / sqrt(9 d). It stands where
    ln u < w^2 / 2 + d (1 - v^3 + 3 ln v) = -(w^4 / 108 d) k(y), k = 1 - 4 y / 5 + 4 y^2 / 6 - ..., and k(y) < 2 from
    y = -0.6 on: surely where u < 1 - 2.16 w^4 / 108 d = 1 - 0.18 w^2 y^2.
    """
    for i in range(shape.size):
        d = max(np.float64(shape[i]), 1.0) - 1 / 3
        y = w[i] / (3 * math.sqrt(d))
        v = 1 + y
        step = w[i] * y
        lit = shape[i] > 0
        out[i] = d * v * v * v if lit else 0.0
        u = (np.float64(bits[i] & _SIZE) + 0.5) * 2.0**-31
        marks[i] = 1 if lit & ((u + 0.18 * step * step >= 1) | (y < -0.6)) else 0


@compiled
def _decide(shape: Float32, w: Float32, bits: Int32, marks: Marks, again: Indices) -> int:
    """The exact test of the marked proposals; into `again` which it rejects, returns how many."""
    found = 0
    for i in range(shape.size):
        if marks[i]:
            d = max(np.float64(shape[i]), 1.0) - 1 / 3
            v = 1 + w[i] / (3 * math.sqrt(d))
            cube = v * v * v
            square = np.float64(w[i]) * w[i]
            u = (np.float64(bits[i] & _SIZE) + 0.5) * 2.0**-31
            if cube <= 0 or math.log(u) >= 0.5 * square + d * (1 - cube + math.log(cube)):
                again[found] = i
                found += 1
    return found


_ROUNDINGS = {None: 0, "nearest": 1, "truncate": 2, "floor": 3}


def read_out(
    signal: Float32,
    rng: np.random.Generator,
    *,
    em_gain: float,
    read_noise: Floats,
    e_per_adu: float,
    gain: Floats,
    offset: Floats,
    rounding: str | None,
    baseline: float,
    most: int,
) -> None:
    """Electrons (..., height, width) become counts in place, as `Camera` says.

    Args:
        em_gain: what they are multiplied with first.
        read_noise: standard deviation, electrons, a number or a map (height, width); likewise `gain`, `offset`.
        rounding: None for electrons that fall on whole counts.
        most: largest count.
    """
    maps = (read_noise, gain, offset)
    # The maps repeat with every frame; what is a number everywhere repeats sooner.
    like = signal.shape[-2:] if any(part.ndim for part in maps) else (4096,)
    noise, gains, offsets = (np.ascontiguousarray(np.broadcast_to(part, like)).reshape(-1) for part in maps)
    w = normal(signal.size, rng) if read_noise.any() else np.zeros(signal.size, np.float32)
    levels = (float(em_gain), float(e_per_adu), float(baseline), float(most))
    _counts(signal.reshape(-1), w, noise, gains, offsets, *levels, _ROUNDINGS[rounding])


@compiled
def _counts(
    signal: Float32,
    w: Float32,
    read_noise: Floats,
    gain: Floats,
    offset: Floats,
    em_gain: float,
    e_per_adu: float,
    baseline: float,
    most: float,
    rounding: int,
) -> None:
    """As `read_out`; `w` holds normal numbers."""
    whole = baseline == np.floor(baseline)
    for begin in range(0, signal.size, gain.size):
        part, numbers = signal[begin : begin + gain.size], w[begin : begin + gain.size]
        for i in range(part.size):
            level = (part[i] * em_gain + numbers[i] * read_noise[i]) / e_per_adu * gain[i] + offset[i]
            if rounding == 1:
                level = np.rint(level)
            elif rounding == 2:
                level = np.trunc(level)
            elif rounding == 3:
                level = np.floor(level)
            level += baseline
            level = level if whole else np.rint(level)
            part[i] = min(max(level, 0.0), most)
