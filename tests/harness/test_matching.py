import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.scoring.matching import match
from simulators.emitters import Emitters, Localizations


def slow_greedy(truth, found, tolerance, axial=None):
    """The rule, word by word: all pairs of a frame, sorted by distance, truth row, found row; each item
    once.
    """
    result = []
    for frame in sorted(set(truth.frame) | set(found.frame)):
        pairs = []
        for t in np.flatnonzero(truth.frame == frame):
            for f in np.flatnonzero(found.frame == frame):
                dx, dy = truth.x_nm[t] - found.x_nm[f], truth.y_nm[t] - found.y_nm[f]
                squared = dx * dx + dy * dy
                if squared > tolerance**2:
                    continue
                if axial is not None:
                    dz = truth.z_nm[t] - found.z_nm[f]
                    if abs(dz) > axial:
                        continue
                    squared += dz * dz
                pairs.append((np.sqrt(squared), t, f))
        used_t, used_f = set(), set()
        for _, t, f in sorted(pairs):
            if t not in used_t and f not in used_f:
                used_t.add(t)
                used_f.add(f)
                result.append((t, f))
    return sorted(result)


def as_list(matches):
    return list(zip(matches.truth_index.tolist(), matches.found_index.tolist(), strict=True))


def table(kind, rng, n, frames, field, *, whole=False):
    positions = rng.uniform(0, field, (3, n))
    if whole:
        positions = np.round(positions / 100) * 100  # many equal distances
    return kind(frame=rng.integers(0, frames, n), x_nm=positions[0], y_nm=positions[1], z_nm=positions[2])


@pytest.mark.parametrize("axial", [None, 300])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_greedy_equals_the_plain_rule(seed, whole, axial):
    rng = np.random.default_rng(seed)
    field = [300, 1000, 3000][seed % 3]
    truth = table(Emitters, rng, 150, 5, field, whole=whole)
    found = table(Localizations, rng, 170, 6, field, whole=whole)
    expected = slow_greedy(truth, found, 250, axial)
    assert len(expected) > 5
    assert as_list(match(truth=truth, found=found, tolerance_nm=250, axial_tolerance_nm=axial)) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 6)), max_size=14),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 6)), max_size=14),
)
def test_greedy_equals_the_plain_rule_on_a_lattice_of_ties(truth_rows, found_rows):
    truth, found = (
        kind(
            frame=[r[0] for r in rows],
            x_nm=[100.0 * r[1] for r in rows],
            y_nm=[100.0 * r[2] for r in rows],
            z_nm=np.zeros(len(rows)),
        )
        for kind, rows in ((Emitters, truth_rows), (Localizations, found_rows))
    )
    assert as_list(match(truth=truth, found=found, tolerance_nm=250)) == slow_greedy(truth, found, 250)


def test_a_long_chain_is_walked_exactly():
    # every emitter's nearest localization is nearer still to the next emitter
    steps = np.linspace(100, 20, 400)
    places = np.concatenate([[0], np.cumsum(steps)])
    truth = Emitters(frame=np.zeros(201), x_nm=places[0:401:2], y_nm=0.0)
    found = Localizations(frame=np.zeros(200), x_nm=places[1:401:2], y_nm=0.0)
    pairs = as_list(match(truth=truth, found=found, tolerance_nm=105))
    assert pairs == slow_greedy(truth, found, 105) == [(k + 1, k) for k in range(200)]


def test_ties_go_to_the_lower_truth_row_then_the_lower_found_row():
    truth = Emitters(frame=[0, 0], x_nm=[0.0, 200.0], y_nm=0.0)
    found = Localizations(frame=[0], x_nm=[100.0], y_nm=0.0)
    assert as_list(match(truth=truth, found=found, tolerance_nm=250)) == [(0, 0)]
    truth = Emitters(frame=[0], x_nm=[100.0], y_nm=0.0)
    found = Localizations(frame=[0, 0], x_nm=[200.0, 0.0], y_nm=0.0)
    assert as_list(match(truth=truth, found=found, tolerance_nm=250)) == [(0, 0)]


