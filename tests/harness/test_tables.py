import math
import os

import numpy as np
import pytest

from harness.io import OutputError, TableError, open_movie, read_table, write_table
from harness.io.tables import FORMATS, as_emitters, as_localizations
from simulators.emitters import Emitters, Localizations


@pytest.fixture
def emitters():
    """Asymmetric places: near a corner, off the diagonal, x below half a pixel; the first five frames are
    empty.
    """
    return Emitters(
        frame=[5, 5, 9],
        x_nm=[31.25, 1234.5678901234567, 6399.999],
        y_nm=[4750.1, 12.345, 0.1 + 0.2],
        z_nm=[-120.5, 0.0, 333.3],
        photons=[1234.5, 4000.0, 987.25],
        background=[10.0, 11.5, 12.25],
        id=[7, 3, 7],
    )


@pytest.fixture
def localizations(emitters):
    columns = {name: getattr(emitters, name) for name in Emitters.columns()}
    return Localizations(
        **columns,
        probability=[0.5, 1.0, math.nan],
        x_sigma_nm=[5.0, 6.0, 7.5],
        y_sigma_nm=[5.0, 6.0, 7.5],
        z_sigma_nm=[20.0, 21.0, 22.0],
        photons_sigma=[30.0, 31.0, 32.0],
    )


def same(a, b, *, only=None):
    assert type(a) is type(b)
    for name in only or type(a).columns():
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_own_formats_are_exact(suffix, emitters, localizations, tmp_path):
    for table in (emitters, localizations, Emitters.empty(), Localizations.empty()):
        path = tmp_path / f"table{suffix}"
        write_table(table, path)
        same(read_table(path), table)
    assert os.listdir(tmp_path) == [f"table{suffix}"]


