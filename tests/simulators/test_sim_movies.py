import math
import threading
import time

import numpy as np
import pytest
import torch
from scipy import stats

from simulators import Camera, Emitters, Movie, draw_frames, list_recipes, load_recipe, simulate
from simulators.blinking import OnTimeBlinking

HD = load_recipe("tubes-2d-hd")


def uniform(**changes):
    changes = {"density_um2": 0.5, "photons": 1000, "background": 20, "frames": 200, **changes}
    return load_recipe("epfl-2d").with_(**changes)


def rows_of(blinking, frames, count, seed=0):
    rng = np.random.default_rng(seed)
    start, stop = blinking.spans(np.ones(frames), count, rng)
    return start, stop, blinking.rows(start, stop, frames=frames)


@pytest.mark.parametrize("mean", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.2])
def test_rows_per_molecule_follow_the_formula(mean, share):
    blinking = OnTimeBlinking(mean_on_frames=mean, minimum_share=share)
    assert blinking.rows_per_molecule == pytest.approx(math.exp(-share / mean) * (1 + mean - share))
    rng = np.random.default_rng(1)
    start = 100 + rng.random(200_000)
    rows = blinking.rows(start, start + rng.exponential(mean, len(start)), frames=1000)
    assert len(rows.frame) / len(start) == pytest.approx(blinking.rows_per_molecule, rel=0.01)
    assert rows.share.min() >= share


def test_shares_are_the_overlap_of_span_and_frame():
    rows = OnTimeBlinking(minimum_share=0.05).rows(
        np.array([0.25, 1.98, 2.5, 9.9]), np.array([0.75, 3.5, 2.52, 12.0]), frames=11
    )
    assert rows.molecule.tolist() == [0, 1, 1, 3, 3]
    assert rows.frame.tolist() == [0, 2, 3, 9, 10]
    assert rows.share == pytest.approx([0.5, 1.0, 0.5, 0.1, 1.0])


def test_on_times_are_exponential_and_starts_uniform():
    start, stop, _ = rows_of(OnTimeBlinking(mean_on_frames=2.0), 100, 50_000)
    fresh = start > 0
    assert fresh.mean() == pytest.approx(100 / 102, abs=0.003)  # the others were on before the first frame
    assert stats.kstest(start[fresh] / 100, "uniform").pvalue > 1e-3
    assert stats.kstest((stop - start) / 2.0, "expon").pvalue > 1e-3


@pytest.mark.parametrize("mean", [1.0, 5.0])
def test_the_first_frame_is_like_every_other(mean):
    _, _, rows = rows_of(OnTimeBlinking(mean_on_frames=mean), 40, 200_000)
    per_frame = np.bincount(rows.frame, minlength=40)
    light = np.bincount(rows.frame, weights=rows.share, minlength=40)
    assert per_frame == pytest.approx(per_frame.mean(), rel=0.05)
    assert light == pytest.approx(light.mean(), rel=0.05)


def test_the_duty_cycle_is_on_time_over_movie():
    # A molecule that switches on well inside a movie of 200 frames is on for 3 / 200 of it.
    blinking = OnTimeBlinking(mean_on_frames=3.0, minimum_share=0.0)
    start, _, rows = rows_of(blinking, 200, 100_000)
    inside = (start > 0) & (start < 150)
    lit = np.bincount(rows.molecule, weights=rows.share, minlength=len(start))[inside]
    assert lit.mean() / 200 == pytest.approx(3 / 200, rel=0.02)


@pytest.mark.parametrize("mean", [0.3, 1.0, 4.0])
def test_snapshots_are_frames_of_the_movie(mean):
    blinking = OnTimeBlinking(mean_on_frames=mean)
    single = blinking.snapshots(np.full(200, 300.0), np.random.default_rng(1))
    per_frame = np.bincount(single.frame, minlength=200)
    assert per_frame.mean() == pytest.approx(300, rel=0.015)
    assert per_frame.var() == pytest.approx(300, rel=0.5)  # Poisson
    _, _, movie = rows_of(blinking, 50, 60_000, seed=2)
    assert stats.ks_2samp(single.share, movie.share[movie.frame == 20]).pvalue > 1e-3
    # The share that is on all through the frame: m exp(-1/m) of the rows' formula.
    whole = mean * math.exp(-1 / mean) / blinking.rows_per_molecule
    assert (single.share == 1).mean() == pytest.approx(whole, abs=0.012)


