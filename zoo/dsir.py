"""DSIR: a convolutional autoencoder of 3,339 parameters.

Source: github.com/leaxp/Deep-Learning-Super-Resolution-Image-Reconstruction-DSIR (2018, no paper).
One batch norm serves two places and another four, as there. Their shared running statistics fit no place (the
published weights give zero everywhere with them), so inference uses the statistics of each image alone, as
the author ran it; the result then depends on what else is in the image. Option separate_norm: one norm per
place and ordinary running statistics, recommended for new training. Differs: the last norm's bias starts at
0.1, so that the last ReLU is alive at the start.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ._blocks import ImageNetwork, check_width, choose, image_output, scaled
from ._outputs import SRImage
from ._registry import Variant, register_model

STATISTICS = ("image", "batch", "running")
DEPTHS = (1, 2, 3)


class DSIR(nn.Module):
    """(N, 1, h, w) -> (N, 1, h, w), never negative; h and w multiples of 2**depth.

    Args:
        separate_norm: one batch norm per place, named norm1 to norm7, instead of the shared bn1, bn2, bn4.
        statistics: of the norms in evaluation mode: of each image alone ("image"), of the batch ("batch"), or
            the stored ones ("running"). Default: image for shared norms, running for separate ones. Training
            uses those of the batch.
        width: channels of the widest layers.
        depth: poolings; 3 as published.
    """

    def __init__(
        self, *, separate_norm: bool = False, statistics: str | None = None, width: int = 16, depth: int = 3
    ) -> None:
        super().__init__()
        check_width(width)
        choose("depth", depth, DEPTHS)
        wide, thin = width, scaled(8, width, 16)
        self.statistics = statistics or ("running" if separate_norm else "image")
        choose("statistics", self.statistics, STATISTICS)
        self.pool = nn.MaxPool2d(2)
        self.activation = nn.ReLU()
        falling = (wide, thin, thin)[:depth]  # channels after each convolution on the way down
        rising = (*falling[-2::-1], thin)  # and after each on the way up
        self.down = tuple(f"conv{step}" for step in range(1, depth + 1))
        self.up = tuple(f"convt{step}" for step in range(4 - depth, 4))
        for name, before, after in zip(self.down, (1, *falling), falling, strict=False):
            self.add_module(name, nn.Conv2d(before, after, 3, padding=1))
        for name, before, after in zip(self.up, (falling[-1], *rising), rising, strict=False):
            self.add_module(name, nn.ConvTranspose2d(before, after, 2, stride=2))
        self.conv4 = nn.Conv2d(thin, 1, 3, padding=1)
        after_each = (*falling, *rising, 1)
        if separate_norm:
            self.norm_names = tuple(f"norm{place}" for place in range(1, len(after_each) + 1))
            for name, channels in zip(self.norm_names, after_each, strict=True):
                self.add_module(name, nn.BatchNorm2d(channels))
        else:
            first = ["bn1", "bn2", "bn2"][:depth]
            self.norm_names = (*first, *first[-2::-1], "bn2", "bn4")
            self.bn1, self.bn2, self.bn4 = nn.BatchNorm2d(wide), nn.BatchNorm2d(thin), nn.BatchNorm2d(1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_normal_(layer.weight)
                assert layer.bias is not None
                nn.init.normal_(layer.bias)
        nn.init.constant_(self._norm_at(-1).bias, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        # channels as published: 16, 8, 8 on the way down to h/8, then 8, 16, 8 up to h
        for place, name in enumerate(self.down):
            x = self.pool(self._norm(place, self.get_submodule(name)(x)))
        for place, name in enumerate(self.up, start=len(self.down)):
            x = self._norm(place, self.get_submodule(name)(x))
        return self._norm(-1, self.conv4(x))  # (N, 1, h, w)

    def _norm_at(self, place: int) -> nn.BatchNorm2d:
        norm = self.get_submodule(self.norm_names[place])
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    def _norm(self, place: int, x: Tensor) -> Tensor:
        norm = self._norm_at(place)
        if self.training or self.statistics == "running":
            return self.activation(norm(x))
        if self.statistics == "batch":
            return self.activation(F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps))
        # ONNX Runtime's instance norm loses the variance of channels whose mean is large: centred first, it does not
        centred = x - x.mean((2, 3), keepdim=True)
        return self.activation(F.instance_norm(centred, weight=norm.weight, bias=norm.bias, eps=norm.eps))


@register_model(
    output=SRImage(upsampling=8, target_scale=1.0),
    loss="dsir",
    source="github.com/leaxp/Deep-Learning-Super-Resolution-Image-Reconstruction-DSIR",
    licence="MIT",
    summary="autoencoder of 3.3k parameters, statistics per image",
    receptive_field_px=30 / 8,
    parameters=3339,
    variants={
        "separate_norm": Variant(
            summary="one batch norm per place, ordinary statistics; for new training",
            parameters=3419,
            receptive_field_px=30 / 8,
            options={"separate_norm": True},
        ),
    },
)
def dsir(
    *,
    separate_norm: bool = False,
    statistics: str | None = None,
    width: int = 16,
    depth: int = 3,
    upsampling: int = 8,
    normalisation: str = "dataset",
    enlarge: str = "bilinear",
) -> ImageNetwork:
    """DSIR with shared norms, or one per place; `statistics`, `width` and `depth` (1 to 3) as in the class."""
    return ImageNetwork(
        DSIR(separate_norm=separate_norm, statistics=statistics, width=width, depth=depth),
        output=image_output(upsampling=upsampling, target_scale=1.0),
        normalisation=normalisation,
        enlarge=enlarge,
        core_multiple=2**depth,
    )
