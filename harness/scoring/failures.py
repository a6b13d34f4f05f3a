"""Where a model fails: the frames with most mistakes, and what lies in them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.emitters import Emitters, Localizations

from .assessment import Assessment

HIT, MISTAKE, NEITHER = 1, 0, -1
_MOST_ROWS = 300


def worst_frames(assessment: Assessment, *, found: Localizations, count: int = 3) -> list[dict[str, Any]]:
    """The frames with most misses and false alarms together, worst first; of equal ones the earlier.

    Args:
        assessment: from `assess`.
        found: the table that was assessed, with its rows near the border.
        count: how many frames at most; frames without a mistake are never given.

    Returns:
        For each frame `frame`, `tp`, `fp`, `fn`, `field_nm`, and `truth` and `found`: rows [x_nm, y_nm, kind] to
        0.1 nm, kind 1 for hits, 0 for misses and false alarms, -1 for what counts as neither (weak, or near the
        border). The truth is with its wobble. At most 300 rows of each table.
    """
    truth = assessment.neighbours
    of_truth, of_found = np.full(len(truth), NEITHER), np.full(len(found), NEITHER)
    of_truth[assessment.truth_row[assessment.missed]] = MISTAKE
    of_truth[assessment.truth_row[assessment.hit_truth]] = HIT
    of_found[assessment.found_row[assessment.false_alarm]] = MISTAKE
    of_found[assessment.found_row[assessment.hit_found]] = HIT
    wrong = np.concatenate([truth.frame[of_truth == MISTAKE], found.frame[of_found == MISTAKE]])
    frames, mistakes = np.unique(wrong, return_counts=True)
    rows = []
    for frame in frames[np.argsort(-mistakes, kind="stable")[:count]]:
        here, there = truth.frame == frame, found.frame == frame
        rows.append(
            {
                "frame": int(frame),
                "tp": int((of_truth[here] == HIT).sum()),
                "fp": int((of_found[there] == MISTAKE).sum()),
                "fn": int((of_truth[here] == MISTAKE).sum()),
                "field_nm": [float(side) for side in assessment.field_nm],
                "truth": _rows(truth, here, of_truth),
                "found": _rows(found, there, of_found),
            }
        )
    return rows


def _rows(table: Emitters, here: NDArray[np.bool_], kind: NDArray[np.int64]) -> list[list[float]]:
    index = np.flatnonzero(here)[:_MOST_ROWS]
    return [
        [round(float(x), 1), round(float(y), 1), int(k)]
        for x, y, k in zip(table.x_nm[index], table.y_nm[index], kind[index], strict=True)
    ]
