"""Losses for networks that turn frames into super-resolved images.

All take a prediction (N, 1, H, W) on the fine grid and a target of the same shape. Targets are unit spikes (one per
emitter, `SRImage.spikes`) unless said otherwise; `target_scale` says what a lone emitter counts. A Gaussian blur of
prediction and target forgives errors of a fraction of its width, which is what makes spike targets learnable.

Source: Nehme et al. 2018, doi:10.1364/OPTICA.5.000458 (L1L2); the codes of the presets are named at each.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Reduction = Literal["mean", "none"]


@cache
def gaussian_kernel(size: int, sigma: float, *, unit_sum: bool = True) -> Tensor:
    """A centred Gaussian, (size, size); cut at the window and scaled to sum 1, or to peak 1 with `unit_sum=False`.

    Args:
        size: odd width of the window, fine pixels.
        sigma: standard deviation, fine pixels.

    Example:
        >>> round(gaussian_kernel(7, 1.0).max().item(), 4)
        0.1592
    """
    line = _gaussian_line(size, sigma, unit_sum)
    return torch.outer(line, line)


def _gaussian_line(size: int, sigma: float, unit_sum: bool) -> Tensor:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a blur kernel of {size} pixels has no centre; give an odd size")
    if not sigma > 0:
        raise ValueError(f"blur sigma is {sigma} fine pixels; it must be above 0")
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-(offset**2) / (2 * sigma**2))
    return (line / line.sum() if unit_sum else line).float()


@cache
def corner_kernel() -> Tensor:
    """DL4SMLM's 3x3 kernel: the impulse sits in the corner, so the Gaussian is off-centre by 0.58 pixel on both axes.

    The published fault, kept for parity and for DRL-STORM's fixed residual layer. A sigma-1 Gaussian filter with
    mirrored edges of an impulse at [2, 2]; sum 1, sum of squares 0.252.

    Example:
        >>> round(corner_kernel()[2, 2].item(), 4)
        0.4108
    """
    reach = torch.arange(-8, 9, dtype=torch.float64)
    weights = torch.exp(-(reach**2) / 2) * (reach.abs() <= 4)  # the filter reaches four sigma
    weights = weights / weights.sum()
    line = torch.zeros(3, dtype=torch.float64)
    for step, weight in zip(reach.tolist(), weights.tolist(), strict=True):
        folded = int(2 + step) % 6  # mirrored edges: ... 2 1 0 | 0 1 2 | 2 1 0 ...
        line[folded if folded < 3 else 5 - folded] += weight
    return torch.outer(line, line).float()


def _check(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction is {tuple(prediction.shape)} but target is {tuple(target.shape)}; "
            "encode the target with the upsampling of the model"
        )


def _reduce(elements: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "mean":
        return elements.mean()
    if reduction == "none":
        return elements.flatten(1).mean(1)
    raise ValueError(f"no reduction named {reduction!r}; there are 'mean' (a number) and 'none' (one per image)")


def blur(images: Tensor, kernel: Tensor, *, padding: str = "same") -> Tensor:
    """Correlate one-channel images (N, 1, H, W) with a kernel; zero padding ('same') or none ('valid')."""
    return functional.conv2d(images, kernel.to(images)[None, None], padding=padding)


def _separable_blur(images: Tensor, size: int, sigma: float, unit_sum: bool, padding: str) -> Tensor:
    line = _gaussian_line(size, sigma, unit_sum).to(images)
    rows = functional.conv2d(images, line[None, None, None, :], padding=padding)
    return functional.conv2d(rows, line[None, None, :, None], padding=padding)


def l1l2(
    prediction: Tensor,
    target: Tensor,
    *,
    kernel_size: int = 7,
    sigma: float = 1.0,
    unit_sum: bool = True,
    kernel: Literal["centred", "dl4smlm"] = "centred",
    gain: float = 1.0,
    target_kind: Literal["spikes", "heatmap"] = "spikes",
    target_scale: float = 1.0,
    l2_weight: float = 1.0,
    l1_weight: float = 1.0,
    l1_on: Literal["prediction", "blurred"] = "prediction",
    padding: Literal["same", "valid"] = "same",
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared error of blurred images, plus an L1 price that makes the image sparse.

    `l2_weight * mean[(gain g*q - W H)^2] + l1_weight * mean|q|`, g the blur, q the prediction, W `target_scale`, and H
    the blurred spikes g*y, or the target itself where it is a ready heatmap.

    A lone emitter's best spike is `(W - l1_weight / (2 l2_weight gain S)) / gain`, S the kernel's sum of squares
    (0.0797 for the default): with a small W or a high price the best image is empty (`empty_optimum`).

    Args:
        prediction: image, (N, 1, H, W).
        target: same shape; unit spikes, or a heatmap with `target_kind="heatmap"`.
        kernel_size: window of the blur, fine pixels, odd.
        sigma: width of the blur, fine pixels.
        unit_sum: kernel scaled to sum 1; False leaves its peak at 1 (as DSIR).
        kernel: "centred", or "dl4smlm" for that package's off-centre 3x3 kernel.
        gain: factor on the blurred prediction only; the published Deep-STORM code has 2.
        target_scale: what a lone emitter counts.
        l1_on: what the L1 price is taken of.
        padding: "valid" leaves a border without loss (as DL4SMLM).
        reduction: "mean" over all elements, or "none": one value per image, (N,).

    Raises:
        ValueError: the shapes differ, or an option is unknown.

    Example:
        >>> hit = torch.zeros(1, 1, 9, 9); hit[..., 4, 4] = 1
        >>> round(l1l2(hit, hit).item(), 4)   # the L1 price of 1 over 81 pixels
        0.0123

    Source: Nehme et al. 2018, doi:10.1364/OPTICA.5.000458.
    """
    _check(prediction, target)
    goal = target * target_scale
    if kernel == "dl4smlm":

        def smooth(images: Tensor) -> Tensor:
            return blur(images, corner_kernel(), padding=padding)
    elif kernel == "centred":

        def smooth(images: Tensor) -> Tensor:
            return _separable_blur(images, kernel_size, sigma, unit_sum, padding)
    else:
        raise ValueError(f"no kernel named {kernel!r}; there are 'centred' and 'dl4smlm'")

    if l1_on == "blurred" or target_kind == "heatmap":
        blurred = smooth(prediction)
        residual = gain * blurred - (goal if target_kind == "heatmap" else smooth(goal))
    else:  # blurring is linear: once for the difference
        blurred = prediction
        residual = smooth(gain * prediction - goal)
    loss = l2_weight * _reduce(residual.square(), reduction)
    if l1_weight:
        priced = {"prediction": prediction, "blurred": blurred}.get(l1_on)
        if priced is None:
            raise ValueError(f"l1_on is {l1_on!r}; it may be 'prediction' or 'blurred'")
        loss = loss + l1_weight * _reduce(priced.abs(), reduction)
    return loss


