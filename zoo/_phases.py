"""Wide transposed convolutions as one convolution for all four phases of the fine grid, for inference in bfloat16 on
CPUs."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._blocks import replace_layers

LEAST_PRODUCT = 2**16  # input times output channels from which on the faster product outweighs the copy


class PhasedTranspose2d(nn.Module):
    """A transposed convolution with a 4x4 kernel, stride 2 and padding 1: (N, C, H, W) -> (N, O, 2H, 2W),
    channels-last.

    Each of the four phases of the fine grid is a convolution with a 2x2 kernel; they are done as one, whose 4 O results
    for each pixel are then put in their places. For inference: no gradients to the kernel.

    Args:
        layer: the transposed convolution that is computed.

    Raises:
        ValueError: another kernel, stride, padding, or groups.
    """

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__()
        if not _fits(layer):
            raise ValueError(f"{layer} is no transposed convolution with kernel 4, stride 2, padding 1 and one group")
        self.in_channels, self.out_channels = layer.weight.shape[:2]
        kernel = layer.weight.detach().transpose(0, 1)  # (O, C, 4, 4)
        rows = [[3, 1], [2, 0]]  # of the kernel, for the two pixels that a phase sees
        parts = [kernel[:, :, rows[down]][..., rows[across]] for down, across in itertools.product((0, 1), repeat=2)]
        self.weight = nn.Parameter(torch.cat(parts), requires_grad=False)  # (4 O, C, 2, 2)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().repeat(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        number, _, height, width = x.shape
        made = F.conv2d(x, self.weight, self.bias, padding=1).permute(0, 2, 3, 1)
        result = made.new_empty(number, height, 2, width, 2, self.out_channels)
        parts = made.split(self.out_channels, dim=3)
        for (down, across), part in zip(itertools.product((0, 1), repeat=2), parts, strict=True):
            result[:, :, down, :, across] = part[:, down : down + height, across : across + width]
        return result.view(number, 2 * height, 2 * width, self.out_channels).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}"


def with_phases(form: nn.Module) -> nn.Module:
    """Replace the wide transposed convolutions of an inference form in place, where that is faster on a CPU."""

    def other(layer: nn.Module) -> nn.Module | None:
        if type(layer) is not nn.ConvTranspose2d or not _fits(layer):
            return None
        return PhasedTranspose2d(layer) if layer.in_channels * layer.out_channels >= LEAST_PRODUCT else None

    return replace_layers(form, other)


def _fits(layer: nn.ConvTranspose2d) -> bool:
    return (
        layer.kernel_size == (4, 4)
        and layer.stride == (2, 2)
        and layer.padding == (1, 1)
        and layer.output_padding == (0, 0)
        and layer.dilation == (1, 1)
        and layer.groups == 1
    )
