"""Dark states, bleaching, repeated binding, measured traces, and the photon cycle of a fluorophore."""

import numpy as np
import pytest
from scipy import stats

from simulators import list_recipes, load_recipe, parse_recipe, simulate
from simulators.blinking import OnTimeBlinking, rows_of_spans
from simulators.photocycle import PhotoCycle, frame_counts
from simulators.states import FourStateBlinking, PaintBlinking
from simulators.traces import TracesBlinking


def runs(rows, frames):
    """Lengths of unbroken runs of frames that lie well inside the movie."""
    key = rows.molecule * (frames + 2) + rows.frame
    first = np.flatnonzero(np.diff(key, prepend=-9) != 1)
    length = np.diff(np.append(first, len(key)))
    start = rows.frame[first]
    return length[(start > 0) & (start + length < frames)]


def whole_lives(blinking, frames, count, seed):
    """Rows of molecules that switched on in the movie, early enough to bleach in it."""
    rows = blinking.movie(np.r_[np.zeros(2), np.ones(frames // 2), np.zeros(frames - frames // 2)], count,
                          np.random.default_rng(seed))  # fmt: skip
    return rows


def test_the_challenges_photophysics_has_its_public_statistics():
    rows = whole_lives(FourStateBlinking(), 400, 100_000, 1)
    assert len(rows.frame) / 100_000 == pytest.approx(2.9, abs=0.1)
    share = np.bincount(runs(rows, 402), minlength=6)[1:6] / len(runs(rows, 402))
    assert share * 100 == pytest.approx([33, 36, 16, 8, 4], abs=1.5)


@pytest.mark.parametrize(
    "blinking",
    [
        OnTimeBlinking(mean_on_frames=2.0),
        FourStateBlinking(),
        FourStateBlinking(minimum_share=0.0),
        FourStateBlinking(bleaching_frames=6, darkening_frames=2, dark_frames=0.5, minimum_share=0.0),
        PaintBlinking(bound_frames=2, unbound_frames=30),
        TracesBlinking(values=[[1, 2, 0, 3], [0, 0, 5], [1] * 9]),
    ],
    ids=lambda b: b.kind,
)
@pytest.mark.parametrize("frames", [1, 3, 60])
def test_the_expected_rows_come_and_every_frame_is_alike(blinking, frames):
    count = 120_000 if frames < 60 else 30_000
    rows = blinking.movie(np.ones(frames), count, np.random.default_rng(1))
    per_frame = np.bincount(rows.frame, minlength=frames)
    # Counts of independent molecules; a repeated row of one molecule in one frame does not occur.
    assert np.abs(per_frame - per_frame.mean()).max() < 5 * per_frame.mean() ** 0.5
    assert len(rows.frame) / count == pytest.approx(blinking.expected_rows(frames), rel=0.02)
    key = rows.molecule * frames + rows.frame
    assert (np.diff(key) > 0).all()
    assert rows.share.min() > 0


def test_dark_times_and_bursts_follow_their_rates():
    blinking = FourStateBlinking(bleaching_frames=30, darkening_frames=10, dark_frames=40, minimum_share=0.0)
    assert blinking.mean_on_frames == pytest.approx(7.5)
    assert blinking.bursts_per_molecule == pytest.approx(4)
    assert blinking.lifetime_frames == pytest.approx(30 + 3 * 40)
    rows = whole_lives(blinking, 4000, 20_000, 2)
    lit = np.bincount(rows.molecule, weights=rows.share, minlength=20_000)
    assert lit.mean() == pytest.approx(30, rel=0.03)
    # On-time until bleaching: a geometric number of exponential bursts is exponential again.
    assert stats.kstest(lit[lit > 0] / 30, "expon").pvalue > 1e-3
    step = np.diff(rows.frame)[np.diff(rows.molecule) == 0]
    gaps = step[step > 30] - 1
    assert gaps.mean() - 30 == pytest.approx(40, rel=0.05)  # memoryless: beyond 30 frames again 40


def test_paint_binds_again_at_the_same_site():
    rows = PaintBlinking(bound_frames=3, unbound_frames=100, minimum_share=0.0).movie(
        np.ones(5000), 200, np.random.default_rng(1)
    )
    lit = np.bincount(rows.molecule, weights=rows.share, minlength=200)
    assert lit.mean() / 5000 == pytest.approx(3 / 103, rel=0.05)
    visits = np.bincount(rows.molecule[np.flatnonzero(np.diff(rows.frame, prepend=-9) != 1)], minlength=200)
    assert visits.mean() == pytest.approx(5000 / 103, rel=0.05)


def test_a_varying_rate_thins_the_visits():
    rate = np.r_[np.ones(500), np.full(500, 0.25)]
    rows = PaintBlinking(bound_frames=1, unbound_frames=20).movie(rate, 5000, np.random.default_rng(1))
    early, late = np.bincount(rows.frame >= 500)
    assert late / early == pytest.approx(0.25, rel=0.05)


def test_traces_are_repeated_whole_and_in_order(tmp_path):
    values = [[0.5, 0.0, 2.0], [3.0, 0.001, 1.0, 4.0]]
    rows = TracesBlinking(values=values).movie(np.ones(40), 500, np.random.default_rng(1))
    for molecule in range(500):
        own = rows.molecule == molecule
        frame, share = rows.frame[own] - rows.frame[own][0] if own.any() else [], rows.share[own]
        if own.any() and rows.frame[own][0] >= 3 and rows.frame[own][-1] < 36:
            assert (list(frame), list(share)) in [([0, 2], [0.5, 2.0]), ([0, 2, 3], [3.0, 1.0, 4.0])]
    (tmp_path / "t.csv").write_text("0.5,0,2\n3,0.001,1,4\n")
    np.save(tmp_path / "t.npy", np.array([[0.5, 0, 2, 0], [3, 0.001, 1, 4]]))
    for name in ("t.csv", "t.npy"):
        again = TracesBlinking(path=str(tmp_path / name)).movie(np.ones(40), 500, np.random.default_rng(1))
        assert sorted(set(again.share)) == sorted(set(rows.share))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "traces"}, "either path or values"),
        ({"kind": "traces", "values": [[0, 0]]}, "trace 0.*one of them above 0"),
        ({"kind": "traces", "values": [[1], [-1]]}, "trace 1"),
        ({"kind": "traces", "values": []}, "holds no traces"),
        ({"kind": "four_state", "dark_frame": 1}, r"blinking: unknown key 'dark_frame' in Four.*mean 'dark_frames'"),
        ({"kind": "paint", "bound_frames": 0}, r"blinking.bound_frames: .*greater than 0"),
        ({"kind": "dark"}, "blinking: .*'four_state'"),
    ],
)
def test_bad_blinking_is_refused_by_name(changes, message):
    values = load_recipe("epfl-2d").model_dump(mode="json")
    with pytest.raises(ValueError, match=message):
        parse_recipe({**values, "blinking": changes}, source="mine")


