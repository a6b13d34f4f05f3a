"""The spline PSF against the function it was made of, its own smoothness, files, recipes."""

import h5py
import numpy as np
import pytest
import scipy.io
import torch
import yaml
from scipy.special import erf

from simulators import AstigmaticPSF, Camera, load_recipe, parse_recipe, recipe_hash, simulate
from simulators.crlb import crlb
from simulators.spline import SplinePSF, SplineTable, read_spline, save_spline, smap_table, table_from_samples

NM = (100.0, 100.0)
DZ = 50.0
SOURCE = AstigmaticPSF(sigma_nm=120)


def astigmatic_table(*, oversampling=2, pixels=21, reach=600.0):
    """The astigmatic Gaussian on a grid, pixel-integrated."""
    z = np.arange(-reach, reach + 1, DZ)
    count = pixels * oversampling
    centre = (count - 1) / 2
    place = (np.arange(count) - centre) / oversampling * NM[0]
    wide_x, wide_y = (w.numpy()[:, None] * 2**0.5 for w in SOURCE.widths(torch.from_numpy(z)))
    across, down = ((erf((place + 50) / w) - erf((place - 50) / w)) / 2 for w in (wide_x, wide_y))
    return table_from_samples(
        down[:, :, None] * across[:, None, :],
        origin=(centre, centre, reach / DZ),
        dz_nm=DZ,
        oversampling=oversampling,
        pixel_size_nm=NM,
        notes={"made": "here"},
    )


@pytest.fixture(scope="module")
def psf():
    return SplinePSF.of(astigmatic_table())


def places(n, *, seed=0, low=700.0, high=1400.0, depth=550.0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.uniform(*span, n)) for span in ((low, high), (low, high), (-depth, depth))]


def test_the_spline_is_the_function_it_was_made_of(psf):
    at = places(100)
    ours = psf.values_and_derivatives(*at, shape=(21, 21), pixel_size_nm=NM)
    theirs = SOURCE.values_and_derivatives(*at, shape=(21, 21), pixel_size_nm=NM)
    for name, tolerance in (("image", 5e-4), ("d_x", 5e-3), ("d_y", 5e-3), ("d_z", 2e-3)):
        one, other = getattr(ours, name), getattr(theirs, name)
        assert (one - other).abs().max() < tolerance * other.abs().max(), name
    assert psf.sigma_nm == pytest.approx(140, rel=0.05)  # widest at its best: 120 * 1.16, with the pixel
    bounds = [
        crlb(
            p,
            x_nm=at[0],
            y_nm=at[1],
            z_nm=at[2],
            photons=0 * at[0] + 1000,
            background=0 * at[0] + 10,
            camera=Camera.ideal(100),
            shape=(21, 21),
        )
        for p in (psf, SOURCE)
    ]
    for name in ("x_sigma_nm", "y_sigma_nm", "z_sigma_nm", "photons_sigma"):
        torch.testing.assert_close(getattr(bounds[0], name), getattr(bounds[1], name), rtol=5e-3, atol=0)


@pytest.mark.parametrize("oversampling", [1, 3])
def test_derivatives_are_those_of_finite_differences_and_of_autograd(oversampling):
    psf = SplinePSF.of(astigmatic_table(oversampling=oversampling, pixels=9))
    at = places(6, low=300, high=700)

    def unit(x, y, z):
        return psf.values_and_derivatives(x, y, z, shape=(10, 12), pixel_size_nm=NM)

    ours = unit(*at)
    jacobian = torch.autograd.functional.jacobian(lambda *v: unit(*v).image, tuple(at))
    for number, (analytic, auto) in enumerate(zip(ours[1:], jacobian, strict=True)):
        own = torch.stack([auto[n, :, :, n] for n in range(6)])
        torch.testing.assert_close(analytic, own, atol=1e-14, rtol=1e-9)
        step = [1e-3 * (axis == number) for axis in range(3)]
        up, down = (unit(*(v + sign * d for v, d in zip(at, step, strict=True))).image for sign in (1, -1))
        numeric = (up - down) / 2e-3
        # At the table's edge the light ends, and with it the difference quotient.
        inner = (slice(None), slice(3, 7), slice(3, 7))
        torch.testing.assert_close(analytic[inner], numeric[inner], atol=1e-9, rtol=1e-5)


