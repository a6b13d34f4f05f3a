"""Open a model: shipped weights, a folder, or an ONNX file, with its card and the meaning of its output."""

import difflib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

import zoo
from harness.ready import FIELD_TILE, MAP_TILE, TILE, ImageModel, MapModel, Network, ReadyModel
from harness.runtimes import OnnxMaps, OnnxRuntime, OpenVinoRuntime, Runtime, TorchMaps, TorchRuntime
from harness.thresholding import optics_of
from simulators import Recipe
from zoo import EmitterMaps, ImageNetwork, MapNetwork, SRImage


def create_network(name: str, **options: Any) -> Network:
    """A new network of the zoo, or of a plugin.

    Raises:
        ValueError: what a plugin built is neither `zoo.ImageNetwork` nor `zoo.MapNetwork`, so that nothing is known of
            its output.
    """
    return _known_network(zoo.create_model(name, **options), name)


def _known_network(network: nn.Module, name: str) -> Network:
    if not isinstance(network, ImageNetwork | MapNetwork):
        raise ValueError(
            f"model {name!r} built a {type(network).__name__}; its builder must return a zoo.ImageNetwork or a "
            "zoo.MapNetwork, which says what the output means"
        )
    return network


def _loaded(source: str | Path) -> tuple[Network, dict[str, Any]]:
    network, card = zoo.load_model(source)
    return _known_network(network, str(source)), dict(card)