def heatmap_mse(
    prediction: Tensor,
    target: Tensor,
    *,
    kernel_size: int = 7,
    sigma: float = 1.0,
    target_kind: Literal["spikes", "heatmap"] = "spikes",
    target_scale: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Mean squared error against the blurred spikes; the prediction itself is not blurred (FID-STORM).

    Args:
        prediction: heatmap, (N, 1, H, W).
        target: same shape; unit spikes, or a ready heatmap with `target_kind="heatmap"`.
        target_scale: sum of a lone emitter's heatmap.

    Source: Zhou et al. 2023, doi:10.1364/BOE.484540, and its code.
    """
    _check(prediction, target)
    goal = target * target_scale
    if target_kind == "spikes":
        goal = _separable_blur(goal, kernel_size, sigma, True, "same")
    return _reduce((prediction - goal).square(), reduction)


def sfhbarnett(
    prediction: Tensor,
    target: Tensor,
    *,
    target_kind: Literal["spikes", "heatmap"] = "spikes",
    target_scale: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """`heatmap_mse` plus the mean of the target heatmap: the L1 price sits on the target, so it teaches nothing.

    Kept because runs of that code report this number. With 7x7 heatmaps as there.

    Source: code of sfhbarnett/DeepSTORM; its prediction is compared unblurred (measured on its output).
    """
    goal = target * target_scale
    if target_kind == "spikes":
        goal = _separable_blur(goal, 7, 1.0, True, "same")
    mse = heatmap_mse(prediction, goal, target_kind="heatmap", reduction=reduction)
    return mse + _reduce(goal.abs(), reduction)


def dl4smlm_mse(
    prediction: Tensor, target: Tensor, *, lambda_: float, target_scale: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    """DL4SMLM's so-called weighted MSE: `(lambda/2) mean (q-y)^2 + mean |q|`. No pixel is weighted.

    The best image is empty where `lambda * target_scale <= 1`. `emitter_weighted_mse` really weights pixels.
    """
    _check(prediction, target)
    error = (prediction - target * target_scale).square()
    return _reduce(lambda_ / 2 * error + prediction.abs(), reduction)


def dl4smlm_mae(
    prediction: Tensor, target: Tensor, *, lambda_: float, target_scale: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    """DL4SMLM's so-called weighted MAE: `(lambda/2) mean |q-y| + mean |q|`. No pixel is weighted.

    The best image is empty where `lambda <= 2`. `emitter_weighted_mae` really weights pixels.
    """
    _check(prediction, target)
    error = (prediction - target * target_scale).abs()
    return _reduce(lambda_ / 2 * error + prediction.abs(), reduction)


def emitter_weighted_mse(
    prediction: Tensor,
    target: Tensor,
    *,
    emitter_weight: float,
    target_scale: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Mean squared error in which pixels that hold an emitter count `emitter_weight` times as much as empty ones.

    Example:
        >>> hit = torch.zeros(1, 1, 2, 2); hit[..., 0, 0] = 1
        >>> emitter_weighted_mse(0 * hit, hit, emitter_weight=8.0).item()   # 8 * 1 / 4 pixels
        2.0
    """
    _check(prediction, target)
    return _reduce(_weights(target, emitter_weight) * (prediction - target * target_scale).square(), reduction)


def emitter_weighted_mae(
    prediction: Tensor,
    target: Tensor,
    *,
    emitter_weight: float,
    target_scale: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Mean absolute error in which pixels that hold an emitter count `emitter_weight` times as much as empty ones."""
    _check(prediction, target)
    return _reduce(_weights(target, emitter_weight) * (prediction - target * target_scale).abs(), reduction)


def _weights(target: Tensor, emitter_weight: float) -> Tensor:
    return torch.where(target > 0, emitter_weight, 1.0)


def dsir(
    prediction: Tensor, target: Tensor, *, fwhm: float = 3.0, target_scale: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    """Squared error of images blurred by a 5x5 Gaussian of peak 1 (not of sum 1), zero padding.

    Args:
        fwhm: full width at half maximum of the blur, fine pixels; DSIR trains with 3, then with 1.

    Source: code of DSIR (Duarte 2018).
    """
    sigma = fwhm / (2 * math.sqrt(2 * math.log(2)))
    return l1l2(
        prediction,
        target,
        kernel_size=5,
        sigma=sigma,
        unit_sum=False,
        target_scale=target_scale,
        l1_weight=0.0,
        reduction=reduction,
    )


def empty_optimum(loss: Callable[..., Tensor], *, target_scale: float, **options: float) -> bool:
    """Whether an empty image is best for a lone emitter: does the loss fall when a right spike begins to grow?

    The losses here are convex in the prediction, so the slope at the empty image decides. Measured by autograd on one
    emitter in the middle of a 33x33 image, with the spike grown in the emitter's own pixel (for heatmap losses, which
    do not price intensity, the answer is always no).

    Args:
        loss: a loss of this module.
        target_scale: what a lone emitter counts.
        options: the loss's own options.
    """
    target = torch.zeros(1, 1, 33, 33)
    target[..., 16, 16] = 1
    height = torch.tensor(1e-3 * target_scale, requires_grad=True)
    value = loss(height * target, target, target_scale=target_scale, **options)
    (slope,) = torch.autograd.grad(value, height)
    return slope.item() >= 0
