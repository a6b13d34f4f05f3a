"""A student of a localization network: soft detections, and positions with their uncertainty.

Source: soft targets: Hinton, Vinyals, Dean 2015, arXiv:1503.02531; the Gaussian of a pixel as in Speiser et al. 2021,
doi:10.1038/s41592-021-01236-x.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo import EmitterMaps

_TINY = 1e-6


def in_units_of(maps: Tensor, source: EmitterMaps, target: EmitterMaps) -> dict[str, Tensor]:
    """Channels (N, H, W) of one network's maps in another's units: those that both have, by name.

    Photons, background and z are rescaled (z with its sign), positions moved to the other's reference point, sigmas
    brought to what the source's calibration makes of them.
    """
    common = [name for name in target.channels if name and name in source.channels]
    factor = {
        "photons": source.photons_scale / target.photons_scale,
        "background": source.background_scale / target.background_scale,
        "z": source.z_scale_nm / target.z_scale_nm,
    }
    shift = {
        "x": source.reference_px[0] - target.reference_px[0],
        "y": source.reference_px[1] - target.reference_px[1],
    }
    result = {}
    for name in common:
        quantity = name.removesuffix("_sigma")
        scale = factor.get(quantity, 1.0)
        value = source.calibrated(name, maps[:, source.index(name)]) * (scale if name == quantity else abs(scale))
        result[name] = target.as_uncalibrated(name, value) + shift.get(name, 0.0)
    return result


def soft_detection(student: Tensor, teacher: Tensor) -> Tensor:
    """Divergence of the student's detections from the teacher's, summed over the pixels, (N,).

    `sum_k p ln(p / q) + (1 - p) ln((1 - p) / (1 - q))`, p the teacher's probability, q the student's: the
    cross-entropy with soft labels, less what it is at best, so that agreement costs 0.

    Args:
        student, teacher: probabilities (N, H, W).
    """
    q, p = student.clamp(_TINY, 1 - _TINY), teacher.clamp(_TINY, 1 - _TINY)
    return (p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))).flatten(1).sum(1)


def soft_location(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
    """How badly the student's Gaussians say what the teacher's say, weighted by the teacher's probability, (N,).

    For each quantity with mean m, sigma s of the teacher and n, t of the student:
    `sum_k p_k [ln(t / s) + (s^2 + (m - n)^2) / (2 t^2) - 1/2]`, the teacher's expectation of the student's negative
    log-likelihood less its smallest value. Quantities without a sigma on one side cost `p_k (m - n)^2 / 2`.

    Args:
        student, teacher: channels (N, H, W) in the same units, see `in_units_of`.
    """
    p = teacher["probability"]
    total = torch.zeros(len(p), device=p.device)
    for name in ("photons", "x", "y", "z"):
        if name not in student or name not in teacher:
            continue
        gap = (student[name] - teacher[name]).square()
        sigma = f"{name}_sigma"
        if sigma in student and sigma in teacher:
            t, s = student[sigma].clamp(min=_TINY), teacher[sigma].clamp(min=_TINY)
            cost = torch.log(t / s) + (s.square() + gap) / (2 * t.square()) - 0.5
        else:
            cost = gap / 2
        total = total + (p * cost).flatten(1).sum(1)
    return total


def emitter_imitation(
    student_maps: Tensor,
    teacher_maps: Tensor,
    *,
    student: EmitterMaps,
    teacher: EmitterMaps,
    location_weight: float = 1.0,
    background_weight: float = 1.0,
) -> Tensor:
    """Soft detections, locations and background of a localization network, per frame (N,); 0 for a perfect copy.

    Args:
        student_maps, teacher_maps: (N, C, H, W), activated.
        student, teacher: their contracts; units and reference points may differ.
        location_weight, background_weight: of those terms; the background's is a sum of squares, as DECODE's.

    Raises:
        ValueError: fields of different sizes.
    """
    if student_maps.shape[-2:] != teacher_maps.shape[-2:] or len(student_maps) != len(teacher_maps):
        raise ValueError(
            f"maps of the student are {tuple(student_maps.shape)}, of the teacher {tuple(teacher_maps.shape)}; both "
            "must be of the same frames on the camera's grid"
        )
    own = in_units_of(student_maps, student, student)
    given = in_units_of(teacher_maps.detach(), teacher, student)
    total = soft_detection(own["probability"], given["probability"])
    total = total + location_weight * soft_location(own, given)
    if "background" in own and "background" in given:
        gap = (own["background"] - given["background"]).square()
        total = total + background_weight * gap.flatten(1).sum(1)
    return total
