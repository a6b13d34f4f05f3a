"""Structured pruning: whole channels are taken out, so that what is left is a smaller plain network.

A channel counts as much as the norm of the weights that make it, as they are after the norm that follows. Channels that
a skip joins are kept or taken out together.

Source: Li, Kadav, Durdanovic, Samet, Graf 2017, arXiv:1608.08710 (norms of filters; joint choice across skips).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import zoo
from zoo import ConvBlock, ImageNetwork

CHAINS = ("fid_storm", "srcnn", "deep_storm")


def _chain(network: ImageNetwork) -> tuple[list[ConvBlock], set[int]]:
    """Blocks in the order in which they work, and those whose channels a skip adds up."""
    core = network.core
    blocks = [module for module in core.modules() if isinstance(module, ConvBlock)]
    if network.model_name != "fid_storm":
        return blocks, set()
    return blocks, {0, len(blocks) - 4}  # the first convolution and the last of the body, before three that enlarge


def importance(block: ConvBlock) -> Tensor:
    """Norm of the weights that make each channel of a block, after its batch norm, (channels,)."""
    assert isinstance(block.conv, nn.Conv2d)
    size = block.conv.weight.detach().flatten(1).norm(dim=1)
    if isinstance(block.norm, nn.BatchNorm2d) and block.norm.running_var is not None:
        size = size * block.norm.weight.detach().abs() * torch.rsqrt(block.norm.running_var + block.norm.eps)
    return size


def prune_channels(network: ImageNetwork, width: int) -> ImageNetwork:
    """The same model with fewer channels: those that count most, with their weights. Train it a little afterwards.

    Args:
        network: fid_storm, srcnn or deep_storm, with plain convolutions.
        width: its new `width` option, below the present one.

    Raises:
        ValueError: another model or form, or a width that is not smaller.
    """
    name = getattr(network, "model_name", type(network).__name__)
    options = dict(getattr(network, "model_options", {}))
    if name not in CHAINS or options.get("separable") or (name, options.get("variant")) == ("fid_storm", "dl4smlm"):
        raise ValueError(f"channels of {name} with options {options} cannot be pruned; it can be: {', '.join(CHAINS)}")
    smaller = zoo.create_model(name, **{**options, "width": width})
    assert isinstance(smaller, ImageNetwork)
    old, tied = _chain(network)
    new, _ = _chain(smaller)
    assert all(isinstance(block.conv, nn.Conv2d) for block in (*old, *new))
    channels = len(old[0].conv.get_parameter("weight"))
    if not len(new[0].conv.get_parameter("weight")) < channels:
        raise ValueError(f"width is {width}, but {name} has {channels} already; give fewer")
    together = torch.stack([importance(old[place]) for place in sorted(tied)]).sum(0) if tied else None
    inputs = torch.arange(1)
    with torch.no_grad():
        for place, (before, after) in enumerate(zip(old, new, strict=True)):
            assert isinstance(before.conv, nn.Conv2d)
            assert isinstance(after.conv, nn.Conv2d)
            counts = together if place in tied and together is not None else importance(before)
            outputs = counts.topk(after.conv.out_channels).indices.sort().values
            after.conv.weight.copy_(before.conv.weight[outputs][:, inputs])
            if before.conv.bias is not None and after.conv.bias is not None:
                after.conv.bias.copy_(before.conv.bias[outputs])
            for key, value in before.norm.state_dict().items():
                after.norm.state_dict()[key].copy_(value[outputs] if value.ndim else value)
            inputs = outputs
    smaller.normalisation.load_state_dict(network.normalisation.state_dict())
    smaller.output = network.output
    return smaller.train(network.training)