def test_optimal_makes_more_pairs_where_greedy_blocks_one():
    truth = Emitters(frame=[0, 0], x_nm=[0.0, 150.0], y_nm=0.0)
    found = Localizations(frame=[0, 0], x_nm=[100.0, 350.0], y_nm=0.0)
    assert as_list(match(truth=truth, found=found, tolerance_nm=200)) == [(1, 0)]
    assert as_list(match(truth=truth, found=found, tolerance_nm=200, rule="optimal")) == [(0, 0), (1, 1)]


@pytest.mark.parametrize("seed", range(3))
def test_optimal_equals_one_assignment_over_a_whole_frame(seed):
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(seed)
    truth, found = table(Emitters, rng, 60, 1, 1500), table(Localizations, rng, 55, 1, 1500)
    distance = np.hypot(truth.x_nm[:, None] - found.x_nm, truth.y_nm[:, None] - found.y_nm)
    rows, columns = linear_sum_assignment(np.where(distance <= 250, distance, 1e6))
    good = distance[rows, columns] <= 250
    result = match(truth=truth, found=found, tolerance_nm=250, rule="optimal")
    assert len(result) == good.sum()
    assert result.distance.sum() == pytest.approx(distance[rows, columns][good].sum())


def test_distance_is_lateral_in_2d_and_spatial_in_3d():
    truth = Emitters(frame=[0], x_nm=[0.0], y_nm=[0.0], z_nm=[0.0])
    found = Localizations(frame=[0], x_nm=[30.0], y_nm=[40.0], z_nm=[120.0])
    assert match(truth=truth, found=found, tolerance_nm=250).distance.tolist() == [50]
    assert match(truth=truth, found=found, tolerance_nm=250, axial_tolerance_nm=500).distance.tolist() == [130]


def test_frames_and_places_far_apart():
    truth = Emitters(frame=[0, 10**12, 10**12], x_nm=[0.0, 1e9, 5.0], y_nm=[0.0, -1e9, 5.0])
    found = Localizations(frame=[10**12, 10**12], x_nm=[6.0, 1e9 + 3], y_nm=[5.0, -1e9])
    assert as_list(match(truth=truth, found=found, tolerance_nm=250)) == [(1, 1), (2, 0)]


def test_empty_tables():
    some = {"frame": [0], "x_nm": [1.0], "y_nm": [1.0]}
    for truth, found in (
        (Emitters.empty(), Localizations(**some)),
        (Emitters(**some), Localizations.empty()),
        (Emitters.empty(), Localizations.empty()),
    ):
        for rule in ("greedy", "optimal"):
            assert len(match(truth=truth, found=found, tolerance_nm=250, rule=rule)) == 0


def test_bad_arguments_are_refused():
    truth = Emitters(frame=[0], x_nm=[1.0], y_nm=[1.0])
    found = Localizations(frame=[0], x_nm=[1.0], y_nm=[1.0])
    with pytest.raises(ValueError, match="tolerance_nm is 0"):
        match(truth=truth, found=found, tolerance_nm=0)
    with pytest.raises(ValueError, match="no matching rule named 'nearest'"):
        match(truth=truth, found=found, tolerance_nm=250, rule="nearest")
    with pytest.raises(ValueError, match="1 of 1 localizations have no z_nm"):
        match(truth=truth, found=found, tolerance_nm=250, axial_tolerance_nm=500)


def test_100_000_emitters_are_matched_quickly():
    import time

    from harness.scoring.benchmark import crowd

    truth, found = crowd(4000, np.random.default_rng(0))
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        match(truth=truth, found=found, tolerance_nm=250)
        times.append(time.perf_counter() - begin)
    assert min(times) < 1.0  # 0.1 s measured on two free cores; the margin is for busy machines
