"""FID-STORM: works on raw camera pixels and enlarges at the end, for real time.

Source: Zhou, Wu, Wang, Huang, Biomed. Opt. Express 14(4):1833 (2023), doi:10.1364/BOE.484540; the network of
github.com/SRMLabHUST/FID-STORM (additive skip, three nearest x2 steps). Its published forms differ in the
number of blocks and the body's activation: pickle 10 blocks LeakyReLU, ONNX files 5 blocks LeakyReLU and 13
blocks ReLU, norms folded. Variant dl4smlm: github.com/MichealBReed/DL4SMLM, concatenating skip, no upsampling
inside; here the frame is enlarged before it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ._blocks import ConvBlock, ImageNetwork, check_width, choose, image_output, scaled
from ._outputs import SRImage
from ._registry import Variant, register_model

_SLOPE = 0.01


class FIDStorm(nn.Module):
    """(N, 1, H, W) -> (N, 1, sH, sW), s = `upsampling`.

    Args:
        n_blocks: residual blocks.
        body_activation: "leaky_relu" or "relu", inside the blocks.
        folded: convolutions of the blocks have a bias and no norm follows, as in the published ONNX files.
        upsampling: 8, or 4 (then the last convolution does not enlarge).
        width: features on the camera grid; half and a quarter of it on the finer ones.
        separable: convolutions of the blocks work on each channel alone, then mix them (`SeparableConv2d`).
    """

    def __init__(
        self,
        *,
        n_blocks: int = 10,
        body_activation: str = "leaky_relu",
        folded: bool = False,
        upsampling: int = 8,
        width: int = 64,
        separable: bool = False,
    ):
        super().__init__()
        choose("body_activation", body_activation, ("leaky_relu", "relu"))
        if n_blocks < 1:
            raise ValueError(f"n_blocks is {n_blocks!r}; give at least 1 (published: 5, 10, 13)")
        check_width(width)
        self.first = ConvBlock(1, width, bias=False, norm=False, activation=nn.LeakyReLU(_SLOPE))
        blocks = []
        for _ in range(n_blocks):
            activation = nn.ReLU() if body_activation == "relu" else nn.LeakyReLU(_SLOPE)
            blocks.append(
                ConvBlock(width, width, bias=folded, norm=not folded, activation=activation, separable=separable)
            )
        self.body = nn.Sequential(*blocks)
        steps = int(math.log2(upsampling))
        widths = (width, scaled(32, width, 64), scaled(16, width, 64), 1)
        up = [
            ConvBlock(
                widths[step],
                widths[step + 1],
                bias=False,
                norm=False,
                activation=nn.LeakyReLU(_SLOPE),
                upsample=step < steps,
            )
            for step in range(3)
        ]
        self.up1, self.up2, self.up3 = up
        self._initialise()

    def _initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                fan = layer.weight[0, 0].numel() * layer.out_channels // layer.groups
                nn.init.normal_(layer.weight, std=math.sqrt(2 / fan))
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(self.up2.conv.get_parameter("weight"), std=0.001)  # the repository's choice: starts near zero

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self.body(x)
        return self.up3(self.up2(self.up1(x)))


class FIDStormConcat(nn.Module):
    """DL4SMLM's form, size unchanged: (N, 1, h, w) -> (N, 1, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 64, 3, padding=1)
        self.body = nn.Sequential(*(ConvBlock(64, 64, activation=nn.ReLU()) for _ in range(5)))
        self.rebuild1 = nn.Conv2d(128, 32, 3, padding=1)
        self.rebuild2 = nn.Conv2d(32, 16, 3, padding=1)
        self.rebuild3 = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = torch.cat([x, self.body(x)], dim=1)
        return self.rebuild3(self.rebuild2(self.rebuild1(x)))


@register_model(
    output=SRImage(upsampling=8, target_scale=1.0, kind="heatmap"),
    loss="fidstorm",
    source="Zhou et al. 2023, doi:10.1364/BOE.484540; github.com/SRMLabHUST/FID-STORM",
    licence="LGPL-3.0-or-later (its README; layers only, code here is new)",
    summary="works on camera pixels, enlarges at the end",
    receptive_field_px=25,
    parameters=393_680,
    variants={
        "onnx5": Variant(
            summary="published ONNX form: 5 blocks, norms folded",
            parameters=208_400,
            receptive_field_px=15,
            options={"n_blocks": 5, "folded": True},
        ),
        "onnx13": Variant(
            summary="published ONNX form: 13 blocks, ReLU, norms folded",
            parameters=503_824,
            receptive_field_px=31,
            options={"n_blocks": 13, "body_activation": "relu", "folded": True},
        ),
        "dl4smlm": Variant(
            summary="DL4SMLM's: concatenating skip, on the enlarged frame",
            parameters=227_585,
            receptive_field_px=19 / 8,
            options={"variant": "dl4smlm"},
        ),
    },
)
def fid_storm(
    *,
    variant: str = "repository",
    n_blocks: int = 10,
    body_activation: str = "leaky_relu",
    folded: bool = False,
    width: int = 64,
    separable: bool = False,
    upsampling: int = 8,
    normalisation: str = "dataset",
    enlarge: str = "nearest",
) -> ImageNetwork:
    """FID-STORM in the form `variant` (repository, dl4smlm).

    `n_blocks`, `body_activation`, `folded`, `width` and `separable` shape the repository form, `enlarge` is used by
    dl4smlm only.
    """
    choose("variant", variant, ("repository", "dl4smlm"))
    output = image_output(upsampling=upsampling, target_scale=1.0, kind="heatmap")
    if variant == "dl4smlm":
        if (n_blocks, body_activation, folded, width, separable) != (10, "leaky_relu", False, 64, False):
            raise ValueError(
                "n_blocks, body_activation, folded, width and separable belong to variant 'repository', not 'dl4smlm'"
            )
        return ImageNetwork(FIDStormConcat(), output=output, normalisation=normalisation, enlarge=enlarge)
    core = FIDStorm(
        n_blocks=n_blocks,
        body_activation=body_activation,
        folded=folded,
        upsampling=upsampling,
        width=width,
        separable=separable,
    )
    return ImageNetwork(core, output=output, normalisation=normalisation, enlarge="none")
