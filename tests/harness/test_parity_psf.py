"""Gaussian and spline PSFs equal DECODE's, and a wrong number is noticed."""

import numpy as np
import pytest

from harness.parity import run_parity

FILES = {"gaussian_psf.npz": 5, "cubic_spline_psf.npz": 20}


def arrays_of(reference, name):
    with np.load(reference / "decode" / name) as data:
        return {key: data[key] for key in data.files}


@pytest.mark.parametrize("name", FILES)
def test_our_psfs_equal_the_originals(reference, name):
    rows = run_parity(reference / "decode" / name)
    assert len(rows) >= FILES[name]
    assert [row for row in rows if row.status != "equal"] == []


COMPARED = [
    *(("gaussian_psf.npz", key) for key in ("frames_2d", "frames_2d_peak", "frames_as", "frames_as_peak")),
    ("gaussian_psf.npz", "sigma_xy_at_z"),
    *(
        ("cubic_spline_psf.npz", key)
        for key in ("frames", "frames_roi11_centred", "rois", "rois_with_bg", "derivative", "fisher", "crlb")
    ),
]


@pytest.mark.parametrize(("name", "key"), COMPARED)
def test_a_wrong_number_is_off(reference, tmp_path, name, key):
    arrays = arrays_of(reference, name)
    index = np.unravel_index(np.abs(arrays[key]).argmax(), arrays[key].shape)
    wrong = arrays[key].copy()
    wrong[index] *= 1.0003
    others = {other for _, other in COMPARED} | {"crlb_roi11"}
    np.savez(tmp_path / name, **{k: v for k, v in arrays.items() if k not in others}, **{key: wrong})
    rows = run_parity(tmp_path)
    assert {row.item.split(" ")[0] for row in rows if row.status != "equal"} == {key}


@pytest.mark.parametrize("name", FILES)
def test_emitters_elsewhere_are_off(reference, tmp_path, name):
    arrays = arrays_of(reference, name)
    arrays = {k: v for k, v in arrays.items() if not k.startswith(("crlb", "fisher", "rois"))}
    for axis, step in ((0, 0.01), (2, 5.0)):
        moved = {**arrays, "xyz": arrays["xyz"] + np.eye(3, dtype=np.float32)[axis] * np.float32(step)}
        np.savez(tmp_path / name, **moved)
        off = {row.item.split(" ")[0] for row in run_parity(tmp_path) if row.status == "off"}
        assert off
        assert axis == 2 or {"frames_2d", "frames"} & off


def test_fewer_arrays_and_other_sizes_are_compared_too(reference, tmp_path):
    arrays = arrays_of(reference, "cubic_spline_psf.npz")
    some = {k: v for k, v in arrays.items() if k in ("coeff", "ref0", "vx_size", "xyz", "phot", "frame_ix")}
    np.savez(tmp_path / "part.npz", **some, frames=arrays["frames"][:3], brand_new=np.zeros(3))
    states = {row.item: row.status for row in run_parity(tmp_path)}
    assert states == {"frames": "equal", "brand_new": "not covered"}
