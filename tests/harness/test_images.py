import math

import numpy as np
import pytest

from harness.scoring.images import least_squares_factor, nmse, nmse_percent, psnr_db, render, snr_db, ssim
from simulators.emitters import Emitters


def slow_render(table, field_nm, pixel, fwhm):
    sigma = fwhm / math.sqrt(8 * math.log(2))
    x, y = (np.arange(0, length, pixel) + pixel / 2 for length in field_nm)
    image = np.zeros((len(y), len(x)))
    for px, py in zip(table.x_nm, table.y_nm, strict=True):
        image += np.exp(-((x - px) ** 2 + (y[:, None] - py) ** 2) / (2 * sigma**2))
    return image


@pytest.mark.parametrize(("pixel", "fwhm"), [(10, 20), (5, 20), (10, 47), (12.5, 12.5)])
def test_render_equals_the_plain_sum(pixel, fwhm):
    rng = np.random.default_rng(0)
    table = Emitters(frame=np.zeros(60), x_nm=rng.uniform(-40, 640, 60), y_nm=rng.uniform(-40, 440, 60))
    image = render(table, field_nm=(600, 400), pixel_nm=pixel, fwhm_nm=fwhm)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, slow_render(table, (600, 400), pixel, fwhm), atol=2e-3)
    assert image.max() > 0.5


def test_rendered_peak_and_width():
    image = render(Emitters(frame=[0], x_nm=[55.0], y_nm=[25.0]), field_nm=(100, 50))
    assert image.shape == (5, 10)
    assert image[2, 5] == 1
    assert image[2, 4] == pytest.approx(0.5)
    assert image[1, 5] == pytest.approx(0.5)


def test_render_of_nothing_and_of_far_away():
    assert not render(Emitters.empty(), field_nm=(100, 50)).any()
    far = Emitters(frame=[0, 0], x_nm=[1e9, -1e9], y_nm=[0.0, 0.0])
    assert not render(far, field_nm=(100, 50)).any()
    with pytest.raises(ValueError, match="larger pixel_nm"):
        render(far, field_nm=(1e9, 1e9))
    with pytest.raises(ValueError, match="must be positive"):
        render(far, field_nm=(100, 0))


def test_nmse_by_hand():
    reference = np.array([[3.0, 4.0]])
    assert nmse_percent([[3.0, 4.0]], reference) == 0
    assert nmse_percent([[0.0, 0.0]], reference) == 100
    assert nmse_percent([[4.0, 3.0]], reference) == pytest.approx(100 * 2 / 25)
    assert nmse_percent([[6.0, 8.0]], reference) == pytest.approx(100)
    assert nmse([[6.0, 8.0]], reference) == pytest.approx(0)
    assert nmse([[4.0, 3.0]], reference) == pytest.approx(1 - (24 / 25) ** 2)  # factor 24/25
    assert nmse([[0.0, 0.0]], reference) == 1
    assert least_squares_factor([[6.0, 8.0]], reference) == pytest.approx(0.5)
    stack = np.array([[[3.0, 4.0]], [[0.0, 0.0]]])
    assert nmse_percent(stack, np.array([reference, reference])) == pytest.approx(50)
    assert math.isnan(nmse_percent([[1.0, 2.0]], [[0.0, 0.0]]))
    assert math.isnan(nmse([[1.0, 2.0]], [[0.0, 0.0]]))
    with pytest.raises(ValueError, match="estimate is"):
        nmse_percent([[1.0]], reference)


def test_nearer_images_score_better():
    rng = np.random.default_rng(0)
    table = Emitters(frame=np.zeros(50), x_nm=rng.uniform(0, 600, 50), y_nm=rng.uniform(0, 600, 50))
    reference = render(table, field_nm=(600, 600))
    images = [render(table.replace(x_nm=table.x_nm + shift), field_nm=(600, 600)) for shift in (2, 6, 15)]
    for metric in (ssim, psnr_db, snr_db):
        values = [metric(image, reference) for image in images]
        assert values[0] > values[1] > values[2]
    errors = [nmse(image, reference) for image in images]
    assert 0 < errors[0] < errors[1] < errors[2]
    assert ssim(reference, reference) == pytest.approx(1)
    assert psnr_db(reference, reference) == snr_db(reference, reference) == math.inf


def test_psnr_and_snr_by_hand():
    reference = np.zeros((12, 12))
    reference[3, 4] = 10.0
    estimate = reference.copy()
    estimate[0, 0] = 1.0
    assert psnr_db(estimate, reference) == pytest.approx(10 * math.log10(100 * 144))
    assert snr_db(estimate, reference) == pytest.approx(20)
    assert snr_db(np.zeros((12, 12)), reference) == 0


def test_empty_references_give_nan_and_small_images_are_refused():
    zero = np.zeros((12, 12))
    assert math.isnan(psnr_db(zero, zero))
    assert math.isnan(ssim(zero, zero))
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(np.zeros((5, 12)), np.zeros((5, 12)))
