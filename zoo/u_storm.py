"""U-STORM: a shallow U-Net on the enlarged frame.

Source: github.com/MichealBReed/DL4SMLM, which cites a pansharpening paper (Yao W. et al., Neurocomputing
2018, doi:10.1016/j.neucom.2018.05.103). Skips are taken after pooling, and the last layer ends in batch norm
and ReLU, as there. Differs: that last norm's bias starts at 0.1, so that the ReLU is alive at the start.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._blocks import ConvBlock, ImageNetwork, check_width, choose, image_output, scaled, start_alive
from ._outputs import SRImage
from ._registry import register_model

DEPTHS = (1, 2, 3)


class UStorm(nn.Module):
    """(N, 1, h, w) -> (N, 1, h, w), never negative; h and w multiples of 2**depth.

    Args:
        width: features at full resolution; they double at each of `depth` poolings.
        depth: poolings; 2 as published.
    """

    def __init__(self, *, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        check_width(width)
        choose("depth", depth, DEPTHS)
        self.width, thin = width, scaled(16, width, 32)
        self.features = ConvBlock(1, width, activation=nn.ReLU())
        self.down1 = ConvBlock(width, 2 * width, activation=nn.ReLU(), pool=True)
        if depth > 1:
            self.down2 = ConvBlock(2 * width, 4 * width, activation=nn.ReLU(), pool=True)
        if depth > 2:
            self.down3 = ConvBlock(4 * width, 8 * width, activation=nn.ReLU(), pool=True)
        self.middle = ConvBlock(2**depth * width, width if depth > 1 else thin, activation=nn.ReLU())
        if depth > 2:
            self.up2 = ConvBlock(5 * width, width, activation=nn.ReLU())
        if depth > 1:
            self.up = ConvBlock(3 * width, thin, activation=nn.ReLU())
        self.depth = depth
        self.rebuild = ConvBlock(width + thin, 1, 1, activation=nn.ReLU())
        start_alive(self.rebuild)

    def forward(self, x: Tensor) -> Tensor:
        full = self.features(x)  # (N, 32, h, w), for width 32
        half = self.down1(full)  # (N, 64, h/2, w/2)
        if self.depth == 1:
            coarse = self.middle(half)  # (N, 16, h/2, w/2)
        else:
            quarter = self.down2(half)  # (N, 128, h/4, w/4)
            if self.depth == 2:
                deep = self.middle(quarter)  # (N, 32, h/4, w/4)
            else:
                deep = self.up2(_beside(quarter, self.middle(self.down3(quarter))))
            coarse = self.up(_beside(half, deep))  # (N, 16, h/2, w/2)
        # A 1x1 convolution and nearest upsampling change places: the 48 joined channels are never formed.
        last = self.rebuild
        assert isinstance(last.conv, nn.Conv2d)
        weight, bias = last.conv.weight, last.conv.bias
        lower = F.interpolate(F.conv2d(coarse, weight[:, self.width :], bias), scale_factor=2.0, mode="nearest")
        return last.activation(last.norm(F.conv2d(full, weight[:, : self.width]) + lower))


def _beside(skip: Tensor, coarse: Tensor) -> Tensor:
    return torch.cat([skip, F.interpolate(coarse, scale_factor=2.0, mode="nearest")], dim=1)


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
    *, width: int = 32, depth: int = 2, upsampling: int = 8, normalisation: str = "dataset", enlarge: str = "nearest"
) -> ImageNetwork:
    """U-STORM with `width` features at full resolution and `depth` poolings (1 to 3)."""
    return ImageNetwork(
        UStorm(width=width, depth=depth),
        output=image_output(upsampling=upsampling),
        normalisation=normalisation,
        enlarge=enlarge,
        core_multiple=2**depth,
    )
