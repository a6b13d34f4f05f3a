"""What a network costs: multiplications and parameters."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ._blocks import UpConv2d


@dataclass(frozen=True, kw_only=True)
class Macs:
    """Multiply-accumulates of the convolutions for one input.

    Args:
        published: as the published layers define the work (3x3 kernels on the fine grid; DECODE's first network once
            for each frame of a window).
        done: as this program computes it (what a frame shares with its neighbours in a movie, once).
    """

    published: int
    done: int


def count_macs(model: nn.Module, height: int, width: int) -> Macs:
    """Multiply-accumulates for one input of `height` x `width` camera pixels; nothing is computed.

    Counts convolutions and transposed convolutions, and any module that has a method
    `macs(pixels) -> (published, done)` of its own. Norms, activations and enlarging are left out.
    """
    twin = copy.deepcopy(model).to("meta").eval()
    totals = [0, 0]

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        pixels = output.shape[-2] * output.shape[-1]
        published, done = _macs(module, inputs[0], pixels)
        totals[0] += published * len(output)
        totals[1] += done

    counted = (nn.Conv2d, nn.ConvTranspose2d)
    handles = [
        layer.register_forward_hook(count)
        for layer in twin.modules()
        if isinstance(layer, counted) or hasattr(layer, "macs")
    ]
    frames_in = getattr(model, "frames_in", 1)
    with torch.no_grad():
        twin(torch.zeros(1, frames_in, height, width, device="meta"))
    for handle in handles:
        handle.remove()
    return Macs(published=totals[0], done=totals[1])


def _macs(module: nn.Module, image: Tensor, pixels: int) -> tuple[int, int]:
    if not isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        published, done = module.macs(pixels)  # type: ignore[operator]
        return int(published), int(done)
    taps = module.kernel_size[0] * module.kernel_size[1]
    if isinstance(module, nn.ConvTranspose2d):
        work = image.shape[-2] * image.shape[-1] * module.weight[0].numel() * module.in_channels
        return work, work
    published = pixels * module.out_channels * (module.in_channels // module.groups) * taps
    if isinstance(module, UpConv2d) and module.padding_mode == "zeros":
        return published, published * 4 // taps
    return published, published * image.shape[1] // module.in_channels


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers of a module, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
