"""Rule "plus": hand-made maps, a plain loop, and independence of device order."""

import numpy as np
import pytest
import torch

from zoo import EmitterMaps, scores
from zoo._extraction import extract_plus, plus_scores


def by_loops(p, threshold, border="constant"):
    """The published steps for one map, pixel by pixel; windows end at the border."""
    height, width = p.shape
    wide = np.pad(p, 1, mode=border)
    q = wide[1:-1, 1:-1] + wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:]
    found = set()
    for row, column in np.argwhere((q > threshold) & (p.sum() > threshold)):
        window = [
            (-p[i, j], i, j)
            for i in range(max(0, row - 1), min(height, row + 2))
            for j in range(max(0, column - 1), min(width, column + 2))
        ]
        window.sort()
        found.update(place[1:] for place in window[: 2 if q[row, column] > 2 * threshold else 1])
    return [(*place, q[place]) for place in sorted(found)]


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 0.55, 0.7, 1.2])
def test_it_equals_the_loop(threshold, repeat):
    rng = np.random.default_rng(4)
    maps = rng.random((6, 9, 12)) ** 12
    maps[4] = 0.0
    maps[4, 0, 0] = 0.45  # gathers three times as much there if repeated
    maps[5] = 0.001
    found = extract_plus(torch.from_numpy(maps), threshold=threshold, repeat_border=repeat)
    frame, row, column, gathered = found
    for number, p in enumerate(maps):
        expected = by_loops(p, threshold, "symmetric" if repeat else "constant")
        here = frame == number
        ours = list(zip(row[here].tolist(), column[here].tolist(), gathered[here].tolist(), strict=True))
        assert [place[:2] for place in ours] == [place[:2] for place in expected]
        assert np.allclose([place[2] for place in ours], [place[2] for place in expected])
    assert len(frame) > 5


def test_a_spread_emitter_is_found_once_and_a_close_pair_twice():
    p = torch.zeros(1, 7, 9)
    p[0, 2, 2], p[0, 2, 3] = 0.5, 0.3  # one emitter over two pixels
    p[0, 4, 6], p[0, 4, 7] = 0.9, 0.8  # two beside each other: 1.7 > 2 x 0.7
    _, row, column, gathered = extract_plus(p, threshold=0.7)
    assert list(zip(row.tolist(), column.tolist(), strict=True)) == [(2, 2), (4, 6), (4, 7)]
    assert gathered.tolist() == pytest.approx([0.8, 1.7, 1.7])


def test_windows_end_at_the_border_and_count_nothing_twice():
    p = torch.zeros(2, 5, 6)
    p[0, 0, 0] = 0.9
    p[1, 0, 5], p[1, 4, 0] = 0.8, 0.1
    frame, row, column, gathered = extract_plus(p, threshold=0.5)
    assert torch.stack([frame, row, column], dim=1).tolist() == [[0, 0, 0], [1, 0, 5]]
    assert gathered.tolist() == pytest.approx([0.9, 0.8])


def test_a_frame_with_too_little_is_empty():
    p = torch.full((1, 5, 5), 0.01)
    assert len(extract_plus(p, threshold=0.7)[0]) == 0


def test_ties_give_one_localization():
    p = torch.zeros(1, 5, 6)
    p[0, 2, 2] = p[0, 2, 3] = 0.45
    assert extract_plus(p, threshold=0.7)[2].tolist() == [2]


def test_the_scores_hold_for_every_threshold():
    rng = np.random.default_rng(8)
    maps = torch.from_numpy(rng.random((3, 8, 8)) ** 8)
    score, _ = plus_scores(maps)
    for threshold in (0.2, 0.6, 1.0, 1.9):
        assert int((score > threshold).sum()) == sum(len(by_loops(p.numpy(), threshold)) for p in maps)


def test_the_contract_takes_the_rule():
    output = EmitterMaps(channels=("probability", "x", "y"), rule="plus")
    p = torch.zeros(1, 3, 6, 6)
    p[0, 0, 3, 2], p[0, 1, 3, 2], p[0, 2, 3, 2] = 0.8, 0.25, -0.25
    found = output.decode(p, threshold=0.7, pixel_size_nm=100)
    assert found.x_nm.tolist() == [275.0]
    assert found.y_nm.tolist() == [325.0]
    assert torch.equal(scores(p[:, 0], rule="plus"), plus_scores(p[:, 0])[0])


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"\(frames, height, width\)"):
        plus_scores(torch.zeros(4, 4))
    with pytest.raises(ValueError, match="positive"):
        extract_plus(torch.zeros(1, 4, 4), threshold=0)
