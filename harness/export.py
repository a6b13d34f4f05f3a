"""Export to ONNX: one file that takes photon frames of any size and number, checked against PyTorch."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.io.atomic import atomic_path
from harness.io.json_files import write_json
from harness.models import uses_image_statistics
from harness.ready import Network, pad_to
from harness.runtimes import OnnxMaps, OnnxRuntime, TorchMaps, TorchRuntime
from zoo import ImageNetwork, MapNetwork, inference_form

OPSET = 18
RUNNER = "localize.py"
SIZES = ((24, 40), (33, 57), (64, 64))  # camera pixels; odd and oblong on purpose


def export_onnx(
    module: nn.Module, path: Path, *, example: torch.Tensor | None = None, metadata: dict[str, str] | None = None
) -> Path:
    """Write a module as an ONNX file with free batch, height and width; localization networks with free frames too.

    The module is exported in its inference form: norms folded into convolutions, no dropout. The file of a
    localization network has two outputs: the maps (B, T', C, H, W), and the scores (B, T', H, W), which say where the
    localizations are: where they reach the threshold.

    Args:
        module: (N, C, H, W) -> (N, 1, sH, sW); or a `zoo.MapNetwork`.
        path: file to write; it appears whole or not at all.
        example: an input that fits; default: two inputs of 24 x 40.
        metadata: strings to keep in the file.

    Returns:
        `path`.
    """
    import onnx

    maps = isinstance(module, MapNetwork)
    form: nn.Module = inference_form(module)
    fitting, dynamic = free_sizes(form)
    example = fitting if example is None else example
    if isinstance(form, MapNetwork):
        form = _WithScores(form)
    _quiet()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            form,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=(dynamic,),
            input_names=["frames"],
            output_names=["maps", "scores"] if maps else ["image"],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip(model)
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return path


def free_sizes(module: nn.Module) -> tuple[torch.Tensor, dict[int, Any]]:
    """Frames that a module takes, and which of their axes are free, for `torch.export`."""
    maps = isinstance(module, MapNetwork)
    example = torch.zeros(2, getattr(module, "frames_in", 1) + 2 * maps, 24, 40)
    height, width = torch.export.Dim("height", min=1), torch.export.Dim("width", min=1)
    multiple = getattr(module, "size_multiple", 1)
    dynamic: dict[int, Any] = {0: torch.export.Dim("batch", min=1), 2: height, 3: width}
    if multiple > 1:
        dynamic[2], dynamic[3] = (
            multiple * torch.export.Dim("rows", min=1),
            multiple * torch.export.Dim("columns", min=1),
        )
    if maps:
        dynamic[1] = torch.export.Dim("frames", min=getattr(module, "frames_in", 1))
    return example, dynamic


class _WithScores(nn.Module):
    """Maps and the scores of their pixels, both from one graph."""

    def __init__(self, network: MapNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.network(frames)
        output = self.network.output
        scored = output.scores(maps.flatten(0, 1), threshold=output.candidate)
        return maps, scored.unflatten(0, maps.shape[:2])


def export_model(network: Network, folder: Path, card: dict[str, Any]) -> dict[str, Any]:
    """Write `model.onnx` and `card.json` for a network, and prove that both programs agree.

    Beside them lies `localize.py`, which runs them on a movie with numpy, onnxruntime and tifffile alone.

    Compared on noise frames of `SIZES` and batches of 1 and 5. The largest deviation, as a share of the largest output,
    goes into the card as `onnx_deviation`.

    Args:
        network: the trained network.
        folder: to write into.
        card: what is known of the weights.

    Returns:
        The card with the export's own entries.

    Raises:
        ValueError: the two programs differ by more than 1e-4 of the largest output (1e-2 for networks that normalise by
            the image's own statistics, where float32 itself is uncertain).
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in card.items() if key not in ("onnx_deviation",)}
    path = export_onnx(network, folder / "model.onnx", metadata={"smlm_zoo_card": json.dumps(kept)})
    deviation = max(compare(*_pair(network, path), frames_in=0 if isinstance(network, ImageNetwork) else 4))
    tolerance = 1e-2 if uses_image_statistics(network) else 1e-4
    if deviation > tolerance:
        path.unlink()
        raise ValueError(
            f"the exported network differs from PyTorch by {deviation:.2g} of the largest output; at most "
            f"{tolerance:g} is allowed. The file was removed; please report this with the versions of torch and "
            "onnxruntime."
        )
    full = {**kept, "onnx_deviation": deviation, "opset": OPSET}
    with atomic_path(folder / RUNNER) as temporary:
        temporary.write_text(Path(__file__).with_name("standalone.py").read_text(encoding="utf-8"), encoding="utf-8")
    write_json(folder / "card.json", full)
    return full


def _pair(network: Network, path: Path) -> tuple[Any, Any]:
    """The network in PyTorch and in ONNX Runtime."""
    if isinstance(network, MapNetwork):
        return TorchMaps(network, device="cpu", precision="float32"), OnnxMaps(path, device="cpu")
    return TorchRuntime(network, device="cpu", precision="float32"), OnnxRuntime(path, device="cpu")


def compare(first: Any, second: Any, *, frames_in: int = 0) -> list[float]:
    """Largest deviation between two runtimes as a share of the first's largest output, for every size and batch.

    Args:
        frames_in: for localization networks: frames beyond those that get maps; 0 for image networks.
    """
    rng = np.random.default_rng(7)
    deviations = []
    for height, width in SIZES:
        for batch in (1, 5):
            shape = (frames_in + batch, height, width) if frames_in else (batch, 1, height, width)
            frames = torch.from_numpy(rng.gamma(4.0, 50.0, shape).astype(np.float32))
            if frames_in:
                frames = pad_to(frames, 8)
            expected, found = first(frames), second(frames)
            scale = expected.abs().max().clamp(min=1e-12)
            deviations.append(((found - expected).abs().max() / scale).item())
    return deviations


def _strip(model: Any) -> None:
    """Take out what the exporter adds about this machine: source paths, stack traces."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for initialiser in model.graph.initializer:
        del initialiser.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""


def _quiet() -> None:
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
