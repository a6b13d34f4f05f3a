"""U-STORM: a shallow U-Net on the enlarged frame.

Source: github.com/MichealBReed/DL4SMLM, which cites a pansharpening paper (Yao W. et al., Neurocomputing
2018, doi:10.1016/j.neucom.2018.05.103). Skips are taken after pooling, and the last layer ends in batch norm
and ReLU, as there. Differs: that last norm's bias starts at 0.1, so that the ReLU is alive at the start.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._blocks import ConvBlock, ImageNetwork, check_width, image_output, scaled, start_alive
from ._outputs import SRImage
from ._registry import register_model


class UStorm(nn.Module):
    """(N, 1, h, w) -> (N, 1, h, w), never negative; h and w multiples of 4."""

    def __init__(self, *, width: int = 32) -> None:
        super().__init__()
        check_width(width)
        self.width, thin = width, scaled(16, width, 32)
        self.features = ConvBlock(1, width, activation=nn.ReLU())
        self.down1 = ConvBlock(width, 2 * width, activation=nn.ReLU(), pool=True)
        self.down2 = ConvBlock(2 * width, 4 * width, activation=nn.ReLU(), pool=True)
        self.middle = ConvBlock(4 * width, width, activation=nn.ReLU())
        self.up = ConvBlock(3 * width, thin, activation=nn.ReLU())
        self.rebuild = ConvBlock(width + thin, 1, 1, activation=nn.ReLU())
        start_alive(self.rebuild)

    def forward(self, x: Tensor) -> Tensor:
        full = self.features(x)  # (N, 32, h, w), for width 32
        half = self.down1(full)  # (N, 64, h/2, w/2)
        deep = self.middle(self.down2(half))  # (N, 32, h/4, w/4)
        joined = torch.cat([half, F.interpolate(deep, scale_factor=2.0, mode="nearest")], dim=1)
        coarse = self.up(joined)  # (N, 16, h/2, w/2)
        # A 1x1 convolution and nearest upsampling change places: the 48 joined channels are never formed.
        last = self.rebuild
        assert isinstance(last.conv, nn.Conv2d)
        weight, bias = last.conv.weight, last.conv.bias
        lower = F.interpolate(F.conv2d(coarse, weight[:, self.width :], bias), scale_factor=2.0, mode="nearest")
        return last.activation(last.norm(F.conv2d(full, weight[:, : self.width]) + lower))


@register_model(
    output=SRImage(upsampling=8),
    loss="deepstorm",
    source="github.com/MichealBReed/DL4SMLM",
    licence="MIT",
    summary="shallow U-Net, skips after pooling",
    receptive_field_px=24 / 8,
    parameters=144_003,
)
def u_storm(
    *, width: int = 32, upsampling: int = 8, normalisation: str = "dataset", enlarge: str = "nearest"
) -> ImageNetwork:
    """U-STORM with `width` features at full resolution."""
    return ImageNetwork(
        UStorm(width=width),
        output=image_output(upsampling=upsampling),
        normalisation=normalisation,
        enlarge=enlarge,
        core_multiple=4,
    )
