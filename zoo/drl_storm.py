"""DRL-STORM: two chained encoder-decoders with a fixed residual (noise-removal) layer between.

Source: github.com/MichealBReed/DL4SMLM, after Yao B. et al., Optics Express 28(10):15432 (2020),
doi:10.1364/OE.392358. Not verified against the paper, whose layer table was not to be had.
Differs: the last norm's bias starts at 0.1, so that the last ReLU is alive at the start.
Variant centred is our own design: 1x1 convolution to one channel, centred unit-sum Gaussian, one residual
channel.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._blocks import ConvBlock, ImageNetwork, choose, image_output, start_alive
from ._outputs import SRImage
from ._registry import Variant, register_model


class SharedInputConv2d(nn.Conv2d):
    """A convolution whose input channels are all the same image, given once: (N, 1, h, w) -> (N, O, h, w).

    Exactly the convolution with the kernels summed over input channels; the parameters keep their full shape.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.sum(1, keepdim=True), self.bias, padding=self.padding)


class EncoderDecoder(nn.Module):
    """Steps 2 to 8: (N, channels, h, w) -> (N, 32, h, w); h and w multiples of 8."""

    def __init__(self, channels: int = 32):
        super().__init__()
        self.down1 = ConvBlock(channels, 64, activation=nn.ReLU(), pool=True)
        self.down2 = ConvBlock(64, 128, activation=nn.ReLU(), pool=True)
        self.down3 = ConvBlock(128, 592, pool=True)  # no activation, as in the source
        self.middle = ConvBlock(592, 592, activation=nn.ReLU())
        self.up1 = ConvBlock(592, 128, activation=nn.ReLU(), upsample=True)
        self.up2 = ConvBlock(128, 64, activation=nn.ReLU(), upsample=True)
        self.up3 = ConvBlock(64, 32, activation=nn.ReLU(), upsample=True)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.children():
            x = block(x)
        return x


class PublishedResidual(nn.Module):
    """image - K * features, K fixed: all 32 channels of the result are alike, so one is given, (N, 1, h,
    w)."""

    gaussian_weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gaussian_weights", corner_gaussian().expand(32, 32, 3, 3).clone())

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        return image - F.conv2d(features, self.gaussian_weights[:1], padding=1)

    def macs(self, pixels: int) -> tuple[int, int]:
        """Multiplications for `pixels` fine pixels: as published, as done here."""
        return 32 * 32 * 9 * pixels, 32 * 9 * pixels


class CentredResidual(nn.Module):
    """image - centred unit-sum Gaussian * (1x1 mixture of the features), (N, 1, h, w)."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(32, 1, 1)
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
    """(N, 1, h, w) -> (N, 1, h, w), never negative; h and w multiples of 8."""

    def __init__(self, *, centred: bool = False):
        super().__init__()
        self.features = ConvBlock(1, 32, activation=nn.ReLU())
        self.first = EncoderDecoder()
        self.residual: nn.Module = CentredResidual() if centred else PublishedResidual()
        self.second = EncoderDecoder(1 if centred else 32)
        if not centred:
            self.second.down1.conv = SharedInputConv2d(32, 64, 3, padding=1)
        self.rebuild = ConvBlock(32, 1, activation=nn.ReLU())
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
    upsampling: int = 8,
    normalisation: str = "dataset",
    enlarge: str = "nearest",
) -> ImageNetwork:
    """DRL-STORM in the form `variant` (dl4smlm, centred)."""
    choose("variant", variant, ("dl4smlm", "centred"))
    return ImageNetwork(
        DRLStorm(centred=variant == "centred"),
        output=image_output(upsampling=upsampling),
        normalisation=normalisation,
        enlarge=enlarge,
        core_multiple=8,
    )
