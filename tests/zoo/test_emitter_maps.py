"""Maps of emitters: units, targets, detection, and back to localizations."""

import math

import numpy as np
import pytest
import torch

from simulators import Emitters
from zoo import EmitterMaps, scores
from zoo._emitter_maps import DECODE_CHANNELS


def emitters(**columns):
    base = {"frame": [0], "x_nm": [250.0], "y_nm": [330.0], "z_nm": [120.0], "photons": [3000.0]}
    return Emitters(**{**base, **columns})


def maps_of(output, rows, *, count, height, width, pixel=100.0):
    """What a perfect network gives: the emitter's pixel holds it, with probability 0.9."""
    maps = torch.zeros(count, len(output.channels), height, width)
    for sigma in (c for c in output.channels if c.endswith("_sigma")):
        maps[:, output.index(sigma)] = 0.2
    target = output.encode(rows, count=count, height=height, width=width, pixel_size_nm=pixel)
    row, column = target.y.floor().long(), target.x.floor().long()
    maps[target.frame, output.index("probability"), row, column] = 0.9
    maps[target.frame, output.index("photons"), row, column] = target.photons
    maps[target.frame, output.index("x"), row, column] = target.x - column - output.reference_px[0]
    maps[target.frame, output.index("y"), row, column] = target.y - row - output.reference_px[1]
    if output.axial:
        maps[target.frame, output.index("z"), row, column] = target.z
    return maps


