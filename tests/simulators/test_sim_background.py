"""Backgrounds that vary in space and time, and what stands in the movie's and the batch's tables about them."""

import numpy as np
import pytest

from simulators import draw_frames, load_recipe, parse_recipe, simulate
from simulators.background import HazeBackground, PerlinBackground, SmoothBackground, perlin_noise
from simulators.structures import Space
from simulators.windows import draw_movies

SPACE = Space(width_nm=6400, height_nm=4800, margin_nm=1000, z_low_nm=0, z_high_nm=0)
SHAPE = (48, 64)


class Stripe:
    """Molecules in a thin upright line in the middle of a column of pixels."""

    share_inside = 1.0

    def place(self, count, rng):
        return np.full(count, 2050.0), rng.uniform(-1000, 5800, count), np.zeros(count)


def field(pattern, seed=1, geometry=None):
    return pattern.build(SPACE, SHAPE, geometry or Stripe(), np.random.default_rng(seed))


def test_gradient_noise_follows_its_definition():
    angle = np.random.default_rng(1).uniform(0, 2 * np.pi, (8, 8))
    whole = np.arange(8.0)
    assert perlin_noise(whole, whole[:, None], angle) == pytest.approx(0, abs=1e-12)  # 0 at lattice points
    # In the middle of a cell every corner weighs a quarter.
    corners = [(0, 0), (1, 0), (0, 1), (1, 1)]
    middle = sum(
        0.25 * (np.cos(angle[3 + v, 2 + u]) * (0.5 - u) + np.sin(angle[3 + v, 2 + u]) * (0.5 - v)) for u, v in corners
    )
    assert perlin_noise(np.array([2.5]), np.array([3.5]), angle)[0] == pytest.approx(2**0.5 * middle)
    # By the definition at any point.
    x, y = 5.3, 1.8

    def fade(t):
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    dots = {
        (u, v): np.cos(angle[1 + v, 5 + u]) * (0.3 - u) + np.sin(angle[1 + v, 5 + u]) * (0.8 - v) for u, v in corners
    }
    top = dots[0, 0] + fade(0.3) * (dots[1, 0] - dots[0, 0])
    low = dots[0, 1] + fade(0.3) * (dots[1, 1] - dots[0, 1])
    value = 2**0.5 * (top + fade(0.8) * (low - top))
    assert perlin_noise(np.array([x]), np.array([y]), angle)[0] == pytest.approx(value)
    assert perlin_noise(np.array([x + 8]), np.array([y - 8]), angle)[0] == pytest.approx(value)  # it repeats
    grid = np.linspace(0, 8, 200)
    assert np.abs(perlin_noise(grid, grid[:, None], angle)).max() <= 1


@pytest.mark.parametrize("pattern", [SmoothBackground(contrast=0.3), PerlinBackground(contrast=0.8)])
@pytest.mark.parametrize("seed", range(3))
def test_patterns_keep_the_level_and_reach_their_contrast(pattern, seed):
    image = field(pattern, seed).at(np.arange(5))
    assert image.shape == (1, *SHAPE)  # the same in all frames
    assert image.dtype == np.float32
    assert image.mean() == pytest.approx(1, abs=1e-3)
    assert np.abs(image - 1).max() == pytest.approx(pattern.contrast, rel=1e-4)


def test_scales_are_lengths_over_which_the_pattern_varies():
    def spread(scale):
        image = np.concatenate([field(PerlinBackground(scales_nm=(scale,)), s).at(np.arange(1)) for s in range(8)])
        return np.diff(image, axis=2).std() / image.std()

    fine, coarse = spread(500.0), spread(2000.0)
    assert fine / coarse == pytest.approx(4, rel=0.25)  # steep in inverse proportion to the length
    assert spread(8 * 6400.0) < 0.4 * coarse  # one slope over the field


def test_patterns_stand_drift_and_change():
    frames = np.arange(0, 60)
    drifting = field(PerlinBackground(drift_nm=100.0), 3)
    moved = drifting.at(frames)
    assert moved.shape == (60, *SHAPE)
    step = 1e-2 * drifting.velocity  # pixels a frame
    assert np.hypot(*step) == pytest.approx(1)
    shift = 12
    from scipy.ndimage import shift as shifted

    back = shifted(moved[shift], (-step[1] * shift, -step[0] * shift), order=3)
    assert np.abs((back - moved[0])[16:-16, 16:-16]).max() < 0.02
    changing = field(PerlinBackground(change_frames=20, contrast=0.5)).at(frames)
    likeness = [np.corrcoef(changing[0].ravel(), image.ravel())[0, 1] for image in changing]
    assert likeness[1] > 0.98
    assert abs(likeness[20]) < 0.8
    assert np.corrcoef(changing[20].ravel(), changing[21].ravel())[0, 1] > 0.98
    assert (changing >= 0).all()
    far = field(PerlinBackground(change_frames=20)).at(np.array([40, 3]))
    assert far[1] == pytest.approx(field(PerlinBackground(change_frames=20)).at(np.array([3]))[0])


