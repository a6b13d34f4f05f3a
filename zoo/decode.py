"""DECODE: two U-Nets over three frames; per pixel a probability, position, photons and how sure it is.

Source: Speiser, Mueller et al., Nature Methods 18:1082 (2021), doi:10.1038/s41592-021-01236-x; sizes of its program,
release 0.10.2 (two 3x3 convolutions a stage where the text says three). The first U-Net works on one frame at a
time, so that in a movie its result serves three output frames: `features` and `combine` are its two halves.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._blocks import choose
from ._elu import Elu
from ._emitter_maps import DECODE_CHANNELS, EmitterMaps
from ._map_network import MapNetwork, SharesFeatures
from ._registry import Variant, register_model

SIGMA_FLOOR = 0.001
LOGIT_LIMIT = 8.0  # of the detection channel, before the sigmoid


def _stage(channels_in: int, channels: int, *, norm: str, groups: int) -> nn.Sequential:
    """Twice [group norm] - convolution 3x3 - ELU."""
    layers: list[nn.Module] = []
    for first in (channels_in, channels):
        if norm == "group":
            layers.append(nn.GroupNorm(min(groups, first), first))
        layers += [nn.Conv2d(first, channels, 3, padding=1), Elu()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """(N, channels_in, H, W) -> (N, width, H, W); height and width multiples of 2**depth.

    Args:
        channels_in: of the input.
        width: features of the first stage; they double at each of `depth` steps down.
        depth: steps down.
        norm: "none" or "group" (before each 3x3 convolution).
        pooling: "strided" (2x2 convolution, stride 2) or "max".
        upsampling: "nearest" or "bilinear", then a 1x1 convolution.
    """

    def __init__(
        self,
        channels_in: int,
        *,
        width: int = 48,
        depth: int = 2,
        norm: str = "none",
        pooling: str = "strided",
        upsampling: str = "nearest",
    ):
        super().__init__()
        self.upsampling = upsampling
        widths = [width * 2**level for level in range(depth + 1)]
        groups = 8 if width % 8 == 0 else 1
        before = [channels_in, *widths[:-1]]
        self.encoder = nn.ModuleList(
            _stage(a, b, norm=norm, groups=groups if level else 1)
            for level, (a, b) in enumerate(zip(before[:-1], widths[:-1], strict=True))
        )
        self.poolers = nn.ModuleList(
            nn.Conv2d(w, w, 2, stride=2) if pooling == "strided" else nn.MaxPool2d(2) for w in widths[:-1]
        )
        self.base = _stage(before[-1] if depth else channels_in, widths[-1], norm=norm, groups=groups)
        falling = widths[::-1]
        self.upsamplers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in itertools.pairwise(falling))
        self.decoder = nn.ModuleList(_stage(2 * w, w, norm=norm, groups=groups) for w in falling[1:])
        self.out_conv = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for stage, pool in zip(self.encoder, self.poolers, strict=True):
            x = stage(x)
            skips.append(x)
            x = pool(x)
        x = self.base(x)
        for shrink, stage in zip(self.upsamplers, self.decoder, strict=True):
            x = self._enlarge(shrink(x))
            x = stage(torch.cat([skips.pop(), x], dim=1))
        return self.out_conv(x)

    def _enlarge(self, x: Tensor) -> Tensor:
        """Both kinds have weights that sum to 1, so that a 1x1 convolution may as well come first, on the coarse grid:
        a quarter of its work."""
        if self.upsampling == "nearest":
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Head(nn.Module):
    """Convolution 3x3, ELU, convolution 1x1: (N, width, H, W) -> (N, channels, H, W)."""

    def __init__(self, width: int, channels: int):
        super().__init__()
        self.core = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), Elu())
        self.out_conv = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_conv(self.core(x))


def activated(raw: Tensor, means: int) -> Tensor:
    """Final functions of the channels p, photons, positions, `means` sigmas and, where it is there, background.

    Sigmoid for p (its argument cut at +-8), photons and background; tanh for positions; 3 sigmoid + 0.001 for sigmas.
    """
    p, photons, rest, sigma, light = raw.split([1, 1, means - 1, means, raw.shape[1] - 1 - 2 * means], dim=1)
    parts = [
        torch.sigmoid(p.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)),
        torch.sigmoid(photons),
        torch.tanh(rest),
        3 * torch.sigmoid(sigma) + SIGMA_FLOOR,
        torch.sigmoid(light),
    ]
    return torch.cat(parts, dim=1)


class DecodeCore(SharesFeatures):
    """Both U-Nets and the heads, on scaled frames; see `decode` for the options."""

    def __init__(self, *, frames: int, means: int, background: bool, width: int, **shape: Any):
        super().__init__(frames)
        self.means = means
        self.frame_net = UNet(1, width=width, **shape)
        self.context_net = UNet(frames * width, width=width, **shape)
        heads = [Head(width, channels) for channels in (1, means, means, *([1] if background else []))]
        self.heads = nn.ModuleList(heads)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        detection = heads[0].out_conv
        assert detection.bias is not None
        nn.init.kaiming_normal_(detection.weight, nonlinearity="linear")
        nn.init.constant_(detection.bias, -6.0)  # p starts near 0.0025

    def features(self, frames: Tensor) -> Tensor:
        """Frames (N, H, W) -> (N, width, H, W), each on its own."""
        return self.frame_net(frames[:, None])

    def combine(self, features: Tensor) -> Tensor:
        """Features of the frames of each window, (N, frames x width, H, W) in time order -> maps (N, C, H, W)."""
        return self.heads_of(self.context_net(features))

    def heads_of(self, x: Tensor) -> Tensor:
        """What the second U-Net gives, (N, width, H, W) -> maps (N, C, H, W)."""
        return activated(torch.cat([head(x) for head in self.heads], dim=1), self.means)


class Decode(MapNetwork):
    """DECODE; see `decode` for its options."""

    core: DecodeCore

    def __init__(self, *, output: EmitterMaps, frames: int, depth: int, normalisation: str, **shape: Any):
        side = frames // 2
        super().__init__(
            output=output,
            frames_before=side,
            frames_after=side,
            size_multiple=2**depth,
            normalisation=normalisation,
        )
        self.core = DecodeCore(
            frames=frames,
            means=3 + int(output.axial),
            background="background" in output.channels,
            depth=depth,
            **shape,
        )


def maps_output(*, dimensions: int, background: bool, **settings: Any) -> EmitterMaps:
    """DECODE's channels, without those of z (2 dimensions) or of the background."""
    left_out = {*(("z", "z_sigma") if dimensions == 2 else ()), *(() if background else ("background",))}
    return EmitterMaps(channels=tuple(c for c in DECODE_CHANNELS if c not in left_out), **settings)