def test_own_header_names_the_units(emitters, tmp_path):
    write_table(emitters, tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == "frame,x_nm,y_nm,z_nm,photons,background,id"
    assert lines[1].startswith("5,31.25,4750.1,-120.5,1234.5,10,7")


def test_thunderstorm_round_trip(localizations, emitters, tmp_path):
    path = tmp_path / "t.csv"
    write_table(localizations, path, format="thunderstorm")
    header = path.read_text().splitlines()[0]
    assert header.startswith('"id","frame","x [nm]","y [nm]","z [nm]","sigma1 [nm]"')
    assert path.read_text().splitlines()[1].split(",")[1] == "6"
    kept = (
        "frame",
        "x_nm",
        "y_nm",
        "z_nm",
        "photons",
        "background",
        "id",
        "x_sigma_nm",
        "y_sigma_nm",
        "z_sigma_nm",
    )
    same(read_table(path), localizations, only=kept)
    flat = emitters.replace(z_nm=[0.0, 0, 0], photons=[math.nan] * 3)
    write_table(flat, path, format="thunderstorm")
    expected = "id,frame,x [nm],y [nm],sigma [nm],intensity [photon],offset [photon],bkgstd [photon]"
    expected += ",uncertainty_xy [nm]"
    assert path.read_text().splitlines()[0].replace('"', "") == expected
    back = read_table(path)
    same(as_emitters(back), flat)
    assert np.isnan(back.x_sigma_nm).all()


def test_challenge_round_trip(emitters, tmp_path):
    path = tmp_path / "t.csv"
    write_table(emitters, path, format="challenge")
    lines = path.read_text().splitlines()
    assert lines[0] == "Ground-truth,frame,xnano,ynano,znano,intensity"
    assert lines[1].split(",")[:2] == ["7", "6"]
    same(read_table(path), emitters, only=("frame", "x_nm", "y_nm", "z_nm", "photons", "id"))


THUNDERSTORM = {
    "quoted": '"id","frame","x [nm]","y [nm]","intensity [photon]","uncertainty_xy [nm]"\n1,3,100.5,200.25,900,12\n',
    "old-label": "id,frame,x [nm],y [nm],sigma [nm],intensity [photon],uncertainty [nm]\n"
    "1.0,3.0,100.5,200.25,120,900,12\n",
    "bom-crlf": '\ufeff"frame","y [nm]","x [nm]","intensity [photons]","uncertainty [nm]"\r\n3,200.25,100.5,900,12\r\n',
    "semicolon-comma": "frame;x [nm];y [nm];intensity [photon];uncertainty_xy [nm]\n3;100,5;200,25;900,0;12,0\n",
    "tabs-um": "Frame\tX [um]\tY [um]\tintensity [photon]\tuncertainty_xy [um]\n3\t0.1005\t0.20025\t900\t0.012\n",
}


@pytest.mark.parametrize("variant", THUNDERSTORM)
def test_thunderstorm_as_others_write_it(variant, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(THUNDERSTORM[variant].encode())
    table = read_table(path)
    assert isinstance(table, Localizations)
    assert table.frame.tolist() == [2]
    np.testing.assert_allclose([table.x_nm[0], table.y_nm[0], table.photons[0]], [100.5, 200.25, 900])
    np.testing.assert_allclose([table.x_sigma_nm[0], table.y_sigma_nm[0]], [12, 12])


def test_thunderstorm_intensity_that_is_not_photons_stays_unknown(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("frame,x [nm],y [nm],intensity [au]\n1,2,3,4\n")
    assert np.isnan(read_table(path).photons).all()


def test_pixels_need_the_pixel_size(tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text("frame,x [px],y [px]\n1,2.5,3\n")
    with pytest.raises(TableError, match=r"cells\.csv: column 'x \[px\]' is in pixels; give pixel_size_nm"):
        read_table(path)
    table = read_table(path, pixel_size_nm=(100, 160))
    assert (table.x_nm[0], table.y_nm[0]) == (250, 480)
    assert read_table(path, pixel_size_nm=100).y_nm[0] == 300


def test_challenge_headers_with_blanks(tmp_path):
    path = tmp_path / "activations.csv"
    path.write_text(
        "Ground-truth, frame, xnano, ynano, znano, intensity \n11, 1, 50.0, 60.0, -5.0, 700.5\n12,4,1,2,3,\n"
    )
    table = read_table(path)
    assert type(table) is Emitters
    assert table.frame.tolist() == [0, 3]
    assert (table.x_nm[0], table.y_nm[0], table.z_nm[0], table.photons[0]) == (50, 60, -5, 700.5)
    assert math.isnan(table.photons[1])
    assert table.id.tolist() == [11, 12]


@pytest.mark.parametrize(("row", "photons"), [("3,50,60,-5,700", 700), ("9,3,50,60,-5,700", 700)])
def test_challenge_without_header(row, photons, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(f"{row}\n{row}\n")
    table = read_table(path)
    assert isinstance(table, Localizations)
    assert table.frame.tolist() == [2, 2]
    assert (table.x_nm[0], table.y_nm[0], table.z_nm[0], table.photons[0]) == (50, 60, -5, photons)


def test_all_photons_unknown(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Ground-truth,frame,xnano,ynano,znano,intensity\n1,1,5,6,0.0,\n2,1,5,6,0.0,nan\n")
    assert np.isnan(read_table(path).photons).all()


def test_kind_converts(tmp_path, emitters):
    path = tmp_path / "t.csv"
    path.write_text("frame,x [nm],y [nm]\n1,2,3\n")
    truth = read_table(path, kind="emitters")
    assert type(truth) is Emitters
    assert truth.z_nm.tolist() == [0]
    write_table(emitters, path)
    found = read_table(path, kind="localizations")
    assert isinstance(found, Localizations)
    same(as_emitters(as_localizations(emitters)), emitters)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b,c\n1,2,3\n", "format is not known; found columns 'a', 'b', 'c'"),
        ("1,2,3\n", "found 3 columns without a header"),
        ("x [nm],y [nm]\n1,2\n", "column 'frame' is missing; found 'x \\[nm\\]', 'y \\[nm\\]'"),
        ("frame,x_nm,y_nm\n1,2,abc\n", "column 'y_nm' holds 'abc' in line 2; expected a number"),
        ("frame,x_nm,y_nm\n1,2,3\n1.5,2,3\n", "frame is 1.5 in line 3"),
        ("frame,x_nm,y_nm\n1,2,3\n1,,3\n", "x_nm is nan in row 1"),
        ("frame,x_nm,y_nm\n1,2,3\n1,2\n", "line 3 has 2 cells, expected 3"),
        ("frame,xnano,ynano\n0,2,3\n", "frame is 0 in line 2, but this format counts from 1"),
        ("frame,x_nm,y_nm,x_nm\n0,2,3,4\n", "'x_nm' occurs more than once"),
        ("frame,x [furlong],y [nm]\n1,2,3\n", "unit 'furlong'"),
        ("# DECODE EmitterSet\n# {}\n", "DECODE"),
        ("frame,x_nm,y_nm\n1\x00,2,3\n", "binary"),
    ],
)
def test_errors_name_file_and_finding(text, message, tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text(text)
    with pytest.raises(TableError, match=rf"cells\.csv.*{message}"):
        read_table(path)


def test_other_errors(emitters, tmp_path):
    with pytest.raises(FileNotFoundError, match="no table at"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(TableError, match="is a folder"):
        read_table(tmp_path)
    with pytest.raises(TableError, match="no table format named 'excel'"):
        write_table(emitters, tmp_path / "t.csv", format="excel")
    with pytest.raises(OutputError, match="there is no folder"):
        write_table(emitters, tmp_path / "no" / "t.csv")
    (tmp_path / "t.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 100)
    with pytest.raises(TableError, match="HDF5"):
        read_table(tmp_path / "t.h5")
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + b"0" * 100)
    with pytest.raises(TableError, match="cannot be read as Parquet"):
        read_table(tmp_path / "t.parquet")
    some_z = as_localizations(emitters).replace(z_nm=[1.0, math.nan, 2.0])
    with pytest.raises(TableError, match="1 of 3 rows have no z_nm"):
        write_table(some_z, tmp_path / "t.csv", format="thunderstorm")
    assert not (tmp_path / "t.csv").exists()


def test_every_format_names_its_convention():
    assert set(FORMATS) == {"csv", "parquet", "thunderstorm", "challenge", "picasso"}
    assert all("corner" in convention for convention in FORMATS.values())


def test_real_ground_truths(data):
    tables = sorted(data.glob("*/*gt.csv"))
    assert len(tables) >= 9
    for path in tables:
        table = read_table(path)
        assert type(table) is Emitters
        assert len(table) > 50
        assert table.frame.min() == 0
        frames = path.with_name(path.name.replace("gt.csv", "frames.tif"))
        if frames.exists():
            with open_movie(frames) as movie:
                assert table.frame.max() < len(movie)


def test_ground_truth_lies_on_the_spots(data):
    """Frames count from 1 and positions from the corner in the file: only so do spots and emitters
    coincide.
    """
    folder = data / "nairr_2dgauss_LD"
    truth = read_table(folder / "validate_gt.csv")
    with open_movie(folder / "validate_frames.tif") as movie:
        frames = movie.read(0, len(movie)).astype(float)

    def brightness(frame_shift, dx, dy):
        column = np.floor((truth.x_nm + dx) / 100).astype(int)
        row = np.floor((truth.y_nm + dy) / 100).astype(int)
        frame = truth.frame + frame_shift
        inside = (column >= 0) & (column < 32) & (row >= 0) & (row < 32) & (frame >= 0) & (frame < len(frames))
        return frames[frame[inside], row[inside], column[inside]].mean()

    right = brightness(0, 0, 0)
    assert all(
        right > brightness(*wrong)
        for wrong in [(1, 0, 0), (-1, 0, 0), (0, 50, 0), (0, -50, 0), (0, 0, 50), (0, 0, -50)]
    )


def picasso_file(path, columns, *, pixel=None):
    """As the program writes it: one compound dataset, and a YAML of several documents beside it."""
    h5py = pytest.importorskip("h5py")
    rows = np.zeros(len(columns["frame"]), dtype=[(n, "u4" if n == "frame" else "f4") for n in columns])
    for name, values in columns.items():
        rows[name] = values
    with h5py.File(path, "w") as file:
        file["locs"] = rows
    if pixel is not None:
        path.with_suffix(".yaml").write_text(f"Width: 64\nPixelsize: 1\n---\nGenerated by: test\nPixelsize: {pixel}\n")
    return path


def test_picasso_tables_are_read_in_nm_from_the_corner(tmp_path):
    columns = {
        "frame": [5, 9], "x": [0.0, 12.25], "y": [3.0, 1.5], "photons": [900.0, 1000.0], "bg": [11.0, 12.0],
        "lpx": [0.1, 0.2], "lpy": [0.15, 0.25], "z": [-120.0, 40.0], "sx": [1.0, 1.1],
    }  # fmt: skip
    table = read_table(picasso_file(tmp_path / "movie_locs.hdf5", columns, pixel=160))
    assert isinstance(table, Localizations)
    assert table.frame.tolist() == [5, 9]  # counted from 0, the first frames are empty
    np.testing.assert_allclose(table.x_nm, [80, 12.75 * 160])  # the centre of a pixel is a whole number there
    np.testing.assert_allclose(table.y_nm, [560, 320])
    np.testing.assert_allclose(table.z_nm, [-120, 40])
    np.testing.assert_allclose(table.x_sigma_nm, [16, 32], rtol=1e-6)
    np.testing.assert_allclose(table.y_sigma_nm, [24, 40], rtol=1e-6)
    assert table.background.tolist() == [11, 12]
    given = read_table(tmp_path / "movie_locs.hdf5", pixel_size_nm=(100, 200))
    np.testing.assert_allclose([given.x_nm[0], given.y_nm[0]], [50, 700])


def test_picasso_files_that_lack_something_say_what(tmp_path):
    few = picasso_file(tmp_path / "few.hdf5", {"frame": [1], "x": [2.0]}, pixel=100)
    with pytest.raises(TableError, match="column y is missing in 'locs'; found frame, x"):
        read_table(few)
    bare = picasso_file(tmp_path / "bare.hdf5", {"frame": [1], "x": [2.0], "y": [2.0]})
    with pytest.raises(TableError, match=r"bare\.yaml says no Pixelsize; give pixel_size_nm"):
        read_table(bare)
    with pytest.raises(TableError, match="only read"):
        write_table(Localizations.empty(), tmp_path / "t.hdf5", format="picasso")
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["frames"] = [1, 2]
    with pytest.raises(TableError, match="without Picasso's table"):
        read_table(tmp_path / "other.h5")
