"""The list of models: what there is, how to build it, and how others add theirs."""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from ._emitter_maps import EmitterMaps
from ._outputs import SRImage

ENTRY_POINT_GROUP = "smlm_zoo.models"

Builder = Callable[..., nn.Module]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A published or recommended form of a model beside the canonical one.

    Args:
        summary: how it differs, one line.
        parameters: trainable numbers.
        receptive_field_px: largest receptive field, camera pixels, at the spec's upsampling.
        options: keywords for `create_model` that give it.
    """

    summary: str
    parameters: int
    receptive_field_px: float
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One entry of the zoo; every number is for the canonical form with default options.

    Args:
        name: what the user types.
        builder: function of keyword options that gives the module.
        output: meaning of the module's tensor.
        frames_in: frames per input: the channels of an image network, the shortest movie of a localization network.
        size_multiple: frames' height and width must be multiples of this, camera pixels.
        loss: default loss, by name; `losses` resolves it.
        recipe: default training recipe, by name; also the tag of the default weights.
        source: where the layers come from.
        licence: of that source.
        summary: one line.
        receptive_field_px: largest receptive field, camera pixels.
        parameters: trainable numbers; None when not stated.
        variants: other forms, by name.
        origin: file that registered it.
    """

    name: str
    builder: Builder
    output: SRImage | EmitterMaps
    frames_in: int = 1
    size_multiple: int = 1
    loss: str = "deepstorm"
    recipe: str = "epfl-2d"
    source: str = ""
    licence: str = ""
    summary: str = ""
    receptive_field_px: float | None = None
    parameters: int | None = None
    variants: Mapping[str, Variant] = field(default_factory=dict)
    origin: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "variants", MappingProxyType(dict(self.variants)))


_SPECS: dict[str, ModelSpec] = {}
_PLUGINS: dict[Path, tuple[str, ...]] = {}
_entry_points_loaded = False


def register_model(
    *, output: SRImage | EmitterMaps, name: str | None = None, **spec: Any
) -> Callable[[Builder], Builder]:
    """Decorator that puts a builder into the zoo.

    Args:
        output: meaning of the tensor that the built module gives.
        name: default: the builder's own name.
        spec: the other fields of `ModelSpec`.

    Raises:
        ValueError: the name is taken; the message names both sources.

    Example:
        >>> @register_model(output=SRImage(upsampling=4), loss="deepstorm", source="our lab")
        ... def tiny(*, upsampling: int = 4) -> nn.Module:
        ...     return ImageNetwork(nn.Conv2d(1, 1, 3, padding=1), output=SRImage(upsampling=upsampling))
    """

    def decorate(builder: Builder) -> Builder:
        model_name = str(name or getattr(builder, "__name__", ""))
        origin = _origin(builder)
        if model_name in _SPECS:
            raise ValueError(
                f"model '{model_name}' is registered twice: first by {_SPECS[model_name].origin}, "
                f"now by {origin}; give one of them another name"
            )
        _SPECS[model_name] = ModelSpec(name=model_name, builder=builder, output=output, origin=origin, **spec)
        return builder

    return decorate


def _origin(builder: Builder) -> str:
    try:
        source = inspect.getsourcefile(builder)
    except TypeError:
        source = None
    return source or getattr(builder, "__module__", None) or repr(builder)


def list_models(pattern: str = "*") -> list[str]:
    """Names in the zoo that match the wildcard pattern, sorted, e.g. `list_models("*_storm")`."""
    _load_entry_points()
    return sorted(fnmatch.filter(_SPECS, pattern))


def get_spec(name: str) -> ModelSpec:
    """The entry of a model.

    Raises:
        ValueError: no such model; the message suggests the nearest name.
    """
    _load_entry_points()
    if name not in _SPECS:
        close = difflib.get_close_matches(name, _SPECS, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ValueError(f"No model named '{name}'.{hint} The zoo has: {', '.join(sorted(_SPECS))}.")
    return _SPECS[name]


def create_model(name: str, *, pretrained: bool | str = False, **options: Any) -> nn.Module:
    """Build a model.

    Args:
        name: one of `list_models()`.
        pretrained: True for the shipped weights of the default tag, or a tag; the options then come from the
            weights' card, and `options` may only repeat them.
        options: of the builder, e.g. `variant="dl4smlm"`, `upsampling=4`, `normalisation="min_max"`.

    Returns:
        The module in training mode (evaluation mode when pretrained), with `model_name` and `model_options`
        set.

    Raises:
        ValueError: unknown name or option value; no such weights; options that contradict the weights.
        TypeError: unknown option name; the message lists the known ones.
    """
    spec = get_spec(name)
    if pretrained:
        from ._weights import load_pretrained

        return load_pretrained(name, spec.recipe if pretrained is True else pretrained, options)
    try:
        inspect.signature(spec.builder).bind(**options)
    except TypeError as error:
        known = ", ".join(inspect.signature(spec.builder).parameters) or "none"
        raise TypeError(f"model '{name}': {error}; its options are: {known}") from None
    model = spec.builder(**options)
    model.model_name = name  # type: ignore[assignment]
    model.model_options = dict(options)  # type: ignore[assignment]
    return model


def load_plugin(path: str | Path) -> list[str]:
    """Run a user's Python file that calls `register_model`; give the names that it added.

    The file runs once, however often it is asked for. If it fails, what it had registered is taken back.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it registers nothing, or a name that is taken.
    """
    file = Path(path).expanduser().resolve()
    if file in _PLUGINS:
        return list(_PLUGINS[file])
    if not file.is_file():
        raise FileNotFoundError(f"no plugin file {path}; give a Python file that calls zoo.register_model")
    _load_entry_points()
    module_name = f"_smlm_zoo_plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    module_spec = importlib.util.spec_from_file_location(module_name, file)
    if module_spec is None or module_spec.loader is None:
        raise ValueError(f"{path} cannot be run as Python; its name must end in .py")
    before = dict(_SPECS)
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module
    try:
        module_spec.loader.exec_module(module)
        added = sorted(set(_SPECS) - set(before))
        if not added:
            raise ValueError(f"plugin {path} registers no model; decorate its builder with zoo.register_model")
    except BaseException:
        _SPECS.clear()
        _SPECS.update(before)
        del sys.modules[module_name]
        raise
    _PLUGINS[file] = tuple(added)
    return added


def plugin_files() -> list[Path]:
    """The files that `load_plugin` has run here, in order: what another process must load to know the same models."""
    return list(_PLUGINS)


def _load_entry_points() -> None:
    """Import what installed packages offer under `smlm_zoo.models`; importing registers their models.

    One that fails, or takes a name that is there already, is named in a warning and hides no other model.
    """
    global _entry_points_loaded
    if _entry_points_loaded:
        return
    _entry_points_loaded = True
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        before = dict(_SPECS)
        try:
            entry.load()
        except Exception as error:
            _SPECS.clear()
            _SPECS.update(before)
            warnings.warn(f"entry point {entry.name} = {entry.value} adds no model: {error}", stacklevel=4)
