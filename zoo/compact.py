"""Compact: a small localization network of our own, for processors without a GPU and as a student.

Most of the work is done at half resolution. A frame becomes four phases of a grid twice as coarse (no information is
lost), a few convolutions look at each frame alone, a trunk of residual blocks with growing dilation looks at three
frames together, and one transposed convolution brings the result back to the camera's grid, where the raw frame
itself is added once more for the sub-pixel position.

Source: this project. In the spirit of half-resolution trunks with dilated convolutions: Yu and Koltun 2016,
arXiv:1511.07122; pixel shuffling: Shi et al. 2016, arXiv:1609.05158.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._blocks import SeparableConv2d, choose
from ._elu import elu
from ._emitter_maps import EmitterMaps
from ._map_network import MapNetwork, SharesFeatures
from ._registry import Variant, register_model
from .decode import activated, maps_output

BLOCKS = 5


def dilations(blocks: int) -> tuple[int, ...]:
    """Dilations of the trunk's blocks, growing to 4 and falling: 1, 2, 4, 2, 1 for five."""
    return tuple(2 ** min(step, blocks - 1 - step, 2) for step in range(blocks))


class _Residual(nn.Module):
    """Two 3x3 convolutions of one dilation, with ELU; what comes in is added."""

    first: nn.Conv2d | SeparableConv2d
    second: nn.Conv2d | SeparableConv2d

    def __init__(self, width: int, dilation: int, *, separable: bool = False):
        super().__init__()
        for name in ("first", "second"):
            layer = (
                SeparableConv2d(width, width, dilation=dilation)
                if separable
                else nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
            )
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return x + elu(self.second(elu(self.first(x))))


class CompactCore(SharesFeatures):
    """Scaled frames (B, T, H, W) -> maps (B, T - frames + 1, C, H, W); height and width even."""

    def __init__(
        self,
        *,
        frames: int,
        channels: int,
        means: int,
        background: bool,
        width: int,
        blocks: int = BLOCKS,
        separable: bool = False,
    ):
        super().__init__(frames)
        self.means = means
        single = width // 3 // 8 * 8 if frames > 1 else width  # features of one frame
        self.lift = nn.Conv2d(4, single, 3, padding=1)
        self.look = nn.Conv2d(single, single, 3, padding=1)
        self.join = nn.Conv2d(frames * single, width, 3, padding=1)
        self.trunk = nn.Sequential(*(_Residual(width, d, separable=separable) for d in dilations(blocks)))
        self.grow = nn.ConvTranspose2d(width, width // 3 // 8 * 8, 4, stride=2, padding=1)
        fine = width // 3 // 8 * 8
        self.refine = nn.Conv2d(fine + frames, fine, 3, padding=1)
        self.give = nn.Conv2d(fine, channels, 1)
        self.background = background
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for block in self.trunk:
            assert isinstance(block, _Residual)
            last = block.second.mix if isinstance(block.second, SeparableConv2d) else block.second
            nn.init.zeros_(last.weight)  # each block starts as the identity
        with torch.no_grad():
            self.give.weight.mul_(0.1)
            assert self.give.bias is not None
            self.give.bias[0] = -6.0  # p starts near 0.0025

    def features(self, frames: Tensor) -> Tensor:
        """Frames (N, H, W) -> (N, features, H/2, W/2) and the frame's own four phases, each frame on its own."""
        phases = F.pixel_unshuffle(frames[:, None], 2)
        return torch.cat([elu(self.look(elu(self.lift(phases)))), phases], dim=1)

    def combine(self, features: Tensor) -> Tensor:
        """Features of the frames of each window, (N, frames x features, H/2, W/2) in time order -> (N, C, H, W)."""
        each = features.shape[1] // self.frames
        split = features.unflatten(1, (self.frames, each))
        x = elu(self.join(split[:, :, :-4].flatten(1, 2)))
        x = elu(self.grow(self.trunk(x)))
        raw = F.pixel_shuffle(split[:, :, -4:].flatten(1, 2), 2)
        return activated(self.give(elu(self.refine(torch.cat([x, raw], dim=1)))), self.means)


class Compact(MapNetwork):
    """See `compact` for its options."""

    core: CompactCore

    def __init__(self, *, output: EmitterMaps, frames: int, width: int, blocks: int, separable: bool):
        side = frames // 2
        super().__init__(output=output, frames_before=side, frames_after=side, size_multiple=2)
        self.core = CompactCore(
            frames=frames,
            channels=len(output.channels),
            means=3 + int(output.axial),
            background="background" in output.channels,
            width=width,
            blocks=blocks,
            separable=separable,
        )


@register_model(
    output=maps_output(dimensions=3, background=True),
    frames_in=3,
    size_multiple=2,
    loss="decode",
    source="this project",
    licence="MIT",
    summary="small localization network at half resolution, for CPUs and as a student",
    receptive_field_px=99,
    parameters=983_498,
    variants={
        "2-D": Variant(summary="without z", parameters=983_432, receptive_field_px=99, options={"dimensions": 2}),
        "1 frame": Variant(
            summary="one frame only", parameters=1_059_082, receptive_field_px=99, options={"frames": 1}
        ),
    },
)
def compact(
    *,
    frames: int = 3,
    dimensions: int = 3,
    width: int = 96,
    blocks: int = BLOCKS,
    separable: bool = False,
    background: bool = True,
) -> Compact:
    """The compact network with `frames` (1 or 3), `dimensions` (2 or 3), `width` (multiple of 24), `blocks` of the
    trunk (1 to 5), `separable` convolutions there or not, and `background`."""
    choose("frames", frames, (1, 3))
    choose("dimensions", dimensions, (2, 3))
    if width < 24 or width % 24:
        raise ValueError(f"width is {width}; give a multiple of 24")
    choose("blocks", blocks, tuple(range(1, BLOCKS + 1)))
    output = maps_output(dimensions=dimensions, background=background)
    return Compact(output=output, frames=frames, width=width, blocks=blocks, separable=separable)
