"""Networks that turn camera frames into super-resolved images, and what their tensors mean.

>>> import zoo
>>> model = zoo.create_model("deep_storm").eval()
>>> maps = model(frames)  # (N, 1, H, W) photons -> (N, 1, 8H, 8W)
"""

from importlib import import_module as _import_module
from pkgutil import iter_modules as _iter_modules

from ._adopting import Adopted, adopt_weights
from ._blocks import (
    ConvBlock,
    Enlarge,
    HalfMaximum,
    ImageNetwork,
    Normalisation,
    SeparableConv2d,
    UpConv2d,
    inference_form,
    replace_layers,
    with_exact_input,
    with_lean_blocks,
)
from ._costs import Macs, count_macs, count_parameters
from ._detection import scores
from ._emitter_maps import QUANTITIES, EmitterMaps, EmitterTargets
from ._map_network import MapNetwork, SharesFeatures
from ._outputs import SRImage
from ._phases import PhasedTranspose2d, with_phases
from ._places import is_address
from ._registry import (
    ModelSpec,
    Variant,
    create_model,
    get_spec,
    list_models,
    load_plugin,
    plugin_files,
    register_model,
)
from ._weights import list_weights, load_model, load_weights, read_card, save_weights
from ._winograd import WinogradConv2d, with_winograd

for _module in _iter_modules(__path__):
    if not _module.name.startswith("_") and not _module.ispkg:
        _import_module(f"{__name__}.{_module.name}")

__all__ = [
    "QUANTITIES",
    "Adopted",
    "ConvBlock",
    "EmitterMaps",
    "EmitterTargets",
    "Enlarge",
    "HalfMaximum",
    "ImageNetwork",
    "Macs",
    "MapNetwork",
    "ModelSpec",
    "Normalisation",
    "PhasedTranspose2d",
    "SRImage",
    "SeparableConv2d",
    "SharesFeatures",
    "UpConv2d",
    "Variant",
    "WinogradConv2d",
    "adopt_weights",
    "count_macs",
    "count_parameters",
    "create_model",
    "get_spec",
    "inference_form",
    "is_address",
    "list_models",
    "list_weights",
    "load_model",
    "load_plugin",
    "load_weights",
    "plugin_files",
    "read_card",
    "register_model",
    "replace_layers",
    "save_weights",
    "scores",
    "with_exact_input",
    "with_lean_blocks",
    "with_phases",
    "with_winograd",
]
