"""DRL-STORM: two chained encoder-decoders with a fixed residual (noise-removal) layer between.

Source: github.com/MichealBReed/DL4SMLM, after Yao B. et al., Optics Express 28(10):15432 (2020),
doi:10.1364/OE.392358. Not verified against the paper, whose layer table was not to be had.
Differs: the last norm's bias starts at 0.1, so that the last ReLU is alive at the start.
Variant centred is our own design: 1x1 convolution to one channel, centred unit-sum Gaussian, one residual
channel.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._blocks import (
    ConvBlock,
    ImageNetwork,
    SharedInputConv2d,
    check_width,
    choose,
    image_output,
    start_alive,
)
from ._outputs import SRImage
from ._registry import Variant, register_model


class EncoderDecoder(nn.Module):
    """Steps 2 to 8: (N, channels, h, w) -> (N, width, h, w); h and w multiples of 2**depth.

    As published (width 32, depth 3): 64, 128 and 592 channels on the way down.
    """

    def __init__(self, channels: int = 32, *, width: int = 32, depth: int = 3):
        super().__init__()
        falling = [width * 2**step for step in range(1, depth)]
        falling.append(37 * width * 2**depth // 16)
        for step, (before, after) in enumerate(itertools.pairwise([channels, *falling]), start=1):
            last = step == depth  # no activation there, as in the source
            self.add_module(f"down{step}", ConvBlock(before, after, activation=None if last else nn.ReLU(), pool=True))
        self.middle = ConvBlock(falling[-1], falling[-1], activation=nn.ReLU())
        for step, (before, after) in enumerate(itertools.pairwise([*falling[::-1], width]), start=1):
            self.add_module(f"up{step}", ConvBlock(before, after, activation=nn.ReLU(), upsample=True))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.children():
            x = block(x)
        return x


class PublishedResidual(nn.Module):
    """image - K * features, K fixed: all 32 channels of the result are alike, so one is given, (N, 1, h,
    w)."""

    gaussian_weights: Tensor

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.register_buffer("gaussian_weights", corner_gaussian().expand(width, width, 3, 3).clone())

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        return image - F.conv2d(features, self.gaussian_weights[:1], padding=1)

    def macs(self, pixels: int) -> tuple[int, int]:
        """Multiplications for `pixels` fine pixels: as published, as done here."""
        width = len(self.gaussian_weights)
        return width * width * 9 * pixels, width * 9 * pixels


class CentredResidual(nn.Module):
    """image - centred unit-sum Gaussian * (1x1 mixture of the features), (N, 1, h, w)."""

    kernel: Tensor

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, 1, 1)
        profile = torch.exp(-0.5 * torch.arange(-1.0, 2.0) ** 2)
        profile = profile / profile.sum()
        self.register_buffer("kernel", (profile[:, None] * profile)[None, None])

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        return image - F.conv2d(self.mix(features), self.kernel, padding=1)

    def macs(self, pixels: int) -> tuple[int, int]:
        """Multiplications for `pixels` fine pixels beside those of `mix`: as published, as done here."""
        return 9 * pixels, 9 * pixels


def corner_gaussian() -> Tensor:
    """The source's 3x3 kernel, sum 1: an impulse in corner [2, 2], Gaussian-filtered (sigma 1, mirrored)."""
    reach = 4
    total = sum(math.exp(-0.5 * step**2) for step in range(-reach, reach + 1))
    profile = []
    for position in range(3):
        images = [place for k in range(-2, 3) for place in (2 + 6 * k, 3 + 6 * k)]
        near = [image - position for image in images if abs(image - position) <= reach]
        profile.append(sum(math.exp(-0.5 * step**2) for step in near) / total)
    row = torch.tensor(profile, dtype=torch.float64)
    return (row[:, None] * row).float()


class DRLStorm(nn.Module):
    """(N, 1, h, w) -> (N, 1, h, w), never negative; h and w multiples of 2**depth."""

    def __init__(self, *, centred: bool = False, width: int = 32, depth: int = 3):
        super().__init__()
        check_width(width)
        choose("depth", depth, (1, 2, 3))
        self.features = ConvBlock(1, width, activation=nn.ReLU())
        self.first = EncoderDecoder(width, width=width, depth=depth)
        self.residual: nn.Module = CentredResidual(width) if centred else PublishedResidual(width)
        self.second = EncoderDecoder(1 if centred else width, width=width, depth=depth)
        if not centred:
            entry = self.second.get_submodule("down1")
            assert isinstance(entry, ConvBlock)
            entry.conv = SharedInputConv2d(width, entry.norm.num_features)  # type: ignore[arg-type]
        self.rebuild = ConvBlock(width, 1, activation=nn.ReLU())
        start_alive(self.rebuild)

    def forward(self, x: Tensor) -> Tensor:
        rest = self.residual(x, self.first(self.features(x)))  # (N, 1, h, w)
        return self.rebuild(self.second(rest))


@register_model(
    output=SRImage(upsampling=8),
    loss="deepstorm",
    source="github.com/MichealBReed/DL4SMLM; not verified against Yao et al. 2020, doi:10.1364/OE.392358",
    licence="MIT",
    summary="two chained encoder-decoders, residual layer between",
    receptive_field_px=13,
    parameters=9_415_203,
    variants={
        "centred": Variant(
            summary="our design: centred residual layer, one residual channel",
            parameters=9_397_380,
            receptive_field_px=13,
            options={"variant": "centred"},
        ),
    },
)
def drl_storm(
    *,
    variant: str = "dl4smlm",
    width: int = 32,
    depth: int = 3,
    upsampling: int = 8,
    normalisation: str = "dataset",
    enlarge: str = "nearest",
) -> ImageNetwork:
    """DRL-STORM in the form `variant` (dl4smlm, centred), with `width` features at full resolution and `depth` poolings
    (1 to 3)."""
    choose("variant", variant, ("dl4smlm", "centred"))
    return ImageNetwork(
        DRLStorm(centred=variant == "centred", width=width, depth=depth),
        output=image_output(upsampling=upsampling),
        normalisation=normalisation,
        enlarge=enlarge,
        core_multiple=2**depth,
    )
