"""Skip-STORM: Deep-STORM whose last layer also sees the input image.

Source: github.com/MichealBReed/DL4SMLM (no paper). Option trunk="nehme": the same skip on the published
Deep-STORM trunk, a third of the work.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ._blocks import ConvBlock, ImageNetwork, choose, image_output
from ._outputs import SRImage
from ._registry import Variant, register_model
from .deep_storm import make_trunk


class SkipStorm(nn.Module):
    """Trunk, then a 3x3 convolution over (features, image): (N, 1, h, w) -> (N, 1, h, w); multiples of
    2**depth.

    The convolution over the 33 joined channels is done as the sum over its two parts, which copies nothing.
    """

    def __init__(self, trunk: str = "dl4smlm", *, width: int = 32, depth: int = 3):
        super().__init__()
        self.trunk = make_trunk(trunk, width=width, depth=depth)
        self.rebuild = ConvBlock(width + 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self.rebuild.conv, self.rebuild.norm
        assert isinstance(conv, nn.Conv2d)
        seen = F.conv2d(self.trunk(x), conv.weight[:, :-1], conv.bias, padding=1)
        return norm(seen + F.conv2d(x, conv.weight[:, -1:], padding=1))


@register_model(
    output=SRImage(upsampling=8),
    loss="deepstorm",
    source="github.com/MichealBReed/DL4SMLM",
    licence="MIT",
    summary="Deep-STORM of DL4SMLM whose last layer also sees the input",
    receptive_field_px=46 / 8,
    parameters=1_367_436,
    variants={
        "nehme": Variant(
            summary="the same skip on the published Deep-STORM trunk",
            parameters=1_366_476,
            receptive_field_px=54 / 8,
            options={"trunk": "nehme"},
        ),
    },
)
def skip_storm(
    *,
    trunk: str = "dl4smlm",
    width: int = 32,
    depth: int = 3,
    upsampling: int = 8,
    normalisation: str = "dataset",
    enlarge: str = "nearest",
) -> ImageNetwork:
    """Skip-STORM on the `trunk` of DL4SMLM or nehme, with its `width` and `depth` (see `deep_storm`)."""
    choose("trunk", trunk, ("dl4smlm", "nehme"))
    return ImageNetwork(
        SkipStorm(trunk, width=width, depth=depth),
        output=image_output(upsampling=upsampling),
        normalisation=normalisation,
        enlarge=enlarge,
        core_multiple=2**depth,
    )
