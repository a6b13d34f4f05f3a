"""DECODE run as its published program runs it: what our own way is timed against.

Eager float32 in contiguous layout; every window of three frames on its own, so that each frame passes the first U-Net
three times; upsampling before the 1x1 convolution; 250 slots per frame in the loss, filled or not; the table at
the end.

Source: specification of the program's release 0.10.2 (Speiser et al. 2021, doi:10.1038/s41592-021-01236-x).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, distributions, nn

from harness.devices import place
from zoo import EmitterTargets
from zoo.decode import Decode, UNet

SLOTS = 250  # emitters per frame that the program's tables hold
BATCH = 64  # windows at a time


class _PublishedUNet(nn.Module):
    """The same layers with the 1x1 convolution after upsampling."""

    def __init__(self, net: UNet):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        net, skips = self.net, []
        for stage, pool in zip(net.encoder, net.poolers, strict=True):
            x = stage(x)
            skips.append(x)
            x = pool(x)
        x = net.base(x)
        for shrink, stage in zip(net.upsamplers, net.decoder, strict=True):
            x = shrink(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = stage(torch.cat([skips.pop(), x], dim=1))
        return net.out_conv(x)


class PublishedDecode(nn.Module):
    """The network of a `Decode`, window by window: photons (N, 3, H, W) -> maps (N, C, H, W)."""

    def __init__(self, network: Decode):
        super().__init__()
        self.network = place(network, torch.device("cpu"), channels_last=False)
        self.frame_net, self.context_net = (
            _PublishedUNet(network.core.frame_net),
            _PublishedUNet(network.core.context_net),
        )

    def forward(self, windows: Tensor) -> Tensor:
        windows = self.network.normalisation(windows)
        features = [self.frame_net(windows[:, step : step + 1]) for step in range(windows.shape[1])]
        return self.network.core.heads_of(self.context_net(torch.cat(features, dim=1)))


def published_maps(network: PublishedDecode, frames: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first frame, maps) of a movie (T, H, W), the first and last frame repeated at the ends."""
    padded = torch.cat([frames[:1], frames, frames[-1:]])
    windows = torch.stack([padded[:-2], padded[1:-1], padded[2:]], dim=1)
    with torch.no_grad():
        for first in range(0, len(frames), BATCH):
            yield first, network(windows[first : first + BATCH])


def published_loss(maps: Tensor, targets: EmitterTargets) -> Tensor:
    """The program's loss with its padded table: every one of 250 slots of every frame is evaluated, then masked.

    Raises:
        ValueError: a frame with more than 250 emitters.
    """
    table, mask = padded_table(targets)
    output = targets.output
    height, width = maps.shape[2:]
    p = maps[:, output.index("probability")]
    number = mask.sum(1).float()
    mean, spread = p.sum((1, 2)), (p - p.square()).sum((1, 2)).sqrt()
    counted = distributions.Normal(mean, spread).log_prob(number) * number
    axes = output.quantities
    grid = {
        "y": torch.arange(height, dtype=torch.float32)[:, None] + output.reference_px[1],
        "x": torch.arange(width, dtype=torch.float32)[None] + output.reference_px[0],
    }
    means = torch.stack([maps[:, output.index(q)] + grid.get(q, torch.zeros(1, 1)) for q in axes], dim=-1)
    sigmas = torch.stack([maps[:, output.index(f"{q}_sigma")] for q in axes], dim=-1)
    mixture = distributions.MixtureSameFamily(
        distributions.Categorical(p.flatten(1)),
        distributions.Independent(distributions.Normal(means.flatten(1, 2), sigmas.flatten(1, 2)), 1),
    )
    placed = mixture.log_prob(table.transpose(0, 1)).transpose(0, 1)  # (N, slots)
    total = -(counted + (placed * mask).sum(1))
    if targets.background is not None:
        error = maps[:, output.index("background")] - targets.background
        total = total + error.square().flatten(1).sum(1)
    return total.mean()


def padded_table(targets: EmitterTargets) -> tuple[Tensor, Tensor]:
    """Rows (N, 250, quantities) and which of them are filled."""
    numbers = torch.bincount(targets.frame, minlength=targets.count)
    if len(numbers) and int(numbers.max()) > SLOTS:
        raise ValueError(f"a frame holds {int(numbers.max())} emitters; the published table has {SLOTS} slots")
    slot = torch.arange(len(targets)) - (numbers.cumsum(0) - numbers)[targets.frame]
    rows = torch.stack([getattr(targets, q) for q in targets.output.quantities], dim=1)
    table = torch.zeros(targets.count, SLOTS, rows.shape[1])
    table[targets.frame, slot] = rows
    mask = torch.zeros(targets.count, SLOTS, dtype=torch.bool)
    mask[targets.frame, slot] = True
    return table, mask


def bare_convolutions(network: nn.Module, inputs: Tensor, *, backward: bool) -> Callable[[], None]:
    """A call that runs only a network's convolutions, each on an input of the shape it sees: what PyTorch reaches."""
    seen: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, x, _: seen.append((layer, x[0].detach().contiguous())))
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    ]
    with torch.no_grad():
        network(inputs)
    for hook in hooks:
        hook.remove()
    grown = [(layer, x.clone().requires_grad_(backward and place > 0)) for place, (layer, x) in enumerate(seen)]

    def run() -> None:
        for layer, x in grown:
            if not backward:
                with torch.no_grad():
                    layer(x)
                continue
            result = layer(x)
            result.backward(torch.ones_like(result))
            x.grad = None
            layer.zero_grad()

    return run