def test_drawing_is_the_sum_of_single_spots_also_beyond_the_border(psf, monkeypatch):
    rng = np.random.default_rng(3)
    n, frames, shape = 300, 4, (23, 41)
    x, y = (torch.from_numpy(rng.uniform(-2500, 100 * size + 2500, n)) for size in shape[::-1])
    z, light = (torch.from_numpy(rng.uniform(*span, n)) for span in ((-590, 590), (100, 5000)))
    frame = torch.from_numpy(rng.integers(0, frames, n))

    def drawn(dtype):
        return psf.expected(
            frame=frame,
            x_nm=x.to(dtype),
            y_nm=y.to(dtype),
            z_nm=z.to(dtype),
            photons=light.to(dtype),
            frames=frames,
            shape=shape,
            pixel_size_nm=NM,
        )

    spots = psf.values_and_derivatives(x, y, z, shape=shape, pixel_size_nm=NM).image * light[:, None, None]
    plain = torch.zeros(frames, *shape, dtype=torch.float64).index_add_(0, frame, spots)
    torch.testing.assert_close(drawn(torch.float64), plain, atol=1e-9, rtol=0)
    assert drawn(torch.float32).dtype == torch.float32
    torch.testing.assert_close(drawn(torch.float32).double(), plain, atol=0.05, rtol=0)
    monkeypatch.setattr("simulators.spline._PIECE", 21 * 21 * 7)
    torch.testing.assert_close(drawn(torch.float64), plain, atol=1e-9, rtol=0)
    none = x[:0]
    empty = psf.expected(
        frame=frame[:0], x_nm=none, y_nm=none, z_nm=none, photons=none, frames=2, shape=(5, 6), pixel_size_nm=NM
    )
    assert empty.shape == (2, 5, 6)
    assert not empty.any()


def test_drawing_is_differentiable(psf):
    start = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (410.0, 380.0, 120.0, 900.0)]

    def drawn(x, y, z, photons):
        return psf.expected(
            frame=torch.zeros(1, dtype=torch.long),
            x_nm=x,
            y_nm=y,
            z_nm=z,
            photons=photons,
            frames=1,
            shape=(8, 7),
            pixel_size_nm=NM,
        )

    assert torch.autograd.gradcheck(drawn, start, eps=1e-3, atol=1e-4)
    none = [column[:0] for column in start[:3]]
    assert psf.values_and_derivatives(*none, shape=(8, 7), pixel_size_nm=NM).image.shape == (0, 8, 7)


def test_beyond_the_table_z_is_refused_or_held_never_a_sawtooth(psf):
    at = torch.full((7,), 1050.0, dtype=torch.float64)
    z = torch.tensor([-2000.0, -640.0, -600.0, 0.0, 600.0, 625.0, 1300.0], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"z -2000 to 1300 nm, the PSF covers -600 to 600 nm.*clamp"):
        psf.values_and_derivatives(at, at, z, shape=(21, 21), pixel_size_nm=NM)
    with pytest.raises(ValueError, match="z_nm is nan"):
        psf.values_and_derivatives(at, at, z * torch.nan, shape=(21, 21), pixel_size_nm=NM)
    held = SplinePSF.of(psf.table, beyond="clamp").values_and_derivatives(at, at, z, shape=(21, 21), pixel_size_nm=NM)
    for outside, edge in ((0, 2), (1, 2), (5, 4), (6, 4)):
        torch.testing.assert_close(held.image[outside], held.image[edge], atol=1e-12, rtol=0)
        assert not held.d_z[outside].any()
        assert held.d_x[outside].any()
    assert held.d_z[4].any()


def test_a_camera_with_other_pixels_is_refused(psf):
    at = places(1)
    with pytest.raises(ValueError, match=r"pixels are 110 x 110 nm but this PSF was made for 100 x 100 nm"):
        psf.values_and_derivatives(*at, shape=(9, 9), pixel_size_nm=(110, 110))


def test_sizes_that_are_no_multiple_of_the_oversampling_are_filled_up():
    table = astigmatic_table(oversampling=3, pixels=9)
    assert table.coefficients.shape[4:] == (27, 27)  # 27 samples hold 26 voxels
    assert not table.coefficients[..., 26, :].any()


