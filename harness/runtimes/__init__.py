"""Ways to run a network, all with the same call: photon frames in, image or maps out."""

from .base import Runtime, RuntimeInfo
from .maps import MapRuntime, OnnxMaps, TorchMaps
from .onnx import OnnxRuntime, is_quantised
from .openvino import OpenVinoRuntime
from .torch import TorchRuntime

__all__ = [
    "MapRuntime",
    "OnnxMaps",
    "OnnxRuntime",
    "OpenVinoRuntime",
    "Runtime",
    "RuntimeInfo",
    "TorchMaps",
    "TorchRuntime",
    "is_quantised",
]
