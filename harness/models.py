"""A model ready to work: its runtime, the meaning of its output, and its card, wherever it came from."""

import difflib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from harness.runtimes import OnnxRuntime, Runtime, TorchRuntime
from zoo import ImageNetwork, SRImage

TILE = 96  # camera pixels; larger frames are cut, so that memory stays bounded
PIXELS_AT_ONCE = 4 * 64 * 64  # camera pixels in one batch
SUPPORT = 3  # camera pixels beyond the receptive field that enlarging may look at


@dataclass(frozen=True, kw_only=True)
class ReadyModel:
    """A model that turns photon frames into an image, and the image into localizations.

    Args:
        name: for people, e.g. `deep_storm.epfl-2d`.
        runtime: what computes.
        output: meaning of the image.
        card: what is known of the weights.
        size_multiple: frames are padded to multiples of this, and the image cropped back.
        frames_in: frames that the network takes at a time.
        receptive_field_px: in camera pixels; None where unknown or where statistics of the whole image enter, and then
            frames are never cut into tiles.
        network: the module, where there is one.
    """

    name: str
    runtime: Runtime
    output: SRImage
    card: dict[str, Any]
    size_multiple: int = 1
    frames_in: int = 1
    receptive_field_px: float | None = None
    network: ImageNetwork | None = None

    @property
    def threshold(self) -> float:
        """Threshold found on validation data.

        Raises:
            ValueError: the card has none.
        """
        value = self.card.get("threshold")
        if value is None:
            raise ValueError(f"the card of {self.name} holds no threshold; give one, e.g. --threshold 0.2")
        return float(value)

    def image(self, frames: Tensor) -> Tensor:
        """(N, H, W) photons -> (N, 1, sH, sW); any size, in tiles where frames are large.

        Raises:
            ValueError: wrong shape.
        """
        if frames.ndim != 3:
            raise ValueError(f"frames are {tuple(frames.shape)}; (number, height, width) is needed")
        count, height, width = frames.shape
        if self.receptive_field_px is None or max(height, width) <= TILE:
            return self._batched(frames)
        multiple = self.size_multiple
        halo = math.ceil((self.receptive_field_px / 2 + SUPPORT) / multiple) * multiple
        step = max(multiple, (TILE - 2 * halo) // multiple * multiple)
        s = self.output.upsampling
        whole = torch.empty(self.output.shape(count, height, width))
        for top in range(0, height, step):
            for left in range(0, width, step):
                first_row, first_column = max(0, top - halo), max(0, left - halo)
                part = frames[:, first_row : top + step + halo, first_column : left + step + halo]
                image = self._batched(part)
                rows, columns = min(step, height - top), min(step, width - left)
                y, x = s * (top - first_row), s * (left - first_column)
                whole[..., s * top : s * (top + rows), s * left : s * (left + columns)] = image[
                    ..., y : y + s * rows, x : x + s * columns
                ]
        return whole

    def _batched(self, frames: Tensor) -> Tensor:
        height, width = frames.shape[1:]
        multiple = self.size_multiple
        extra_rows, extra_columns = -height % multiple, -width % multiple
        per_batch = max(1, PIXELS_AT_ONCE // (height * width))
        parts = []
        for part in frames[:, None].split(per_batch):
            if extra_rows or extra_columns:
                part = torch.nn.functional.pad(part, (0, extra_columns, 0, extra_rows), mode="replicate")
            parts.append(self.runtime(part))
        s = self.output.upsampling
        return torch.cat(parts)[..., : s * height, : s * width]


def create_network(name: str, **options: Any) -> ImageNetwork:
    """A new network of the zoo, or of a plugin.

    Raises:
        ValueError: what a plugin built is no `zoo.ImageNetwork`, so that nothing is known of its output.
    """
    return _image_network(zoo.create_model(name, **options), name)


def _image_network(network: nn.Module, name: str) -> ImageNetwork:
    if not isinstance(network, ImageNetwork):
        raise ValueError(
            f"model {name!r} built a {type(network).__name__}; its builder must return a zoo.ImageNetwork, which says "
            "what the output means"
        )
    return network


def _loaded(source: str | Path) -> tuple[ImageNetwork, dict[str, Any]]:
    network, card = zoo.load_model(source)
    return _image_network(network, str(source)), dict(card)


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
        runtime: "torch" or "onnx". An ONNX file always runs in ONNX Runtime.
        device: auto, cpu, cuda.
        precision: auto, float32 or bfloat16 (torch only).
        threads: of ONNX Runtime.

    Raises:
        ValueError: nothing there, or it is not a model.
    """
    path = Path(source)
    if path.suffix == ".onnx":
        return _open_onnx(path, device=device, threads=threads)
    if runtime == "onnx":
        if path.is_dir():
            return _open_onnx(path / "model.onnx", device=device, threads=threads)
        raise ValueError(f"{source} is no folder with model.onnx; make one: smlm-zoo export {source} -o model")
    if runtime != "torch":
        raise ValueError(f"no runtime named {runtime!r}; use torch or onnx")
    if path.is_dir() and not (path / "model.safetensors").exists() and (path / "model.onnx").exists():
        return _open_onnx(path / "model.onnx", device=device, threads=threads)
    network, card = load_network(source)
    return ready(network, card, name=model_name(source, card), device=device, precision=precision)


def model_name(source: str | Path, card: dict[str, Any]) -> str:
    """Name for people: the shipped tag, or model and folder."""
    if Path(source).exists():
        return f"{card.get('model', 'model')} ({Path(source).resolve().name})"
    return str(source)


def load_network(source: str | Path) -> tuple[ImageNetwork, dict[str, Any]]:
    """The module and card of a shipped model or a folder.

    Raises:
        ValueError: no such model or folder; says what there is.
    """
    path = Path(source)
    if path.is_dir():
        return _loaded(path)
    name = str(source)
    shipped = zoo.list_weights()
    if name in shipped:
        return _loaded(name)
    base = name.split(".")[0]
    if base in zoo.list_models():
        spec = zoo.get_spec(base)
        tag = f"{base}.{spec.recipe}"
        if name == base and tag in shipped:
            return _loaded(tag)
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


def ready(
    network: ImageNetwork, card: dict[str, Any], *, name: str, device: str = "auto", precision: str = "auto"
) -> ReadyModel:
    """A module in torch, ready."""
    return ReadyModel(
        name=name,
        runtime=TorchRuntime(network, device=device, precision=precision),
        output=network.output,
        card=card,
        size_multiple=network.size_multiple,
        frames_in=network.frames_in,
        receptive_field_px=receptive_field(network),
        network=network,
    )


def uses_image_statistics(network: ImageNetwork) -> bool:
    """Whether the network's norms take their statistics from the image itself (DSIR), not from stored numbers."""
    return getattr(network.core, "statistics", "running") != "running"


def receptive_field(network: ImageNetwork) -> float | None:
    """In camera pixels; None when unknown or when the network uses statistics of the whole image."""
    if uses_image_statistics(network) or network.normalisation.mode in ("min_max", "z_score"):
        return None
    name = getattr(network, "model_name", None)
    spec = zoo.get_spec(name) if name in zoo.list_models() else None
    if spec is None or spec.receptive_field_px is None:
        return None
    known = [spec.receptive_field_px, *(variant.receptive_field_px for variant in spec.variants.values())]
    scale = 1.0 if network.enlarge.mode == "none" else 8 / network.output.upsampling
    return scale * max(known)  # the widest form: too much halo is only slower


def _open_onnx(path: Path, *, device: str, threads: int | None) -> ReadyModel:
    runtime = OnnxRuntime(path, device=device, threads=threads)
    beside = path.with_name("card.json")
    if beside.is_file():
        card = _card(beside.read_text(encoding="utf-8"), beside)
    elif "smlm_zoo_card" in runtime.metadata:
        card = _card(runtime.metadata["smlm_zoo_card"], path)
    else:
        raise ValueError(
            f"{path} has no card: put a card.json beside it with at least "
            '{"model": "NAME", "output": {"upsampling": 8, "target_scale": 1}, "threshold": 0.2}'
        )
    settings = card.get("output")
    if not isinstance(settings, dict):
        raise ValueError(f"the card of {path} has no 'output' with upsampling and target_scale")
    try:
        known: dict[str, Any] = {key: value for key, value in settings.items() if key != "contract"}
        output = SRImage(**known)
    except TypeError as error:
        raise ValueError(f"the card of {path}: output {settings} is not understood: {error}") from None
    return ReadyModel(
        name=f"{card.get('model', path.stem)} ({path.name})",
        runtime=runtime,
        output=output,
        card=card,
        size_multiple=int(card.get("size_multiple", 1)),
        frames_in=int(card.get("frames_in", 1)),
        receptive_field_px=card.get("receptive_field_px"),
    )


def _card(text: str, path: Path) -> dict[str, Any]:
    try:
        card = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the card of {path} is not JSON: {error}") from None
    if not isinstance(card, dict):
        raise ValueError(f"the card of {path} is not a JSON object")
    return card