@pytest.mark.parametrize("reference_px", [(0.5, 0.5), (1.0, 1.0)])
@pytest.mark.parametrize("z_scale_nm", [900.0, -900.0])
def test_what_is_encoded_is_decoded(reference_px, z_scale_nm):
    output = EmitterMaps(photons_scale=20000.0, z_scale_nm=z_scale_nm, reference_px=reference_px)
    rng = np.random.default_rng(1)
    truth = Emitters(
        frame=np.arange(6) % 3,
        x_nm=1000 + 900 * rng.random(6) * [1, -1, 1, -1, 1, -1],
        y_nm=rng.uniform(0, 1600, 6),
        z_nm=rng.uniform(-700, 700, 6),
        photons=rng.uniform(500, 9000, 6),
    ).sorted()
    maps = maps_of(output, truth, count=3, height=16, width=20)
    found = output.decode(maps, threshold=0.5, pixel_size_nm=100.0, first_frame=10)
    order = np.lexsort((truth.x_nm, truth.y_nm // 100, truth.frame))
    np.testing.assert_array_equal(found.frame, truth.frame[order] + 10)
    for column in ("x_nm", "y_nm", "z_nm", "photons"):
        np.testing.assert_allclose(getattr(found, column), getattr(truth, column)[order], rtol=1e-4, atol=0.02)
    assert found.probability == pytest.approx(0.9)
    assert found.x_sigma_nm == pytest.approx(20.0)
    assert found.z_sigma_nm == pytest.approx(180.0)
    assert found.photons_sigma == pytest.approx(4000.0)


def test_x_runs_along_columns_and_pixels_may_be_oblong():
    output = EmitterMaps()
    truth = emitters(x_nm=[350.0], y_nm=[90.0])
    target = output.encode(truth, count=1, height=8, width=8, pixel_size_nm=(100.0, 60.0))
    assert (target.x.item(), target.y.item()) == pytest.approx((3.5, 1.5))
    maps = maps_of(output, truth, count=1, height=8, width=8, pixel=(100.0, 60.0))
    assert maps[0, 0].nonzero().tolist() == [[1, 3]]
    found = output.decode(maps, threshold=0.5, pixel_size_nm=(100.0, 60.0))
    assert (found.x_nm[0], found.y_nm[0]) == pytest.approx((350.0, 90.0))
    assert (found.x_sigma_nm[0], found.y_sigma_nm[0]) == pytest.approx((20.0, 12.0))


def test_encoding_leaves_out_what_is_outside_dim_or_of_other_frames():
    rows = Emitters(
        frame=[2, 0, 0, 0, 1, 5],
        x_nm=[10.0, 0.0, 800.0, -1.0, 50.0, 50.0],
        y_nm=[10.0, 799.9, 10.0, 10.0, 50.0, 50.0],
        photons=[500.0, 100.0, 500.0, 500.0, 99.0, 500.0],
    )
    target = EmitterMaps(photons_scale=1000.0).encode(
        rows, count=3, height=8, width=8, pixel_size_nm=100.0, min_photons=100.0, background=[10.0, 20.0, 30.0]
    )
    assert target.frame.tolist() == [0, 2]  # on the lower edge and with just enough photons: in
    assert target.photons.tolist() == pytest.approx([0.1, 0.5])
    assert target.per_frame().tolist() == [1.0, 0.0, 1.0]
    assert target.background is not None
    assert target.background[:, 0, 0].tolist() == pytest.approx([0.05, 0.1, 0.15])


def test_unknown_photons_are_asked_for():
    rows = emitters(photons=[math.nan])
    target = EmitterMaps().encode(rows, count=1, height=8, width=8, pixel_size_nm=100.0, min_photons=50.0)
    assert target.photons.tolist() == [0.0]


def test_no_threshold_below_the_lowest_worth_trying_changes_anything():
    output = EmitterMaps(candidate=0.4)
    maps = torch.rand(3, len(DECODE_CHANNELS), 9, 9, generator=torch.Generator().manual_seed(1))
    lone = torch.zeros(9, 9)
    lone[::3, ::3] = 1
    maps[:, output.index("probability")] *= lone
    low, high = output.thresholds
    assert (low, high) == (0.4, 0.95)
    rows = [len(output.decode(maps, threshold=t, pixel_size_nm=100)) for t in (0.01, low, 0.99)]
    assert rows[0] == rows[1] > rows[2]
    assert EmitterMaps(rule="program").thresholds[0] < 0.1
    assert EmitterMaps(candidate=0.99).thresholds[0] < 0.95


def test_calibration_widens_the_sigmas_alone():
    plain = EmitterMaps(z_scale_nm=-500.0)
    wider = plain.with_(sigma_scale=(0.5, 2.0, 3.0, 4.0))
    maps = maps_of(plain, emitters(), count=1, height=6, width=6)
    before, after = (output.decode(maps, threshold=0.5, pixel_size_nm=100.0) for output in (plain, wider))
    for column, factor in (("photons_sigma", 0.5), ("x_sigma_nm", 2), ("y_sigma_nm", 3), ("z_sigma_nm", 4)):
        assert getattr(after, column) == pytest.approx(factor * getattr(before, column))
    for column in ("x_nm", "y_nm", "z_nm", "photons", "probability"):
        assert getattr(after, column).tolist() == getattr(before, column).tolist()


def test_calibration_bends_the_sigmas_in_the_units_of_the_maps():
    plain = EmitterMaps()
    bent = plain.with_(sigma_scale=(1.0, 2.0, 1.0, 1.0), sigma_power=(1.0, 1.5, 1.0, 0.5))
    maps = maps_of(plain, emitters(), count=1, height=6, width=6)
    before, after = (output.decode(maps, threshold=0.5, pixel_size_nm=80.0) for output in (plain, bent))
    assert after.x_sigma_nm == pytest.approx(80 * 2 * (before.x_sigma_nm / 80) ** 1.5)
    assert after.z_sigma_nm == pytest.approx(plain.z_scale_nm * (before.z_sigma_nm / plain.z_scale_nm) ** 0.5)
    assert after.y_sigma_nm.tolist() == before.y_sigma_nm.tolist()
    values = torch.tensor([0.02, 0.3])
    for channel in ("x_sigma", "z_sigma", "x", "photons"):
        back = bent.as_uncalibrated(channel, bent.calibrated(channel, values))
        torch.testing.assert_close(back, values)


def test_a_map_without_z_says_nothing_of_it():
    output = EmitterMaps(channels=tuple(c for c in DECODE_CHANNELS if not c.startswith("z")))
    assert output.quantities == ("photons", "x", "y")
    found = output.decode(maps_of(output, emitters(), count=1, height=8, width=8), threshold=0.5, pixel_size_nm=100.0)
    assert np.isnan(found.z_nm).all()
    assert np.isnan(found.z_sigma_nm).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": ("probability", "x")}, "lack 'y'"),
        ({"channels": ("probability", "x", "y", "x")}, "twice"),
        ({"channels": ("probability", "x", "y", "hue")}, "'hue' is not known"),
        ({"photons_scale": 0.0}, "photons_scale"),
        ({"z_scale_nm": 0.0}, "z_scale_nm"),
        ({"background_scale": -1.0}, "background_scale"),
        ({"rule": "best"}, "rule is 'best'"),
        ({"sigma_scale": (1.0, 1.0)}, "sigma_scale"),
        ({"sigma_scale": (1.0, 1.0, 0.0, 1.0)}, "sigma_scale"),
        ({"sigma_power": (1.0, 1.0, -1.0, 1.0)}, "sigma_power"),
    ],
)
def test_bad_contracts_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EmitterMaps(**settings)


