"""The worst frames: counted by hand."""

from dataclasses import replace

import numpy as np

from harness.scoring import CHALLENGE_2D, assess, report
from harness.scoring.failures import worst_frames
from simulators import Emitters, Localizations

FIELD = (4000.0, 4000.0)
PROTOCOL = replace(CHALLENGE_2D, quantile=0.1)  # of six molecules, the dimmest


def table(kind, rows):
    frame, x, y, photons = np.array(rows, float).T
    return kind(frame=frame.astype(int), x_nm=x, y_nm=y, z_nm=np.zeros(len(x)), photons=photons)


def test_worst_frames_by_hand():
    truth = table(
        Emitters,
        [(0, 1000, 1000, 900), (1, 1000, 1000, 900), (1, 2000, 2000, 900), (1, 3000, 1000, 100), (1, 100, 100, 900),
         (4, 2000, 1000, 900), (5, 2000, 1000, 900)],
    )  # fmt: skip
    found = table(
        Localizations,
        [(0, 1003, 1004, 1), (1, 1010, 1000, 1), (1, 3000, 3000, 1), (1, 3010, 1000, 1), (4, 2000, 3000, 1)],
    )
    whole = assess(truth=truth, found=found, field_nm=FIELD, protocol=PROTOCOL)
    first, second, third = worst_frames(whole, found=found, count=5)
    # frame 1: a hit, a miss, a false alarm, a weak molecule that was found, one in the border
    assert (first["frame"], first["tp"], first["fp"], first["fn"]) == (1, 1, 1, 1)
    assert first["truth"] == [[1000, 1000, 1], [2000, 2000, 0], [3000, 1000, -1], [100, 100, -1]]
    assert first["found"] == [[1010, 1000, 1], [3000, 3000, 0], [3010, 1000, -1]]
    assert first["field_nm"] == list(FIELD)
    # frames 4 and 5; frame 0 has no mistake
    assert (second["frame"], second["tp"], second["fp"], second["fn"]) == (4, 0, 1, 1)
    assert (third["frame"], third["fn"]) == (5, 1)
    assert [one["frame"] for one in worst_frames(whole, found=found, count=1)] == [1]
    again = report(truth=truth, found=found, field_nm=FIELD, protocol=PROTOCOL, resamples=0, curves=False)
    assert again.to_dict()["worst"] == worst_frames(whole, found=found)


def test_no_mistakes_no_frames():
    truth = table(Emitters, [(0, 1000, 1000, 900), (3, 2000, 2000, 900)])
    found = Localizations(**{name: getattr(truth, name) for name in Emitters.columns()})
    assert worst_frames(assess(truth=truth, found=found, field_nm=FIELD), found=found) == []