# ------------------------------------------------------------------------------------------------ files


def test_files_come_back_as_they_went(tmp_path):
    table = astigmatic_table()
    save_spline(table, tmp_path / "psf.npz")
    back, digest = read_spline(tmp_path / "psf.npz")
    assert np.array_equal(back.coefficients, table.coefficients)
    assert (back.origin, back.dz_nm, back.oversampling) == (table.origin, table.dz_nm, 2)
    assert (back.pixel_size_nm, back.notes) == (NM, {"made": "here"})
    assert len(digest) == 64


def smap_array(seed=0, size=(7, 6, 5)):
    return np.random.default_rng(seed).normal(size=(*size, 64)).astype(np.float32)


def smap_value(coeff, row, column, layer):
    """The spline by the definition: voxel, then the sum over all powers."""
    (i, di), (j, dj), (k, dk) = ((int(v), v - int(v)) for v in (row, column, layer))
    powers = [dk**c * dj**b * di**a for c in range(4) for b in range(4) for a in range(4)]
    return float(np.dot(powers, coeff[i, j, k].astype(np.float64)))


def test_smap_coefficients_mean_what_their_definition_says():
    coeff = smap_array()
    psf = SplinePSF.of(smap_table(coeff, origin_px=(3, 2), z0=2.0, dz_nm=40, source="test"))
    # The emitter in the middle of pixel (row 4, column 5), moved by (0.3 rows, 0.2 columns), 30 nm up.
    y, x, z = (torch.tensor([v], dtype=torch.float64) for v in (480.0, 570.0, 30.0))
    image = psf.values_and_derivatives(x, y, z, shape=(9, 10), pixel_size_nm=NM).image[0]
    for row, column in ((3, 5), (5, 4), (4, 6)):
        theirs = smap_value(coeff, row - 4.3 + 3, column - 5.2 + 2, 2.0 + 30 / 40)
        assert image[row, column].item() == pytest.approx(theirs, rel=1e-5)


def write_v5(path, coeff, **more):
    fields = {"coeff": coeff, "x0": 4.0, "z0": 2.0, "dz": 40.0, **more}
    scipy.io.savemat(path, {"SXY": {"cspline": fields}, "other": np.arange(3)}, do_compression=True)


def write_v73(path, coeff, *, cell=False):
    with h5py.File(path, "w") as file:
        spline = file.create_group("SXY/cspline")
        for name, value in (("x0", 4.0), ("z0", 2.0), ("dz", 40.0)):
            spline[name] = np.array([[value]])
        if cell:
            file["#refs#/a"] = coeff.T
            spline["coeff"] = np.array([[file["#refs#/a"].ref]], dtype=h5py.ref_dtype)
        else:
            spline["coeff"] = coeff.T


@pytest.mark.parametrize("write", [write_v5, write_v73, lambda p, c: write_v73(p, c, cell=True)])
def test_smap_calibrations_of_either_matlab_format_are_read(tmp_path, write):
    coeff = smap_array(size=(6, 6, 5))
    write(tmp_path / "bead_3dcal.mat", coeff)
    table, _ = read_spline(tmp_path / "bead_3dcal.mat")
    same = smap_table(coeff, origin_px=(3, 3), z0=2.0, dz_nm=40, source="")
    assert np.array_equal(table.coefficients, same.coefficients)
    assert (table.origin, table.dz_nm, table.pixel_size_nm) == ((3, 3, 2), 40, None)


def test_a_cell_in_a_matlab_5_file_is_opened(tmp_path):
    coeff, cell = smap_array(size=(6, 6, 5)), np.empty((1, 1), dtype=object)
    cell[0, 0] = coeff
    write_v5(tmp_path / "cell.mat", cell)
    assert read_spline(tmp_path / "cell.mat")[0].coefficients.shape == (5, 4, 4, 4, 6, 6)


