"""Networks against their originals: `NAME_io.npz` with `NAME.safetensors` (or another weight file of that
stem).

The core (what follows our enlarging and normalisation) is compared on every `inputK`/`outputK` pair, in
torch and as ONNX. Where the file holds raw frames too, our normalisation and enlarging are compared. The
whole network's exported graph is compared with the network itself on photon frames of several sizes and
batches.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import zoo
from harness.models import uses_image_statistics
from zoo import ImageNetwork
from zoo._originals import OriginalFileError, Translation, fill, read_original, translate

from .files import Case
from .rows import Row, compare, not_covered, off

NETWORK_TOLERANCE = 1e-4
OWN_STATISTICS_TOLERANCE = 5e-3  # near-constant channels divided by sqrt(eps): float32 itself is 2e-3 uncertain
PREPARED_TOLERANCE = 1e-5

_STATISTICS = {"output_eval_running_statistics": "running", "output_batch_statistics": "batch"}


def is_network(case: Case) -> bool:
    """Whether the file holds inputs and outputs of a network."""
    return any(True for _ in _pairs(case.arrays)) and case.path.stem.endswith("_io")


def _pairs(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    """Keys (inputK, outputK), and (inputK, outputK_ANYTHING) for other ways to run the same input."""
    inputs = {m[1]: key for key in arrays if (m := re.fullmatch(r"input(\d*)", key))}
    for key in arrays:
        match = re.fullmatch(r"output(\d*)(?:_\w+)?", key)
        if match and match[1] in inputs:
            yield inputs[match[1]], key


def build_network(translation: Translation, *, file: str, **options: Any) -> ImageNetwork:
    """Our network of an original, filled with its weights, in evaluation mode.

    Raises:
        OriginalFileError: the tensors do not fit.
    """
    network = zoo.create_model(translation.layout.model, **{**translation.options, **options})
    assert isinstance(network, ImageNetwork)
    fill(network.core, translation, file=file)
    return network.eval()


def check_network(case: Case) -> Iterator[Row]:
    """Rows for the outputs, the prepared input and the shipped graph."""
    file = case.path.name
    pairs = list(_pairs(case.arrays))
    if not case.weights:
        for _, key in pairs:
            yield not_covered(file, key, f"no weights: expected {case.stem}.safetensors beside it or in --weights")
        return
    first = True
    for path in case.weights:
        try:
            translations = _translations(case, path)
        except (OriginalFileError, OSError) as error:
            unknown = "of no known original" in str(error)
            yield (not_covered if unknown else off)(file, f"weights {path.name}", str(error))
            continue
        chosen = translations[0]
        if len(translations) > 1:  # the file does not tell: the one that is nearer in torch
            off_rows = [
                sum(row.status == "off" for row in _outputs(case, path, one, pairs, also_onnx=False))
                for one in translations
            ]
            chosen = translations[off_rows.index(min(off_rows))]
        rows = list(_outputs(case, path, chosen, pairs, also_onnx=first))
        yield from rows
        if first and not all(row.status == "off" for row in rows):
            yield from _prepared(case, chosen)
            yield from _shipped_graph(case, path, chosen)
        first = False


def _translations(case: Case, path: Path) -> list[Translation]:
    """The file's tensors under our names; twice where it does not tell FID-STORM's body activation."""
    original = read_original(path)
    words = case.stem.lower()
    hinted = "leaky_relu" if "leaky" in words else "relu" if "relu" in words else None
    first = translate(original, body_activation=hinted)
    if not first.guessed or hinted:
        return [first]
    other = "relu" if first.options["body_activation"] == "leaky_relu" else "leaky_relu"
    return [first, translate(original, body_activation=other)]


def _outputs(
    case: Case, path: Path, translation: Translation, pairs: list[tuple[str, str]], *, also_onnx: bool
) -> Iterator[Row]:
    """Rows of every pair, for one weight file; ONNX is left out for further files of the same weights."""
    file = case.path.name
    form = "" if path.suffix == ".safetensors" else f", {path.name}"
    try:
        core = build_network(translation, file=path.name).core
    except (OriginalFileError, ValueError) as error:
        yield off(file, f"weights {path.name}", str(error))
        return
    graphs: dict[str | None, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for source, key in pairs:
            statistics = _statistics(case, path, key) if hasattr(core, "statistics") else None
            if statistics is not None:
                setattr(core, "statistics", statistics)  # noqa: B010 - an attribute of some cores only
            elif key not in ("output", source.replace("input", "output")):
                yield not_covered(file, key, f"{translation.layout.model} has no such way to run")
                continue
            tolerance = NETWORK_TOLERANCE if statistics in (None, "running") else OWN_STATISTICS_TOLERANCE
            note = _note(translation, statistics)
            frames = _frames(case.arrays[source])
            try:
                with torch.no_grad():
                    ours = core(frames)
            except (RuntimeError, ValueError) as error:
                yield off(file, f"{key} (torch{form})", f"our network refuses the input: {error}")
                continue
            theirs = case.arrays[key]
            yield compare(file, f"{key} (torch{form})", ours.numpy(), theirs, tolerance=tolerance, note=note)
            if not also_onnx or statistics == "batch":
                continue
            if statistics not in graphs:
                graphs[statistics] = _core_graph(core, frames, Path(folder) / f"core-{len(graphs)}.onnx")
            graph = graphs[statistics]
            yield compare(file, f"{key} (ONNX{form})", graph(frames).numpy(), theirs, tolerance=tolerance, note=note)


def _statistics(case: Case, path: Path, key: str) -> str:
    """Which statistics the norms of a DSIR output were made with.

    The key says it. A plain `output` is of ordinary evaluation (running statistics), unless the file also
    holds other
    ways to run: then it is the author's, statistics of each image.
    """
    plain = re.sub(r"\d+", "", key, count=1)
    for name, statistics in _STATISTICS.items():
        if plain == name:
            return statistics
    several = any(re.sub(r"\d+", "", name, count=1) in _STATISTICS for name in case.arrays)
    return "image" if several or "published" in case.stem else "running"


def _note(translation: Translation, statistics: str | None) -> str:
    options = ", ".join(f"{key}={value}" for key, value in translation.options.items())
    parts = [f"{translation.layout.model}({options})"]
    if statistics is not None:
        parts.append(f"statistics: {statistics}")
    parts += [f"{key} is not in the file" for key in translation.guessed]
    if translation.dead:
        parts.append(f"{len(translation.dead)} dead tensors left out")
    return "; ".join(parts)


def _frames(array: np.ndarray) -> Tensor:
    """(N, C, H, W) float32; missing leading axes are added."""
    frames = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    return frames.reshape((-1, 1, *frames.shape[-2:])) if frames.ndim < 4 else frames


def _core_graph(core: nn.Module, frames: Tensor, path: Path) -> Any:
    from harness.export import export_onnx
    from harness.runtimes import OnnxRuntime

    return OnnxRuntime(export_onnx(_CoreForExport(core), path, example=frames), device="cpu")


class _CoreForExport(nn.Module):
    """A core with the size multiple that its pooling needs, as `export_onnx` asks for it."""

    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core = core
        pools = sum(isinstance(part, nn.MaxPool2d) for part in core.modules())
        self.core_multiple = 8 if pools or hasattr(core, "statistics") else 1

    def forward(self, frames: Tensor) -> Tensor:
        return self.core(frames)


def _prepared(case: Case, translation: Translation) -> Iterator[Row]:
    """Our normalisation and enlarging of the raw frames, against the input that the original made of them."""
    raw, theirs = case.arrays.get("raw"), case.arrays.get("input")
    if raw is None or theirs is None:
        return
    conventions = translation.layout.conventions
    network = zoo.create_model(translation.layout.model, **translation.options, normalisation=conventions.normalisation)
    ours = prepare(network, _frames(raw))
    yield compare(
        case.path.name,
        "raw -> input",
        ours.numpy().reshape(theirs.shape) if ours.numel() == theirs.size else ours.numpy(),
        theirs,
        tolerance=PREPARED_TOLERANCE,
        note=conventions.normalisation,
    )


def prepare(network: nn.Module, frames: Tensor) -> Tensor:
    """What a network's core gets for photon frames: normalised and enlarged."""
    assert isinstance(network, ImageNetwork)
    if network.normalisation.after_enlarging:
        return network.normalisation(network.enlarge(frames))
    return network.enlarge(network.normalisation(frames))


