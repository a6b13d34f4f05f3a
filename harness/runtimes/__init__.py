"""Ways to run a network, all with the same call: photon frames in, image out."""

from .base import Runtime, RuntimeInfo
from .onnx import OnnxRuntime
from .torch import TorchRuntime

__all__ = ["OnnxRuntime", "Runtime", "RuntimeInfo", "TorchRuntime"]