def test_hostile_and_foreign_files_are_refused(tmp_path):
    mark = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return mark.touch, ()

    np.savez(tmp_path / "objects.npz", format="smlm-zoo spline 1", coefficients=np.array([Bomb()], dtype=object))
    np.savez(tmp_path / "plain.npz", a=np.zeros(3))
    write_v5(tmp_path / "shape.mat", np.zeros((3, 3, 64)))
    write_v5(tmp_path / "text.mat", np.zeros((3, 3, 3, 64)), x0="one")
    write_v5(tmp_path / "nan.mat", np.full((3, 3, 3, 64), np.nan))
    scipy.io.savemat(tmp_path / "nothing.mat", {"SXY": np.zeros(3)})
    whole = (tmp_path / "nan.mat").read_bytes()
    (tmp_path / "half.mat").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.txt").write_text("hello")
    with h5py.File(tmp_path / "link.mat", "w") as file:
        file["SXY"] = h5py.ExternalLink("secret.h5", "/")
    with h5py.File(tmp_path / "wide.mat", "w") as file:
        spline = file.create_group("SXY/cspline")
        spline.create_dataset("coeff", (64, 2000, 2000, 2000), "f4")  # nothing of it is stored
    expected = {
        "objects.npz": "pickle|Object",
        "plain.npz": "no entry format",
        "shape.mat": r"\(3, 3, 64\)",
        "text.mat": "x0 is missing or no single number",
        "nan.mat": "not finite",
        "nothing.mat": "holds no SXY.cspline.coeff",
        "half.mat": "damaged",
        "text.txt": "neither an npz of this program nor a MATLAB file",
        "link.mat": "holds no SXY.cspline.coeff",
        "wide.mat": "at most",
        "absent.npz": "no PSF file",
    }
    for name, message in expected.items():
        with pytest.raises(ValueError, match=message):
            read_spline(tmp_path / name)
    assert not mark.exists()


def test_a_compressed_matlab_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("simulators._spline_files._MOST_UNPACKED", 1 << 20)
    scipy.io.savemat(tmp_path / "bomb.mat", {"SXY": np.zeros((1024, 1024))}, do_compression=True)
    assert (tmp_path / "bomb.mat").stat().st_size < 1 << 15
    with pytest.raises(ValueError, match="unpack to more than"):
        read_spline(tmp_path / "bomb.mat")


