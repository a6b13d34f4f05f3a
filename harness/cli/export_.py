"""smlm-zoo export"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ._shared import OptionalOutput, Plugins, load_plugins


@dataclass(frozen=True)
class Export:
    """Write a model as ONNX with its card, checked against PyTorch at several sizes and batches."""

    model: Annotated[str, tyro.conf.Positional]
    """A shipped model (deep_storm), or a folder written by train or import."""
    output: OptionalOutput = None
    """Folder to write model.onnx and card.json; default: smlm-zoo-export-MODEL."""
    plugin: Plugins = ()
    """Python files that register further models."""

    def run(self) -> int:
        from harness.export import export_model
        from harness.models import describe, load_network

        load_plugins(self.plugin)
        network, card = load_network(self.model)
        name = re.sub(r"\W+", "-", Path(self.model).name)
        folder = self.output or Path(f"smlm-zoo-export-{name}")
        card |= describe(network)
        card = export_model(network, folder, card)
        size = (folder / "model.onnx").stat().st_size / 1e6
        deviation = card["onnx_deviation"]
        print(f"{folder}/model.onnx: {size:.2f} MB, differs from PyTorch by {deviation:.1e} of the maximum")
        return 0