def open_model(
    source: str | Path,
    *,
    runtime: str = "torch",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> ReadyModel:
    """Make a model ready.

    Args:
        source: a shipped model (`deep_storm`, or with its tag `deep_storm.epfl-2d`), a folder written by train, export
            or import, or an ONNX file with `card.json` beside it or inside.
        runtime: "torch", "onnx" or "openvino". An ONNX file runs in ONNX Runtime unless OpenVINO is asked for.
        device: auto, cpu, cuda.
        precision: auto, float32 or bfloat16 (torch, and OpenVINO, where auto is float32).
        threads: of ONNX Runtime and OpenVINO.

    Raises:
        ValueError: nothing there, or it is not a model.
    """
    path = Path(source)
    if path.suffix == ".onnx" and runtime == "openvino":
        chosen = "float32" if precision == "auto" else precision
        return _described(OpenVinoRuntime(path, precision=chosen, threads=threads), path, _metadata(path))
    if path.suffix == ".onnx":
        return _open_onnx(path, device=device, threads=threads)
    if runtime in ("onnx", "openvino"):
        if path.is_dir():
            file = path / "model.onnx"
            return open_model(file, runtime=runtime, device=device, precision=precision, threads=threads)
        raise ValueError(f"{source} is no folder with model.onnx; make one: smlm-zoo export {source} -o model")
    if runtime != "torch":
        raise ValueError(f"no runtime named {runtime!r}; use torch, onnx or openvino")
    if path.is_dir() and not (path / "model.safetensors").exists() and (path / "model.onnx").exists():
        return _open_onnx(path / "model.onnx", device=device, threads=threads)
    network, card = load_network(source)
    return ready(network, card, name=model_name(source, card), device=device, precision=precision)


def model_name(source: str | Path, card: dict[str, Any]) -> str:
    """Name for people: the shipped tag, or model and folder."""
    if (Path(source) / "card.json").is_file() or Path(source).is_file():
        return f"{card.get('model', 'model')} ({Path(source).resolve().name})"
    return str(source)


def load_network(source: str | Path) -> tuple[Network, dict[str, Any]]:
    """The module and card of a shipped model or a folder.

    Raises:
        ValueError: no such model or folder; says what there is.
    """
    try:
        return _loaded(source)
    except FileNotFoundError:
        if Path(source).is_dir() or zoo.is_address(source):
            raise
    name, shipped = str(source), zoo.list_weights()
    base = name.split(".")[0]
    if base in zoo.list_models():
        raise ValueError(
            f"no weights named {name!r} are shipped; shipped are: {', '.join(shipped) or 'none'}. "
            f"Train your own: smlm-zoo train {base} -o run"
        )
    near = difflib.get_close_matches(name, [*zoo.list_models(), *shipped], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"No model or folder named {name!r}.{hint} The zoo has: {', '.join(zoo.list_models())}; or give a folder "
        "written by train, export or import, or an ONNX file."
    )


def suited_weights(recipes: Iterable[Recipe]) -> list[str]:
    """The weights at hand that were trained on the kind of PSF and of camera (with or without EM gain) of one of the
    recipes, and those whose card does not say."""
    kinds = {optics_of(recipe) for recipe in recipes}
    names = []
    for name in zoo.list_weights():
        seen = zoo.read_card(name).get("valid_range") or {}
        psf, camera = seen.get("psf"), seen.get("camera")
        if not psf or not camera or (psf.get("kind"), camera.get("em_gain") is not None) in kinds:
            names.append(name)
    return names


def ready(
    network: Network, card: dict[str, Any], *, name: str, device: str = "auto", precision: str = "auto"
) -> ReadyModel:
    """A module in torch, ready."""
    reach = receptive_field(network)
    if isinstance(network, MapNetwork):
        return MapModel(
            name=name,
            runtime=TorchMaps(network, device=device, precision=precision),
            output=network.output,
            card=card,
            size_multiple=network.size_multiple,
            frames_before=network.frames_before,
            frames_after=network.frames_after,
            context=network.context,
            receptive_field_px=reach,
            network=network,
            tile_px=tile_px(card, reach, maps=True),
        )
    return ImageModel(
        name=name,
        runtime=TorchRuntime(network, device=device, precision=precision),
        output=network.output,
        card=card,
        size_multiple=network.size_multiple,
        frames_in=network.frames_in,
        receptive_field_px=reach,
        network=network,
        tile_px=tile_px(card, reach, maps=False),
    )


def in_onnx(model: ReadyModel, path: Path, *, device: str = "auto") -> ReadyModel:
    """A model of torch, run from the file that it was exported to."""
    if isinstance(model, MapModel):
        return replace(model, runtime=OnnxMaps(path, device=device), network=None)
    assert isinstance(model, ImageModel)
    return replace(model, runtime=OnnxRuntime(path, device=device), network=None)


def uses_image_statistics(network: Network) -> bool:
    """Whether norms take their statistics from the frames themselves (DSIR, attention U-Net)."""
    if isinstance(network, MapNetwork):
        return network.context is not None
    return getattr(network.core, "statistics", "running") != "running"


def receptive_field(network: Network) -> float | None:
    """In camera pixels; None when unknown or when the network uses statistics of the whole image."""
    if uses_image_statistics(network) or network.normalisation.mode in ("min_max", "z_score"):
        return None
    name = getattr(network, "model_name", None)
    spec = zoo.get_spec(name) if name in zoo.list_models() else None
    if spec is None or spec.receptive_field_px is None:
        return None
    known = [spec.receptive_field_px, *(variant.receptive_field_px for variant in spec.variants.values())]
    if isinstance(network, MapNetwork):
        return max(known)
    scale = 1.0 if network.enlarge.mode == "none" else 8 / network.output.upsampling
    return scale * max(known)  # the widest form: too much halo is only slower


LEAST_TILE = 64  # camera pixels; 16 at each border only look


def tile_px(card: dict[str, Any], receptive_field_px: float | None, *, maps: bool) -> int | None:
    """Largest side of a field that a model treats whole: the card's where the result depends on it.

    Raises:
        ValueError: the card's is no such number.
    """
    if receptive_field_px is not None:
        return MAP_TILE if maps else TILE
    side = card.get("tile_px")
    return None if side is None else checked_tile(side, "tile_px of the card")


def checked_tile(side: Any, name: str) -> int:
    """A tile's side, camera pixels.

    Raises:
        ValueError: no whole number, or too small for tiles to have surroundings.
    """
    if not isinstance(side, int) or isinstance(side, bool) or side < LEAST_TILE:
        raise ValueError(f"{name} is {side!r}; expected a whole number of pixels from {LEAST_TILE} on")
    return side


def new_tile(network: Network) -> dict[str, Any]:
    """What the card of new weights says of tiles: their size where the result depends on it, else nothing."""
    return {"tile_px": FIELD_TILE} if receptive_field(network) is None else {}


def describe(network: Network) -> dict[str, Any]:
    """What a card needs to say so that an exported file runs without this program's network."""
    facts: dict[str, Any] = {
        "size_multiple": network.size_multiple,
        "frames_in": network.frames_in,
        "receptive_field_px": receptive_field(network),
    }
    if isinstance(network, MapNetwork):
        facts |= {
            "frames_before": network.frames_before,
            "frames_after": network.frames_after,
            "context": network.context,
        }
    return facts


def _open_onnx(path: Path, *, device: str, threads: int | None) -> ReadyModel:
    runtime = OnnxRuntime(path, device=device, threads=threads)
    return _described(runtime, path, runtime.metadata)


def _metadata(path: Path) -> dict[str, str]:
    """What the exporting program wrote into an ONNX file, for runtimes that do not tell."""
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def _described(runtime: Runtime, path: Path, metadata: dict[str, str]) -> ReadyModel:
    """The model in an ONNX file, from its card."""
    beside = path.with_name("card.json")
    if beside.is_file():
        card = _card(beside.read_text(encoding="utf-8"), beside)
    elif "smlm_zoo_card" in metadata:
        card = _card(metadata["smlm_zoo_card"], path)
    else:
        raise ValueError(
            f"{path} has no card: put a card.json beside it with at least "
            '{"model": "NAME", "output": {"upsampling": 8, "target_scale": 1}, "threshold": 0.2}'
        )
    settings = card.get("output")
    if not isinstance(settings, dict):
        raise ValueError(f"the card of {path} has no 'output' with upsampling and target_scale, or with channels")
    known: dict[str, Any] = {key: value for key, value in settings.items() if key != "contract"}
    maps = settings.get("contract") == "EmitterMaps" or "channels" in settings
    try:
        output = EmitterMaps(**known) if maps else SRImage(**known)
    except TypeError as error:
        raise ValueError(f"the card of {path}: output {settings} is not understood: {error}") from None
    common: dict[str, Any] = {
        "name": f"{card.get('model', path.stem)} ({path.name})",
        "card": card,
        "size_multiple": int(card.get("size_multiple", 1)),
        "receptive_field_px": card.get("receptive_field_px"),
        "tile_px": tile_px(card, card.get("receptive_field_px"), maps=maps),
    }
    if isinstance(output, EmitterMaps):
        context = card.get("context")
        return MapModel(
            runtime=OnnxMaps(runtime),
            output=output,
            frames_before=int(card.get("frames_before", 0)),
            frames_after=int(card.get("frames_after", 0)),
            context=None if context is None else int(context),
            **common,
        )
    return ImageModel(runtime=runtime, output=output, frames_in=int(card.get("frames_in", 1)), **common)


def _card(text: str, path: Path) -> dict[str, Any]:
    try:
        card = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the card of {path} is not JSON: {error}") from None
    if not isinstance(card, dict):
        raise ValueError(f"the card of {path} is not a JSON object")
    return card
