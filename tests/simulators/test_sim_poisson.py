import numpy as np
import pytest
from scipy import stats

from simulators._poisson import poisson


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
