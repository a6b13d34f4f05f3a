import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit
from scipy import stats

from simulators._compiled import compiled
from simulators._random import gamma, invert, normal, poisson, read_out

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mean", [0.01, 0.2, 1.0, 5.0, 5.999, 6.001, 10.0, 31.7, 250.0, 4000.0, 59_000.0, 1e5, 1e6])
def test_numbers_follow_the_poisson_distribution(mean):
    count = 400_000
    drawn = poisson(np.full(count, mean, np.float32), np.random.default_rng(1)).astype(np.int64)
    mean = float(np.float32(mean))
    inner = np.unique(stats.poisson.ppf(np.linspace(1e-4, 1 - 1e-4, 80), mean)).astype(np.int64)
    edges = np.concatenate([[-1], inner, [2**40]])
    expected = np.diff(stats.poisson.cdf(edges, mean)) * count
    seen = np.histogram(drawn, bins=edges + 0.5)[0]
    likely = expected > 5
    square = ((seen - expected)[likely] ** 2 / expected[likely]).sum()
    assert stats.chi2.sf(square, likely.sum() - 1) > 1e-4


def test_mixed_means_keep_their_places_and_shape():
    mean = np.tile(np.array([0, 3, 9.99, 10, 50, 1e4, 1e6], np.float32), (3, 2000, 1))
    drawn = poisson(mean, np.random.default_rng(2))
    assert drawn.shape == mean.shape
    assert drawn.dtype == np.float32
    assert (drawn == np.round(drawn)).all()
    assert (drawn >= 0).all()
    assert (drawn[..., 0] == 0).all()
    one = mean[0, 0]
    assert drawn.mean((0, 1)) == pytest.approx(one, rel=0.03, abs=1e-9)
    assert drawn.var((0, 1))[1:] == pytest.approx(one[1:], rel=0.1)


def test_pixels_of_mostly_bright_frames_may_be_dark():
    mean = np.full(4000, 100, np.float32)
    mean[::10] = 0.5
    drawn = poisson(mean, np.random.default_rng(3))
    assert drawn[::10].mean() == pytest.approx(0.5, abs=0.2)
    assert drawn[1::10].mean() == pytest.approx(100, rel=0.03)


def test_efficiency_and_spurious_charge_make_the_mean():
    dim, few = np.full(200_000, 3, np.float32), np.random.default_rng(1)
    assert poisson(dim, few, scale=0.5, more=0.25).mean() == pytest.approx(1.75, abs=5 * (1.75 / 200_000) ** 0.5)
    assert poisson(dim, few, scale=4.0, more=8.0).mean() == pytest.approx(20, abs=5 * (20 / 200_000) ** 0.5)


def test_nothing_gives_nothing_and_what_is_no_mean_is_refused():
    rng = np.random.default_rng(1)
    assert poisson(np.zeros((0, 4, 4), np.float32), rng).shape == (0, 4, 4)
    for bad in (-1, np.nan):
        with pytest.raises(ValueError, match="negative or nan"):
            poisson(np.array([1, bad, 3], np.float32), rng)
    endless = poisson(np.array([1e20, np.inf], np.float32), rng)
    np.testing.assert_array_equal(endless, np.array([1e20, np.inf], np.float32))


@pytest.mark.parametrize("mean", [0.1, 2.0, 5.99, 6.0, 6.7, 10.0, 31.7, 48.0, 100.0, 250.0, 4000.0, 59_999.0, 3e5])
def test_poisson_numbers_are_the_exact_quantiles_of_their_normal_numbers(mean):
    w = np.concatenate([np.linspace(-5.5, 5.5, 20_001), normal(200_001, np.random.default_rng(4))]).astype(np.float32)
    drawn = invert(np.full(len(w), mean, np.float32), w)
    mean = float(np.float32(mean))
    # Smallest k with P(X <= k) >= Phi(w), by bisection over scipy's probabilities, in the upper half of P(X > k).
    k = np.arange(int(mean + 12 * mean**0.5 + 40))
    low = np.searchsorted(stats.poisson.cdf(k, mean), stats.norm.cdf(w.astype(np.float64)))
    high = np.searchsorted(-stats.poisson.sf(k, mean), -stats.norm.sf(w.astype(np.float64)))
    np.testing.assert_array_equal(drawn, np.where(w < 0, low, high))


