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


class DSIR(nn.Module):
    """(N, 1, h, w) -> (N, 1, h, w), never negative; h and w multiples of 8.

    Args:
        separate_norm: one batch norm per place, named norm1 to norm7, instead of the shared bn1, bn2, bn4.
        statistics: of the norms in evaluation mode: of each image alone ("image"), of the batch ("batch"), or
            the stored ones ("running"). Default: image for shared norms, running for separate ones. Training
            uses those of the batch.
        width: channels of the widest layers.
    """

    def __init__(self, *, separate_norm: bool = False, statistics: str | None = None, width: int = 16):
        super().__init__()
        check_width(width)
        wide, thin = width, scaled(8, width, 16)
        self.statistics = statistics or ("running" if separate_norm else "image")
        choose("statistics", self.statistics, STATISTICS)
        self.pool = nn.MaxPool2d(2)
        self.activation = nn.ReLU()
        self.conv1 = nn.Conv2d(1, wide, 3, padding=1)
        self.conv2 = nn.Conv2d(wide, thin, 3, padding=1)
        self.conv3 = nn.Conv2d(thin, thin, 3, padding=1)
        self.convt1 = nn.ConvTranspose2d(thin, thin, 2, stride=2)
        self.convt2 = nn.ConvTranspose2d(thin, wide, 2, stride=2)
        self.convt3 = nn.ConvTranspose2d(wide, thin, 2, stride=2)
        self.conv4 = nn.Conv2d(thin, 1, 3, padding=1)
        if separate_norm:
            self.norm_names = tuple(f"norm{place}" for place in range(1, 8))
            for name, channels in zip(self.norm_names, (wide, thin, thin, thin, wide, thin, 1), strict=True):
                self.add_module(name, nn.BatchNorm2d(channels))
        else:
            self.norm_names = ("bn1", "bn2", "bn2", "bn2", "bn1", "bn2", "bn4")
            self.bn1, self.bn2, self.bn4 = nn.BatchNorm2d(wide), nn.BatchNorm2d(thin), nn.BatchNorm2d(1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_normal_(layer.weight)
                assert layer.bias is not None
                nn.init.normal_(layer.bias)
        nn.init.constant_(self._norm_at(6).bias, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self._norm(0, self.conv1(x)))  # (N, 16, h/2, w/2)
        x = self.pool(self._norm(1, self.conv2(x)))  # (N, 8, h/4, w/4)
        x = self.pool(self._norm(2, self.conv3(x)))  # (N, 8, h/8, w/8)
        x = self._norm(3, self.convt1(x))  # (N, 8, h/4, w/4)
        x = self._norm(4, self.convt2(x))  # (N, 16, h/2, w/2)
        x = self._norm(5, self.convt3(x))  # (N, 8, h, w)
        return self._norm(6, self.conv4(x))  # (N, 1, h, w)

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
    upsampling: int = 8,
    normalisation: str = "dataset",
    enlarge: str = "bilinear",
) -> ImageNetwork:
    """DSIR with shared norms, or one per place; `statistics` and `width` as in the class."""
    return ImageNetwork(
        DSIR(separate_norm=separate_norm, statistics=statistics, width=width),
        output=image_output(upsampling=upsampling, target_scale=1.0),
        normalisation=normalisation,
        enlarge=enlarge,
        core_multiple=8,
    )
