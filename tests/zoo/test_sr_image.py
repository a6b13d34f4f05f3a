"""The output contract: emitters to targets, maps to localizations."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zoo import SRImage

FIELD = {"height": 12, "width": 16}


def emitters(frame, x, y):
    return SimpleNamespace(frame=np.asarray(frame), x_nm=np.asarray(x, float), y_nm=np.asarray(y, float))


def blurred(image, sigma=1.0):
    steps = torch.arange(-3.0, 4.0)
    profile = torch.exp(-0.5 * (steps / sigma) ** 2)
    profile = profile / profile.sum()
    return F.conv2d(image, (profile[:, None] * profile)[None, None], padding=3)


def lone_positions(rng, count, pixel=(100.0, 100.0)):
    """One emitter per frame, anywhere in the field."""
    x = rng.uniform(0, FIELD["width"] * pixel[0], count)
    y = rng.uniform(0, FIELD["height"] * pixel[1], count)
    return np.arange(count), x, y


def test_an_emitter_falls_into_the_fine_pixel_that_holds_it():
    image = SRImage(upsampling=8).spikes(
        [0, 1, 1], [6.3, 12.4, 1599.9], [6.3, 12.6, 1199.9], count=2, pixel_size_nm=100, **FIELD
    )
    assert image.shape == (2, 1, 96, 128)
    assert image.dtype == torch.float32
    assert image.nonzero().tolist() == [[0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 95, 127]]


def test_two_emitters_in_one_fine_pixel_give_two():
    image = SRImage().spikes([0, 0], [101.0, 102.0], [55.0, 55.0], count=1, pixel_size_nm=100, **FIELD)
    assert image.max() == 2
    assert image.sum() == 2


def test_emitters_outside_field_or_frames_are_left_out():
    x = [-0.1, 1600.0, 50.0, 50.0, 50.0, 50.0]
    y = [50.0, 50.0, -0.1, 1200.0, 50.0, 50.0]
    image = SRImage().spikes([0, 0, 0, 0, -1, 1], x, y, count=1, pixel_size_nm=100, **FIELD)
    assert image.sum() == 0
    assert SRImage().spikes([], [], [], count=1, pixel_size_nm=100, **FIELD).sum() == 0


def test_targets_are_spikes_times_the_scale_and_take_tensors():
    found = SimpleNamespace(
        frame=torch.tensor([5, 6]), x_nm=torch.tensor([55.0, 655.0]), y_nm=torch.tensor([55.0, 55.0])
    )
    target = SRImage(target_scale=50.0).encode(found, count=2, pixel_size_nm=100, first_frame=5, **FIELD)
    assert target.sum() == 100
    assert target[0].max() == 50
    assert target[1, 0, 4, 52] == 50


@pytest.mark.parametrize("kind", ["spikes", "heatmap"])
@pytest.mark.parametrize("upsampling", [4, 8])
@pytest.mark.parametrize("pixel", [(100.0, 100.0), (160.0, 100.0)])
def test_lone_emitters_come_back_within_one_fine_pixel(kind, upsampling, pixel):
    output = SRImage(upsampling=upsampling, kind=kind, target_scale=7.0)
    frame, x, y = lone_positions(np.random.default_rng(0), 60, pixel)
    image = output.encode(emitters(frame, x, y), count=60, pixel_size_nm=pixel, **FIELD)
    if kind == "heatmap":
        image = blurred(image)
    found = output.decode(image, threshold=0.3, pixel_size_nm=pixel)
    assert found.frame.tolist() == frame.tolist()
    border = 1 if kind == "heatmap" else 0  # a spot cut by the border is off by a little more
    assert np.abs(found.x_nm - x).max() <= (1 + 0.5 * border) * pixel[0] / upsampling
    assert np.abs(found.y_nm - y).max() <= (1 + 0.5 * border) * pixel[1] / upsampling
    assert (found.probability <= 1).all()
    assert np.median(found.probability) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["spikes", "heatmap"])
def test_an_ideal_map_has_no_systematic_error(kind):
    rng = np.random.default_rng(1)
    count = 120
    field = {"height": 20, "width": 20}
    frame = np.repeat(np.arange(count), 25)
    grid = np.stack(np.meshgrid(np.arange(5), np.arange(5)), -1).reshape(-1, 2) * 400.0
    place = np.tile(grid, (count, 1)) + rng.uniform(100, 300, (25 * count, 2))
    output = SRImage(kind=kind)
    image = output.encode(emitters(frame, place[:, 0], place[:, 1]), count=count, pixel_size_nm=100, **field)
    found = output.decode(blurred(image) if kind == "heatmap" else image, threshold=0.3, pixel_size_nm=100)
    assert len(found) == len(place)
    order = np.lexsort((np.floor(place[:, 0] / 12.5), np.floor(place[:, 1] / 12.5), frame))
    truth = place[order]
    assert abs(np.mean(found.x_nm - truth[:, 0])) < 0.2
    assert abs(np.mean(found.y_nm - truth[:, 1])) < 0.2


def test_an_ideal_sampled_spot_is_refined_below_the_fine_pixel():
    """Maps that hold sub-pixel information keep it: the centre of gravity follows the spot."""
    shifts = np.linspace(-0.4, 0.4, 9)
    grid = np.arange(33)
    maps = np.stack([np.exp(-((grid - 16 - s) ** 2)[None] - ((grid - 16 + s) ** 2)[:, None]) for s in shifts])
    found = SRImage(target_scale=1.0).decode(
        torch.from_numpy(maps.astype(np.float32))[:, None], threshold=0.2, pixel_size_nm=80
    )
    errors = found.x_nm - (16.5 + shifts) * 10
    assert len(found) == 9
    assert np.abs(errors).max() < 2.0
    assert np.abs(errors + (found.y_nm - (16.5 - shifts) * 10)).max() < 1e-3


@pytest.mark.parametrize("ties", [[(4, 4), (4, 5)], [(4, 4), (5, 4)], [(4, 5), (5, 4)], [(4, 4), (5, 5)]])
def test_equal_neighbours_give_one_localization(ties):
    image = torch.zeros(1, 1, 12, 12)
    for row, column in ties:
        image[0, 0, row, column] = 100
    found = SRImage().decode(image, threshold=0.3, pixel_size_nm=100)
    assert len(found) == 1
    rows, columns = np.mean(ties, axis=0) + 0.5
    fine = 12.5
    # The window stands on the first of the two and holds both, so their mean comes out.
    assert found.x_nm[0] == pytest.approx(columns * fine)
    assert found.y_nm[0] == pytest.approx(rows * fine)


def test_a_square_plateau_gives_one_localization_and_negative_values_are_clipped():
    image = torch.full((1, 1, 12, 12), -50.0)
    image[0, 0, 4:6, 4:6] = 80
    found = SRImage().decode(image, threshold=0.3, pixel_size_nm=100)
    assert len(found) == 1
    assert found.x_nm[0] == pytest.approx(5 * 12.5)
    assert found.probability[0] == 1


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 11), (11, 0), (11, 11)])
def test_peaks_in_the_corners_are_found(row, column):
    image = torch.zeros(2, 1, 12, 12)
    image[1, 0, row, column] = 60
    found = SRImage().decode(image, threshold=0.3, pixel_size_nm=100, first_frame=10)
    assert found.frame.tolist() == [11]
    assert found.x_nm[0] == pytest.approx((column + 0.5) * 12.5)
    assert found.y_nm[0] == pytest.approx((row + 0.5) * 12.5)
    assert found.probability[0] == pytest.approx(0.6)


def test_the_threshold_is_in_units_of_a_lone_peak():
    image = torch.zeros(1, 1, 12, 12)
    image[0, 0, 5, 5] = 40
    output = SRImage(target_scale=100)
    assert len(output.decode(image, threshold=0.39, pixel_size_nm=100)) == 1
    assert len(output.decode(image, threshold=0.41, pixel_size_nm=100)) == 0
    spot = blurred(image)
    heatmap = SRImage(target_scale=100, kind="heatmap")
    assert spot.max().item() == pytest.approx(0.4 * heatmap.lone_peak, rel=1e-5)
    assert len(heatmap.decode(spot, threshold=0.39, pixel_size_nm=100)) == 1
    assert len(heatmap.decode(spot, threshold=0.41, pixel_size_nm=100)) == 0


def test_a_stored_offset_moves_every_position():
    image = torch.zeros(1, 1, 12, 12)
    image[0, 0, 5, 5] = 100
    found = SRImage(offset_px=(0.5, -0.5)).decode(image, threshold=0.3, pixel_size_nm=100)
    assert found.x_nm[0] == pytest.approx(6 * 12.5)
    assert found.y_nm[0] == pytest.approx(5 * 12.5)


def test_many_frames_are_decoded_as_each_frame_alone(monkeypatch):
    monkeypatch.setattr("zoo._outputs._CHUNK_PIXELS", 3 * 40 * 40)
    image = torch.rand(10, 1, 40, 40, generator=torch.Generator().manual_seed(0)) * 100
    together = SRImage().decode(image, threshold=0.8, pixel_size_nm=100)
    assert len(together) > 50
    alone = [SRImage().decode(image[i : i + 1], threshold=0.8, pixel_size_nm=100, first_frame=i) for i in range(10)]
    assert together.frame.tolist() == [int(f) for part in alone for f in part.frame]
    np.testing.assert_array_equal(together.x_nm, np.concatenate([part.x_nm for part in alone]))


def test_an_empty_map_and_no_frames_give_no_localizations():
    assert len(SRImage().decode(torch.zeros(3, 1, 8, 8), threshold=0.3, pixel_size_nm=100)) == 0
    assert len(SRImage().decode(torch.zeros(0, 1, 8, 8), threshold=0.3, pixel_size_nm=100)) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_map_with_nan_or_infinity_is_refused(value):
    image = torch.zeros(3, 1, 8, 8)
    image[2, 0, 4, 4] = value
    with pytest.raises(ValueError, match=r"nan or infinity \(image 2\)"):
        SRImage().decode(image, threshold=0.3, pixel_size_nm=100)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"upsampling": 0}, "at least 1"),
        ({"target_scale": 0.0}, "must be positive"),
        ({"kind": "peaks"}, "known are: spikes, heatmap"),
        ({"heatmap_sigma": -1.0}, "must be positive"),
    ],
)
def test_impossible_contracts_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SRImage(**settings)


def test_bad_arguments_of_decode_are_refused():
    image = torch.zeros(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"decode needs \(N, 1, height, width\)"):
        SRImage().decode(image[0], threshold=0.3, pixel_size_nm=100)
    with pytest.raises(ValueError, match="0 or more"):
        SRImage().decode(image, threshold=-1, pixel_size_nm=100)
    with pytest.raises(ValueError, match="one positive number, or a pair"):
        SRImage().decode(image, threshold=0.3, pixel_size_nm=(100, 0))


@pytest.mark.parity
def test_peaks_equal_the_zerocost_notebook(reference):
    """Same peaks and centres of gravity; positions half a fine pixel further, as our convention has it."""
    stored = np.load(reference / "zerocost_deepstorm_pipeline_io.npz")
    image = torch.from_numpy(stored["map"])[:, None]
    pixel = float(stored["pixel_size_nm"])
    upsampling = int(stored["upsampling"])
    found = SRImage(upsampling=upsampling, target_scale=100.0).decode(image, threshold=0.1, pixel_size_nm=pixel)
    half = 0.5 * pixel / upsampling
    truth = np.stack([stored["loc_avg_frame"], stored["loc_avg_x_nm"] + half, stored["loc_avg_y_nm"] + half], 1)
    ours = np.stack([found.frame, found.x_nm, found.y_nm], 1)
    frame_base = stored["loc_avg_frame"].min()
    truth[:, 0] -= frame_base
    distance = np.abs(ours[:, None] - truth[None]).max(2)
    assert (distance.min(1) < 1e-2).all()
    assert len(ours) <= len(truth)  # the notebook gives several peaks on a plateau
