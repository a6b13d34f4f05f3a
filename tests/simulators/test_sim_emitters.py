import numpy as np
import pytest

from simulators import Emitters, Localizations


def table() -> Emitters:
    return Emitters(frame=[2, 0, 2], x_nm=[1.0, 2.0, 3.0], y_nm=5, photons=[10, 20, 30], id=[7, 8, 6])


def test_columns_get_their_types_defaults_and_scalars_are_repeated():
    e = table()
    assert len(e) == 3
    assert e.frame.dtype == np.int64
    assert e.x_nm.dtype == e.photons.dtype == np.float64
    assert e.y_nm.tolist() == [5, 5, 5]
    assert e.z_nm.tolist() == [0, 0, 0]
    assert np.isnan(e.background).all()
    assert Emitters(frame=[0, 1], x_nm=0, y_nm=0).id.tolist() == [0, 1]
    assert Emitters(frame=[0.0, 3.0], x_nm=0, y_nm=0).frame.tolist() == [0, 3]


def test_sorted_goes_by_frame_then_id():
    assert table().sorted().id.tolist() == [8, 6, 7]


def test_pick_takes_masks_numbers_and_slices():
    e = table()
    assert e.pick(e.frame == 2).x_nm.tolist() == [1, 3]
    assert e.pick([2, 0]).x_nm.tolist() == [3, 1]
    assert e.pick(slice(1, None)).x_nm.tolist() == [2, 3]
    assert len(e.pick([])) == 0
    with pytest.raises(ValueError, match=r"mask has shape \(2,\); the table has 3 rows"):
        e.pick(np.array([True, False]))


def test_empty_tables_keep_their_types_and_concatenate():
    none = Emitters.empty()
    assert len(none) == 0
    assert none.frame.dtype == np.int64
    both = Emitters.concatenate([none, table(), table()])
    assert len(both) == 6
    assert len(Emitters.concatenate([])) == 0
    assert len(Emitters(frame=[], x_nm=[], y_nm=[], z_nm=0.0)) == 0


def test_replace_exchanges_columns_and_checks_again():
    assert table().replace(x_nm=0).x_nm.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="no column 'phot'; the columns are frame"):
        table().replace(phot=1)
    with pytest.raises(ValueError, match="differ in length"):
        table().replace(x_nm=[1, 2])


def test_data_frames_go_both_ways():
    e = table()
    back = Emitters.from_frame(e.to_frame())
    for name in Emitters.columns():
        np.testing.assert_array_equal(getattr(back, name), getattr(e, name))
    with pytest.raises(ValueError, match="column 'x_nm' is missing"):
        Emitters.from_frame(e.to_frame().drop(columns="x_nm"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"frame": [0, 1], "x_nm": [1.0], "y_nm": [1.0, 2.0]}, "x_nm 1"),
        ({"frame": [0], "x_nm": [np.nan], "y_nm": [1.0]}, "x_nm is nan in row 0"),
        ({"frame": [-1], "x_nm": [1.0], "y_nm": [1.0]}, "frames count from 0"),
        ({"frame": [0.5], "x_nm": [1.0], "y_nm": [1.0]}, "frame is 0.5 in row 0"),
        ({"frame": [np.nan], "x_nm": [1.0], "y_nm": [1.0]}, "expected whole numbers"),
        ({"frame": [0], "x_nm": [[1.0]], "y_nm": [1.0]}, "one dimension"),
        ({"frame": [0], "x_nm": ["left"], "y_nm": [1.0]}, "does not hold numbers"),
    ],
)
def test_bad_columns_are_named(columns, message):
    with pytest.raises(ValueError, match=message):
        Emitters(**columns)


def test_localizations_may_lack_z_and_have_nan_errors():
    found = Localizations(frame=[0], x_nm=[1.0], y_nm=[2.0])
    assert np.isnan(found.z_nm).all()
    assert np.isnan(found.x_sigma_nm).all()
    assert np.isnan(found.probability).all()
    assert isinstance(found.pick([0]), Localizations)
    with pytest.raises(ValueError, match="Localizations: y_nm is inf"):
        Localizations(frame=[0], x_nm=[1.0], y_nm=[np.inf])
