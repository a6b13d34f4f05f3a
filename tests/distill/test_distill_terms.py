"""Terms of the objectives against hand-computed cases, and outputs on one grid."""

import math

import numpy as np
import pytest
import torch

from distill import (
    CommonGrid,
    combine,
    common_grid,
    density,
    draw,
    drawn_maps,
    emitter_imitation,
    hint_loss,
    in_units_of,
    soft_detection,
    soft_location,
)
from zoo import EmitterMaps, SRImage

FLAT = EmitterMaps(channels=("probability", "photons", "y", "x", "photons_sigma", "y_sigma", "x_sigma", "background"))


def gaussian(sigma: float, x: float, y: float, side: int) -> np.ndarray:
    """Integrals of a Gaussian over the pixels of a side x side grid, by the error function."""
    edges = np.arange(side + 1)
    line = [np.array([math.erf((e - c) / (sigma * math.sqrt(2))) for e in edges]) for c in (x, y)]
    return np.outer(np.diff(line[1]), np.diff(line[0])) / 4


def centre_of(image: torch.Tensor, scale: int) -> tuple[float, float]:
    """Centre of gravity in camera pixels."""
    rows, columns = image.shape[-2:]
    total = image.sum()
    x = (image.sum((0, 1, 2)) * (torch.arange(columns) + 0.5)).sum() / total / scale
    y = (image.sum((0, 1, 3)) * (torch.arange(rows) + 0.5)).sum() / total / scale
    return x.item(), y.item()


# ---- combinations


def test_combinations_by_hand():
    truth, imitation = torch.tensor(10.0), torch.tensor([1.0, 5.0])
    student, teacher = torch.tensor([4.0, 2.0]), torch.tensor([3.0, 3.0])
    confidence = torch.tensor([0.5, 1.0])
    common = {"truth": truth, "imitation": imitation, "alpha": 0.25}
    assert combine("sum", **common).item() == pytest.approx(2.5 + 0.75 * 3)
    assert combine("attentive", confidence=confidence, **common).item() == pytest.approx(2.5 + 0.75 * 2.75)
    errors = {"student_error": student, "teacher_error": teacher}
    assert combine("minimum", **errors, **common).item() == pytest.approx((1 + 2) / 2)
    assert combine("bound", **errors, **common).item() == pytest.approx(2.5 + 0.75 * (1 + 0) / 2)


def test_combinations_refuse_what_is_missing():
    with pytest.raises(ValueError, match="confidence"):
        combine("attentive", truth=torch.zeros(()), imitation=torch.zeros(1), alpha=0.5)
    with pytest.raises(ValueError, match="attentive, sum, minimum, bound"):
        combine("best", truth=torch.zeros(()), imitation=torch.zeros(1), alpha=0.5)


def test_hint_loss_by_hand():
    teacher = torch.zeros(2, 3, 2, 2)
    guided = torch.stack([torch.full((3, 2, 2), 1.0), torch.full((3, 2, 2), 2.0)])
    assert hint_loss(teacher, guided).item() == pytest.approx((1 + 4) / 2)
    assert hint_loss(teacher, guided, confidence=torch.tensor([1.0, 0.5])).item() == pytest.approx((1 + 2) / 2)
    with pytest.raises(ValueError, match="one shape"):
        hint_loss(teacher, guided[:, :2])


# ---- localization networks


def test_soft_detection_is_the_divergence():
    p, q = 0.8, 0.5
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    found = soft_detection(torch.full((1, 1, 2), q), torch.full((1, 1, 2), p))
    assert found.item() == pytest.approx(2 * expected, rel=1e-5)
    assert soft_detection(torch.full((1, 2, 2), 0.3), torch.full((1, 2, 2), 0.3)).item() == pytest.approx(0, abs=1e-6)


def test_soft_location_is_the_weighted_gaussian_likelihood():
    def channels(mean: float, sigma: float, p: float) -> dict[str, torch.Tensor]:
        return {
            "probability": torch.full((1, 1, 1), p),
            "x": torch.full((1, 1, 1), mean),
            "x_sigma": torch.full((1, 1, 1), sigma),
        }

    found = soft_location(channels(0.3, 0.2, 0.1), channels(0.1, 0.1, 0.9))
    expected = 0.9 * (math.log(0.2 / 0.1) + (0.01 + 0.04) / (2 * 0.04) - 0.5)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_a_perfect_copy_costs_nothing_in_any_units():
    other = FLAT.with_(photons_scale=500.0, background_scale=50.0, reference_px=(0.0, 0.25))
    torch.manual_seed(0)
    maps = torch.rand(2, 8, 4, 5) * 0.9 + 0.05
    converted = maps.clone()
    for name, factor in (("photons", 20.0), ("photons_sigma", 20.0), ("background", 4.0)):
        converted[:, FLAT.index(name)] *= factor
    converted[:, FLAT.index("x")] += 0.5
    converted[:, FLAT.index("y")] += 0.25
    copy = emitter_imitation(converted, maps, student=other, teacher=FLAT)
    assert copy.tolist() == pytest.approx([0, 0], abs=1e-3)
    converted[:, FLAT.index("x")] += 0.1  # a wrong reference point is seen
    assert (emitter_imitation(converted, maps, student=other, teacher=FLAT) > 0.05).all()


def test_z_counted_the_other_way_round_changes_its_sign():
    up = EmitterMaps(z_scale_nm=1000.0)
    down = EmitterMaps(z_scale_nm=-500.0)
    maps = torch.zeros(1, 10, 1, 1)
    maps[:, up.index("z")], maps[:, up.index("z_sigma")] = 0.3, 0.1
    converted = in_units_of(maps, up, down)
    assert converted["z"].item() == pytest.approx(-0.6)
    assert converted["z_sigma"].item() == pytest.approx(0.2)


