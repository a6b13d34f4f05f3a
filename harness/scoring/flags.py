"""What is suspicious about a result: mistakes that a table of scores alone does not show."""

from __future__ import annotations

import numpy as np

from simulators.emitters import Emitters, Localizations

from .assessment import Assessment
from .calibration import Calibration
from .metrics import Score, score

BIAS_NM = 20.0
CHANCE_POINTS = 5.0
GAIN_POINTS = 10.0
BOAST, MODESTY = 1.5, 1 / 1.5
_ENOUGH = 50_000


def flags(
    assessment: Assessment,
    main: Score,
    calibration: dict[str, Calibration],
    *,
    truth: Emitters,
    found: Localizations,
    n_frames: int,
) -> list[str]:
    """Sentences that name what looks wrong; none if nothing does.

    - nothing found, or nothing hit;
    - x and y exchanged, an axis mirrored, or the frames off by one: the Jaccard index gains more than 10 points then;
    - no better than chance: the same localizations, half the movie later, have a Jaccard index within 5 points; or
      hardly anything right, where theirs is less than a third;
    - a mean error of more than 20 nm and of five times its standard error (e.g. half a pixel, a wobble);
    - predicted sigmas that are too small or too large by more than half, a flagged mean error apart.

    Where one of the first three is said, errors are those of chance hits and nothing is said of them.

    Args:
        assessment, main, calibration: of these tables.
        truth, found: the tables as given.
        n_frames: frames of the movie.
    """
    if not len(found):
        return ["nothing was found"]
    result = _misread(assessment, truth, found, n_frames)
    if not main.tp:
        return [*result, "nothing that was found lies near a molecule"]
    if result:
        return result
    biased = {}
    for axis in assessment.axes:
        error = assessment.error(axis)
        spread = float(error.std()) / np.sqrt(len(error))
        if abs(error.mean()) > max(BIAS_NM, 5 * spread):
            biased[axis] = float(error.mean())
            result.append(f"{axis} is off by {error.mean():.0f} nm on average (a shift of the origin, or wobble?)")
    for axis in assessment.axes:
        if axis in calibration and calibration[axis].n >= 20:
            z = calibration[axis].z_std
            if axis in biased:
                sigma = getattr(assessment.found, f"{axis}_sigma_nm")[assessment.hit_found]
                z = float(np.nanstd((assessment.error(axis) - biased[axis]) / sigma))
            if z > BOAST:
                result.append(f"over-confident: errors in {axis} are {z:.1f} times the predicted sigma")
            elif z < MODESTY:
                result.append(f"under-confident: errors in {axis} are {z:.2f} times the predicted sigma")
    return result


def _misread(assessment: Assessment, truth: Emitters, found: Localizations, n_frames: int) -> list[str]:
    """Axes exchanged or mirrored, frames off by one, chance: on the first `_ENOUGH` emitters, which is enough."""
    if len(truth) > _ENOUGH:
        last = np.partition(truth.frame, _ENOUGH)[_ENOUGH]
        truth, found = truth.pick(truth.frame <= last), found.pick(found.frame <= last)
        n_frames = int(last) + 1
    settings = {"field_nm": assessment.field_nm, "protocol": assessment.protocol, "wobble": assessment.wobble}

    def jaccard_of(other: Localizations) -> float:
        return score(truth=truth, found=other, **settings).jaccard  # type: ignore[arg-type]

    own = jaccard_of(found)
    result = []
    width, height = assessment.field_nm
    if jaccard_of(found.replace(x_nm=found.y_nm, y_nm=found.x_nm)) > own + GAIN_POINTS:
        result.append(f"x and y look exchanged: the other way round, the Jaccard index gains more than {GAIN_POINTS:g}")
    for axis, mirrored in (
        ("x", found.replace(x_nm=width - found.x_nm)),
        ("y", found.replace(y_nm=height - found.y_nm)),
    ):
        if jaccard_of(mirrored) > own + GAIN_POINTS:
            result.append(
                f"{axis} looks mirrored: the Jaccard index gains more than {GAIN_POINTS:g} the other way round"
            )
    for step in (-1, 1):
        moved = found.frame + step
        inside = moved >= 0
        if jaccard_of(found.pick(inside).replace(frame=moved[inside])) > own + GAIN_POINTS:
            result.append(f"frames look off by one: with {step:+d}, the Jaccard index gains more than {GAIN_POINTS:g}")
    shifted = found.replace(frame=(found.frame + max(n_frames // 2, 1)) % max(n_frames, 1))
    chance = jaccard_of(shifted) if n_frames > 1 else 0.0
    if not result and 0 < own < chance + CHANCE_POINTS:
        if own < 3 * chance:
            result.append(f"no better than chance: localizations of other frames reach a Jaccard index of {chance:.1f}")
        else:
            result.append(f"hardly anything is right: the Jaccard index is {own:.1f}")
    return result


def random_points(truth: Emitters, *, field_nm: tuple[float, float], rng: np.random.Generator) -> Localizations:
    """As many points as there are emitters in each frame, anywhere in the field: what chance scores."""
    width, height = field_nm
    n = len(truth)
    return Localizations(
        frame=truth.frame,
        x_nm=rng.uniform(0, width, n),
        y_nm=rng.uniform(0, height, n),
        z_nm=rng.permutation(truth.z_nm),
        photons=rng.permutation(truth.photons),
    )
