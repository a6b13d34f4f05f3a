"""U-STORM: a shallow U-Net on the enlarged frame.

Source: github.com/MichealBReed/DL4SMLM, which cites a pansharpening paper (Yao W. et al., Neurocomputing
2018, doi:10.1016/j.neucom.2018.05.103). Skips are taken after pooling, and the last layer ends in batch norm
and ReLU, as there. Differs: that last norm's bias starts at 0.1, so that the ReLU is alive at the start.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._blocks import ConvBlock, ImageNetwork, image_output, start_alive
from ._outputs import SRImage
from ._registry import register_model


class UStorm(nn.Module):
    """(N, 1, h, w) -> (N, 1, h, w), never negative; h and w multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.features = ConvBlock(1, 32, activation=nn.ReLU())
        self.down1 = ConvBlock(32, 64, activation=nn.ReLU(), pool=True)
        self.down2 = ConvBlock(64, 128, activation=nn.ReLU(), pool=True)
        self.middle = ConvBlock(128, 32, activation=nn.ReLU())
        self.up = ConvBlock(96, 16, activation=nn.ReLU())
        self.rebuild = ConvBlock(48, 1, 1, activation=nn.ReLU())
        start_alive(self.rebuild)

    def forward(self, x: Tensor) -> Tensor:
        full = self.features(x)  # (N, 32, h, w)
        half = self.down1(full)  # (N, 64, h/2, w/2)
        deep = self.middle(self.down2(half))  # (N, 32, h/4, w/4)
        joined = torch.cat([half, F.interpolate(deep, scale_factor=2.0, mode="nearest")], dim=1)
        coarse = self.up(joined)  # (N, 16, h/2, w/2)
        # A 1x1 convolution and nearest upsampling change places: the 48 joined channels are never formed.
        last = self.rebuild
        weight, bias = last.conv.weight, last.conv.bias
        lower = F.interpolate(F.conv2d(coarse, weight[:, 32:], bias), scale_factor=2.0, mode="nearest")
        return last.activation(last.norm(F.conv2d(full, weight[:, :32]) + lower))


@register_model(
    output=SRImage(upsampling=8),
    loss="deepstorm",
    source="github.com/MichealBReed/DL4SMLM",
    licence="MIT",
    summary="shallow U-Net, skips after pooling",
    receptive_field_px=24 / 8,
    parameters=144_003,
)
def u_storm(*, upsampling: int = 8, normalisation: str = "dataset", enlarge: str = "nearest") -> ImageNetwork:
    """U-STORM."""
    return ImageNetwork(
        UStorm(),
        output=image_output(upsampling=upsampling),
        normalisation=normalisation,
        enlarge=enlarge,
        core_multiple=4,
    )
