import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.scoring import CHALLENGE_2D, CHALLENGE_3D, Protocol, choose_threshold, score
from harness.scoring.assessment import weak_threshold
from harness.scoring.metrics import efficiency
from simulators.emitters import Emitters, Localizations

FIELD = (6000.0, 4000.0)


def scatter(seed, n=300, frames=12):
    rng = np.random.default_rng(seed)
    return Emitters(
        frame=rng.integers(0, frames, n),
        x_nm=rng.uniform(0, FIELD[0], n),
        y_nm=rng.uniform(0, FIELD[1], n),
        z_nm=rng.uniform(-400, 400, n),
        photons=rng.uniform(500, 5000, n),
    )


def as_found(truth, **changes):
    columns = {name: getattr(truth, name) for name in Emitters.columns()}
    return Localizations(**{**columns, **changes})


def as_truth(found):
    return Emitters(**{name: getattr(found, name) for name in Emitters.columns()})


def noisy(seed):
    truth = scatter(seed)
    rng = np.random.default_rng(seed + 1000)
    found = as_found(truth, x_nm=truth.x_nm + rng.normal(0, 60, len(truth)), y_nm=truth.y_nm + rng.normal(0, 60, 300))
    return truth, Localizations.concatenate([found.pick(rng.random(300) < 0.8), as_found(scatter(seed + 5, 40))])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_truth_against_itself_is_perfect(seed):
    truth = scatter(seed)
    result = score(truth=truth, found=as_found(truth), field_nm=FIELD, protocol=CHALLENGE_3D)
    assert (result.jaccard, result.rmse_volume_nm, result.efficiency) == (100, 0, 100)
    assert result.photon_correlation == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_swapping_the_sides_swaps_false_alarms_and_misses(seed):
    truth, found = noisy(seed)
    one = score(truth=truth, found=found, field_nm=FIELD, quantile=0)
    other = score(truth=as_truth(found), found=as_found(truth), field_nm=FIELD, quantile=0)
    assert (one.n_found, one.n_truth) == (other.n_truth, other.n_found)
    assert one.tp > 50
    assert (other.tp, other.fp, other.fn) == (one.tp, one.fn, one.fp)
    assert (other.precision, other.recall) == (one.recall, one.precision)
    assert other.bias_x_nm == pytest.approx(-one.bias_x_nm)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_shuffled_rows_score_the_same(seed, random):
    truth, found = noisy(seed)
    orders = [random.sample(range(len(t)), len(t)) for t in (truth, found)]
    one = score(truth=truth, found=found, field_nm=FIELD).to_dict()
    other = score(truth=truth.pick(orders[0]), found=found.pick(orders[1]), field_nm=FIELD).to_dict()
    assert other["tp"] == one["tp"]
    assert other["efficiency"] == pytest.approx(one["efficiency"])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 2 * math.pi))
def test_moving_everything_by_10_nm_gives_rmse_10(seed, angle):
    truth = scatter(seed, n=40, frames=20)
    truth = truth.pick((truth.x_nm > 500) & (truth.x_nm < 5500) & (truth.y_nm > 500) & (truth.y_nm < 3500))
    dx, dy = 10 * math.cos(angle), 10 * math.sin(angle)
    found = as_found(truth, x_nm=truth.x_nm + dx, y_nm=truth.y_nm + dy)
    # two emitters nearer than 20 nm to each other may exchange their localizations
    result = score(truth=truth, found=found, field_nm=FIELD, quantile=0, rule="optimal")
    assert result.jaccard == 100
    assert result.rmse_lateral_nm == pytest.approx(10, rel=1e-6)
    assert (result.bias_x_nm, result.bias_y_nm) == pytest.approx((dx, dy), abs=1e-6)


def test_formulas_on_a_case_counted_by_hand():
    truth = Emitters(
        frame=[0, 0, 1, 1],
        x_nm=[1000.0, 2000, 1000, 2000],
        y_nm=[1000.0, 2000, 1000, 2000],
        z_nm=[0.0, 0, 0, 0],
        photons=[100.0, 200, 300, 400],
    )
    found = Localizations(
        frame=[0, 0, 1],
        x_nm=[1030.0, 3000, 1000],
        y_nm=[1040.0, 3000, 1010],
        z_nm=[100.0, 0, -20],
        photons=[110.0, 0, 290],
    )
    result = score(truth=truth, found=found, field_nm=(4000, 4000), quantile=0, dimensions=3)
    assert (result.tp, result.fp, result.fn) == (2, 1, 2)
    assert result.jaccard == pytest.approx(40)
    assert result.precision == pytest.approx(200 / 3)
    assert result.recall == pytest.approx(50)
    assert result.f1 == pytest.approx(400 / 7)
    assert result.rmse_lateral_nm == pytest.approx(math.sqrt((2500 + 100) / 2))
    assert result.rmse_axial_nm == pytest.approx(math.sqrt((10_000 + 400) / 2))
    assert result.rmse_volume_nm == pytest.approx(math.sqrt((12_500 + 500) / 2))
    assert (result.bias_x_nm, result.bias_y_nm, result.bias_z_nm) == pytest.approx((15, 25, 40))
    assert result.mad_nm == pytest.approx((30 + 40 + 100 + 0 + 10 + 20) / 2)
    lateral = 100 - math.sqrt(60**2 + 1300)
    axial = 100 - math.sqrt(60**2 + 0.25 * 5200)
    assert result.efficiency_lateral == pytest.approx(lateral)
    assert result.efficiency_axial == pytest.approx(axial)
    assert result.efficiency == pytest.approx((lateral + axial) / 2)
    assert result.photon_correlation == pytest.approx(1)
    assert result.frame.tolist() == [0, 1]
    assert result.frame_tp.tolist() == [1, 1]
    assert result.frame_fp.tolist() == [1, 0]
    assert result.frame_fn.tolist() == [1, 1]
    assert result.frame_lateral_nm2.tolist() == [2500, 100]
    assert result.frame_axial_nm2.tolist() == [10_000, 400]


