"""SRCNN: three convolutions on the enlarged frame, the smallest plain network of the zoo.

Source: Dong, Loy, He, Tang, IEEE TPAMI 38(2):295 (2016), arXiv:1501.00092 (9-1-5, and its best net 9-5-5).
Differs from the paper: one grey channel, zero padding keeps the image size, Kaiming initialisation for Adam
(the paper's standard deviation of 0.001 on all layers starts near zero output and was meant for SGD).
Variant dl4smlm: 3-1-3 with a batch norm after every convolution, the last one too
(github.com/MichealBReed/DL4SMLM).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ._blocks import ConvBlock, ImageNetwork, check_width, choose, image_output, kaiming_init, scaled
from ._outputs import SRImage
from ._registry import Variant, register_model

_KERNELS = {"9-1-5": (9, 1, 5), "9-5-5": (9, 5, 5), "dl4smlm": (3, 1, 3)}
DEPTHS = (2, 3, 4, 5)


class SRCNN(nn.Module):
    """Patch features, mapping, reconstruction: (N, 1, h, w) -> (N, 1, h, w).

    Args:
        kernels: sizes of the three convolutions.
        norm: a batch norm after each.
        width: features of a patch; half as many are mapped to.
        depth: convolutions in all; further ones map on, of fewer the mapping goes.
    """

    def __init__(self, *, kernels: Sequence[int] = (9, 1, 5), norm: bool = False, width: int = 64, depth: int = 3):
        super().__init__()
        if len(kernels) != 3 or any(size < 1 or size % 2 == 0 for size in kernels):
            raise ValueError(f"kernels are {tuple(kernels)}; SRCNN needs three odd sizes, e.g. (9, 1, 5)")
        check_width(width)
        choose("depth", depth, DEPTHS)
        mapped = scaled(32, width, 64)
        self.extract = ConvBlock(1, width, kernels[0], norm=norm, activation=nn.ReLU())
        self.map: nn.Module = nn.Identity()
        if depth > 2:
            self.map = ConvBlock(width, mapped, kernels[1], norm=norm, activation=nn.ReLU())
        self.more = nn.Sequential(
            *(ConvBlock(mapped, mapped, kernels[1], norm=norm, activation=nn.ReLU()) for _ in range(depth - 3))
        )
        self.rebuild = ConvBlock(mapped if depth > 2 else width, 1, kernels[2], norm=norm)
        kaiming_init(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.extract(x)  # (N, width, h, w)
        x = self.more(self.map(x))  # (N, width / 2, h, w)
        return self.rebuild(x)  # (N, 1, h, w)


@register_model(
    output=SRImage(upsampling=8),
    loss="deepstorm",
    source="Dong et al. 2016, arXiv:1501.00092",
    licence="paper",
    summary="three convolutions 9-1-5 on the bicubic image",
    receptive_field_px=13 / 8,
    parameters=8129,
    variants={
        "9-5-5": Variant(
            summary="the paper's best net",
            parameters=57281,
            receptive_field_px=17 / 8,
            options={"variant": "9-5-5"},
        ),
        "dl4smlm": Variant(
            summary="3-1-3, batch norm after every convolution",
            parameters=3203,
            receptive_field_px=5 / 8,
            options={"variant": "dl4smlm"},
        ),
    },
)
def srcnn(
    *,
    variant: str = "9-1-5",
    kernels: Sequence[int] | None = None,
    width: int = 64,
    depth: int = 3,
    upsampling: int = 8,
    normalisation: str = "dataset",
    enlarge: str = "bicubic",
) -> ImageNetwork:
    """SRCNN in the form `variant` (9-1-5, 9-5-5, dl4smlm), or with other `kernels`; `width` features of a patch and
    `depth` convolutions (2 to 5)."""
    choose("variant", variant, tuple(_KERNELS))
    core = SRCNN(kernels=kernels or _KERNELS[variant], norm=variant == "dl4smlm", width=width, depth=depth)
    return ImageNetwork(core, output=image_output(upsampling=upsampling), normalisation=normalisation, enlarge=enlarge)
