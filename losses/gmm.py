"""Losses of the attention U-Net: an emitter's position and brightness as a mixture of normals over the pixels.

Three terms: location (the mixture at each emitter), count (how many emitters a frame has), background. The published
form sums and scales them so that losses of other densities and block lengths cannot be compared, and gives frames
without emitters no reason to stay empty; `gmm` is ours.

Source: program SMLM-AttentionAI (Reinhard et al. 2025, doi:10.1101/2025.04.05.647262), GMMLossDecode and GMMLoss.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .emitters import background_loss, count_loss, detection_loss, mixture_loss

if TYPE_CHECKING:
    from zoo import EmitterTargets

BRIGHTNESS_SHIFT = 0.01  # added to the predicted brightness in the published loss
BACKGROUND_FACTOR = 10.0


def _as_frames(maps: Tensor, targets: EmitterTargets) -> tuple[Tensor, int]:
    """Maps as (N, C, H, W), at least float32, and how many samples they are: blocks of (B, T, C, H, W), or frames.

    Raises:
        ValueError: maps and targets do not fit each other.
    """
    frames = maps.flatten(0, 1) if maps.ndim == 5 else maps
    channels = targets.output.channels
    if frames.ndim != 4 or len(frames) != targets.count or frames.shape[1] != len(channels):
        raise ValueError(
            f"maps are {tuple(maps.shape)}, but the targets are of {targets.count} frames with channels {channels}; "
            "encode them with the network's own output contract"
        )
    return frames.float() if frames.dtype in (torch.bfloat16, torch.float16) else frames, len(maps)


def relative_brightness(targets: EmitterTargets, *, blocks: int) -> EmitterTargets:
    """The same targets with photons divided by those of the brightest emitter of their block; nothing is changed in
    place.

    Args:
        targets: of `blocks` blocks of equally many frames.
        blocks: how many.
    """
    block = targets.frame // (targets.count // blocks)
    brightest = torch.zeros(blocks, device=block.device, dtype=targets.photons.dtype)
    brightest = brightest.scatter_reduce(0, block, targets.photons, "amax")
    scale = torch.where(brightest > 0, brightest, 1.0)
    return replace(targets, photons=targets.photons / scale[block])


def gmm_published_terms(maps: Tensor, targets: EmitterTargets, *, count_divisor: float = 10.0) -> Tensor:
    """The published terms of each block, unweighted, (B, 3): location, count, background.

    With p the probability, E a frame's emitters, m and v mean and variance of the sum of p:

    - location: -sum over emitters of log sum_i (p_i / sum p) Normal(emitter; mean_i, sigma_i), brightness relative to
      the block's brightest emitter and the predicted one 0.01 higher;
    - count: sum over frames of E ((E - m)^2 / 2v + log(2 pi v) / 2) / `count_divisor`, so empty frames cost nothing;
    - background: 10 times the mean squared error, in the channel's units.

    Args:
        maps: activated, (B, T, C, H, W), or (T, C, H, W) for one block.
        targets: from `EmitterMaps.encode`, of all B T frames; the background must be known.
        count_divisor: 10; the older loss of 8 channels has 100.

    Raises:
        ValueError: maps and targets do not fit each other.
    """
    blocks = len(maps) if maps.ndim == 5 else 1
    frames, _ = _as_frames(maps, targets)
    relative = relative_brightness(targets, blocks=blocks)
    shifted = replace(relative, photons=relative.photons - BRIGHTNESS_SHIFT)
    probability = frames[:, targets.output.index("probability")]
    terms = (
        mixture_loss(frames, shifted),
        count_loss(probability, targets.per_frame(), times_emitters=True) / count_divisor,
        background_loss(frames, targets) * (BACKGROUND_FACTOR * blocks / probability.numel()),
    )
    return torch.stack(terms, dim=1).unflatten(0, (blocks, -1)).sum(1)


def gmm_published(
    maps: Tensor,
    targets: EmitterTargets,
    *,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    count_divisor: float = 10.0,
) -> Tensor:
    """`gmm_published_terms` weighted and added, mean over the blocks; for one block the program's number."""
    terms = gmm_published_terms(maps, targets, count_divisor=count_divisor)
    return (terms * terms.new_tensor(weights)).sum(1).mean()


def _gmm_parts(maps: Tensor, targets: EmitterTargets, *, window: int | None, detection_weight: float) -> list[Tensor]:
    """Of each sample: summed location (S,), emitters (S,), mean count term (S,), mean background error (S,)."""
    if window is not None and (window < 1 or window % 2 == 0):
        raise ValueError(f"window is {window}; give an odd number of pixels, or None for the whole frame")
    frames, samples = _as_frames(maps, targets)
    probability = frames[:, targets.output.index("probability")]
    emitters = targets.per_frame()
    count = count_loss(probability, emitters)
    if detection_weight:
        count = count + detection_weight * detection_loss(frames, targets)
    location = mixture_loss(frames, targets, window=window)
    light = background_loss(frames, targets) / (probability.shape[-2] * probability.shape[-1])
    location, emitters, count, light = (part.unflatten(0, (samples, -1)) for part in (location, emitters, count, light))
    return [location.sum(1), emitters.sum(1), count.mean(1), light.mean(1)]


def gmm_per_sample(
    maps: Tensor,
    targets: EmitterTargets,
    *,
    count_weight: float = 1.0,
    background_weight: float = BACKGROUND_FACTOR,
    detection_weight: float = 0.0,
    window: int | None = None,
) -> Tensor:
    """`gmm` of each block of maps (B, T, C, H, W), (B,), or of each frame of maps (N, C, H, W), (N,)."""
    parts = _gmm_parts(maps, targets, window=window, detection_weight=detection_weight)
    location, emitters, count, light = parts
    return location / emitters.clamp(min=1) + count_weight * count + background_weight * light


def gmm(
    maps: Tensor,
    targets: EmitterTargets,
    *,
    count_weight: float = 1.0,
    background_weight: float = BACKGROUND_FACTOR,
    detection_weight: float = 0.0,
    window: int | None = None,
) -> Tensor:
    """Mean over the emitters of the location term, plus means over the frames of the count and background terms.

    Location as in `gmm_published_terms`, but brightness in the channel's own unit (photons / photons_scale) and without
    shift; count without the factor E, so that empty frames are to stay empty; the background's squared error in the
    channel's unit (photons / background_scale), 0 where it is not known.

    Args:
        maps: activated, (B, T, C, H, W) or (N, C, H, W).
        targets: from `EmitterMaps.encode`, of all frames; only real emitters are looked at, and there may be none.
        count_weight, background_weight: of those terms.
        detection_weight: of the pixel cross-entropy of the probability, which sharpens it.
        window: side of the square of pixels round an emitter that are its mixture, odd; None for the whole frame.

    Raises:
        ValueError: maps and targets do not fit each other, or an even window.
    """
    parts = _gmm_parts(maps, targets, window=window, detection_weight=detection_weight)
    location, emitters, count, light = parts
    each = location.sum() / emitters.sum().clamp(min=1)
    return each + count_weight * count.mean() + background_weight * light.mean()
