import time

import numpy as np
import pytest
import torch
from scipy.special import erf

from simulators import AstigmaticPSF, GaussianPSF

NM = (100.0, 100.0)


def render(
    psf,
    *,
    x,
    y,
    z=0.0,
    photons=1000.0,
    frame=0,
    frames=1,
    shape=(21, 21),
    pixel=NM,
    dtype=torch.float64,
    **more,
):
    x = torch.as_tensor(x, dtype=dtype).reshape(-1)
    full = [torch.as_tensor(v, dtype=dtype).expand(len(x)) for v in (y, z, photons)]
    return psf.expected(
        frame=torch.as_tensor(frame).expand(len(x)),
        x_nm=x,
        y_nm=full[0],
        z_nm=full[1],
        photons=full[2],
        frames=frames,
        shape=shape,
        pixel_size_nm=pixel,
        **more,
    )


def moments(image, pixel=NM):
    image = image.double().numpy()
    y, x = [(np.arange(n) + 0.5) * p for n, p in zip(image.shape, pixel[::-1], strict=True)]
    total = image.sum()
    mx, my = (image.sum(0) * x).sum() / total, (image.sum(1) * y).sum() / total
    return (
        mx,
        my,
        ((image.sum(0) * (x - mx) ** 2).sum() / total) ** 0.5,
        ((image.sum(1) * (y - my) ** 2).sum() / total) ** 0.5,
    )


def test_all_photons_arrive_where_they_should():
    for x, y in [(1050, 1050), (1000, 1100), (1012.3, 987.6)]:
        image = render(GaussianPSF(sigma_nm=115), x=x, y=y)[0]
        assert image.sum().item() == pytest.approx(1000, rel=1e-5)
        mx, my, wx, wy = moments(image)
        assert (mx, my) == pytest.approx((x, y), abs=0.01)
        # Integration over the pixel adds its variance, 100^2 / 12.
        assert (wx, wy) == pytest.approx(((115**2 + 100**2 / 12) ** 0.5,) * 2, rel=1e-4)


def test_a_spot_at_50_50_stands_in_the_middle_of_pixel_0_0():
    image = render(GaussianPSF(sigma_nm=60), x=50, y=50)[0]
    assert image.argmax() == 0
    torch.testing.assert_close(image, image.T)
    wide = render(GaussianPSF(sigma_nm=60), x=1050, y=1050)[0]
    torch.testing.assert_close(wide, wide.flip(0))
    torch.testing.assert_close(wide, wide.flip(1))
    torch.testing.assert_close(image[:8, :8], wide[10:18, 10:18])


def test_x_runs_along_columns_and_pixels_need_not_be_square():
    image = render(GaussianPSF(sigma_nm=90), x=1850, y=250)[0]
    assert divmod(image.argmax().item(), 21) == (2, 18)
    image = render(GaussianPSF(sigma_nm=100), x=1000, y=1000, shape=(20, 30), pixel=(80.0, 120.0))[0]
    mx, my, wx, wy = moments(image, (80.0, 120.0))
    assert (mx, my) == pytest.approx((1000, 1000), abs=0.01)
    assert (wx**2 - 80**2 / 12) ** 0.5 == pytest.approx(100, rel=1e-3)
    assert (wy**2 - 120**2 / 12) ** 0.5 == pytest.approx(100, rel=1e-3)


def test_values_are_the_integral_over_the_pixel():
    image = render(GaussianPSF(sigma_nm=115), x=1234.5, y=876.5)[0].numpy()
    edges = np.arange(22) * 100.0
    across, down = (np.diff(erf((edges - c) / (115 * 2**0.5))) / 2 for c in (1234.5, 876.5))
    np.testing.assert_allclose(image, 1000 * np.outer(down, across), atol=1e-3)


