"""All smaller forms of an exported model, re-scored and timed beside the float32 file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from distill.calibration import calibration_frames
from harness.io.atomic import atomic_path
from harness.models import open_model
from harness.ready import MapModel
from harness.timing import time_models
from simulators import Recipe, load_recipe

from .files import half_file, int8_file

FORMS = ("float32", "int8", "float16", "bfloat16")
LARGEST_LOSS = 1.0  # points of Jaccard
PERCENTILES = (None, 99.999, 99.99)


def trained_recipe(card: dict[str, Any]) -> Recipe:
    """The recipe that a model was trained on, by its card; the general one where it does not say."""
    config = (card.get("training") or {}).get("config") or {}
    recipe = load_recipe(config.get("recipe") or "epfl-2d")
    changes = config.get("recipe_changes") or {}
    return recipe.with_(**changes) if changes else recipe


def quantize(
    folder: Path,
    *,
    scores: Callable[[Path], dict[str, Any]] | None = None,
    seconds: float = 3.0,
    size: int = 64,
    seed: int = 7,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Write `model.int8.onnx`, `model.float16.onnx` and `model.bfloat16.onnx` beside `model.onnx`.

    int8 is calibrated on simulated frames that cover the valid range of the card; of several calibrations the one whose
    output differs least from float32 on other frames is kept.

    Args:
        folder: written by export.
        scores: path of a file -> its scores, with "jaccard"; None leaves the scores out.
        seconds: of timing for each form; all forms are interleaved, one thread.
        size: side of the timed frame.
        seed: of the calibration frames.

    Returns:
        A row per form, also written to `quantized.json`.

    Raises:
        ValueError: no exported model there.
    """
    source = folder / "model.onnx"
    if not source.is_file():
        raise ValueError(f"{folder} holds no model.onnx; make one: smlm-zoo export MODEL -o {folder}")
    reference = open_model(source, device="cpu", threads=1)
    length = 1
    if isinstance(reference, MapModel):
        length = reference.context or reference.frames_before + 4 + reference.frames_after
    recipe = trained_recipe(reference.card)
    rng = np.random.default_rng(seed)
    calibration = calibration_frames(recipe, rng, length=length)
    held = calibration_frames(recipe, rng, each=1, length=length)
    say(f"calibrating int8 on {sum(len(batch) * length for batch in calibration)} simulated frames")
    best: tuple[float, Path, str] | None = None
    for percentile in PERCENTILES:
        path = folder / f".try-{percentile}.onnx"
        int8_file(source, path, calibration, percentile=percentile)
        gap = _deviation(source, path, held)
        if best is None or gap < best[0]:
            if best is not None:
                best[1].unlink()
            best = (gap, path, "all values" if percentile is None else f"{percentile} percent of the values")
        else:
            path.unlink()
    assert best is not None
    best[1].replace(folder / "model.int8.onnx")
    for kind in ("float16", "bfloat16"):
        half_file(source, folder / f"model.{kind}.onnx", kind)
    files = {form: folder / ("model.onnx" if form == "float32" else f"model.{form}.onnx") for form in FORMS}
    say("timing the forms, interleaved, one thread")
    times = time_models(
        {form: open_model(path, device="cpu", threads=1) for form, path in files.items()}, size=size, seconds=seconds
    )
    rows: list[dict[str, Any]] = []
    for form, path in files.items():
        row: dict[str, Any] = {
            "form": form,
            "file": path.name,
            "bytes": path.stat().st_size,
            "ms": 1e3 * times[form].median,
            "speed": times["float32"].median / times[form].median,
            "deviation": 0.0 if form == "float32" else _deviation(source, path, held),
        }
        if form == "int8":
            row["calibration"] = best[2]
        if scores is not None:
            say(f"scoring {path.name}")
            row |= scores(path)
            row["jaccard_lost"] = (rows[0] if rows else row)["jaccard"] - row["jaccard"]
            row["worth_it"] = bool(row["jaccard_lost"] <= LARGEST_LOSS)
        rows.append(row)
    with atomic_path(folder / "quantized.json") as temporary:
        temporary.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return rows


def _deviation(first: Path, second: Path, frames: list[Any]) -> float:
    """Root mean square difference of two files' outputs over that of the first's output."""
    import onnxruntime

    def outputs(path: Path) -> list[np.ndarray]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
        return [session.run([output], {name: batch.numpy()})[0] for batch in frames]

    pairs = list(zip(outputs(first), outputs(second), strict=True))
    gap = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in pairs)
    whole = sum(float(np.square(a, dtype=np.float64).sum()) for a, _ in pairs)
    return (gap / max(whole, 1e-30)) ** 0.5
