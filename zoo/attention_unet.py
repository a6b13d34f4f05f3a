"""Attention U-Net: two U-Nets over single frames and, between them, attention over time in every pixel.

Source: S. Reinhard, V. Ebert, J. Schrama, M. Sauer, P. Kollmannsberger, bioRxiv 10.1101/2025.04.05.647262 (2025), and
the layers of its program SMLM-AttentionAI, AttentionUNetV2. A pixel's features of all frames of a block are one
sequence, so that a blinking molecule is recognised over its on-time.

Everything looks at the whole block: the normalisation at all its pixels and frames, a norm at all pixels of a frame,
the bilinear enlarging at the size of the field. Tiles of a field therefore differ from the whole field.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._blocks import Normalisation, choose
from ._emitter_maps import EmitterMaps
from ._map_network import MapNetwork
from ._registry import Variant, register_model
from ._temporal_attention import POSITIONS, Attention, TemporalAttention, at_least_float32, in_parts

#: Meaning of the channels; 1 and 8 were never trained.
CHANNELS = (
    *("probability", "", "y", "x", "photons"),
    *("y_sigma", "x_sigma", "photons_sigma", "", "background"),
)
HEADS = (1, 4, 4, 1)  # channels of each output head
BLOCK_NORMALISATIONS = ("block", "block_min_max", "block_max", "dataset")
SIGMA_FLOOR = 0.001
LOGIT_LIMIT = 8.0  # of the detection channel, before the sigmoid


def gmm_activation(logits: Tensor) -> Tensor:
    """Raw outputs (..., 10, H, W) -> maps: probability and channel 1 in 0..1, offsets and photons in -1..1, sigmas
    0.001 to 3.001, background free.

    The logit of the probability is cut at +-8, so that it stays within 0.0003 to 0.9997. A new tensor, at least
    float32.
    """
    p, free, mean, sigma, light = at_least_float32(logits).split((1, 1, 3, 4, 1), dim=-3)
    parts = (
        torch.sigmoid(p.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)),
        torch.sigmoid(free),
        torch.tanh(mean),
        3 * torch.sigmoid(sigma) + SIGMA_FLOOR,
        light,
    )
    return torch.cat(parts, dim=-3)


def gmm_activation_8(logits: Tensor) -> Tensor:
    """The older layout, (..., 8, H, W): probability, row, column, their sigmas, background, photons, their sigma.

    Sigmas of the position are 0.001 to 3.001, photons 0 to 2, their sigma 0 to 3. A new tensor, at least float32.
    """
    p, mean, sigma, light, photons, photons_sigma = at_least_float32(logits).split((1, 2, 2, 1, 1, 1), dim=-3)
    parts = (
        torch.sigmoid(p.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)),
        torch.tanh(mean),
        3 * torch.sigmoid(sigma) + SIGMA_FLOOR,
        light,
        2 * torch.sigmoid(photons),
        3 * torch.sigmoid(photons_sigma),
    )
    return torch.cat(parts, dim=-3)


class BlockNormalisation(Normalisation):
    """Photons (B, T, H, W) to numbers near one, by the statistics of each block of frames.

    Modes:
        block: mean 0 and standard deviation 1 over all frames and pixels of a block; gain and offset drop out.
        block_min_max: a block's extremes to 0 and 1, for weights from before July 2024.
        block_max: divided by the block's maximum + 0.001 (V1).
        dataset: (x - mean) / std with two stored numbers: a fixed calibration.

    A constant block gives zeros in the first two.
    """

    def __init__(self, mode: str = "block"):
        if mode not in BLOCK_NORMALISATIONS:
            raise ValueError(f"normalisation is {mode!r}; known are: {', '.join(BLOCK_NORMALISATIONS)}")
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "dataset":
            return (x - self.mean) / self.std
        axes = (1, 2, 3)
        if self.mode == "block_max":
            return x / (x.amax(axes, keepdim=True) + 0.001)
        if self.mode == "block_min_max":
            low, high = x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
            return (x - low) / torch.where(high > low, high - low, 1.0)
        # As published to the last bit: what follows magnifies a relative error of 1e-7 here some thousand times.
        mean, std = x.mean(axes, keepdim=True), x.std(axes, keepdim=True)
        return (x - mean) / torch.where(std > 1e-6 * mean.abs(), std, 1.0)  # below it is rounding


def _double_conv(channels_in: int, between: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first, last in ((channels_in, between), (between, channels)):
        layers += [nn.Conv2d(first, last, 3, padding=1, bias=False), nn.BatchNorm2d(last), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """(N, channels_in, H, W) -> (N, width, H, W) with `depth` steps down, 2 as published; any sides from 4 pixels."""

    def __init__(self, channels_in: int, width: int, *, depth: int = 2):
        super().__init__()
        self.depth = depth
        self.first = nn.Conv2d(channels_in, width, 1)
        self.down1 = _double_conv(width, 2 * width, 2 * width)
        if depth > 1:
            self.down2 = _double_conv(2 * width, 4 * width, 4 * width)
            self.up1 = _double_conv(6 * width, 3 * width, 2 * width)
        self.up2 = _double_conv(3 * width, 3 * width // 2, width)
        self.last = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.first(x)
        middle = self.down1(F.max_pool2d(fine, 2))
        if self.depth > 1:
            coarse = self.down2(F.max_pool2d(middle, 2))
            middle = self.up1(_beside(middle, coarse))
        return self.last(self.up2(_beside(fine, middle)))


def _beside(skip: Tensor, coarse: Tensor) -> Tensor:
    """Channels of `skip` and of `coarse` enlarged to it: twice by corner-aligned interpolation, zeros below and right
    where a side is odd."""
    up = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=True)
    height, width = skip.shape[-2:]
    up = F.pad(up, (0, width - up.shape[-1], 0, height - up.shape[-2]))
    return torch.cat([skip, up], dim=1)


class Heads(nn.Module):
    """(N, width, H, W) -> (N, 10, H, W): for each group of channels a 3x3 convolution, ReLU of slope `slope` below 0,
    and a 1x1 convolution. The 3x3 ones are computed as one."""

    def __init__(self, width: int, slope: float):
        super().__init__()
        self.slope = slope
        self.wide = nn.ModuleList(nn.Conv2d(width, channels, 3, padding=1) for channels in HEADS)
        self.last = nn.ModuleList(nn.Conv2d(channels, channels, 1) for channels in HEADS)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.cat([conv.get_parameter("weight") for conv in self.wide])
        bias = torch.cat([conv.get_parameter("bias") for conv in self.wide])
        x = F.leaky_relu(F.conv2d(x, weight, bias, padding=1), self.slope)
        return torch.cat([conv(part) for conv, part in zip(self.last, x.split(HEADS, dim=1), strict=True)], dim=1)

    def macs(self, pixels: int) -> tuple[int, int]:
        """Multiply-accumulates of the 3x3 convolutions."""
        work = pixels * sum(conv.get_parameter("weight").numel() for conv in self.wide)
        return work, work


def initialise(core: nn.Module) -> None:
    """As published: Kaiming-normal weights of convolutions and linear layers, the attention's own projections of
    Xavier and zero biases; the detection head starts near p = 0.0025."""
    for layer in core.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    for layer in core.modules():
        if isinstance(layer, Attention):
            nn.init.xavier_uniform_(layer.in_proj_weight)
            nn.init.zeros_(layer.in_proj_bias)
            nn.init.zeros_(layer.out_proj.bias)
    nn.init.constant_(core.get_parameter("heads.last.0.bias"), -6.0)
    nn.init.zeros_(core.get_parameter("heads.wide.3.bias"))


class AttentionUNetCore(nn.Module):
    """Normalised (B, T, H, W) -> maps (B, T, 10, H, W).

    Args:
        width: features of the first U-Net; the second has twice as many.
        context: frames of a block, for `count_macs`.
        dropout: of the temporal attention, in training.
        depth: steps down of both U-Nets, 1 or 2.
    """

    statistics = "block"  # norms over whole frames: the result depends on the crop

    def __init__(self, *, width: int = 96, context: int = 50, dropout: float = 0.1, depth: int = 2):
        super().__init__()
        self.first = UNet(1, width, depth=depth)
        self.time = TemporalAttention(width, dropout=dropout, context=context)
        self.second = UNet(width, 2 * width, depth=depth)
        self.heads = Heads(2 * width, slope=0.01)
        initialise(self)

    def forward(self, frames: Tensor) -> Tensor:
        return gmm_activation(self.logits(frames))

    def logits(self, frames: Tensor) -> Tensor:
        """Raw outputs, before the activation."""
        batch, count, height, width = frames.shape
        x = in_parts(self, self.first, frames.reshape(batch * count, 1, height, width))
        x = self.time(x, count, out=x)
        x = in_parts(self, lambda part: self.heads(self.second(part)), x)
        return x.unflatten(0, (batch, count))


class AttentionUNet(MapNetwork):
    """Photons -> normalised by block -> core.

    Args:
        core: normalised (B, T, H, W) -> maps (B, T, 10, H, W).
        output: meaning of the channels.
        normalisation: mode of `BlockNormalisation`.
        context: frames of a block, as `localize` cuts movies.
        size_multiple: of height and width.
        longest: most frames of a block; None for no limit.
    """

    def __init__(
        self,
        core: nn.Module,
        *,
        output: EmitterMaps,
        normalisation: str,
        context: int,
        size_multiple: int = 1,
        longest: int | None = None,
    ):
        super().__init__(output=output, size_multiple=size_multiple, context=context)
        self.normalisation = BlockNormalisation(normalisation)
        self.core = core
        self.longest = longest

    def _check(self, frames: Tensor) -> None:
        super()._check(frames)
        count, height, width = frames.shape[1:]
        if self.longest is not None and count > self.longest:
            raise ValueError(
                f"the block has {count} frames, but the position code ends at {self.longest}; give shorter blocks"
            )
        if min(height, width) < 4:
            raise ValueError(f"frames are {height} x {width} pixels; two poolings need at least 4 x 4")


def check_width(width: int, context: int) -> None:
    """Refuse a width that eight heads cannot share, and a block without frames.

    Raises:
        ValueError: says which.
    """
    if width < 8 or width % 8:
        raise ValueError(f"width is {width!r}; the attention has eight heads, so it must be a multiple of 8")
    if context < 1:
        raise ValueError(f"context is {context!r}; a block has at least one frame")


@register_model(
    output=EmitterMaps(channels=CHANNELS),
    loss="gmm",
    source="Reinhard et al. 2025, doi:10.1101/2025.04.05.647262; program SMLM-AttentionAI, commit 0fbfdba",
    licence="MIT (by its README; only facts are used here)",
    summary="two U-Nets and, between them, attention over the frames of a block in every pixel",
    receptive_field_px=99,
    parameters=25_117_110,
    variants={
        "narrow": Variant(
            summary="a third of the width, a ninth of the work: for CPUs",
            parameters=2_797_750,
            receptive_field_px=99,
            options={"width": 32},
        ),
    },
)
def attention_unet(
    *, width: int = 96, depth: int = 2, context: int = 50, normalisation: str = "block", dropout: float = 0.1
) -> AttentionUNet:
    """Attention U-Net (V2) with `width` features (a multiple of 8; 16 to 32 for CPUs), U-Nets of `depth` steps down (1
    or 2), blocks of `context` frames, `normalisation` (block, block_min_max, dataset for a fixed calibration) and
    `dropout` of the attention.

    One 64x64 frame costs 26.4 GMAC at width 96 (2.9 at 32), nearly all of it in convolutions.
    """
    check_width(width, context)
    choose("depth", depth, (1, 2))
    core = AttentionUNetCore(width=width, context=context, dropout=dropout, depth=depth)
    return AttentionUNet(
        core, output=EmitterMaps(channels=CHANNELS), normalisation=normalisation, context=context, longest=POSITIONS
    )
