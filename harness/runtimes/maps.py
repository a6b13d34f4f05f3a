"""Localization networks at work: consecutive frames in, maps of emitters out; torch and ONNX Runtime alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from harness.devices import pick_device, pick_precision, place, synchronise
from zoo import MapNetwork, SharesFeatures, inference_form

from .base import Runtime, RuntimeInfo
from .onnx import OnnxRuntime


class MapRuntime(Protocol):
    """A localization network that is ready to run."""

    info: RuntimeInfo

    def __call__(self, frames: Tensor) -> Tensor:
        """(T, H, W) float32 photons -> (T - before - after, C, H, W) float32 maps, on the runtime's device."""
        ...

    def stream(self, *, before: int, after: int) -> Callable[[Tensor], Tensor]:
        """A function that takes the frames of a movie in turn, some at a time, and gives the maps of those that have
        all their neighbours by then."""
        ...


class _Neighbours:
    """Frames of a movie in turn; those that the next call needs again are kept."""

    def __init__(self, run: Callable[[Tensor], Tensor], overlap: int) -> None:
        self.run, self.overlap = run, overlap
        self.kept: Tensor | None = None

    def __call__(self, frames: Tensor) -> Tensor:
        together = frames if self.kept is None else torch.cat([self.kept, frames])
        self.kept = together[len(together) - self.overlap :] if self.overlap else None
        if len(together) <= self.overlap:
            self.kept = together
            return torch.empty(0)
        return self.run(together)


class TorchMaps:
    """A localization network in its fast inference form (channels-last).

    In a stream, what DECODE computes of one frame alone is computed once and serves the neighbours too.

    Args:
        network: it is copied, not changed.
        device: auto, cpu, cuda.
        precision: auto, float32 or bfloat16.
    """

    def __init__(self, network: MapNetwork, *, device: str = "auto", precision: str = "auto") -> None:
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        form = inference_form(network)
        assert isinstance(form, MapNetwork)
        self.network = place(form, self.device)
        provider = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        self.info = RuntimeInfo(
            name="torch", provider=provider, precision=self.precision, threads=torch.get_num_threads()
        )

    def __call__(self, frames: Tensor) -> Tensor:
        return self._run(lambda x: self.network(x[None])[0], frames)

    def stream(self, *, before: int, after: int) -> Callable[[Tensor], Tensor]:
        network, core = self.network, self.network.core
        if not isinstance(core, SharesFeatures) or not before + after:
            return _Neighbours(self, before + after)
        combine = _Neighbours(lambda features: self._run(core.combine_consecutive, features), before + after)

        def step(frames: Tensor) -> Tensor:
            features = self._run(lambda x: core.features(network.normalisation(x)), frames, keep=True)
            return combine(features)

        return step

    def _run(self, function: Callable[[Tensor], Tensor], values: Tensor, *, keep: bool = False) -> Tensor:
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"),
        ):
            result = function(values.to(self.device))
            result = result if keep else result.float()
        synchronise(self.device)
        return result


class OnnxMaps:
    """An exported localization network: (1, T, H, W) frames -> maps, and scores that are not needed here.

    Args:
        source: its file, for ONNX Runtime; or what runs it already.
    """

    def __init__(self, source: Path | Runtime, *, device: str = "auto", threads: int | None = None):
        self.runtime = OnnxRuntime(source, device=device, threads=threads) if isinstance(source, Path) else source
        self.info = self.runtime.info

    def __call__(self, frames: Tensor) -> Tensor:
        return self.runtime(frames[None])[0]

    def stream(self, *, before: int, after: int) -> Callable[[Tensor], Tensor]:
        return _Neighbours(self, before + after)