def test_tables_that_cannot_be_are_refused():
    good = np.zeros((3, 4, 4, 4, 5, 5), np.float32)
    for change, message in (
        ({"coefficients": good[0]}, "shape"),
        ({"dz_nm": 0.0}, "above 0"),
        ({"oversampling": 0}, "oversampling"),
        ({"origin": (np.nan, 0, 0)}, "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            SplineTable(**{"coefficients": good, "origin": (1, 1, 1), "dz_nm": 10.0, **change})
    with pytest.raises(ValueError, match="at least 4"):
        table_from_samples(np.zeros((3, 9, 9)), origin=(4, 4, 1), dz_nm=10)


# ------------------------------------------------------------------------------------------------ recipes


def spline_recipe(folder, **psf):
    base = load_recipe("tubes-2d-hd").with_(frames=70, size=40, z_range_nm=(-500, 500), camera=Camera.ideal(100))
    save_spline(astigmatic_table(), folder / "psf.npz")
    (folder / "mine.yaml").write_text(
        yaml.safe_dump({**base.model_dump(mode="json"), "psf": {"kind": "spline", "file": "psf.npz", **psf}})
    )
    return load_recipe(folder / "mine.yaml")


def test_recipes_name_the_file_and_movies_follow_it(tmp_path):
    recipe = spline_recipe(tmp_path)
    movie = simulate(recipe, np.random.default_rng(1))
    rows = movie.emitters
    light = (
        recipe.psf.values_and_derivatives(
            *(torch.from_numpy(v) for v in (rows.x_nm, rows.y_nm, rows.z_nm)), shape=(40, 40), pixel_size_nm=NM
        ).image
        * torch.from_numpy(rows.photons)[:, None, None]
    )
    drawn = torch.zeros(70, 40, 40, dtype=torch.float64).index_add_(0, torch.from_numpy(rows.frame), light).numpy()
    inner = (slice(None), slice(10, 30), slice(10, 30))
    slope = np.polyfit(drawn[inner].ravel(), movie.photons()[inner].ravel(), 1)[0]
    assert slope == pytest.approx(1, abs=0.02)
    again = parse_recipe(yaml.safe_load(recipe.to_yaml()), source="again")
    assert np.array_equal(simulate(again, np.random.default_rng(1)).frames, movie.frames)


def test_the_hash_is_the_files_content_not_its_place(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = spline_recipe(tmp_path / "a"), spline_recipe(tmp_path / "b")
    assert one.psf.file != other.psf.file
    assert recipe_hash(one) == recipe_hash(other)
    with pytest.raises(ValueError, match="is not the file that the recipe means"):
        spline_recipe(tmp_path / "a", sha256="0" * 64)
    with pytest.raises(ValueError, match=r"psf: .*no PSF file"):
        spline_recipe(tmp_path / "a", file="lost.npz")
    with pytest.raises(ValueError, match=r"z .* the PSF covers -600 to 600 nm"):
        simulate(one.with_(z_range_nm=(-700, 700), frames=5), np.random.default_rng(1))


def compiled_and_tensors(psf, *, n=2000, shape=(30, 37), frames=5):
    rng = np.random.default_rng(3)
    columns = {
        "x_nm": torch.from_numpy(rng.uniform(-1500, 100 * shape[1] + 1500, n)).float(),
        "y_nm": torch.from_numpy(rng.uniform(-1500, 100 * shape[0] + 1500, n)).float(),
        "z_nm": torch.from_numpy(rng.uniform(-600, 600, n)).float(),
        "photons": torch.from_numpy(rng.uniform(0, 2000, n)).float(),
    }
    rest = {
        "frame": torch.from_numpy(rng.integers(0, frames, n)),
        "frames": frames,
        "shape": shape,
        "pixel_size_nm": NM,
    }
    compiled = psf.expected(**columns, **rest)
    columns["x_nm"].requires_grad_()  # takes the other way
    return compiled, psf.expected(**columns, **rest).detach()


@pytest.mark.parametrize(("oversampling", "pixels"), [(1, 21), (2, 21), (2, 40), (3, 17)])
def test_compiled_spots_are_those_of_the_tensor_operations(oversampling, pixels):
    psf = SplinePSF.of(astigmatic_table(oversampling=oversampling, pixels=pixels))
    knots, voxels = psf.table.knots
    assert knots.shape[:3] == (len(psf.table.coefficients) + 3, oversampling, oversampling)
    assert voxels == (pixels * oversampling - 1,) * 2
    compiled, tensors = compiled_and_tensors(psf)
    assert compiled.dtype == torch.float32
    assert compiled.shape == tensors.shape == (5, 30, 37)
    assert (compiled - tensors).abs().max() < 2e-6 * tensors.max()


def test_tables_with_kinks_are_drawn_as_they_are():
    smooth = astigmatic_table()
    coefficients = smooth.coefficients.copy()
    coefficients[3] *= 1.01  # the light jumps from layer to layer
    table = SplineTable(
        coefficients=coefficients, origin=smooth.origin, dz_nm=DZ, oversampling=2, pixel_size_nm=NM, notes={}
    )
    assert smooth.knots is not None
    assert table.knots is None
    compiled, tensors = compiled_and_tensors(SplinePSF.of(table))
    assert (compiled - tensors).abs().max() < 2e-6 * tensors.max()
    other, _ = compiled_and_tensors(SplinePSF.of(smooth))
    assert (compiled - other).abs().max() > 1e-4 * tensors.max()


def test_emitters_of_other_frames_or_of_no_place_are_refused(psf):
    one = {name: torch.tensor([500.0]) for name in ("x_nm", "y_nm", "photons")}
    rest = {"frames": 2, "shape": (10, 10), "pixel_size_nm": NM}
    kinked = SplineTable(
        coefficients=psf.table.coefficients**2, origin=psf.table.origin, dz_nm=DZ, oversampling=2, pixel_size_nm=NM
    )
    for drawn in (psf, SplinePSF.of(kinked)):
        with pytest.raises(IndexError, match="frames 2 to 2"):
            drawn.expected(**one, z_nm=torch.zeros(1), frame=torch.tensor([2]), **rest)
    clamped = SplinePSF.of(astigmatic_table(oversampling=1), beyond="clamp")
    for name, value in (("z_nm", torch.nan), ("x_nm", torch.nan), ("y_nm", torch.inf)):
        with pytest.raises(ValueError, match="nan or infinite"):
            clamped.expected(
                **{**one, "z_nm": torch.zeros(1), name: torch.tensor([value])}, frame=torch.tensor([0]), **rest
            )