@register_model(
    output=EmitterMaps(),
    frames_in=3,
    size_multiple=4,
    loss="decode",
    source="Speiser et al. 2021, doi:10.1038/s41592-021-01236-x",
    licence="GPL-3 (program; only facts are used here)",
    summary="two U-Nets over three frames; positions with their uncertainty, 2-D and 3-D",
    receptive_field_px=89,
    parameters=2_199_418,
    variants={
        "1 frame": Variant(
            summary="looks at one frame only", parameters=2_157_946, receptive_field_px=89, options={"frames": 1}
        ),
        "2-D": Variant(
            summary="without z and its sigma", parameters=2_199_320, receptive_field_px=89, options={"dimensions": 2}
        ),
    },
)
def decode(
    *,
    frames: int = 3,
    dimensions: int = 3,
    width: int = 48,
    depth: int = 2,
    norm: str = "none",
    pooling: str = "strided",
    upsampling: str = "nearest",
    background: bool = True,
    normalisation: str = "dataset",
) -> Decode:
    """DECODE with `frames` (1 or 3), `dimensions` (2 or 3), `width`, `depth`, `norm` (none, group), `pooling` (strided,
    max), `upsampling` (nearest, bilinear), `background` (whether there is a head for it) and `normalisation`."""
    choose("frames", frames, (1, 3))
    choose("dimensions", dimensions, (2, 3))
    choose("norm", norm, ("none", "group"))
    choose("pooling", pooling, ("strided", "max"))
    choose("upsampling", upsampling, ("nearest", "bilinear"))
    if width < 1 or depth < 1 or depth > 4:
        raise ValueError(f"width is {width} and depth {depth}; width must be at least 1 and depth 1 to 4")
    return Decode(
        output=maps_output(dimensions=dimensions, background=background),
        frames=frames,
        width=width,
        depth=depth,
        norm=norm,
        pooling=pooling,
        upsampling=upsampling,
        normalisation=normalisation,
    )
