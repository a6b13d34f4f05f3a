"""Passes of the attention U-Net against its original: every stage, whole movies and blocks, and the exported graph.

Widths and forms are told by the tensors of a weight file, or by a recipe: `forward_v2_h96_recipe.npz` means form v2,
width 96, weights from the formula with the salt of `generation.json`.
"""

import copy
import json
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import zoo
from zoo import MapNetwork
from zoo._originals import LAYOUTS, Layout, OriginalFile, OriginalFileError, fill, read_original, translate
from zoo.attention_unet import CHANNELS, AttentionUNet, AttentionUNetCore, BlockNormalisation

from .files import WEIGHT_SUFFIXES, Case
from .rows import Row, compare, not_covered, off

OUTPUT_TOLERANCE = 3e-4  # channels 0-8, absolute: float32 against float64 is 2.2e-4
BACKGROUND_TOLERANCE = 5e-5  # of its maximum
RECIPE_TOLERANCE = 1e-4  # absolute
STAGE_TOLERANCE = {"norm": 1e-5, "unet": 1e-5}  # of the maximum; others 1e-4
GRAPH_TOLERANCE = 3e-4


def tensor_of(array: np.ndarray) -> Tensor:
    """An array as float32."""
    return torch.from_numpy(np.array(array, dtype=np.float32))


def absolute_row(file: str, item: str, ours: Any, theirs: np.ndarray, *, tolerance: float, note: str = "") -> Row:
    """A row whose tolerance is a difference, not a share of the largest number."""
    scale = float(np.abs(theirs).max()) if theirs.size else 1.0
    return compare(file, item, ours, theirs, tolerance=tolerance / (scale or 1.0), note=note)


def recipe_tensor(key: str, shape: tuple[int, ...], salt: int) -> Tensor:
    """The recipe's numbers of an original tensor: a hash of element, name and salt, scaled by what the tensor is."""
    count = int(np.prod(shape, dtype=np.int64))
    a = np.arange(count, dtype=np.uint64) * np.uint64(2654435761)
    a = (a + np.uint64(zlib.crc32(key.encode())) + np.uint64(salt)) & np.uint64(0xFFFFFFFF)
    a ^= a >> np.uint64(16)
    for factor, shift in ((0x85EBCA6B, 13), (0xC2B2AE35, 16)):
        a = (a * np.uint64(factor)) & np.uint64(0xFFFFFFFF)
        a ^= a >> np.uint64(shift)
    u = 2 * a.astype(np.float64) / 2**32 - 1
    if key.endswith("running_var"):
        u = 1 + 0.2 * u
    elif len(shape) >= 2 and not key.endswith("running_mean"):
        u = u * np.sqrt(3 * shape[0] / count)
    elif len(shape) == 1 and key.endswith("weight"):
        u = 1 + 0.1 * u
    else:
        u = 0.1 * u
    return torch.from_numpy(u.reshape(shape).astype(np.float32))


def original_names(layout: str, core: nn.Module) -> dict[str, str]:
    """The original's name of each tensor of our core, by the name of the layout."""
    parts = next(known for known in LAYOUTS if known.name == layout).parts({})
    theirs = {ours: name for name, ours in parts.items()}
    names = {key: key.rpartition(".") for key in core.state_dict()}
    return {key: f"{theirs[part]}.{tail}" for key, (part, _, tail) in names.items()}