def test_defocus_widens_as_the_square_root_and_keeps_the_photons():
    psf = GaussianPSF(sigma_nm=115, defocus_nm=420)
    for z in (-420.0, 420.0):
        image = render(psf, x=2050, y=2050, z=z, shape=(41, 41))[0]
        assert image.sum().item() == pytest.approx(1000, rel=1e-4)
        assert (moments(image)[2] ** 2 - 100**2 / 12) ** 0.5 == pytest.approx(115 * 2**0.5, rel=1e-3)
    assert psf.widest_nm(420) == pytest.approx(115 * 2**0.5)


def test_astigmatism_is_narrow_along_x_above_focus_and_along_y_below():
    psf = AstigmaticPSF(sigma_nm=115, defocus_nm=400, focal_shift_nm=250)
    for z, narrow in ((250.0, 2), (-250.0, 3)):
        widths = moments(render(psf, x=2050, y=2050, z=z, shape=(41, 41))[0])
        assert (widths[narrow] ** 2 - 100**2 / 12) ** 0.5 == pytest.approx(115, rel=1e-3)
        assert (widths[5 - narrow] ** 2 - 100**2 / 12) ** 0.5 == pytest.approx(115 * (1 + 1.25**2) ** 0.5, rel=1e-2)
    round_ = moments(render(psf, x=2050, y=2050, z=0.0, shape=(41, 41))[0])
    assert round_[2] == pytest.approx(round_[3])


def scatter(rows, frames, shape, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "frame": torch.from_numpy(rng.integers(0, frames, rows)),
        "x": torch.from_numpy(rng.uniform(-500, shape[1] * 100 + 500, rows)),
        "y": torch.from_numpy(rng.uniform(-500, shape[0] * 100 + 500, rows)),
        "z": torch.from_numpy(rng.uniform(-300, 300, rows)),
        "photons": torch.from_numpy(rng.uniform(100, 5000, rows)),
    }


@pytest.mark.parametrize("shape", [(7, 9), (40, 40), (64, 64), (65, 130), (200, 30)])
@pytest.mark.parametrize("rows", [0, 1, 200])
def test_batches_and_tiles_equal_the_sum_of_single_spots(shape, rows):
    spots, frames = scatter(rows, 5, shape), 5
    psf = GaussianPSF(sigma_nm=115, defocus_nm=420)
    image = render(psf, **spots, frames=frames, shape=shape)
    assert image.shape == (frames, *shape)
    plain = np.zeros((frames, *shape))
    for frame, x, y, z, photons in zip(*(v.tolist() for v in spots.values()), strict=True):
        wide = 115 * (1 + (z / 420) ** 2) ** 0.5 * 2**0.5
        down = np.diff(erf((np.arange(shape[0] + 1) * 100 - y) / wide)) / 2
        plain[frame] += photons * np.outer(down, np.diff(erf((np.arange(shape[1] + 1) * 100 - x) / wide)) / 2)
    np.testing.assert_allclose(image.numpy(), plain, atol=0.005)  # 3e-7 of 5,000 photons, a few times over
    single = render(psf, **spots, frames=frames, shape=shape, dtype=torch.float32)
    np.testing.assert_allclose(single.numpy(), plain, atol=0.02)


def test_very_unequal_frames_are_rendered_alike():
    # One frame of 400 emitters among frames of one: the groups that pad together must not mix them up.
    spots = scatter(400, 1, (32, 32))
    lone = {k: v[:9].clone() for k, v in scatter(9, 9, (32, 32), seed=1).items()}
    lone["frame"] = torch.arange(1, 10)
    both = {k: torch.cat([lone[k], spots[k]]) for k in spots}
    psf = GaussianPSF(sigma_nm=115)
    image = render(psf, **both, frames=12, shape=(32, 32))
    torch.testing.assert_close(image[0], render(psf, **spots, shape=(32, 32))[0], atol=1e-6, rtol=1e-6)
    lone["frame"] = lone["frame"] - 1
    torch.testing.assert_close(image[1:10], render(psf, **lone, frames=9, shape=(32, 32)), atol=1e-6, rtol=1e-6)
    assert not image[10:].any()


