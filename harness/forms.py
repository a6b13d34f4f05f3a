"""The forms of a model: programs, devices and arithmetics that can run it, each to be opened in any process."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import zoo
from harness.devices import fastest_precision, pick_device
from harness.export import export_onnx
from harness.models import create_network, describe, load_network, open_model
from harness.ready import Network, ReadyModel
from harness.runtimes import is_quantised


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to run one model.

    Args:
        name: for people, e.g. "torch bfloat16".
        source: shipped model, folder, or ONNX file.
        runtime: torch, onnx or openvino.
        precision: what is asked for; what really computes is in the opened model's `info`.
        device: auto, cpu, cuda or tensorrt.
        label: name of the opened model; default: the one that it has by itself.
    """

    name: str
    source: str
    runtime: str = "torch"
    precision: str = "float32"
    device: str = "auto"
    label: str = ""

    def open(self, *, threshold: float | None = None) -> ReadyModel:
        """The model, ready, in this process.

        Args:
            threshold: instead of the card's.
        """
        model = open_model(self.source, runtime=self.runtime, device=self.device, precision=self.precision)
        if self.label:
            model = replace(model, name=self.label)
        return model if threshold is None else replace(model, card={**model.card, "threshold": threshold})


def kept_source(source: str, folder: Path) -> str:
    """A source that every form can be opened from: itself; of a folder that holds an exported file and no weights that
    file; of a name of the zoo without shipped weights a folder with random ones, since times do not depend on them."""
    exported = Path(source) / "model.onnx"
    if exported.is_file() and not any(Path(source).glob("*.safetensors")):
        return str(exported)
    if source not in zoo.list_models() or f"{source}.{zoo.get_spec(source).recipe}" in zoo.list_weights():
        return source
    torch.manual_seed(1)
    network = create_network(source).eval()
    network.normalisation.set_statistics(100.0, 50.0)
    zoo.save_weights(network, folder / f"{source}-random", {})
    return str(folder / f"{source}-random")


def forms_of(
    source: str, file: Path, *, device: str = "auto", slow_bfloat16: bool = True, openvino: bool = True, label: str = ""
) -> list[Form]:
    """Every form that runs here; the first one is the reference in float32.

    PyTorch in float32 and bfloat16, ONNX Runtime in float32 and, where the model's folder has a file named *int8*.onnx,
    in int8, OpenVINO on CPUs where it is installed, and TensorRT on GPUs where ONNX Runtime has it.

    Args:
        source: from `kept_source`.
        file: where the ONNX file lies, or is exported to now.
        device: auto, cpu, cuda.
        slow_bfloat16: have bfloat16 also where it is slower than float32.
        openvino: have OpenVINO.
        label: name of the opened models.
    """
    path = Path(source)
    common: dict[str, Any] = {"device": device, "label": label}
    if path.suffix == ".onnx":
        arithmetic = "int8" if is_quantised(path) else "float32"
        only = Form(name=f"ONNX Runtime {arithmetic}", source=source, runtime="onnx", precision=arithmetic, **common)
        forms = [only, *(_int8(path.parent, common) if path.name == "model.onnx" else [])]
        return forms + _openvino(source, device, label) if openvino else forms
    where = pick_device(device)
    forms = [Form(name="torch float32", source=source, **common)]
    if slow_bfloat16 or fastest_precision(where) == "bfloat16":
        forms.append(Form(name="torch bfloat16", source=source, precision="bfloat16", **common))
    if not file.is_file():
        network, card = load_network(source)
        export_with_card(network, card, file)
    forms.append(Form(name="ONNX Runtime float32", source=str(file), runtime="onnx", **common))
    forms += _int8(path, common) if path.is_dir() else []
    if where.type == "cuda" and "TensorrtExecutionProvider" in _providers():
        forms.append(Form(name="TensorRT float32", source=str(file), runtime="onnx", device="tensorrt", label=label))
    return forms + _openvino(str(file), device, label) if openvino else forms


def _int8(folder: Path, common: dict[str, Any]) -> list[Form]:
    return [
        Form(name="ONNX Runtime int8", source=str(file), runtime="onnx", precision="int8", **common)
        for file in sorted(folder.glob("*int8*.onnx"))[:1]
    ]


def _openvino(source: str, device: str, label: str) -> list[Form]:
    if importlib.util.find_spec("openvino") is None or pick_device(device).type != "cpu":
        return []
    return [Form(name="OpenVINO float32", source=source, runtime="openvino", device="cpu", label=label)]


def _providers() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def export_with_card(network: Network, card: dict[str, Any], file: Path) -> Path:
    """An ONNX file that holds its card, so that it runs without anything beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = {**card, **describe(network)}
    return export_onnx(network, file, metadata={"smlm_zoo_card": json.dumps(kept)})
