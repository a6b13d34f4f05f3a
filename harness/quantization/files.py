"""From an exported float32 file to smaller ones. They take and give float32, as the first one does.

int8 is static (scales are found beforehand on calibration frames), per channel, as QDQ nodes: dynamic quantisation was
measured seven times slower. Half-precision files store their weights so and compute in float32: processors without half
arithmetic run them as fast as the original, from half the bytes.

Source: Jacob et al. 2018, arXiv:1712.05877 (integer arithmetic, scales per channel of the weights).
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from harness.io.atomic import atomic_path

KINDS = ("float16", "bfloat16")


def int8_file(
    source: Path,
    target: Path,
    frames: Sequence[Tensor],
    *,
    keep_ends: bool = True,
    percentile: float | None = None,
    ranges: Mapping[str, tuple[float, int]] | None = None,
) -> Path:
    """Quantise the convolutions of an exported file.

    Args:
        source: float32 ONNX file.
        target: file to write.
        frames: batches of photons that calibrate it, see `distill.calibration.calibration_frames`.
        keep_ends: the convolutions that see the frames first, and those that none follows, stay float32: photons span
            three decades, and the last values are the result (a network may have several heads).
        percentile: of the activations that the 8 bits cover, e.g. 99.99; None covers all of them.
        ranges: scale and zero point of each activation by name, instead of those that the frames give; see
            `harness.quantization.tuning.activation_ranges`.

    Raises:
        ValueError: no frames, or a file without convolutions.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    if not frames:
        raise ValueError("no frames to calibrate on; see distill.calibration.calibration_frames")
    model = onnx.load(str(source))
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    if not convolutions:
        raise ValueError(f"{source} has no convolutions that could be quantised")
    kept = _ends(model.graph) if keep_ends and len(convolutions) > 2 else set()
    name = model.graph.input[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(frames)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.left, None)
            return None if batch is None else {name: np.ascontiguousarray(batch.numpy(), np.float32)}

    options: dict[str, Any] = {"WeightSymmetric": True, "ActivationSymmetric": False}
    if percentile is not None:
        options["CalibPercentile"] = percentile
    if ranges is not None:
        options["TensorQuantOverrides"] = {
            tensor: [{"scale": np.array(scale, np.float32), "zero_point": np.array(zero, np.uint8)}]
            for tensor, (scale, zero) in ranges.items()
        }
    method = CalibrationMethod.MinMax if percentile is None else CalibrationMethod.Percentile
    quiet = contextlib.redirect_stdout(io.StringIO())
    with atomic_path(target) as temporary, tempfile.TemporaryDirectory() as scratch, quiet, _no_advice():
        plain = Path(scratch) / "plain.onnx"  # without metadata that the tool would drop half of
        onnx.save(model, str(plain))
        quantize_static(
            str(plain),
            str(temporary),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=sorted(kept),
            calibrate_method=method,
            extra_options=options,
        )
        _with_metadata(temporary, model)
    return target


def _ends(graph: Any) -> set[str]:
    """Names of the convolutions that none comes before, or none comes after."""
    fed: set[str] = set()  # values that some convolution came before
    leading: set[str] = set()  # values that some convolution comes after
    first: set[str] = set()
    last: set[str] = set()
    for node in graph.node:  # in an order in which they can run
        if node.op_type == "Conv" and node.input[0] not in fed:
            first.add(node.name)
        if node.op_type == "Conv" or any(name in fed for name in node.input):
            fed.update(node.output)
    for node in reversed(graph.node):
        if node.op_type == "Conv" and node.output[0] not in leading:
            last.add(node.name)
        if node.op_type == "Conv" or any(name in leading for name in node.output):
            leading.update(node.input)
    return first | last


def half_file(source: Path, target: Path, kind: str = "float16") -> Path:
    """Store the weights of an exported file in half precision; they become float32 when the file is loaded.

    Args:
        kind: "float16" (11 significant bits) or "bfloat16" (8, but the range of float32).

    Raises:
        ValueError: an unknown kind.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; known are: {', '.join(KINDS)}")
    number = TensorProto.FLOAT16 if kind == "float16" else TensorProto.BFLOAT16
    model = onnx.load(str(source))
    casts = []
    for weight in list(model.graph.initializer):
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < 64:
            continue
        values = numpy_helper.to_array(weight)
        if kind == "float16" and np.abs(values).max() >= 65504:
            continue
        stored = f"{weight.name}.{kind}"
        casts.append(helper.make_node("Cast", [stored], [weight.name], to=TensorProto.FLOAT, name=f"{stored}.cast"))
        if kind == "float16":
            small = numpy_helper.from_array(values.astype(np.float16), stored)
        else:
            bits = values.astype(np.float32).view(np.uint32)
            rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to the nearest, ties to even
            small = helper.make_tensor(stored, number, list(weight.dims), rounded.tobytes(), raw=True)
        model.graph.initializer.remove(weight)
        model.graph.initializer.append(small)
    for place, node in enumerate(casts):
        model.graph.node.insert(place, node)
    onnx.checker.check_model(model)
    with atomic_path(target) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return target


@contextlib.contextmanager
def _no_advice() -> Iterator[None]:
    """The tool's hints on preprocessing are for other exporters."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def _with_metadata(path: Path, source: Any) -> None:
    """Put back what the card's copy in the file says."""
    import onnx

    model = onnx.load(str(path))
    known = {entry.key for entry in model.metadata_props}
    for entry in source.metadata_props:
        if entry.key not in known:
            added = model.metadata_props.add()
            added.key, added.value = entry.key, entry.value
    path.write_bytes(model.SerializeToString())