def test_files_of_traces_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        TracesBlinking(path=str(tmp_path / "none.npy")).expected_rows(5)
    (tmp_path / "a.csv").write_text("1,x\n")
    np.save(tmp_path / "b.npy", np.ones(3))
    (tmp_path / "c.txt").write_text("1")
    for name, message in (("a.csv", "as traces: could not convert"), ("b.npy", "shape"), ("c.txt", "ending")):
        with pytest.raises(ValueError, match=message):
            TracesBlinking(path=str(tmp_path / name)).expected_rows(5)


@pytest.mark.parametrize(
    "blinking",
    [{"kind": "four_state"}, {"kind": "paint", "bound_frames": 2, "unbound_frames": 60},
     {"kind": "traces", "values": [[1, 0.5], [0.25, 0, 1]]}],
    ids=["four_state", "paint", "traces"],
)  # fmt: skip
def test_movies_of_every_blinking_have_the_density_and_keep_a_molecules_place(blinking):
    recipe = load_recipe("epfl-2d").with_(blinking=blinking, density_um2=0.5, frames=200, size=32, photons=1000)
    e = simulate(recipe, np.random.default_rng(1)).emitters
    assert len(e) / 200 / 3.2**2 == pytest.approx(0.5, rel=0.05)
    first = {}
    for number, x, y in zip(e.id, e.x_nm, e.y_nm, strict=True):
        assert first.setdefault(number, (x, y)) == (x, y)


def test_the_test_movies_blink_as_the_challenge_says():
    for name in list_recipes("tubes-2d-*"):
        blinking = load_recipe(name).blinking
        assert (blinking.kind, blinking.mean_on_frames, blinking.minimum_share) == ("four_state", 1, 0.01)
        assert (blinking.bleaching_frames, blinking.darkening_frames, blinking.dark_frames) == (1.5, 3, 2.5)


def test_a_cycle_visits_its_states_as_the_rates_say():
    cycle = PhotoCycle({("a", "b"): 10.0, ("b", "a"): 30.0, ("b", "a", "dark"): 10.0, ("b", "off"): 10.0,
                        ("off", "a"): 1.0})  # fmt: skip
    assert cycle.share("b", ("b", "a")) == pytest.approx(0.6)
    light = cycle.walk(400, 3000, np.random.default_rng(1), count=("b", "a"))
    every = cycle.walk(400, 3000, np.random.default_rng(1), count=("a", "b"))
    assert sum(map(len, light)) / sum(map(len, every)) == pytest.approx(0.6, abs=0.003)
    # Of five visits to b one ends in off, for a second: per visit 0.1 s + 0.02 s + 0.2 s.
    assert np.mean([times[-1] / len(times) for times in every]) == pytest.approx(0.32, rel=0.01)
    counts = frame_counts(light, 0.5)
    assert sum(c.sum() for c in counts) == sum(map(len, light))
    assert all(c[-1] > 0 for c in counts)
    with pytest.raises(ValueError, match="no rate leads out of b"):
        PhotoCycle({("a", "b"): 1.0})
    with pytest.raises(ValueError, match="above 0 per second"):
        PhotoCycle({("a", "b"): 0.0})
    with pytest.raises(ValueError, match="no step of this cycle"):
        cycle.walk(1, 1, np.random.default_rng(1), count=("a", "c"))


def test_spans_in_one_frame_add_up():
    rows = rows_of_spans(np.array([0, 0, 0, 2]), np.array([0.1, 0.5, 1.9, 5.0]), np.array([0.3, 1.2, 2.4, 5.005]),
                         frames=6, minimum=0.01)  # fmt: skip
    assert rows.molecule.tolist() == [0, 0, 0]
    assert rows.frame.tolist() == [0, 1, 2]
    assert rows.share == pytest.approx([0.7, 0.3, 0.4])
