"""DECODE's loss: how well maps of emitters explain the emitters of a frame.

A frame's maps are a probability per pixel and, given an emitter there, a normal distribution of its photons and
position. Three terms: the number of emitters, the mixture of normals at the emitters, the background.

Source: Speiser, Mueller et al. 2021, doi:10.1038/s41592-021-01236-x, and its program, release 0.10.2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from zoo import EmitterTargets

_PAIRS_AT_ONCE = 1 << 22  # emitter-pixel pairs held at a time


def count_loss(probability: Tensor, per_frame: Tensor, *, times_emitters: bool = False) -> Tensor:
    """-log Normal(E; mean sum p, variance sum p (1 - p)) of each frame, (N,).

    Args:
        probability: (N, H, W), inside 0 to 1.
        per_frame: number of emitters E of each frame, (N,).
        times_emitters: the program's factor E; frames without emitters then cost nothing, whatever is found there.
    """
    p = probability.flatten(1)
    mean, variance = p.sum(1), (p - p.square()).sum(1)
    term = 0.5 * ((per_frame - mean).square() / variance + torch.log(2 * math.pi * variance))
    return per_frame * term if times_emitters else term


def mixture_loss(maps: Tensor, targets: EmitterTargets, *, window: int | None = None) -> Tensor:
    """-sum over emitters of log sum_k (p_k / sum p) prod_c Normal(u_c; mean_kc, sigma_kc), of each frame, (N,).

    Only real emitters are looked at; a frame without any costs 0.

    Args:
        maps: (N, C, H, W), activated.
        targets: from `EmitterMaps.encode`.
        window: side of the square of pixels round an emitter's own that are taken as its components, odd; None for
            all pixels of the frame. Components that are cut off can only add to the likelihood.
    """
    count, _, height, width = maps.shape
    if not len(targets):
        return maps.sum((1, 2, 3)) * 0.0
    output = targets.output
    share = maps[:, output.index("probability")]
    share = torch.log(share) - torch.log(share.sum((1, 2), keepdim=True))
    axes = output.quantities
    channels = [output.index(q) for q in axes], [output.index(f"{q}_sigma") for q in axes]
    truth = torch.stack([getattr(targets, q) for q in axes], dim=1)  # (E, c)
    shift = {"x": output.reference_px[0], "y": output.reference_px[1]}
    values = torch.cat([share[:, None], maps[:, channels[0]], maps[:, channels[1]]], dim=1)
    values = values.permute(0, 2, 3, 1).reshape(count * height * width, -1)  # a row per pixel
    row = targets.y.detach().floor().long().clamp(0, height - 1)
    column = targets.x.detach().floor().long().clamp(0, width - 1)
    if window is None:
        steps_y = torch.arange(height, device=maps.device).repeat_interleave(width)
        steps_x = torch.arange(width, device=maps.device).repeat(height)
        rows, columns = steps_y.expand(len(row), -1), steps_x.expand(len(row), -1)
        inside = None
    else:
        reach = torch.arange(-(window // 2), window // 2 + 1, device=maps.device)
        rows = row[:, None] + reach.repeat_interleave(len(reach))
        columns = column[:, None] + reach.repeat(len(reach))
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    place = (targets.frame[:, None] * height + rows) * width + columns  # (E, K)

    def chunk(part: slice) -> Tensor:
        picked = values[place[part]]  # (e, K, 1 + 2c)
        logarithm = picked[..., 0]
        for axis, name in enumerate(axes):
            mean, sigma = picked[..., 1 + axis], picked[..., 1 + len(axes) + axis]
            if name in shift:
                mean = mean + ((columns if name == "x" else rows)[part] + shift[name])
            deviation = (truth[part, axis, None] - mean) / sigma
            logarithm = logarithm - (0.5 * deviation.square() + torch.log(sigma))
        if inside is not None:
            logarithm = logarithm.masked_fill(~inside[part], -math.inf)
        return -torch.logsumexp(logarithm, dim=1)

    per_chunk = max(1, _PAIRS_AT_ONCE // place.shape[1])
    each = torch.cat([chunk(slice(first, first + per_chunk)) for first in range(0, len(row), per_chunk)])
    each = each + 0.5 * len(axes) * math.log(2 * math.pi)
    return torch.zeros(count, device=maps.device, dtype=each.dtype).index_add(0, targets.frame, each)


def background_loss(maps: Tensor, targets: EmitterTargets) -> Tensor:
    """Sum over pixels of the squared error of the background, of each frame, (N,); 0 where it is not known."""
    if targets.background is None or "background" not in targets.output.channels:
        return maps.new_zeros(len(maps))
    error = maps[:, targets.output.index("background")] - targets.background
    return error.square().flatten(1).sum(1)


def detection_loss(maps: Tensor, targets: EmitterTargets) -> Tensor:
    """Cross-entropy of the probability with "an emitter sits in this pixel", summed over the pixels, (N,)."""
    count, _, height, width = maps.shape
    there = torch.zeros(count * height * width, device=maps.device)
    place = (targets.frame * height + targets.y.floor().long()) * width + targets.x.floor().long()
    there[place] = 1.0
    p = maps[:, targets.output.index("probability")].flatten(1)
    return F.binary_cross_entropy(p, there.view(count, -1), reduction="none").sum(1)


def decode_per_frame(
    maps: Tensor,
    targets: EmitterTargets,
    *,
    times_emitters: bool = False,
    background_weight: float = 1.0,
    detection_weight: float = 0.0,
    window: int | None = None,
) -> Tensor:
    """DECODE's loss of each frame, (N,): count + mixture + weighted background + weighted detection.

    Args:
        maps: (N, C, H, W), activated; or (B, T, C, H, W).
        targets: from `EmitterMaps.encode`, of the N frames.
        times_emitters: the published count term; the default also teaches frames without emitters.
        background_weight: of the background's squared error.
        detection_weight: of the pixel cross-entropy of the probability, which sharpens it.
        window: see `mixture_loss`.

    Raises:
        ValueError: maps and targets do not fit each other.
    """
    if maps.ndim == 5:
        maps = maps.flatten(0, 1)
    if maps.ndim != 4 or len(maps) != targets.count or maps.shape[1] != len(targets.output.channels):
        raise ValueError(
            f"maps are {tuple(maps.shape)}, but the targets are of {targets.count} frames with channels "
            f"{targets.output.channels}; encode them with the network's own output contract"
        )
    if window is not None and (window < 1 or window % 2 == 0):
        raise ValueError(f"window is {window}; give an odd number of pixels, or None for the whole frame")
    maps = maps.float()
    probability = maps[:, targets.output.index("probability")]
    total = count_loss(probability, targets.per_frame(), times_emitters=times_emitters)
    total = total + mixture_loss(maps, targets, window=window)
    if background_weight:
        total = total + background_weight * background_loss(maps, targets)
    if detection_weight:
        total = total + detection_weight * detection_loss(maps, targets)
    return total


def decode(
    maps: Tensor,
    targets: EmitterTargets,
    *,
    times_emitters: bool = False,
    background_weight: float = 1.0,
    detection_weight: float = 0.0,
    window: int | None = None,
) -> Tensor:
    """Mean of `decode_per_frame` over the frames; with `times_emitters` this is the program's number."""
    return decode_per_frame(
        maps,
        targets,
        times_emitters=times_emitters,
        background_weight=background_weight,
        detection_weight=detection_weight,
        window=window,
    ).mean()
