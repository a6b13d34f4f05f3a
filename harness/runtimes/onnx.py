"""ONNX Runtime: an exported file, without the network's own code."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .base import RuntimeInfo


def is_quantised(path: Path) -> bool:
    """Whether an ONNX file computes in 8-bit integers: its graph has nodes that quantise."""
    return b"QuantizeLinear" in path.read_bytes()


class OnnxRuntime:
    """An ONNX file whose one input takes photon frames and whose first output is the image, or the maps.

    Args:
        path: the file.
        device: "cpu", "cuda", "tensorrt" (with CUDA behind it), or "auto" (CUDA where ONNX Runtime has it).
        threads: threads inside an operator; default: as many as PyTorch uses.

    Raises:
        ValueError: the file is missing or ONNX Runtime cannot read it; or CUDA or TensorRT was asked for and is not
            used.
    """

    def __init__(self, path: Path, *, device: str = "auto", threads: int | None = None) -> None:
        import onnxruntime

        if not path.is_file():
            raise ValueError(f"no ONNX file at {path}; make one with: smlm-zoo export MODEL -o {path.parent}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        available = onnxruntime.get_available_providers()
        wanted = ["CPUExecutionProvider"]
        graphics = os.path.exists("/dev/nvidiactl")
        if device in ("auto", "cuda", "tensorrt") and "CUDAExecutionProvider" in available and graphics:
            wanted.insert(0, "CUDAExecutionProvider")
        if device == "tensorrt" and "TensorrtExecutionProvider" in available and graphics:
            wanted.insert(0, "TensorrtExecutionProvider")
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        except Exception as error:
            raise ValueError(f"{path} is not a network that ONNX Runtime can run: {error}") from None
        provider = self.session.get_providers()[0]
        asked = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}.get(device, provider)
        if provider != asked:
            raise ValueError(f"{asked} asked for, but ONNX Runtime runs {path.name} with {provider}; use device cpu")
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            shapes = [entry.shape for entry in inputs]
            raise ValueError(f"{path} takes {shapes}; one input (batch, frames, height, width) is needed")
        self.input = inputs[0].name
        self.info = RuntimeInfo(
            name="onnxruntime",
            provider=provider.removesuffix("ExecutionProvider"),
            precision="int8" if is_quantised(path) else "float32",
            threads=options.intra_op_num_threads,
        )

    @property
    def metadata(self) -> dict[str, str]:
        """What the exporting program wrote into the file."""
        return dict(self.session.get_modelmeta().custom_metadata_map)

    def __call__(self, frames: Tensor) -> Tensor:
        first = self.session.get_outputs()[0].name
        (result,) = self.session.run([first], {self.input: np.ascontiguousarray(frames.numpy(), dtype=np.float32)})
        return torch.from_numpy(result)
