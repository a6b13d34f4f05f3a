"""Wide 3x3 convolutions with a quarter of the multiplications, for inference in float32 on CPUs."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._blocks import replace_layers

TILE = 4  # results per tile and axis; each tile looks at TILE + 2 pixels
LEAST_IN, LEAST_OUT = 128, 256  # channels from which on less multiplying outweighs more copying
TILES_AT_ONCE = 512

# F(4, 3) with the points 0, +-1, +-2 and infinity: the matrices B^T, G and A^T of the paper.
_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_KERNEL = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]],
    dtype=torch.float64,
)
_KERNEL /= 24
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    dtype=torch.float64,
)


class WinogradConv2d(nn.Module):
    """A 3x3 convolution with zero padding in tiles of 4x4 results: (N, C, H, W) -> (N, O, H, W), channels-last.

    36 multiplications per tile, input and output channel instead of 144, as 36 matrix products. Rounding errors are
    some ten times those of the direct way (1e-5 of the results' spread). For inference: no gradients to the kernel.

    Args:
        layer: the convolution that is computed.

    Raises:
        ValueError: not 3x3, or with stride, dilation, groups, or another padding than one zero.

    Source: Lavin and Gray 2016, arXiv:1509.09308, eq. 8 with F(4x4, 3x3).
    """

    kernel: Tensor
    before: Tensor
    after: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        if not _fits(layer):
            raise ValueError(f"{layer} is no 3x3 convolution with stride 1 and one zero of padding")
        self.out_channels, self.in_channels = layer.weight.shape[:2]
        weight = layer.weight.detach()
        kernel = torch.einsum("ia,jb,ocab->ijco", _KERNEL.to(weight), _KERNEL.to(weight), weight)
        self.register_buffer("kernel", kernel.flatten(0, 1).contiguous())  # (36, C, O)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.register_buffer("before", torch.kron(_INPUT, _INPUT).to(weight))  # (36, 36)
        self.register_buffer("after", torch.kron(_OUTPUT, _OUTPUT).to(weight))  # (16, 36)

    def forward(self, x: Tensor) -> Tensor:
        number, channels, height, width = x.shape
        down, across = -(-height // TILE), -(-width // TILE)
        pad = (0, 0, 1, 1 + TILE * across - width, 1, 1 + TILE * down - height)
        padded = F.pad(x.permute(0, 2, 3, 1), pad).contiguous()
        image, row, column, _ = padded.stride()
        side = TILE + 2
        tiles = padded.as_strided(  # every tile with its surroundings, nothing copied yet
            (side, side, number, down, across, channels), (row, column, image, TILE * row, TILE * column, 1)
        )
        result = padded.new_empty(number, down, TILE, across, TILE, self.out_channels)
        rows = max(1, min(down, TILES_AT_ONCE // across))
        images = max(1, TILES_AT_ONCE // (rows * across))
        for one, first in itertools.product(range(0, number, images), range(0, down, rows)):
            here = (slice(one, one + images), slice(first, first + rows))
            part = tiles[:, :, *here]
            seen = self.before.mm(part.reshape(side**2, -1)).view(side**2, -1, channels)
            products = torch.bmm(seen, self.kernel).view(side**2, -1)
            done = self.after.mm(products).view(TILE, TILE, *part.shape[2:5], self.out_channels)
            result[here] = done.permute(2, 3, 0, 4, 1, 5)
        full = result.view(number, TILE * down, TILE * across, self.out_channels)[:, :height, :width]
        full = full.contiguous() if self.bias is None else full + self.bias
        return full.permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}"


def with_winograd(form: nn.Module) -> nn.Module:
    """Replace the wide 3x3 convolutions of an inference form in place, where that is faster on a CPU."""

    def other(layer: nn.Module) -> nn.Module | None:
        if type(layer) is not nn.Conv2d or not _fits(layer):
            return None
        wide = layer.in_channels >= LEAST_IN and layer.out_channels >= LEAST_OUT
        return WinogradConv2d(layer) if wide else None

    return replace_layers(form, other)


def _fits(layer: nn.Conv2d) -> bool:
    return (
        layer.kernel_size == (3, 3)
        and layer.stride == (1, 1)
        and layer.dilation == (1, 1)
        and layer.padding == (1, 1)
        and layer.padding_mode == "zeros"
        and layer.groups == 1
    )
