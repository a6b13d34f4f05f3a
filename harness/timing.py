"""Calls timed in turn in this process, and the training step of image networks."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import zoo
from harness.devices import pick_device, place, synchronise
from harness.models import create_network
from harness.ready import ReadyModel
from harness.timing_process import fixed_batch
from losses import create_loss
from zoo import ImageNetwork


@dataclass(frozen=True, kw_only=True)
class Times:
    """Repeats of one call, seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Half of the calls were faster."""
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        """The fastest call: least disturbed by others on the machine."""
        return min(self.seconds)

    @property
    def worst(self) -> float:
        """The slowest call."""
        return max(self.seconds)


def interleaved(
    calls: Mapping[str, Callable[[], Any]], *, seconds: float, least: int = 3, most: int = 30
) -> dict[str, Times]:
    """Time calls in turn (A B C A B C ...), after one untimed round.

    Args:
        calls: by name.
        seconds: stop when a call has used about so much, but not before `least` rounds, nor after `most`.
        least, most: rounds.
    """
    for call in calls.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    while True:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
        rounds = len(next(iter(taken.values())))
        if rounds >= most or (rounds >= least and max(map(sum, taken.values())) >= seconds):
            return {name: Times(seconds=tuple(values)) for name, values in taken.items()}


def time_models(
    models: Mapping[str, ReadyModel], *, batch: int = 1, size: int = 64, seconds: float = 5.0, least: int = 3
) -> dict[str, Times]:
    """Time forms of one network that are open in this process on the fixed batch, interleaved; seconds per frame.

    For a quick look; `harness.timing_forms` gives each form its own process. A localization network is timed in the
    middle of a movie: what its neighbours left behind is there already.
    """
    frames = fixed_batch(batch, size)
    calls = {name: model.repeatable(frames) for name, model in models.items()}
    times = interleaved({name: call for name, (call, _) in calls.items()}, seconds=seconds, least=least)
    return {name: Times(seconds=tuple(taken / calls[name][1] for taken in times[name].seconds)) for name in times}


def training_step(
    network: nn.Module,
    loss: Callable[..., torch.Tensor],
    optimiser: torch.optim.Optimizer,
    inputs: torch.Tensor,
    target: Any,
    *,
    bfloat16: bool,
) -> Callable[[], None]:
    """Forward, backward and the weights' change, waiting for the device of the inputs."""

    def run() -> None:
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            made = network(inputs)
        loss(made.float(), target).backward()
        optimiser.step()
        optimiser.zero_grad()
        synchronise(inputs.device)

    return run


def time_training(
    source: str, *, batch: int | None = None, size: int | None = None, seconds: float = 5.0, device: str = "auto"
) -> list[dict[str, Any]]:
    """Rows of a table: one training step as plain layers in float32, and as this program does it.

    The baseline is the same network as the originals run it: contiguous float32, nearest upsampling and convolution one
    after the other. The second row is this program's step in float32, the third in bfloat16; both channels-last. A
    fourth row runs only the baseline's bare convolutions, forward and backward, on inputs of the same shapes: what
    PyTorch itself reaches, to show that the baseline is no straw man.
    """
    if source not in zoo.list_models():
        raise ValueError(f"no model named {source!r} to train; the zoo has: {', '.join(zoo.list_models())}")
    where = pick_device(device)
    spec = zoo.get_spec(source)
    if not isinstance(spec.output, zoo.SRImage):
        from harness.timing_maps import time_map_training

        return time_map_training(source, batch=batch or 64, size=size or 40, seconds=seconds, device=device)
    batch, size = batch or 1, size or 64
    frames = fixed_batch(batch, size)[:, None].to(where)
    macs = zoo.count_macs(zoo.create_model(source), size, size)

    def step(*, published: bool, channels_last: bool, bfloat16: bool) -> Callable[[], None]:
        network = image_network(source)
        if published:
            plain_upsampling(network)
        network.normalisation.set_statistics(100.0, 50.0)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        place(network, where, channels_last=channels_last)
        loss = create_loss(spec.loss, target_scale=network.output.target_scale)
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
        inputs = frames.contiguous(memory_format=layout)
        target = torch.zeros(network.output.shape(batch, size, size), device=where)
        target[..., ::37, ::41] = 1

        return training_step(network, loss, optimiser, inputs, target, bfloat16=bfloat16)

    calls = {
        "plain torch, float32": step(published=True, channels_last=False, bfloat16=False),
        "channels-last, float32": step(published=False, channels_last=True, bfloat16=False),
        "channels-last, bfloat16": step(published=False, channels_last=True, bfloat16=True),
        "bare convolutions, float32": _bare_convolutions(source, frames),
    }
    times = interleaved(calls, seconds=seconds)
    base = times["plain torch, float32"].median
    rows = []
    for name, taken in times.items():
        work = macs.done if name.startswith("channels-last") else macs.published
        rows.append(
            {
                "model": source,
                "training step": name,
                "ms (median)": f"{1e3 * taken.median:.0f}",
                "fastest": f"{1e3 * taken.best:.0f}",
                "GFLOP/s": f"{6 * batch * work / taken.median / 1e9:.0f}",
                "speed": f"{base / taken.median:.2f}x",
                "repeats": len(taken.seconds),
            }
        )
    return rows


def image_network(name: str) -> ImageNetwork:
    """A new image network."""
    network = create_network(name)
    assert isinstance(network, ImageNetwork)
    return network


def plain_upsampling(network: nn.Module) -> None:
    """Replace the fused upsampling convolutions by upsampling and convolution, one after the other, in place."""

    def other(layer: nn.Module) -> nn.Module | None:
        if not isinstance(layer, zoo.UpConv2d):
            return None
        conv = nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1, bias=layer.bias is not None)
        conv.load_state_dict(layer.state_dict())
        return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv)

    zoo.replace_layers(network, other)


def _bare_convolutions(source: str, frames: torch.Tensor) -> Callable[[], None]:
    """Forward and backward of every convolution of a network alone, on inputs of the shapes it sees."""
    network = image_network(source)
    plain_upsampling(network)
    network.normalisation.set_statistics(100.0, 50.0)
    network.to(frames.device)
    seen: list[tuple[nn.Module, torch.Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, _: seen.append((layer, inputs[0].detach())))
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    ]
    with torch.no_grad():
        network(frames)
    for hook in hooks:
        hook.remove()
    grown = [(layer, x.clone().requires_grad_(position > 0)) for position, (layer, x) in enumerate(seen)]

    def run() -> None:
        for layer, x in grown:
            image = layer(x)
            image.backward(torch.ones_like(image))
            x.grad = None
            layer.zero_grad()
        synchronise(frames.device)

    return run
