"""Readers of the originals' weight files: safetensors, PyTorch, Keras HDF5, ONNX. None of them runs what it
reads.

All give tensors under the original names, kernels as PyTorch stores them (out, in, rows, columns).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._errors import OriginalFileError
from ._pickles import read_torch

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_MAX_BYTES = 2**32


@dataclass(frozen=True, kw_only=True)
class OriginalFile:
    """Tensors of a foreign weight file.

    Attributes:
        path: where it was read.
        format: "safetensors", "torch", "keras" or "onnx".
        tensors: original name -> tensor (float32, or int64 for counters).
        notes: what else the file tells, e.g. {"body_activation": "relu"} of an ONNX graph.
    """

    path: Path
    format: str
    tensors: Mapping[str, Tensor]
    notes: Mapping[str, str] = field(default_factory=dict)


def read_original(path: str | Path) -> OriginalFile:
    """Read a weight file; the kind is told by its first bytes, not by its name.

    Raises:
        OriginalFileError: unknown kind, damaged, empty, or holding numbers that are not finite.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if path.is_dir():
        raise OriginalFileError(f"{path} is a folder; give the weight file itself")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(9)
    notes: dict[str, str] = {}
    try:
        if head.startswith(_HDF5_MAGIC):
            kind, tensors = "keras", _read_keras(path)
        elif head.startswith((b"PK\x03\x04", b"\x80")):
            kind = "torch"
            tensors, classes = read_torch(path)
            notes = _activation_of_module(classes)
        elif len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < size:
            kind, tensors = "safetensors", _read_safetensors(path)
        else:
            kind, (tensors, notes) = "onnx", _read_onnx(path)
    except OriginalFileError as error:
        raise OriginalFileError(f"{path.name}: {error}") from error
    if not tensors:
        raise OriginalFileError(f"{path.name}: no tensors found in this {kind} file")
    return OriginalFile(path=path, format=kind, tensors=_plain(path, tensors), notes=notes)


def _plain(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    plain = {}
    for name, tensor in tensors.items():
        value = tensor.to(torch.float32) if tensor.is_floating_point() else tensor.to(torch.int64)
        if tensor.is_complex() or not bool(torch.isfinite(value).all()):
            raise OriginalFileError(f"{path.name}: tensor {name!r} holds numbers that are not finite real numbers")
        plain[name] = value.contiguous()
    return plain


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise OriginalFileError(f"damaged safetensors file ({error})") from error


def _activation_of_module(classes: Mapping[str, str]) -> dict[str, str]:
    """Activation inside the residual blocks of a pickled FID-STORM, from the class names of its parts."""
    names = {name.rsplit(".", 1)[-1] for part, name in classes.items() if part.startswith("resBlocks.")}
    found = [label for label, name in (("leaky_relu", "LeakyReLU"), ("relu", "ReLU")) if name in names]
    return {"body_activation": found[0]} if len(found) == 1 else {}


# ----------------------------------------------------------------------------------------------------- Keras


def _read_keras(path: Path) -> dict[str, Tensor]:
    """`LAYER/KIND` -> tensor, from a model file (group `model_weights`) or a weights file (layers at the root)."""
    import h5py

    tensors: dict[str, Tensor] = {}
    budget = _MAX_BYTES

    def visit(name: str, item: Any) -> None:
        nonlocal budget
        if not isinstance(item, h5py.Dataset) or name.startswith("optimizer_weights"):
            return
        if item.is_virtual or item.external:
            raise OriginalFileError(f"{name!r} takes its numbers from another file, which is refused")
        budget -= item.size * item.dtype.itemsize if item.size else 0
        if item.dtype.kind not in "fiu" or budget < 0:
            raise OriginalFileError(f"{name!r} is {item.dtype} {item.shape}, not a weight of a network")
        parts = name.removeprefix("model_weights/").split("/")
        kind = parts[-1].split(":")[0]
        value = torch.from_numpy(np.asarray(item[()], dtype=np.float32))
        if kind == "kernel" and value.ndim == 4:
            value = value.permute(3, 2, 0, 1)  # HWIO -> OIHW
        tensors[f"{parts[0]}/{kind}"] = value

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)  # never follows links to other files
    except (OSError, RuntimeError, KeyError) as error:
        raise OriginalFileError(f"damaged HDF5 file ({error})") from error
    return tensors


# ------------------------------------------------------------------------------------------------------------- ONNX


def _read_onnx(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Convolutions of a FID-STORM graph in graph order; a BatchNorm after one is folded into it.

    Names: `first.weight`, `body.N.weight`, `body.N.bias`, `convup1..3.weight`.
    """
    import onnx
    from onnx import numpy_helper

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf's own errors, by whichever of its implementations is there
        raise OriginalFileError(
            "no known weight file; expected safetensors, PyTorch, Keras HDF5 or ONNX "
            f"(begins with {path.open('rb').read(8)!r})"
        ) from error
    protos = {proto.name: proto for proto in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].type == onnx.AttributeProto.TENSOR:
            protos[node.output[0]] = node.attribute[0].t

    def value(name: str) -> np.ndarray:
        proto = protos.get(name)
        if proto is None:
            raise OriginalFileError(f"the graph's weight {name!r} is not stored in the file")
        if proto.data_location == onnx.TensorProto.EXTERNAL:
            raise OriginalFileError(f"{name!r} takes its numbers from another file, which is refused")
        return np.array(numpy_helper.to_array(proto), dtype=np.float32)

    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    layers: list[tuple[np.ndarray, np.ndarray | None, str]] = []
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        weight = value(node.input[1])
        bias = value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        after = users.get(node.output[0], [])
        if len(after) == 1 and after[0].op_type == "BatchNormalization":
            weight, bias = _fold(weight, bias, after[0], value)
            after = users.get(after[0].output[0], [])
        layers.append((weight, bias, after[0].op_type if len(after) == 1 else ""))
    return _name_fidstorm(layers)


def _fold(weight: np.ndarray, bias: np.ndarray | None, node: Any, value: Any) -> tuple[np.ndarray, np.ndarray]:
    gamma, beta, mean, variance = (value(name) for name in node.input[1:5])
    eps = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    scale = gamma / np.sqrt(variance + eps)
    shift = beta - mean * scale
    return weight * scale[:, None, None, None], shift if bias is None else bias * scale + shift


def _name_fidstorm(
    layers: list[tuple[np.ndarray, np.ndarray | None, str]],
) -> tuple[dict[str, Tensor], dict[str, str]]:
    body = layers[1:-3]
    plain = [layer for layer in (*layers[:1], *layers[-3:]) if layer[1] is None]
    if len(layers) < 5 or len(plain) != 4 or any(bias is None for _, bias, _ in body):
        shapes = [tuple(weight.shape) for weight, _, _ in layers]
        raise OriginalFileError(
            "an ONNX graph, but not FID-STORM's: expected convolutions first (no bias), body (with bias, BatchNorm "
            f"folded), three up-sampling ones (no bias); found kernels {shapes}"
        )
    names = ["first", *(f"body.{i}" for i in range(len(body))), "convup1", "convup2", "convup3"]
    tensors = {}
    for name, (weight, bias, _) in zip(names, layers, strict=True):
        tensors[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(weight))
        if bias is not None:
            tensors[f"{name}.bias"] = torch.from_numpy(np.ascontiguousarray(bias))
    kinds = {kind for _, _, kind in body[:-1]} - {""}
    activation = {"LeakyRelu": "leaky_relu", "Relu": "relu"}.get(next(iter(kinds), "")) if len(kinds) == 1 else None
    return tensors, {"body_activation": activation} if activation else {}