def test_bad_maps_and_thresholds_are_refused():
    output = EmitterMaps()
    with pytest.raises(ValueError, match="10, height, width"):
        output.decode(torch.zeros(1, 9, 8, 8), threshold=0.5, pixel_size_nm=100.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        output.decode(torch.zeros(1, 10, 8, 8), threshold=0.0, pixel_size_nm=100.0)
    with pytest.raises(ValueError, match="nan"):
        output.decode(torch.full((1, 10, 8, 8), math.nan), threshold=0.5, pixel_size_nm=100.0)


def plane(*rows):
    return torch.tensor([rows], dtype=torch.float32)


def found_at(p, threshold, **options):
    return (scores(p, **options)[0] >= threshold).nonzero().tolist()


def test_the_paper_takes_edge_maxima_and_all_above_six_tenths():
    p = plane([0.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.3, 0.0], [0.0, 0.0, 0.0, 0.61], [0.0, 0.25, 0.0, 0.62])
    assert found_at(p, 0.6, rule="paper") == [[1, 1], [2, 3], [3, 3]]
    assert found_at(p, 0.81, rule="paper") == [[2, 3], [3, 3]]  # 0.5 + 0.3 is not enough
    # diagonal neighbours compete under the program's rule only
    diagonal = plane([0.5, 0.0], [0.0, 0.45])
    assert found_at(diagonal, 0.4, rule="paper") == [[0, 0], [1, 1]]
    assert found_at(diagonal, 0.4, rule="program", candidate=0.4) == [[0, 0]]


@pytest.mark.parametrize("rule", ["paper", "program"])
def test_ties_give_one_localization(rule):
    row = plane([0.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0])
    assert found_at(row, 0.6, rule=rule) == [[1, 1]]
    assert found_at(row, 0.6, rule=rule, ties="all") == [[1, 1], [1, 2]]
    plateau = torch.zeros(1, 5, 5)
    plateau[0, 1:4, 1:4] = 0.65
    assert found_at(plateau, 0.6, rule=rule) == [[1, 1]]


def test_scores_sum_over_the_cross_and_are_cut_at_one():
    p = plane([0.9, 0.3, 0.3], [0.3, 0.9, 0.3], [0.3, 0.3, 0.9])
    assert scores(p)[0, 1, 1].item() == 1.0
    assert scores(p, clip=False)[0, 1, 1].item() == pytest.approx(2.1)
    assert scores(p, clip=False)[0, 0, 0].item() == pytest.approx(1.5)


def test_scores_refuse_what_they_do_not_know():
    for options in ({"rule": "x"}, {"ties": "x"}):
        with pytest.raises(ValueError, match="known are"):
            scores(torch.zeros(1, 2, 2), **options)
    with pytest.raises(ValueError, match="frames, height, width"):
        scores(torch.zeros(2, 2))
