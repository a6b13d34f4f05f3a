"""The first Attention U-Net: two plain U-Nets, attention over time at a quarter of the resolution of the second.

Source: as `attention_unet`; the layers are those of the program's AttentionUNet (also called ViTV8). There is no
position code: frames of a block may change places. Kept for its weight files; `attention_unet` is the canonical one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._emitter_maps import EmitterMaps
from ._registry import register_model
from ._temporal_attention import TemporalAttention, in_parts
from .attention_unet import (
    CHANNELS,
    AttentionUNet,
    Heads,
    check_width,
    gmm_activation,
    initialise,
)


def _stage(channels_in: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first in (channels_in, channels):
        layers += [nn.Conv2d(first, channels, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class PlainUNet(nn.Module):
    """(N, channels_in, H, W) -> (N, width, H, W) in two halves; height and width multiples of 4."""

    def __init__(self, channels_in: int, width: int):
        super().__init__()
        fine, middle, coarse = width, 2 * width, 4 * width
        self.encoder = nn.ModuleList([_stage(channels_in, fine), _stage(fine, middle)])
        self.poolers = nn.ModuleList(nn.Conv2d(w, w, 2, stride=2) for w in (fine, middle))
        self.base = _stage(middle, coarse)
        self.upsamplers = nn.ModuleList([nn.Conv2d(coarse, middle, 1), nn.Conv2d(middle, fine, 1)])
        self.decoder = nn.ModuleList([_stage(2 * middle, middle), _stage(2 * fine, fine)])
        self.last = nn.Conv2d(width, width, 1)

    def down(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at full, half and quarter resolution."""
        fine = self.encoder[0](x)
        middle = self.encoder[1](self.poolers[0](fine))
        return fine, middle, self.base(self.poolers[1](middle))

    def up(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> Tensor:
        """From the features of `down` to (N, width, H, W)."""
        x = coarse
        for skip, shrink, stage in zip((middle, fine), self.upsamplers, self.decoder, strict=True):
            # the weights of the enlarging sum to 1: the 1x1 convolution may as well come first, on the coarse grid
            x = F.interpolate(shrink(x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = stage(torch.cat([skip, x], dim=1))
        return self.last(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(*self.down(x))


class AttentionUNetV1Core(nn.Module):
    """Normalised (B, T, H, W) -> maps (B, T, 10, H, W); arguments as `AttentionUNetCore`."""

    statistics = "block"  # the norm before the attention looks at whole frames

    def __init__(self, *, width: int = 48, context: int = 50, dropout: float = 0.1):
        super().__init__()
        self.first = PlainUNet(1, width)
        self.second = PlainUNet(width, width)
        self.time = TemporalAttention(4 * width, dropout=dropout, positions=0, context=context)
        self.heads = Heads(width, slope=0.0)
        initialise(self)

    def forward(self, frames: Tensor) -> Tensor:
        return gmm_activation(self.logits(frames))

    def logits(self, frames: Tensor) -> Tensor:
        """Raw outputs, before the activation."""
        batch, count, height, width = frames.shape
        x = in_parts(self, self.first, frames.reshape(batch * count, 1, height, width))
        fine, middle, coarse = self.second.down(x)
        x = self.heads(self.second.up(fine, middle, self.time(coarse, count, out=coarse)))
        return x.unflatten(0, (batch, count))


@register_model(
    output=EmitterMaps(channels=CHANNELS),
    size_multiple=4,
    loss="gmm",
    source="Reinhard et al. 2025, doi:10.1101/2025.04.05.647262; program SMLM-AttentionAI, commit 0fbfdba",
    licence="MIT (by its README; only facts are used here)",
    summary="attention over time at a quarter of the resolution; the first form of attention_unet",
    receptive_field_px=103,
    parameters=3_117_798 - 482_304,
)
def attention_unet_v1(
    *, width: int = 48, context: int = 50, normalisation: str = "block_max", dropout: float = 0.1
) -> AttentionUNet:
    """V1 with `width` features (a multiple of 8), blocks of `context` frames, and `normalisation` (block_max, block,
    block_min_max, dataset)."""
    check_width(width, context)
    core = AttentionUNetV1Core(width=width, context=context, dropout=dropout)
    return AttentionUNet(
        core,
        output=EmitterMaps(channels=CHANNELS),
        normalisation=normalisation,
        context=context,
        size_multiple=4,
    )