def test_frames_give_back_the_totals():
    truth, found = noisy(1)
    result = score(truth=truth, found=found, field_nm=FIELD)
    assert (result.frame_tp.sum(), result.frame_fp.sum(), result.frame_fn.sum()) == (
        result.tp,
        result.fp,
        result.fn,
    )
    assert math.sqrt(result.frame_lateral_nm2.sum() / result.tp) == pytest.approx(result.rmse_lateral_nm)


def test_efficiency_formula():
    assert efficiency(jaccard=100, rmse_nm=0, alpha_per_nm=1) == 100
    assert efficiency(jaccard=70, rmse_nm=40, alpha_per_nm=1) == pytest.approx(50)
    assert efficiency(jaccard=0, rmse_nm=math.nan, alpha_per_nm=1) == -100


def test_the_record_is_json_and_holds_the_settings():
    result = score(truth=scatter(0), found=Localizations.empty(), field_nm=FIELD, tolerance_nm=100)
    record = json.loads(json.dumps(result.to_dict(per_frame=True), allow_nan=False))
    assert record["rmse_lateral_nm"] is None
    assert record["efficiency"] == -100
    assert record["protocol"]["tolerance_nm"] == 100
    assert record["protocol"]["name"] == "challenge-2d (changed)"
    assert record["protocol"]["border_nm"] == 450
    assert "frame_tp" not in result.to_dict()
    assert score(truth=scatter(0), found=Localizations.empty(), field_nm=FIELD).protocol is CHALLENGE_2D


def test_weak_threshold_is_the_floor_of_the_quantile():
    photons = [100.0, 201.7, 300, 400, 500]
    truth = Emitters(frame=[0] * 5, x_nm=1.0, y_nm=1.0, photons=photons)
    assert weak_threshold(truth, 0.25) == 201  # and so the emitter with 201.7 counts
    assert weak_threshold(truth, 0) == 0
    same = truth.replace(photons=[3000.0] * 5)
    assert weak_threshold(same, 0.25) == 0  # equally bright: nobody is weak
    with pytest.raises(ValueError, match=r"5 of 5 emitters .* have no photons"):
        weak_threshold(truth.replace(photons=[math.nan] * 5), 0.25)


def test_impossible_settings_are_refused():
    truth = scatter(0)
    with pytest.raises(ValueError, match="quantile is 25"):
        score(truth=truth, found=as_found(truth), field_nm=FIELD, quantile=25)
    with pytest.raises(ValueError, match="needs axial_tolerance_nm"):
        Protocol(
            name="x",
            dimensions=3,
            tolerance_nm=250,
            axial_tolerance_nm=None,
            border_nm=0,
            quantile=0,
            rule="greedy",
        )
    with pytest.raises(ValueError, match="field_nm is"):
        score(truth=truth, found=as_found(truth), field_nm=(0, 100))


def test_threshold_search_finds_the_best_of_the_grid():
    truth = scatter(2)
    rng = np.random.default_rng(0)
    weak = as_found(scatter(3, 600), probability=rng.uniform(0.01, 0.3, 600))
    strong = as_found(truth, probability=rng.uniform(0.3, 1, len(truth)))
    everything = Localizations.concatenate([strong, weak])
    asked = []

    def decode(threshold):
        asked.append(threshold)
        return everything.pick(everything.probability > threshold)

    best, curve = choose_threshold(decode, truth=truth, field_nm=FIELD, low=0.01, high=2.0, trials=20)
    assert len(curve) == len(asked) == 20
    np.testing.assert_allclose(np.diff(np.log(asked)), np.log(200) / 19)
    assert 0.2 < best < 0.4
    assert max(p.efficiency for p in curve) == next(p for p in curve if p.threshold == best).efficiency
    assert curve[-1].tp == 0


def test_a_threshold_with_hits_beats_one_without():
    truth = Emitters(frame=[0], x_nm=[2000.0], y_nm=[2000.0], photons=[1000.0])
    rng = np.random.default_rng(0)
    crowd = Localizations(frame=np.zeros(500), x_nm=rng.uniform(500, 5000, 500), y_nm=rng.uniform(500, 1800, 500))
    poor = Localizations.concatenate([crowd, Localizations(frame=[0], x_nm=[2249.0], y_nm=[2000.0])])
    best, curve = choose_threshold(
        lambda t: poor if t < 0.5 else Localizations.empty(),
        truth=truth,
        field_nm=FIELD,
        low=0.1,
        high=1,
        trials=2,
    )
    assert curve[0].efficiency < curve[1].efficiency == -100
    assert best == pytest.approx(0.1)