def test_a_teacher_is_believed_as_far_as_it_is_calibrated():
    plain = EmitterMaps()
    surer = EmitterMaps(sigma_scale=(1.0, 1.5, 2.0, 1.0))
    converted = in_units_of(torch.full((1, 10, 1, 1), 0.2), surer, plain)
    assert converted["x_sigma"].item() == pytest.approx(0.3)
    assert converted["y_sigma"].item() == pytest.approx(0.4)
    assert converted["x"].item() == pytest.approx(0.2)
    bent = EmitterMaps(sigma_scale=(1.0, 2.0, 1.0, 1.0), sigma_power=(1.0, 2.0, 1.0, 1.0))
    assert in_units_of(torch.full((1, 10, 1, 1), 0.2), plain, bent)["x_sigma"].item() == pytest.approx(0.1**0.5)
    assert in_units_of(torch.full((1, 10, 1, 1), 0.2), bent, plain)["x_sigma"].item() == pytest.approx(0.08)


# ---- one grid


def test_drawn_emitters_are_integrated_gaussians():
    grid = CommonGrid(upsampling=2, blur_px=0.5)
    image = draw(
        frame=torch.tensor([1]),
        x=torch.tensor([3.2]),
        y=torch.tensor([4.6]),
        weight=torch.tensor([0.5]),
        sigma_x=torch.tensor([0.3]),
        sigma_y=torch.tensor([0.0]),
        count=2,
        height=8,
        width=8,
        grid=grid,
    )
    assert image[0].abs().max() == 0
    wide = math.hypot(0.3, 0.5)
    line_x = np.diff([math.erf((e / 2 - 3.2) / (wide * math.sqrt(2))) for e in range(17)]) / 2
    line_y = np.diff([math.erf((e / 2 - 4.6) / (0.5 * math.sqrt(2))) for e in range(17)]) / 2
    np.testing.assert_allclose(image[1, 0].numpy(), 0.5 * np.outer(line_y, line_x), atol=1e-5)


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("kind", ["spikes", "heatmap"])
def test_images_of_any_scale_and_kind_give_one_density(scale, kind):
    """A lone emitter, as each contract writes it, has the same density everywhere."""
    output = SRImage(upsampling=scale, target_scale=100.0 if kind == "spikes" else 1.0, kind=kind, heatmap_sigma=1.0)
    grid = CommonGrid(upsampling=4, blur_px=0.5)
    image = output.encode(
        type("Rows", (), {"frame": np.array([0]), "x_nm": np.array([612.0]), "y_nm": np.array([812.0])}),
        count=1,
        height=16,
        width=16,
        pixel_size_nm=100.0,
    )
    x, y = ((math.floor(v * scale / 100) + 0.5) / scale for v in (612.0, 812.0))
    if kind == "heatmap":
        image = torch.from_numpy(gaussian(1.0, x * scale, y * scale, 16 * scale)).float()[None, None]
    found = density(image, output, grid)
    assert found.sum().item() == pytest.approx(1, abs=1e-3)
    assert centre_of(found, 4) == pytest.approx((x, y), abs=0.01)
    expected = gaussian(2.0, 4 * x, 4 * y, 64)
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=0.06 * expected.max())


def test_offsets_of_half_a_pixel_are_taken_out():
    grid = CommonGrid(upsampling=8, blur_px=0.25)
    image = torch.zeros(1, 1, 64, 64)
    image[..., 30, 20] = 1
    plain = centre_of(density(image, SRImage(target_scale=1.0), grid), 8)
    moved = centre_of(density(image, SRImage(target_scale=1.0, offset_px=(0.5, -1.0)), grid), 8)
    assert plain == pytest.approx((20.5 / 8, 30.5 / 8), abs=1e-3)
    assert moved == pytest.approx((21 / 8, 29.5 / 8), abs=1e-3)


def test_maps_are_drawn_where_they_say():
    maps = torch.zeros(1, 8, 6, 7)
    maps[0, :, 2, 3] = torch.tensor([0.7, 0.1, -0.2, 0.4, 0.1, 0.05, 0.05, 0.0])  # p, photons, y, x, sigmas, background
    image = drawn_maps(maps, FLAT, CommonGrid(upsampling=8, blur_px=0.25))
    assert image.sum().item() == pytest.approx(0.7, abs=1e-3)
    assert centre_of(image, 8) == pytest.approx((3.9, 2.3), abs=1e-2)


def test_the_common_grid_is_taken_from_the_contracts():
    fine, coarse = SRImage(upsampling=8, kind="heatmap", heatmap_sigma=2.0), SRImage(upsampling=4)
    assert common_grid(fine, coarse) == CommonGrid(upsampling=4, blur_px=0.25)
    assert common_grid(FLAT, fine) == CommonGrid(upsampling=8, blur_px=0.25)
    assert common_grid(FLAT, EmitterMaps()).upsampling == 4
    with pytest.raises(ValueError, match="8 and 5 times"):
        common_grid(SRImage(upsampling=8), SRImage(upsampling=5))
    with pytest.raises(ValueError, match="half-pixel"):
        common_grid(SRImage(offset_px=(8.0, 0.0)), coarse)
    with pytest.raises(ValueError, match="at least that"):
        common_grid(fine, coarse, blur_px=0.1)
    with pytest.raises(ValueError, match="cannot be brought to 8"):
        density(torch.zeros(1, 1, 16, 16), coarse, CommonGrid(upsampling=8, blur_px=0.25))