def _shipped_graph(case: Case, path: Path, translation: Translation) -> Iterator[Row]:
    """The exported whole network against itself in torch, on photon frames: each size with one and with five frames."""
    from harness.export import export_onnx
    from harness.runtimes import OnnxRuntime

    if not case.sizes:
        return
    conventions = translation.layout.conventions
    network = build_network(translation, file=path.name, normalisation=conventions.normalisation)
    mean, std = conventions.scalars
    if conventions.normalisation == "dataset":
        mean, std = 200.0, 100.0  # of the frames below
    network.normalisation.set_statistics(mean, std)
    own = uses_image_statistics(network)
    tolerance = OWN_STATISTICS_TOLERANCE if own else NETWORK_TOLERANCE
    rng = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as folder:
        graph = OnnxRuntime(export_onnx(network, Path(folder) / "model.onnx"), device="cpu")
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for height, width in case.sizes:
            frames = torch.from_numpy(rng.gamma(4.0, 50.0, (5, 1, height, width)).astype(np.float32))
            with torch.inference_mode():
                expected = network(frames.contiguous(memory_format=torch.channels_last)).numpy()
            for batch in (1, 5):
                found = graph(frames[:batch]).numpy()
                item = f"shipped graph {height}x{width} batch {batch}"
                note = "ONNX of the whole network against our torch"
                yield compare(case.path.name, item, found, expected[:batch], tolerance=tolerance, note=note)