def recipe_tensors(layout: Layout, *, width: int, salt: int) -> dict[str, Tensor]:
    """All tensors of an original by the recipe, under its own names; the position code is the formula's."""
    core: Any = zoo.create_model(layout.model, width=width).core
    names = original_names(layout.name, core)
    return {
        names[key]: value if key.endswith(".pe") else recipe_tensor(names[key], tuple(value.shape), salt)
        for key, value in core.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def attention_network(original: OriginalFile, **options: Any) -> tuple[AttentionUNet, dict[str, str]]:
    """Our network with an original's weights, in evaluation mode, and its names: original -> ours, inside the core.

    Raises:
        OriginalFileError: of another network, or it does not fit.
    """
    translation = translate(original)
    layout = translation.layout
    if layout.name not in ("attention_unet_v1", "attention_unet_v2"):
        raise OriginalFileError(f"{original.path.name} holds {layout.name}, not an attention U-Net")
    options = {"normalisation": layout.conventions.normalisation, **translation.options, **options}
    network = zoo.create_model(layout.model, **options)
    assert isinstance(network, AttentionUNet)
    fill(network.core, translation, file=original.path.name)
    return network.eval(), translation.copied


def _salt(case: Case) -> int:
    for path in case.beside("generation.json"):
        settings = json.loads(path.read_text(encoding="utf-8"))
        for key in ("salt", "seed"):
            if isinstance(settings.get(key), int):
                return settings[key]
    raise ValueError("no generation.json with a salt or seed beside it, so the recipe's weights cannot be made")


def _by_recipe(case: Case) -> tuple[OriginalFile, list[Row]]:
    """Weights of a file named ..._h<width>..., by the recipe, and rows for their sums where those are given."""
    match = re.search(r"_h(\d+)", case.stem)
    if match is None:
        raise ValueError(f"no weights beside {case.path.name}, and its name tells no width (..._h96...) for the recipe")
    width = int(match[1])
    form = "attention_unet_v1" if "_v1" in case.stem else "attention_unet_v2"
    layout = next(layout for layout in LAYOUTS if layout.name == form)
    tensors = recipe_tensors(layout, width=width, salt=_salt(case))
    original = OriginalFile(path=case.path, format="recipe", tensors=tensors)
    rows = []
    for path in case.beside(f"recipe_checksums_h{width}.json")[:1]:
        sums = json.loads(path.read_text(encoding="utf-8"))
        known = [key for key in sums if key in tensors and not key.endswith(".pe")]
        ours = [[tensors[key].double().sum().item(), tensors[key].double().abs().sum().item()] for key in known]
        scale = [[max(abs(sums[key][1]), 1e-12)] * 2 for key in known]
        rows.append(
            compare(
                case.path.name,
                f"{len(known)} tensors of {path.name}",
                np.divide(ours, scale),
                np.divide([sums[key] for key in known], scale),
                tolerance=1e-5,
                note="sum and sum of absolute values, as shares of the latter",
            )
        )
    return original, rows


def _weights_of(case: Case) -> Path | None:
    """The weight file of forward_NAME(_more).npz: NAME.safetensors."""
    words = case.stem.removeprefix("forward_").split("_")
    stems = ["_".join(words[:count]) for count in range(len(words), 0, -1)]
    found = case.beside(*(f"{stem}{suffix}" for stem in stems for suffix in WEIGHT_SUFFIXES))
    return found[0] if found else None


def is_forward(case: Case) -> bool:
    """Whether the file holds blocks of frames and the ten maps of each."""
    return any(
        case.arrays[key].ndim == 4 and case.arrays[key].shape[1] == len(CHANNELS)
        for key in case.arrays
        if re.search(r"(^|_)out(_blocks_of_\d+)?$", key) and f"{_prefix(key)}input" in case.arrays
    )


def _prefix(key: str) -> str:
    return re.sub(r"out(_blocks_of_\d+)?$", "", key)


def check_forward(case: Case) -> Iterator[Row]:
    """Rows for the outputs, each stage between, and the exported graph."""
    file = case.path.name
    weights = _weights_of(case)
    try:
        if weights is None:
            original, rows = _by_recipe(case)
            yield from rows
        else:
            original = read_original(weights)
        network, _ = attention_network(original)
    except (OriginalFileError, ValueError) as error:
        yield (off if weights is not None else not_covered)(file, "weights", str(error))
        return
    used = {"generation.json"}
    tolerance = RECIPE_TOLERANCE if weights is None else OUTPUT_TOLERANCE
    # The core apart: some weights magnify the last float32 digit of the block's mean some thousand times.
    graph, core = (_graph(network), _graph(_without_normalisation(network))) if case.sizes else (None, None)
    with torch.inference_mode():
        for key, theirs in case.arrays.items():
            prefix = _prefix(key)
            if prefix == key or f"{prefix}input" not in case.arrays:
                continue
            used |= {key, f"{prefix}input", f"{prefix}frames"}
            frames = tensor_of(case.arrays[f"{prefix}input"])[:, 0]
            picked = case.arrays.get(f"{prefix}frames", np.arange(len(frames)))
            match = re.search(r"_blocks_of_(\d+)$", key)
            length = int(match[1]) if match else len(frames)
            maps = torch.cat([network(block[None])[0] for block in frames.split(length)])[picked]
            yield from output_rows(file, f"{key} (torch)", maps, theirs, tolerance=tolerance)
            if core is not None and not match:
                maps = core(network.normalisation(frames[None]))[0][picked]
                yield from output_rows(file, f"{key} (ONNX)", maps, theirs, tolerance=tolerance)
            if f"{prefix}out" == key:
                for name, stage in _stages(network, frames[None]).items():
                    if f"{prefix}{name}" in case.arrays:
                        used.add(f"{prefix}{name}")
                        yield _stage_row(file, f"{prefix}{name}", stage, case.arrays, name, tolerance, weights is None)
        if graph is not None:
            yield from _graph_rows(case, network, graph)
    for key in case.arrays.keys() - used:
        yield not_covered(file, key, "no stage of ours stands for it")


def output_rows(file: str, item: str, maps: Tensor, theirs: np.ndarray, *, tolerance: float) -> Iterator[Row]:
    """Rows for the maps (T, 10, H, W): the background apart, since it has no bounds."""
    ours = maps.numpy()
    if ours.shape != theirs.shape:
        yield off(file, item, f"our shape is {ours.shape}, the reference's {theirs.shape}")
        return
    yield absolute_row(file, f"{item} channels 0-8", ours[:, :9], theirs[:, :9], tolerance=tolerance, note="absolute")
    yield compare(file, f"{item} background", ours[:, 9], theirs[:, 9], tolerance=BACKGROUND_TOLERANCE)


def _without_normalisation(network: AttentionUNet) -> AttentionUNet:
    """The same network for frames that are normalised already."""
    core = copy.deepcopy(network)
    core.normalisation = BlockNormalisation("dataset")  # of mean 0 and standard deviation 1: nothing
    return core


def _stages(network: AttentionUNet, frames: Tensor) -> dict[str, Tensor]:
    """What each part gives for one block (1, T, H, W), under the original's names."""
    core: Any = network.core
    normal = network.normalisation(frames)[0][:, None]
    stages = {"norm": normal, "unet": core.first(normal)}
    if isinstance(core, AttentionUNetCore):
        stages["mha"] = core.time(stages["unet"], len(normal))
        stages["unet2"] = core.second(stages["mha"])
        stages["logits"] = core.heads(stages["unet2"])
    else:
        stages["logits"] = core.logits(normal[None, :, 0])[0]
    return stages


def _stage_row(
    file: str, item: str, stage: Tensor, arrays: Mapping[str, np.ndarray], name: str, absolute: float, recipe: bool
) -> Row:
    ours, theirs = stage.numpy(), arrays[item]
    if recipe:
        return absolute_row(file, item, ours, theirs, tolerance=absolute, note="absolute")
    return compare(file, item, ours, theirs, tolerance=STAGE_TOLERANCE.get(name, 1e-4))


def _graph(network: AttentionUNet) -> Callable[[Tensor], Tensor]:
    """The network as an exported graph in ONNX Runtime."""
    sums = tuple(float(tensor.double().sum()) for tensor in network.state_dict().values())
    return _cached_graph(_Keyed(network, (type(network.core).__name__, network.normalisation.mode, sums)))


class _Keyed:
    """A network that is equal to another where form and weights are."""

    def __init__(self, network: MapNetwork, key: tuple[object, ...]) -> None:
        self.network, self.key = network, key

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and self.key == other.key


@lru_cache(maxsize=2)
def _cached_graph(keyed: _Keyed) -> Callable[[Tensor], Tensor]:
    from harness.export import export_onnx
    from harness.runtimes import OnnxRuntime

    with tempfile.TemporaryDirectory() as folder:
        return OnnxRuntime(export_onnx(keyed.network, Path(folder) / "model.onnx"), device="cpu")


def _graph_rows(case: Case, network: nn.Module, graph: Callable[[Tensor], Tensor]) -> Iterator[Row]:
    """The exported graph against the network in torch on photon frames: one block of five frames, two of three."""
    rng = np.random.default_rng(7)
    multiple = getattr(network, "size_multiple", 1)
    for height, width in case.sizes:
        rows, columns = (-(-side // multiple) * multiple for side in (height, width))
        for batch, count in ((1, 5), (2, 3)):
            frames = torch.from_numpy(rng.gamma(4.0, 50.0, (batch, count, rows, columns)).astype(np.float32))
            item = f"graph {rows}x{columns}, {batch} x {count} frames"
            expected, found = network(frames), graph(frames)
            note = "ONNX of the whole network against our torch"
            yield absolute_row(
                case.path.name, item, found.numpy(), expected.numpy(), tolerance=GRAPH_TOLERANCE, note=note
            )
