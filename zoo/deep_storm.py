"""Deep-STORM: encoder-decoder from a blurred frame to a map of emitters.

Source: Nehme, Weiss, Michaeli, Shechtman, Optica 5(4):458 (2018), doi:10.1364/OPTICA.5.000458; the Keras
network of github.com/EliasNehme/Deep-STORM (512 channels at 1/8 scale, no convolution bias, batch norm eps
1e-3). Variants: dl4smlm (github.com/MichealBReed/DL4SMLM: upsampling before the wide layers, three times the
work, biases and a batch norm on the output) and sfhbarnett (github.com/sfhbarnett/DeepSTORM: replicate
padding, eps 1e-5; for its weight files).
"""

from __future__ import annotations

from torch import Tensor, nn

from ._blocks import ConvBlock, ImageNetwork, Padding, check_width, choose, image_output
from ._outputs import SRImage
from ._registry import Variant, register_model

DEPTHS = (1, 2, 3)


def trunk_widths(width: int, depth: int) -> tuple[int, ...]:
    """Channels before and after each block; published: (1, 32, 64, 128, 512, 128, 64, 32) for width 32 and depth 3."""
    falling = tuple(width * 2**step for step in range(depth))
    return (1, *falling, 4 * falling[-1], *falling[::-1])


class DeepStormTrunk(nn.Module):
    """Blocks of 3x3 convolution, batch norm, ReLU, seven as published: (N, 1, h, w) -> (N, width, h, w); h and w
    multiples of 2**depth.

    Args:
        late: whether the first of the upsamplings stands before the block after the middle one (Nehme), not before the
            middle one (DL4SMLM).
        bias: of the convolutions.
        eps, momentum: of the batch norms.
        padding_mode: of the convolutions.
        width: channels of the first block.
        depth: poolings, 1 to 3.
    """

    def __init__(
        self,
        *,
        late: bool = True,
        bias: bool = False,
        eps: float = 1e-3,
        momentum: float = 0.01,
        padding_mode: Padding = "zeros",
        width: int = 32,
        depth: int = 3,
    ):
        super().__init__()
        check_width(width)
        choose("depth", depth, DEPTHS)
        widths = trunk_widths(width, depth)
        first_upsampled = depth + 1 + late
        for step in range(1, 2 * depth + 2):
            block = ConvBlock(
                widths[step - 1],
                widths[step],
                bias=bias,
                activation=nn.ReLU(),
                pool=step <= depth,
                upsample=first_upsampled <= step < first_upsampled + depth,
                padding_mode=padding_mode,
                eps=eps,
                momentum=momentum,
            )
            self.add_module(f"block{step}", block)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.children():
            x = block(x)
        return x


def orthogonal_init(module: nn.Module) -> None:
    """Orthogonal kernels for every convolution in `module`, as the Keras network has."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.orthogonal_(layer.weight)


def make_trunk(form: str, *, width: int = 32, depth: int = 3) -> DeepStormTrunk:
    """The trunk of a published form: nehme, dl4smlm or sfhbarnett; narrower or shallower if asked."""
    if form == "dl4smlm":
        return DeepStormTrunk(late=False, bias=True, eps=1e-5, momentum=0.1, width=width, depth=depth)
    if form == "sfhbarnett":
        trunk = DeepStormTrunk(eps=1e-5, momentum=0.1, padding_mode="replicate", width=width, depth=depth)
    else:
        trunk = DeepStormTrunk(width=width, depth=depth)
    orthogonal_init(trunk)
    return trunk


class DeepStorm(nn.Module):
    """Trunk and a 1x1 reconstruction: (N, 1, h, w) -> (N, 1, h, w); h and w multiples of 2**depth."""

    def __init__(self, form: str = "nehme", *, width: int = 32, depth: int = 3):
        super().__init__()
        self.trunk = make_trunk(form, width=width, depth=depth)
        own = form == "dl4smlm"
        self.rebuild = ConvBlock(width, 1, 1, bias=own, norm=own)
        if not own:
            orthogonal_init(self.rebuild)

    def forward(self, x: Tensor) -> Tensor:
        return self.rebuild(self.trunk(x))


@register_model(
    output=SRImage(upsampling=8),
    loss="deepstorm",
    source="Nehme et al. 2018, doi:10.1364/OPTICA.5.000458",
    licence="MIT",
    summary="encoder-decoder, 512 channels at 1/8 scale",
    receptive_field_px=54 / 8,
    parameters=1_366_208,
    variants={
        "dl4smlm": Variant(
            summary="DL4SMLM's: upsampling before the wide layers, batch norm on the output",
            parameters=1_367_171,
            receptive_field_px=38 / 8,
            options={"variant": "dl4smlm"},
        ),
        "sfhbarnett": Variant(
            summary="PyTorch port with replicate padding, for its weight files",
            parameters=1_366_208,
            receptive_field_px=54 / 8,
            options={"variant": "sfhbarnett"},
        ),
    },
)
def deep_storm(
    *,
    variant: str = "nehme",
    width: int = 32,
    depth: int = 3,
    upsampling: int = 8,
    normalisation: str = "dataset",
    enlarge: str = "nearest",
) -> ImageNetwork:
    """Deep-STORM in the form `variant` (nehme, dl4smlm, sfhbarnett): `width` channels in the first block, `depth`
    poolings (1 to 3)."""
    choose("variant", variant, ("nehme", "dl4smlm", "sfhbarnett"))
    return ImageNetwork(
        DeepStorm(variant, width=width, depth=depth),
        output=image_output(upsampling=upsampling),
        normalisation=normalisation,
        enlarge=enlarge,
        core_multiple=2**depth,
    )
