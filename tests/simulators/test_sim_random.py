import numpy as np
import pytest
from scipy import stats

from simulators._random import _invert, gamma, normal, poisson


@pytest.mark.parametrize("mean", [0.2, 5.0, 10.0, 10.5, 31.7, 250.0, 4000.0, 59_000.0])
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


def test_nothing_gives_nothing():
    assert poisson(np.zeros((0, 4, 4), np.float32), np.random.default_rng(1)).shape == (0, 4, 4)


@pytest.mark.parametrize("mean", [6.0, 6.7, 10.0, 31.7, 250.0, 4000.0, 59_999.0])
def test_poisson_numbers_are_the_exact_quantiles_of_their_normal_numbers(mean):
    w = np.concatenate([np.linspace(-5.5, 5.5, 20_001), normal(20_001, np.random.default_rng(4))]).astype(np.float32)
    drawn = np.empty_like(w)
    _invert(np.full(len(w), mean, np.float32), w, drawn)
    mean = float(np.float32(mean))
    # Smallest k with P(X <= k) >= Phi(w), by bisection over scipy's cumulative probabilities.
    steps = stats.poisson.cdf(np.arange(int(mean + 12 * mean**0.5 + 40)), mean)
    exact = np.searchsorted(steps, stats.norm.cdf(w.astype(np.float64)))
    np.testing.assert_array_equal(drawn, exact)


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
