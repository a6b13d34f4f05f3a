"""OpenVINO: an exported file on Intel's CPU runtime; an optional extra."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .base import RuntimeInfo

_NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


class OpenVinoRuntime:
    """An ONNX file on the CPU. The arithmetic is set, not left to the program, whose own choice depends on the machine
    (bfloat16 where the CPU has it); what the compiled network reports is what `info` says.

    Args:
        path: the file.
        precision: "float32" or "bfloat16".
        threads: default: as many as PyTorch uses.

    Raises:
        ValueError: OpenVINO is not installed, or cannot read the file.
    """

    def __init__(self, path: Path, *, precision: str = "float32", threads: int | None = None) -> None:
        try:
            import openvino
        except ImportError:
            raise ValueError("OpenVINO is not installed; pip install 'smlm-zoo[openvino]'") from None
        if not path.is_file():
            raise ValueError(f"no ONNX file at {path}; make one with: smlm-zoo export MODEL -o {path.parent}")
        hint = {name: short for short, name in _NAMES.items()}[precision]
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        try:
            compiled = core.compile_model(core.read_model(path), "CPU", settings)
        except RuntimeError as error:
            raise ValueError(f"{path} is not a network that OpenVINO can run: {error}") from None
        self.request = compiled.create_infer_request()
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.info = RuntimeInfo(
            name="openvino",
            provider="CPU",
            precision=_NAMES.get(used, used),
            threads=int(compiled.get_property("INFERENCE_NUM_THREADS")),
        )

    def __call__(self, frames: Tensor) -> Tensor:
        array = np.ascontiguousarray(frames.numpy(), dtype=np.float32)
        self.request.infer([array])
        return torch.from_numpy(self.request.get_output_tensor(0).data.copy())