@pytest.mark.parametrize("bits", [np.random.SFC64, np.random.MT19937])
def test_normal_numbers_follow_the_normal_distribution(bits):
    numbers = normal(1_000_001, np.random.Generator(bits(1))).astype(np.float64)
    assert numbers.shape == (1_000_001,)
    assert stats.kstest(numbers, "norm").pvalue > 1e-3
    count = np.array([(np.abs(numbers) > z).sum() for z in (3, 4)])
    expected = 2 * stats.norm.sf([3, 4]) * len(numbers)
    assert np.abs(count - expected).max() < 4 * expected.max() ** 0.5
    assert np.abs(count[1] - expected[1]) < 4 * expected[1] ** 0.5
    half = len(numbers) // 2  # the two of a pair, and neighbours
    for a, b in ((numbers[:half], numbers[half + 1 :]), (numbers[1:], numbers[:-1])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / half**0.5
        assert abs(np.corrcoef(a**2, b**2)[0, 1]) < 4 / half**0.5
    assert len(normal(0, np.random.default_rng(1))) == 0
    assert len(normal(1, np.random.default_rng(1))) == 1


def test_normal_numbers_are_the_box_muller_numbers_of_their_bits():
    size = 200_000
    words = np.random.default_rng(3).integers(-(2**63), 2**63 - 1, size // 2, np.int64, endpoint=True).view(np.int32)
    u = ((words[: size // 2] & 0x7FFFFFFF).astype(np.float32) + np.float32(0.5)).astype(np.float64) * 2.0**-31
    angle = words[size // 2 :] * (2 * np.pi * 2.0**-32)
    radius = np.sqrt(-2 * np.log(u))
    exact = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    np.testing.assert_allclose(normal(size, np.random.default_rng(3)), exact, atol=1e-6)


@pytest.mark.parametrize("shape", [1, 2, 5, 40, 1000, 50_000])
def test_gamma_numbers_follow_the_gamma_distribution(shape):
    drawn = gamma(np.full(300_000, shape, np.float32), np.random.default_rng(1)).astype(np.float64)
    assert drawn.min() > 0
    assert stats.kstest(drawn, stats.gamma(shape).cdf).pvalue > 1e-3
    assert drawn.var() == pytest.approx(shape, rel=5 * ((2 + 6 / shape) / 300_000) ** 0.5)


def test_gamma_numbers_of_mixed_shapes_keep_their_places():
    shape = np.tile(np.array([0, 1, 30, 2000], np.float32), (5000, 1))
    drawn = gamma(shape, np.random.default_rng(2))
    assert drawn.shape == shape.shape
    assert drawn.dtype == np.float32
    assert (drawn[:, 0] == 0).all()
    assert drawn.mean(0) == pytest.approx([0, 1, 30, 2000], rel=0.06)
    assert drawn.var(0)[1:] == pytest.approx([1, 30, 2000], rel=0.15)
    assert gamma(np.zeros((0, 3), np.float32), np.random.default_rng(1)).shape == (0, 3)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("rounding", [None, "nearest", "truncate", "floor"])
def test_read_out_is_the_chain_step_by_step(rounding, mapped):
    rng = np.random.default_rng(5)
    size = (7, 30, 41)  # no multiple of what the loops take at once
    electrons = rng.integers(0, 60, size).astype(np.float32)
    shape = size[1:] if mapped else ()
    noise, gain, offset = rng.uniform(3, 8, shape), rng.uniform(0.8, 1.2, shape), rng.uniform(-40, -20, shape)
    for baseline in (20.0, 20.4):
        counts = electrons.copy()
        read_out(
            counts,
            np.random.default_rng(6),
            em_gain=2.5,
            read_noise=np.asarray(noise),
            e_per_adu=1.7,
            gain=np.asarray(gain),
            offset=np.asarray(offset),
            rounding=rounding,
            baseline=baseline,
            most=60,
        )
        w = normal(electrons.size, np.random.default_rng(6)).astype(np.float64).reshape(size)
        level = (electrons * 2.5 + w * noise) / 1.7 * gain + offset
        if rounding:
            level = {"nearest": np.rint, "truncate": np.trunc, "floor": np.floor}[rounding](level)
        level = level + baseline
        level = np.rint(level) if baseline != 20 else level
        np.testing.assert_allclose(counts, np.clip(level, 0, 60), rtol=1e-6, atol=1e-6)
        assert counts.min() == 0
        assert counts.max() == 60


def test_the_compiler_is_imported_only_where_it_is_needed():
    code = "import sys, simulators, simulators.crlb, simulators.fitting; print('numba' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_where_machine_code_cannot_be_kept_it_is_made_anew():
    nowhere = eval("lambda x: x + 1")  # has no file, so that no folder belongs to it
    with pytest.raises(RuntimeError, match="cannot cache"):
        njit(cache=True)(nowhere)
    assert compiled(nowhere)(2) == 3