def test_haze_is_the_blurred_sample():
    for blur in (400.0, 800.0):
        image = field(HazeBackground(share=0.6, blur_nm=blur)).at(np.arange(3))[0]
        assert image.mean() == pytest.approx(1, abs=1e-3)
        profile = image.mean(0) - 0.4
        x = (np.arange(64) + 0.5) * 100
        assert x[np.argmax(profile)] == 2050
        gauss = np.exp(-((x - 2050) ** 2) / (2 * blur**2))
        # Within the field; a line that is cut off at the field's edge keeps its shape.
        assert np.corrcoef(profile, gauss)[0, 1] > 0.99
        assert profile / profile.max() == pytest.approx(gauss, abs=0.05)
    still = field(HazeBackground(), 4).at(np.array([0]))
    drifting = field(HazeBackground(drift_nm=50.0), 4)
    moved = drifting.at(np.array([0, 10]))
    assert moved[0] == pytest.approx(still[0])
    away = x[np.argmax(moved[1].mean(0))] - x[np.argmax(moved[0].mean(0))]
    assert away == pytest.approx(10 * drifting.velocity[1], abs=120)


@pytest.mark.parametrize(
    "pattern",
    [{"kind": "smooth"}, {"kind": "perlin", "drift_nm": 20}, {"kind": "haze", "share": 0.8}],
    ids=lambda p: p["kind"],
)
def test_movies_show_their_background(pattern):
    recipe = load_recipe("tubes-2d-hd").with_(
        pattern=pattern, density_um2=0, background=200, frames=130, size=(24, 40), camera={"pixel_size_nm": 100}
    )
    movie = simulate(recipe, np.random.default_rng(1))
    assert movie.background.shape == movie.frames.shape
    assert movie.background[0].mean() == pytest.approx(200, rel=0.01)
    assert np.ptp(movie.background[0]) > 20
    square = (movie.photons() - movie.background) ** 2 / movie.background
    assert square.mean() == pytest.approx(1, abs=0.01)
    same = simulate(recipe, np.random.default_rng(1), threads=1)
    np.testing.assert_array_equal(movie.frames, same.frames)
    lit = simulate(recipe.with_(density_um2=0.3), np.random.default_rng(1))
    e = lit.emitters
    under = lit.background[e.frame, (e.y_nm / 100).astype(int), (e.x_nm / 100).astype(int)]
    np.testing.assert_allclose(e.background, under)


def test_batches_show_a_background_for_each_frame_or_movie():
    recipe = load_recipe("epfl-2d").with_(
        pattern={"kind": "perlin", "contrast": 0.6}, density_um2=0.02, camera={"pixel_size_nm": 100}
    )
    batch = draw_frames(recipe, 70, np.random.default_rng(1), size=(16, 20))
    assert batch.background.shape == (70, 16, 20)
    assert (
        len({tuple(b) for b in (batch.background / batch.background.mean((1, 2), keepdim=True))[:, 0, :3].tolist()})
        == 70
    )
    quiet = np.median(((batch.photons - batch.background) ** 2 / batch.background).numpy(), axis=(1, 2))
    assert np.median(quiet) == pytest.approx(0.455, abs=0.05)  # median of chi-square with one degree of freedom
    table = batch.emitters()
    here = [batch.background[f, min(max(int(y // 100), 0), 15), min(max(int(x // 100), 0), 19)].item()
            for f, x, y in zip(table.frame, table.x_nm, table.y_nm, strict=True)]  # fmt: skip
    inside = (table.x_nm >= 0) & (table.y_nm >= 0)
    np.testing.assert_allclose(table.background[inside], np.array(here)[inside])
    movies = draw_movies(recipe, 5, 4, np.random.default_rng(1), size=16)
    light = movies.background.view(5, 4, 16, 16)
    assert (light == light[:, :1]).all()
    assert draw_frames(load_recipe("epfl-2d"), 3, np.random.default_rng(1), size=16).background.shape == (3,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "perlin", "scale_nm": 5}, r"pattern: unknown key 'scale_nm' in Perlin.* mean 'scales_nm'"),
        ({"kind": "perlin", "scales_nm": []}, "pattern.scales_nm"),
        ({"kind": "haze", "share": 2}, "pattern.share: .*less than or equal to 1"),
        ({"kind": "even"}, "pattern: .*'smooth'"),
    ],
)
def test_bad_patterns_are_refused_by_name(changes, message):
    values = load_recipe("epfl-2d").model_dump(mode="json")
    with pytest.raises(ValueError, match=message):
        parse_recipe({**values, "pattern": changes}, source="mine")