def test_gradients_are_those_of_finite_differences():
    names = ("x", "y", "z", "photons")
    start = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (432.0, 511.0, 120.0, 900.0)]
    for psf in (GaussianPSF(sigma_nm=115, defocus_nm=420), AstigmaticPSF(sigma_nm=115)):
        assert torch.autograd.gradcheck(
            lambda *v, psf=psf: render(psf, **dict(zip(names, v, strict=True)), shape=(10, 10)),
            start,
            eps=1e-3,
            atol=1e-4,
        )


def test_the_width_may_differ_between_emitters():
    image = render(
        GaussianPSF(sigma_nm=115),
        x=[2050.0, 2050.0],
        y=2050.0,
        frame=torch.tensor([0, 1]),
        frames=2,
        shape=(41, 41),
        sigma_nm=torch.tensor([100.0, 135.0]),
    )
    for frame, sigma in enumerate((100, 135)):
        assert (moments(image[frame])[2] ** 2 - 100**2 / 12) ** 0.5 == pytest.approx(sigma, rel=1e-3)


def test_a_range_of_widths_must_be_resolved():
    psf = GaussianPSF.model_validate({"sigma_nm": {"low": 100, "high": 135}})
    with pytest.raises(ValueError, match="sigma_nm of this PSF is a range, 100 to 135 nm"):
        render(psf, x=100, y=100)


def test_cost_grows_with_the_emitters_not_with_frames_times_emitters():
    # 40 times the frames, same emitters: far below 40 times the work; 8 times both: far below 64.
    psf, shape = GaussianPSF(sigma_nm=115), (64, 64)

    def busy(rows, frames):
        spots = scatter(rows, frames, shape)
        best = np.inf
        for _ in range(5):
            start = time.process_time()
            render(psf, **spots, frames=frames, shape=shape, dtype=torch.float32)
            best = min(best, time.process_time() - start)
        return best

    base = busy(4000, 40)
    assert busy(32_000, 320) < 24 * base
    assert busy(4000, 1600) < 15 * base  # 1,600 empty frames have to be cleared all the same


@pytest.mark.parametrize("shape", [(40, 40), (33, 150)])
@pytest.mark.parametrize(
    "psf", [GaussianPSF(sigma_nm=115), GaussianPSF(sigma_nm=130, defocus_nm=300), AstigmaticPSF(sigma_nm=120)]
)
def test_compiled_frames_are_those_of_the_tensor_operations(psf, shape):
    rng = np.random.default_rng(1)
    n = 3000
    places = {
        "x_nm": rng.uniform(-1500, 100 * shape[1] + 1500, n),
        "y_nm": rng.uniform(-1500, 100 * shape[0] + 1500, n),
        "z_nm": rng.uniform(-600, 600, n),
        "photons": rng.uniform(0, 2000, n),
    }
    columns = {name: torch.from_numpy(value).float() for name, value in places.items()}
    rest = {"frame": torch.from_numpy(rng.integers(0, 7, n)), "frames": 7, "shape": shape, "pixel_size_nm": NM}
    compiled = psf.expected(**columns, **rest)
    columns["x_nm"].requires_grad_()  # takes the other way
    tensors = psf.expected(**columns, **rest).detach()
    assert compiled.dtype == torch.float32
    assert compiled.shape == (7, *shape)
    assert (compiled - tensors).abs().max() < 1e-6 * tensors.max()
    doubled = {name: column.detach().double() for name, column in columns.items()}
    exact = psf.expected(**doubled, **rest)
    assert (compiled - exact).abs().max() < 1e-5 * exact.max()  # places are divided by the pixel in float32


@pytest.mark.parametrize("frame", [-1, 3])
def test_frames_that_are_not_there_are_refused(frame):
    with pytest.raises(IndexError, match=f"frames {min(frame, 0)} to {max(frame, 0)}; there are 0 to 2"):
        render(GaussianPSF(sigma_nm=115), x=[50, 60], y=50, frame=[0, frame], frames=3, dtype=torch.float32)
