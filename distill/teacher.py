"""The teacher: a frozen copy of a network, run in evaluation mode without gradients, and proved unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from zoo import EmitterMaps, ImageNetwork, MapNetwork, SRImage, inference_form

Network = ImageNetwork | MapNetwork


def neighbours(network: Network) -> tuple[int, int]:
    """Frames before and after that a network needs for one frame."""
    if isinstance(network, MapNetwork):
        return network.frames_before, network.frames_after
    if network.frames_in != 1:
        raise ValueError(f"an image network that takes {network.frames_in} frames at a time cannot be distilled yet")
    return 0, 0


def run_on_blocks(network: Network, frames: Tensor, *, before: int, after: int) -> Tensor:
    """What a network gives for the frames of blocks (B, T, H, W) that have `before` and `after` neighbours.

    Returns:
        Images (B n, 1, sH, sW), or maps (B, n, C, H, W), n = T - before - after.
    """
    own_before, own_after = neighbours(network)
    length = frames.shape[1]
    if isinstance(network, MapNetwork):
        return network(frames[:, before - own_before : length - (after - own_after)])
    single = frames[:, before : length - after].flatten(0, 1)[:, None]
    return network(single.contiguous(memory_format=torch.channels_last))


def fingerprint(module: nn.Module) -> str:
    """Hash of all parameters and buffers, and of their modes."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())
    digest.update(repr([child.training for child in module.modules()]).encode())
    return digest.hexdigest()


class Teacher:
    """A network that is asked, never trained.

    Args:
        network: it is copied (norms folded into convolutions) and not touched.

    It is no torch module on purpose: an objective that holds it neither trains nor saves it.
    """

    def __init__(self, network: Network) -> None:
        form = inference_form(network).eval()
        assert isinstance(form, ImageNetwork | MapNetwork)
        self.network = form
        self.output: SRImage | EmitterMaps = form.output
        self.before, self.after = neighbours(form)
        self._fingerprint = fingerprint(form)

    def to(self, device: torch.device) -> Teacher:
        """The same teacher on another device."""
        self.network.to(device)
        return self

    def __call__(self, frames: Tensor, *, before: int, after: int) -> Tensor:
        """Images (n, 1, sH, sW) or maps (n, C, H, W) of the frames of blocks (B, T, H, W), see `run_on_blocks`."""
        with torch.no_grad():
            result = run_on_blocks(self.network, frames, before=before, after=after).float()
        return result.flatten(0, 1) if isinstance(self.network, MapNetwork) else result

    def check_unchanged(self) -> None:
        """Raises:
        RuntimeError: a weight, a buffer or a mode is not what it was.
        """
        if fingerprint(self.network) != self._fingerprint:
            raise RuntimeError(
                "the teacher changed during training: a weight, a buffer or its mode; its lessons are void"
            )


class Tap:
    """Outputs of some layers, by name, kept while a `with tap.open():` block runs the network.

    Args:
        network: whose layers.
        layers: names as in `named_modules`, e.g. "core.body".

    Raises:
        ValueError: no such layer; names near ones.
    """

    def __init__(self, network: nn.Module, layers: tuple[str, ...]) -> None:
        import difflib

        known = dict(network.named_modules())
        for layer in layers:
            if not layer or layer not in known:
                near = difflib.get_close_matches(layer, known, n=4, cutoff=0.3)
                name = getattr(network, "model_name", type(network).__name__)
                raise ValueError(f"{name} has no layer {layer!r}; near are: {', '.join(filter(None, near)) or 'none'}")
        self.network, self.layers = network, layers
        self.outputs: dict[str, Tensor] = {}

    @contextmanager
    def open(self) -> Iterator[dict[str, Tensor]]:
        """Layer -> output of its last call, filled while the block runs."""
        self.outputs = {}
        modules = dict(self.network.named_modules())

        def keeper(name: str):  # type: ignore[no-untyped-def]
            def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
                self.outputs[name] = output

            return keep

        handles = [modules[name].register_forward_hook(keeper(name)) for name in self.layers]
        try:
            yield self.outputs
        finally:
            for handle in handles:
                handle.remove()
