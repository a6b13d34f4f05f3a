"""Image losses: hand-computed cases, order of errors, the empty optimum, bad input."""

import math
import warnings

import pytest
import torch

import losses
from losses import create_loss, empty_optimum, l1l2


def spot(column: int, value: float = 1.0) -> torch.Tensor:
    image = torch.zeros(1, 1, 41, 65)
    image[..., 20, column] = value
    return image


def test_l1l2_of_an_empty_prediction_is_the_energy_of_the_blurred_spike():
    kernel = losses.gaussian_kernel(7, 1.0)
    expected = kernel.square().sum().item() / (41 * 65)
    assert l1l2(0 * spot(32), spot(32)).item() == pytest.approx(expected, rel=1e-5)


def test_l1_prices_the_prediction_per_pixel():
    assert l1l2(spot(32, 3.0), spot(32, 3.0), l1_weight=2.0).item() == pytest.approx(2 * 3 / (41 * 65), rel=1e-5)


def test_a_nearer_miss_costs_strictly_less():
    hit, near, further, far = (l1l2(spot(32 + d), spot(32), l1_weight=0).item() for d in (0, 1, 2, 10))
    assert 0 == hit < near < further < far


def test_gain_two_wants_half_the_spike():
    loss = create_loss("deepstorm", target_scale=100.0)
    heights = torch.linspace(40, 60, 201)
    best = heights[torch.stack([loss(h * spot(32), spot(32)) for h in heights]).argmin()].item()
    squares = losses.gaussian_kernel(7, 1.0).square().sum().item()
    assert best == pytest.approx((100 - 1 / (4 * squares)) / 2, abs=0.1)  # 48.4


def test_per_sample_values_average_to_the_mean():
    prediction, target = torch.rand(3, 1, 12, 12), (torch.rand(3, 1, 12, 12) > 0.9).float()
    for name in losses._LOSSES:  # those of images
        options = {"lambda_": 50} if name.startswith("dl4smlm") else {}
        options |= {"emitter_weight": 4.0} if name.startswith("emitter") else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss = create_loss(name, **options)
        each = loss(prediction, target, reduction="none")
        assert each.shape == (3,)
        assert each.mean().item() == pytest.approx(loss(prediction, target).item(), rel=1e-5), name


@pytest.mark.parametrize(
    ("name", "lambda_", "empty"),
    [
        ("dl4smlm_l1l2", 3.9, True),
        ("dl4smlm_l1l2", 4.1, False),
        ("dl4smlm_mse", 0.99, True),
        ("dl4smlm_mse", 1.02, False),
        ("dl4smlm_mae", 1.99, True),
        ("dl4smlm_mae", 2.01, False),
    ],
)
def test_warns_when_the_empty_image_is_best(name, lambda_, empty):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        create_loss(name, lambda_=lambda_)
    assert bool(caught) == empty


def test_default_losses_of_the_models_do_not_collapse():
    assert not empty_optimum(l1l2, gain=2.0, target_scale=100.0)
    assert empty_optimum(l1l2, target_scale=1.0)  # a unit spike is not worth its L1 price


def test_corner_kernel_is_off_centre_by_the_published_amount():
    kernel = losses.image.corner_kernel()
    offset = (kernel.sum(0) * torch.arange(-1.0, 2.0)).sum().item()
    assert kernel.sum().item() == pytest.approx(1, abs=1e-6)
    assert kernel.square().sum().item() == pytest.approx(0.252, abs=1e-3)
    assert offset == pytest.approx(0.58, abs=5e-3)


def test_weights_count_emitter_pixels():
    target = torch.tensor([[[[1.0, 0.0]]]])
    prediction = torch.tensor([[[[0.0, 1.0]]]])
    assert losses.emitter_weighted_mse(prediction, target, emitter_weight=3.0).item() == pytest.approx(2.0)
    assert losses.emitter_weighted_mae(2 * prediction, target, emitter_weight=3.0).item() == pytest.approx(2.5)


def test_dsir_kernel_has_peak_one():
    sigma = 3 / math.sqrt(8 * math.log(2))
    energy = losses.gaussian_kernel(5, sigma, unit_sum=False).square().sum().item()
    assert create_loss("dsir", fwhm=3)(0 * spot(32), spot(32)).item() == pytest.approx(energy / (41 * 65), rel=1e-5)


def test_unknown_names_and_options_are_refused():
    with pytest.raises(ValueError, match="Did you mean 'l1l2'"):
        create_loss("l1l")
    with pytest.raises(ValueError, match="does not take these options"):
        create_loss("l1l2", lamda=3)
    with pytest.raises(ValueError, match="encode the target"):
        l1l2(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="odd size"):
        l1l2(spot(3), spot(3), kernel_size=4)
