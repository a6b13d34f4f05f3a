"""PyTorch: eager, channels-last, float32 or bfloat16, on any device."""

import torch
from torch import Tensor

import zoo
from harness.devices import pick_device, pick_precision, place, synchronise
from zoo import ImageNetwork

from .base import RuntimeInfo


class TorchRuntime:
    """A network in its fast inference form: norms folded, channels-last; on CPUs ReLU after pooling, in float32 wide
    convolutions by Winograd's way, and in bfloat16 wide transposed convolutions as one product for all phases. In
    bfloat16 the layer that sees the photons stays in float32.

    Args:
        network: any image network; it is copied, not changed.
        device: auto, cpu, cuda.
        precision: auto, float32 or bfloat16.
    """

    def __init__(self, network: ImageNetwork, *, device: str = "auto", precision: str = "auto") -> None:
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        form = zoo.inference_form(network)
        if self.device.type == "cpu":
            form = zoo.with_lean_blocks(form)
            form = zoo.with_winograd(form) if self.precision == "float32" else zoo.with_phases(form)
        if self.precision == "bfloat16":
            form = zoo.with_exact_input(form)
        self.network = place(form, self.device)
        provider = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        self.info = RuntimeInfo(
            name="torch", provider=provider, precision=self.precision, threads=torch.get_num_threads()
        )

    def __call__(self, frames: Tensor) -> Tensor:
        frames = frames.to(self.device).contiguous(memory_format=torch.channels_last)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"),
        ):
            image = self.network(frames).float().cpu()
        synchronise(self.device)
        return image
