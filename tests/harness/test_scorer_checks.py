"""The ten checks that every scorer of the challenge's rules must pass."""

import numpy as np
import pytest

from harness.scoring import CHALLENGE_2D, CHALLENGE_3D, score
from simulators.emitters import Emitters, Localizations

FIELD = (6400, 6400)


def grid(n=100, *, photons=None, frames=10):
    """Emitters on a lattice of 500 nm, ten to a frame, with photons from 1,001 up."""
    place = np.arange(n) % 100
    return Emitters(
        frame=np.arange(n) * frames // n,
        x_nm=700.0 + 500 * (place % 10),
        y_nm=700.0 + 500 * (place // 10),
        z_nm=np.linspace(-400, 400, n),
        photons=np.arange(1001.0, 1001 + n) if photons is None else photons,
    )


def found_at(truth, dx=0.0, dy=0.0, dz=0.0):
    return Localizations(
        frame=truth.frame,
        x_nm=truth.x_nm + dx,
        y_nm=truth.y_nm + dy,
        z_nm=truth.z_nm + dz,
        photons=truth.photons,
    )


def dense(seed=0, density_um2=1.4, frames=100):
    rng = np.random.default_rng(seed)
    n = rng.poisson(density_um2 * 6.4**2 * frames)
    return Emitters(
        frame=rng.integers(0, frames, n),
        x_nm=rng.uniform(0, 6400, n),
        y_nm=rng.uniform(0, 6400, n),
        photons=rng.uniform(500, 5000, n),
    )


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("quantile", [0, 0.15, 0.25, 0.45, 1])
def test_check_1_truth_against_itself_is_perfect(quantile, dimensions):
    for truth in (grid(), grid(photons=3000.0), dense()):
        result = score(truth=truth, found=found_at(truth), field_nm=FIELD, quantile=quantile, dimensions=dimensions)
        assert result.jaccard == 100
        assert result.rmse_lateral_nm == 0
        assert result.efficiency == 100
        assert result.tp > 0


def test_check_2_a_shift_of_3_and_4_nm():
    truth = grid()
    result = score(truth=truth, found=found_at(truth, 3, 4), field_nm=FIELD)
    assert result.rmse_lateral_nm == pytest.approx(5)
    assert (result.bias_x_nm, result.bias_y_nm) == pytest.approx((3, 4))
    assert result.efficiency == pytest.approx(95)


def test_check_3_empty_results_and_empty_truths():
    truth = grid()
    nothing = score(truth=truth, found=Localizations.empty(), field_nm=FIELD, quantile=0)
    assert (nothing.tp, nothing.fp, nothing.fn) == (0, 0, 100)
    assert (nothing.jaccard, nothing.recall, nothing.precision, nothing.efficiency) == (0, 0, 0, -100)
    late = Localizations(frame=[50, 51], x_nm=3000.0, y_nm=3000.0)
    extra = score(truth=truth, found=Localizations.concatenate([found_at(truth), late]), field_nm=FIELD, quantile=0)
    assert (extra.tp, extra.fp, extra.fn) == (100, 2, 0)
    no_truth = score(truth=Emitters.empty(), found=late, field_nm=FIELD)
    assert (no_truth.tp, no_truth.fp, no_truth.fn, no_truth.efficiency) == (0, 2, 0, -100)
    neither = score(truth=Emitters.empty(), found=Localizations.empty(), field_nm=FIELD, dimensions=3)
    assert (neither.tp, neither.fp, neither.fn, neither.efficiency, neither.jaccard) == (0, 0, 0, -100, 0)


def test_check_4_one_to_one():
    pair = Emitters(frame=[0, 0], x_nm=[3000.0, 3100.0], y_nm=3000.0, photons=[1000.0, 1000.0])
    between = Localizations(frame=[0], x_nm=[3050.0], y_nm=[3000.0])
    result = score(truth=pair, found=between, field_nm=FIELD, quantile=0)
    assert (result.tp, result.fp, result.fn) == (1, 0, 1)
    twice = Localizations(frame=[0, 0], x_nm=[2990.0, 3010.0], y_nm=3000.0)
    result = score(truth=pair.pick([0]), found=twice, field_nm=FIELD, quantile=0)
    assert (result.tp, result.fp, result.fn) == (1, 1, 0)


@pytest.mark.parametrize(("dx", "dz", "hits"), [(250, 0, 1), (251, 0, 0), (0, 500, 1), (0, 501, 0), (0, -501, 0)])
def test_check_5_tolerances(dx, dz, hits):
    truth = Emitters(frame=[0], x_nm=[3000.3], y_nm=[3000.0], z_nm=[-200.0], photons=[1000.0])
    result = score(truth=truth, found=found_at(truth, dx, 0, dz), field_nm=FIELD, quantile=0, dimensions=3)
    assert (result.tp, result.fp, result.fn) == (hits, 1 - hits, 1 - hits)
    flat = score(truth=truth, found=found_at(truth, dx, 0, dz), field_nm=FIELD, quantile=0, dimensions=2)
    assert flat.tp == (dx <= 250)


@pytest.mark.parametrize("axis", ["x_nm", "y_nm"])
@pytest.mark.parametrize("side", ["low", "high"])
def test_check_6_a_pair_astride_the_border_is_one_false_alarm(axis, side):
    outside, inside = (449.0, 451.0) if side == "low" else (6400 - 449.0, 6400 - 451.0)
    truth = Emitters(frame=[0], x_nm=[3000.0], y_nm=[3000.0], photons=[1000.0]).replace(**{axis: [outside]})
    found = Localizations(frame=[0], x_nm=[3000.0], y_nm=[3000.0]).replace(**{axis: [inside]})
    result = score(truth=truth, found=found, field_nm=FIELD, quantile=0)
    assert (result.tp, result.fp, result.fn) == (0, 1, 0)


def test_check_7_weak_molecules_are_excused():
    truth = grid()  # photons 1001..1100, the floor of the quartile is 1025
    weak = found_at(truth.pick([0]))
    at_quartile = score(truth=truth, found=weak, field_nm=FIELD, quantile=0.25)
    assert at_quartile.threshold_photons == 1025
    assert (at_quartile.tp, at_quartile.fp, at_quartile.n_on_weak, at_quartile.n_weak) == (0, 0, 1, 25)
    assert at_quartile.fn == 75
    everyone = score(truth=truth, found=weak, field_nm=FIELD, quantile=0)
    assert (everyone.tp, everyone.fp, everyone.fn) == (1, 0, 99)
    second = score(truth=truth, found=Localizations.concatenate([weak, weak]), field_nm=FIELD, quantile=0.25)
    assert (second.tp, second.fp) == (0, 1)


def test_check_7_the_quantile_is_taken_after_the_border_cut():
    dim = Emitters(frame=np.zeros(300), x_nm=100.0, y_nm=3000.0, photons=10.0)
    result = score(
        truth=Emitters.concatenate([grid(), dim]), found=Localizations.empty(), field_nm=FIELD, quantile=0.25
    )
    assert (result.threshold_photons, result.fn) == (1025, 75)


def test_check_8_order_and_type_of_rows_do_not_matter():
    rng = np.random.default_rng(3)
    truth = dense(3, frames=20)
    found = found_at(truth, rng.normal(0, 40, len(truth)), rng.normal(0, 40, len(truth))).pick(
        rng.random(len(truth)) < 0.9
    )
    plain = score(truth=truth, found=found, field_nm=FIELD).to_dict(per_frame=True)
    mixed_truth, mixed_found = (t.pick(rng.permutation(len(t))) for t in (truth, found))
    mixed_truth = Emitters(
        frame=mixed_truth.frame.astype(np.float64),
        x_nm=mixed_truth.x_nm,
        y_nm=mixed_truth.y_nm,
        photons=mixed_truth.photons,
    )
    mixed = score(truth=mixed_truth, found=mixed_found, field_nm=FIELD).to_dict(per_frame=True)
    assert plain["tp"] > 300
    assert plain["fp"] > 0
    for name, value in plain.items():
        if isinstance(value, (float, list)):
            np.testing.assert_allclose(mixed[name], value, rtol=1e-9, err_msg=name)
        else:
            assert mixed[name] == value, name


def test_check_9_a_spot_in_the_middle_of_pixel_0_0_is_at_50_nm():
    """Emitter -> spikes -> localization, and emitter -> rendered PSF -> centroid, with the origin in the
    corner.
    """
    torch = pytest.importorskip("torch")
    outputs = pytest.importorskip("zoo._outputs")
    output = outputs.SRImage(upsampling=8, target_scale=1.0, kind="spikes", heatmap_sigma=1.0)
    truth = Emitters(frame=[0, 0], x_nm=[50.0, 437.5 + 6.25], y_nm=[50.0, 737.5 + 6.25], photons=1000.0)
    image = output.spikes(
        torch.tensor(truth.frame),
        torch.tensor(truth.x_nm),
        torch.tensor(truth.y_nm),
        count=1,
        height=10,
        width=6,
        pixel_size_nm=100.0,
        device="cpu",
    )
    found = output.decode(image.float(), threshold=0.5, pixel_size_nm=100.0)
    # 50 nm is a border between two fine pixels of 12.5 nm: half of one of them is the grid's own floor
    np.testing.assert_allclose(np.sort(found.x_nm), [50, 443.75], atol=6.2501)
    np.testing.assert_allclose(found.x_nm[found.x_nm > 400], [443.75])
    np.testing.assert_allclose(found.y_nm[found.x_nm > 400], [743.75])


def test_check_9_centroid_of_a_rendered_psf():
    torch = pytest.importorskip("torch")
    simulators = pytest.importorskip("simulators")
    psf = simulators.GaussianPSF(sigma_nm=20.0, defocus_nm=420.0)  # narrow: the whole spot lies in the pixel

    def tensor(value):
        return torch.tensor([value], dtype=torch.float64)

    image = psf.expected(
        frame=torch.zeros(1, dtype=torch.int64),
        x_nm=tensor(50.0),
        y_nm=tensor(50.0),
        z_nm=tensor(0.0),
        photons=tensor(1000.0),
        frames=1,
        shape=(5, 7),
        pixel_size_nm=(100.0, 100.0),
    )
    weights = np.asarray(image)[0]
    rows, columns = np.indices(weights.shape)
    assert weights.sum() == pytest.approx(1000, rel=0.03)
    x = ((columns + 0.5) * 100 * weights).sum() / weights.sum()
    y = ((rows + 0.5) * 100 * weights).sum() / weights.sum()
    # the tails that fall outside the field pull by less than a nanometre
    assert (x, y) == pytest.approx((50, 50), abs=2)


def test_check_10_greedy_and_hungarian_agree_on_a_dense_set():
    rng = np.random.default_rng(0)
    truth = dense(0, frames=400)
    keep = rng.random(len(truth)) < 0.85
    found = found_at(truth, rng.normal(0, 25, len(truth)), rng.normal(0, 25, len(truth))).pick(keep)
    stray = dense(1, 0.1, frames=400)
    found = Localizations.concatenate([found, found_at(stray)])
    greedy = score(truth=truth, found=found, field_nm=FIELD, rule="greedy")
    optimal = score(truth=truth, found=found, field_nm=FIELD, rule="optimal")
    assert greedy.tp > 5000
    assert greedy.jaccard < 95
    assert abs(greedy.jaccard - optimal.jaccard) < 0.2
    assert abs(greedy.efficiency - optimal.efficiency) < 0.2


def test_the_protocols_are_the_challenge():
    assert (CHALLENGE_2D.tolerance_nm, CHALLENGE_2D.border_nm, CHALLENGE_2D.quantile) == (250, 450, 0.25)
    assert CHALLENGE_3D.axial_tolerance_nm == 500