@pytest.mark.parametrize("name", [n for n in list_recipes() if n.startswith("tubes")])
@pytest.mark.parametrize(("frames", "size"), [(400, 40), (300, 40), (150, 40), (200, 64)])
def test_measured_density_is_the_recipes(name, frames, size):
    recipe = load_recipe(name).with_(frames=frames, size=size)
    movie = simulate(recipe, recipe.rng())
    field = size * 100
    e = movie.emitters
    assert (e.x_nm >= 0).all()
    assert (e.x_nm < field).all()
    assert (e.y_nm >= 0).all()
    assert (e.y_nm < field).all()
    assert len(e) / frames / (field * 1e-3) ** 2 == pytest.approx(recipe.density_um2, rel=0.05)
    assert (np.diff(e.frame) >= 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_density_of_a_uniform_field_and_of_the_training_domain(seed):
    recipe = uniform(frames=100, size=40)
    assert len(simulate(recipe, np.random.default_rng(seed)).emitters) == pytest.approx(0.5 * 16 * 100, rel=0.01)
    batch = draw_frames(uniform(density_um2=2.0), 300, np.random.default_rng(seed), size=32)
    inside = recipe.with_(size=32).space.inside(batch.x_nm.numpy(), batch.y_nm.numpy())
    assert inside.sum() / 300 / 3.2**2 == pytest.approx(2, rel=0.05)
    outside = ((batch.x_nm < 0) | (batch.x_nm >= 3200)).sum().item()
    assert outside / len(batch.x_nm) == pytest.approx(2 / 5.2, rel=0.1)  # a margin of 1 um on both sides


def test_the_domain_covers_its_ranges():
    batch = draw_frames(load_recipe("epfl-2d"), 600, np.random.default_rng(1), size=24)
    e = batch.emitters()
    assert batch.background.min() >= 10
    assert batch.background.max() <= 200
    assert batch.sigma_nm.min() >= 100
    assert batch.sigma_nm.max() <= 135
    assert np.abs(e.z_nm).max() <= 300
    assert e.photons.max() <= 10_000
    full = e.photons[e.photons > 0]
    assert full.min() >= 3 - 1e-3  # 1 % of 300
    per_frame = np.bincount(e.frame, minlength=600) / (2.4 + 2) ** 2
    assert np.median(per_frame) == pytest.approx((0.02 * 2) ** 0.5, rel=0.25)
    assert np.log(batch.background.numpy()).mean() == pytest.approx(np.log(10 * 200) / 2, abs=0.15)


def test_batches_have_the_promised_shapes_and_units():
    batch = draw_frames(load_recipe("epfl-2d"), 70, np.random.default_rng(1), size=(24, 40))
    assert batch.photons.shape == (70, 24, 40)
    for name in ("photons", "x_nm", "y_nm", "z_nm", "emitter_photons", "background"):
        assert getattr(batch, name).dtype == torch.float32
    assert batch.frame.dtype == torch.int64
    assert (torch.diff(batch.frame) >= 0).all()
    assert batch.frame.max() <= 69
    assert batch.background.shape == (70,)
    assert len(batch) == 70


@pytest.mark.parametrize("camera", [Camera.ideal(100), Camera.challenge_emccd()], ids=["ideal", "emccd"])
def test_frames_hold_the_photons_of_their_emitters(camera):
    # Every row's light and the background, on average over the noise.
    recipe = uniform(frames=256, size=40, camera=camera, margin_nm=0, photons=5000)
    movie = simulate(recipe, np.random.default_rng(1))
    assert movie.frames.dtype == np.uint16
    middle = [movie.emitters.x_nm, movie.emitters.y_nm]
    assert min(c.min() for c in middle) >= 0
    seen = movie.photons().astype(np.float64).sum() - 20 * movie.frames.size
    given = movie.emitters.photons.sum()
    # Light falls off the border: a spot loses on average sigma / sqrt(2 pi) * perimeter / area of it.
    lost = 4 * 4000 * 120 / (2 * np.pi) ** 0.5 / 4000**2
    assert seen / given == pytest.approx(1 - lost, rel=0.02)


def test_residuals_of_a_simulated_movie_follow_the_camera():
    # Our own truth, rendered, explains our own frames: no light from nowhere, also at the border.
    recipe = HD.with_(frames=128, size=40)
    movie = simulate(recipe, np.random.default_rng(3))
    e = movie.emitters
    x, y, z, photons = (torch.from_numpy(c).float() for c in (e.x_nm, e.y_nm, e.z_nm, e.photons))
    light = recipe.psf.expected(
        frame=torch.from_numpy(e.frame),
        x_nm=x,
        y_nm=y,
        z_nm=z,
        photons=photons,
        frames=128,
        shape=(40, 40),
        pixel_size_nm=(100, 100),
    )
    expected = light + 90
    counts = torch.from_numpy(movie.frames.astype(np.float32))
    square = (counts - recipe.camera.mean_counts(expected)) ** 2 / recipe.camera.variance_counts(expected)
    inner = square[:, 6:-6, 6:-6].double()
    assert inner.mean().item() == pytest.approx(1, abs=0.03)
    assert square.double().mean().item() > inner.mean().item() - 0.02  # emitters outside add to the border


def test_molecules_outside_the_field_light_its_border():
    dark = uniform(frames=512, size=20, photons=10_000, density_um2=2, background=0, camera=Camera.ideal(100))
    movie = simulate(dark, np.random.default_rng(1))
    mean = movie.frames.mean(0)
    border = np.concatenate([mean[0], mean[-1], mean[:, 0], mean[:, -1]]).mean()
    assert border / mean[4:-4, 4:-4].mean() == pytest.approx(1, abs=0.15)
    alone = simulate(dark.with_(margin_nm=0), np.random.default_rng(1)).frames.mean(0)
    assert np.concatenate([alone[0], alone[-1]]).mean() < 0.8 * border


def test_the_same_seed_gives_the_same_movie_with_any_number_of_threads():
    before = torch.get_num_threads()
    recipe = load_recipe("epfl-2d").with_(frames=200, size=40)
    one, two, five = (simulate(recipe, np.random.default_rng(4), threads=n) for n in (1, 2, 5))
    np.testing.assert_array_equal(one.frames, two.frames)
    np.testing.assert_array_equal(one.frames, five.frames)
    np.testing.assert_array_equal(one.emitters.x_nm, two.emitters.x_nm)
    batches = [draw_frames(recipe, 150, np.random.default_rng(4), threads=n) for n in (1, 3)]
    for name in ("photons", "x_nm", "frame", "background"):
        assert torch.equal(getattr(batches[0], name), getattr(batches[1], name))
    assert torch.get_num_threads() == before
    rng = np.random.default_rng(4)
    assert not np.array_equal(simulate(recipe, rng).frames, simulate(recipe, rng).frames)


def test_torch_keeps_its_threads_when_movies_are_made_side_by_side():
    before = torch.get_num_threads()
    recipe = HD.with_(frames=200, size=20)
    workers = [threading.Thread(target=simulate, args=(recipe, np.random.default_rng(i))) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert torch.get_num_threads() == before


def test_randomness_comes_from_the_state_of_the_generator_alone():
    recipe = HD.with_(frames=70, size=20)
    rng = np.random.default_rng(5)
    state = rng.bit_generator.state
    first = simulate(recipe, rng).frames
    rng.bit_generator.state = state
    np.testing.assert_array_equal(first, simulate(recipe, rng).frames)
    with pytest.raises(TypeError, match=r"give a np.random.Generator"):
        simulate(recipe, 5)


def test_blocks_do_not_repeat_each_other():
    movie = simulate(uniform(frames=128, density_um2=0, background=100, size=20), np.random.default_rng(1))
    assert len(movie.emitters) == 0
    noise = movie.photons() - 100
    assert abs(np.corrcoef(noise[:64].ravel(), noise[64:].ravel())[0, 1]) < 0.03


def test_molecules_live_on_across_blocks():
    recipe = uniform(frames=192, size=40, blinking={"kind": "on_time", "mean_on_frames": 20}, density_um2=1)
    e = simulate(recipe, np.random.default_rng(1)).emitters
    both = set(e.id[e.frame == 63]) & set(e.id[e.frame == 64])
    assert len(both) > 0.8 * (e.frame == 63).sum()
    one = e.id == min(both)
    assert np.ptp(e.x_nm[one]) == 0
    # In both frames beside the seam it was on without a break: full flux.
    assert (e.photons[one & ((e.frame == 63) | (e.frame == 64))] > 0).all()


def test_tubes_are_hollow_and_cross_the_field_within_their_heights():
    for seed in range(8):
        rng = np.random.default_rng(seed)
        geometry = HD.structure.build(HD.space, rng)
        x, y, z = geometry.place(20_000, rng)
        assert np.abs(z).max() <= 300
        inside = HD.space.inside(x, y)
        assert inside.mean() == pytest.approx(geometry.share_inside, abs=0.015)
        assert np.ptp(z[inside]) > 450  # from one end of the range to the other
        assert (np.abs(x - 3200) < 4300).all()
        # Distance from the nearest centre line lies within the wall, 6.5 to 12.5 nm.
        apart = np.column_stack([x, y, z])[:500, None] - geometry.start[None]
        along = geometry.step / np.linalg.norm(geometry.step, axis=1, keepdims=True)
        part = np.clip((apart * along).sum(-1), 0, np.linalg.norm(geometry.step, axis=1))
        near = np.linalg.norm(apart - part[..., None] * along, axis=-1).min(1)
        assert np.quantile(near, 0.05) > 6.0  # where tubes touch, another line may be nearer
        assert 11.5 < near.max() < 12.6
        # The middle of the field is used: every quarter of the square has molecules.
        quarter = np.histogram2d(x[inside], y[inside], bins=2, range=[[0, 6400]] * 2)[0]
        assert (quarter > 0).sum() >= 3


def test_tubes_scale_with_the_field():
    for size in (20, 40, 128):
        recipe = HD.with_(size=size)
        rng = np.random.default_rng(1)
        x, _, _ = recipe.structure.build(recipe.space, rng).place(5000, rng)
        field = size * 100
        assert np.ptp(x[(x > 0) & (x < field)]) > 0.9 * field


def test_filaments_are_simulated_too():
    recipe = HD.with_(structure={"kind": "filaments", "count": 5, "outer_radius_nm": 0, "wall_nm": 0}, frames=64)
    movie = simulate(recipe, np.random.default_rng(1))
    assert len(movie.emitters) == pytest.approx(0.5 * 40.96 * 64, rel=0.02)
    batch = draw_frames(recipe, 5, np.random.default_rng(1), size=24)
    assert batch.photons.shape == (5, 24, 24)


def test_structures_are_drawn_anew_for_every_training_frame():
    batch = draw_frames(HD.with_(density_um2=20), 4, np.random.default_rng(1))
    hist = [
        np.histogram2d(batch.x_nm[batch.frame == i], batch.y_nm[batch.frame == i], bins=16, range=[[0, 6400]] * 2)[0]
        for i in range(4)
    ]
    assert all(np.corrcoef(hist[0].ravel(), h.ravel())[0, 1] < 0.7 for h in hist[1:])


def test_progress_is_reported_and_errors_come_through():
    seen = []
    simulate(
        HD.with_(frames=150, size=20),
        np.random.default_rng(1),
        progress=lambda done, of: seen.append((done, of)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]

    def stop(done, of):
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        simulate(HD.with_(frames=640, size=20), np.random.default_rng(1), threads=2, progress=stop)
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="threads is 0"):
        simulate(HD, np.random.default_rng(1), threads=0)
    with pytest.raises(ValueError, match="count is 0"):
        draw_frames(HD, 0, np.random.default_rng(1))


def test_a_movie_larger_than_memory_is_refused():
    with pytest.raises(ValueError, match=r"1000000000 frames of 64 x 64 pixels take 7629 GiB, this machine"):
        simulate(HD.with_(frames=10**9), np.random.default_rng(1))


def test_movies_check_their_parts():
    camera, none = Camera.ideal(100), Emitters.empty()
    frames = np.zeros((3, 8, 8), np.uint16)
    assert Movie(frames=frames, emitters=none, background=5.0, camera=camera).background.tolist() == [5, 5, 5]
    with pytest.raises(ValueError, match=r"expected \(frames, height, width\)"):
        Movie(frames=frames[0], emitters=none, background=5.0, camera=camera)
    with pytest.raises(ValueError, match="emitters reach frame 3"):
        Movie(frames=frames, emitters=Emitters(frame=[3], x_nm=1, y_nm=1), background=5.0, camera=camera)


def test_a_movie_costs_what_its_emitters_cost():
    def busy(size, density):
        recipe = uniform(frames=128, size=size, density_um2=density, camera=Camera.ideal(100), margin_nm=0)
        start = time.process_time()
        simulate(recipe, np.random.default_rng(1), threads=1)
        return time.process_time() - start

    busy(20, 1)
    assert min(busy(40, 16) for _ in range(3)) < 12 * min(busy(40, 2) for _ in range(3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_another_device_makes_the_same_kind_of_frames():
    recipe = uniform(frames=128, size=40, camera=Camera.challenge_emccd())
    a, b = (simulate(recipe, np.random.default_rng(1), device="cuda") for _ in range(2))
    np.testing.assert_array_equal(a.frames, b.frames)
    c = simulate(recipe, np.random.default_rng(1))
    np.testing.assert_array_equal(a.emitters.x_nm, c.emitters.x_nm)
    assert a.frames.mean() == pytest.approx(c.frames.mean(), rel=0.01)
    batch = draw_frames(recipe, 100, np.random.default_rng(1), device="cuda")
    assert {getattr(batch, n).device.type for n in ("photons", "frame", "x_nm", "background")} == {"cuda"}
