"""Short movies for training: the recipe's density in every frame, molecules that stay on, light from outside."""

import numpy as np
import pytest
import torch

from simulators import load_recipe
from simulators.windows import draw_movies

RECIPE = load_recipe("epfl-2d").with_(
    density_um2=0.5, size=24, background=50, psf={"kind": "gaussian", "sigma_nm": 115}
)


def test_every_frame_of_every_movie_has_the_density():
    batch = draw_movies(RECIPE, 600, 5, np.random.default_rng(1))
    assert batch.photons.shape == (3000, 24, 24)
    size = 2400.0
    inside = (batch.x_nm >= 0) & (batch.x_nm < size) & (batch.y_nm >= 0) & (batch.y_nm < size)
    per_frame = torch.bincount(batch.frame[inside], minlength=3000).view(600, 5).double().mean(0)
    expected = 0.5 * 2.4**2
    # 600 movies: each frame's mean is known to sqrt(mean / 600)
    assert (per_frame - expected).abs().max() < 4.5 * np.sqrt(expected / 600)
    assert (~inside).any()  # molecules outside shine in


def test_molecules_stay_on_over_frames():
    batch = draw_movies(RECIPE.with_(density_um2=0.02), 400, 6, np.random.default_rng(2))
    rows = {}
    for frame, x in zip(batch.frame.tolist(), batch.x_nm.tolist(), strict=True):
        rows.setdefault((frame // 6, x), []).append(frame % 6)
    lasting = [frames for frames in rows.values() if len(frames) > 1]
    assert len(lasting) > 0.4 * len(rows)  # two frames are usual for an on-time of one
    assert all(np.diff(frames).max() == 1 for frames in lasting)


def test_the_same_seed_gives_the_same_frames_on_any_number_of_threads():
    one = draw_movies(RECIPE, 40, 4, np.random.default_rng(3), threads=1)
    two = draw_movies(RECIPE, 40, 4, np.random.default_rng(3), threads=2)
    assert torch.equal(one.photons, two.photons)
    assert not torch.equal(one.photons, draw_movies(RECIPE, 40, 4, np.random.default_rng(4)).photons)


def test_ranges_are_drawn_for_each_movie_and_kept_in_it():
    batch = draw_movies(load_recipe("epfl-2d"), 30, 4, np.random.default_rng(5), size=16)
    light = batch.background.view(30, 4)
    assert (light == light[:, :1]).all()
    assert light[:, 0].unique().numel() == 30
    dim = batch.photons.view(30, 4, -1).mean((1, 2))
    assert np.corrcoef(dim.numpy(), light[:, 0].numpy())[0, 1] > 0.8


def test_structures_other_than_uniform_are_drawn_anew():
    batch = draw_movies(load_recipe("tubes-2d-hd"), 3, 4, np.random.default_rng(6), size=24)
    assert len(batch) == 12
    assert torch.isfinite(batch.photons).all()


def test_empty_requests_are_refused():
    with pytest.raises(ValueError, match="1 movie and 1 frame"):
        draw_movies(RECIPE, 0, 4, np.random.default_rng(1))
