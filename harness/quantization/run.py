"""All smaller forms of an exported model, re-scored and timed beside the float32 file."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.calibration import calibration_frames
from harness.export import export_onnx
from harness.io.json_files import write_json
from harness.models import open_model
from harness.ready import MapModel, Network
from harness.timing import time_models
from harness.training import TrainConfig
from simulators import Recipe, load_recipe

from .files import half_file, int8_file
from .tuning import activation_ranges, tune

FORMS = ("float32", "int8", "float16", "bfloat16")
TUNED = "int8-tuned"
LARGEST_LOSS = 1.0  # points of Jaccard
PERCENTILES = (None, 99.999, 99.99)


def trained_recipe(card: dict[str, Any]) -> Recipe:
    """The recipe that a model was trained on, by its card; the general one where it does not say."""
    config = (card.get("training") or {}).get("config") or {}
    recipe = load_recipe(config.get("recipe") or "epfl-2d")
    changes = config.get("recipe_changes") or {}
    return recipe.with_(**changes) if changes else recipe


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Fine-tuning for int8, see `harness.quantization.tuning`.

    Args:
        network: whose export is quantised.
        config: how it was trained.
        minutes: that tuning may take. steps: that it may take at most, too.
        above: points of Jaccard that static int8 must lose; without scores it is tuned in any case.
        progress: show a bar.
    """

    network: Network
    config: TrainConfig
    minutes: float
    steps: int | None = None
    above: float = LARGEST_LOSS
    progress: bool = True


def quantize(
    folder: Path,
    *,
    scores: Callable[[Path], dict[str, Any]] | None = None,
    tuning: Tuning | None = None,
    seconds: float = 3.0,
    size: int = 64,
    seed: int = 7,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Write `model.int8.onnx`, `model.float16.onnx` and `model.bfloat16.onnx` beside `model.onnx`.

    int8 is calibrated on simulated frames that cover the valid range of the card; of several calibrations the one whose
    output differs least from float32 on other frames is kept. With `tuning`, where it loses too much,
    `model.int8-tuned.onnx` has weights that learned with the rounding; it is written where that made the loss on
    validation frames smaller. Every file appears whole or not at all.

    Args:
        folder: written by export.
        scores: path of a file -> its scores, with "jaccard"; None leaves the scores out.
        tuning: fine-tuning of the exported network for int8.
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
    about: dict[str, dict[str, Any]] = {"int8": {"calibration": _calibrated(folder, calibration, held)}}
    for kind in ("float16", "bfloat16"):
        half_file(source, folder / f"model.{kind}.onnx", kind)
    files = {form: folder / ("model.onnx" if form == "float32" else f"model.{form}.onnx") for form in FORMS}
    found: dict[str, dict[str, Any]] = {}

    def scored(form: str) -> dict[str, Any]:
        if scores is not None and form not in found:
            say(f"scoring {files[form].name}")
            found[form] = scores(files[form])
        return found.get(form, {})

    target = folder / f"model.{TUNED}.onnx"
    target.unlink(missing_ok=True)  # of an earlier model
    if tuning is not None:
        lost = scored("float32").get("jaccard", math.inf) - scored("int8").get("jaccard", 0.0)
        if lost <= tuning.above:
            say(f"int8 loses {lost:.2f} points of Jaccard, not more than {tuning.above:g}: no tuning is needed")
        else:
            about[TUNED] = _tuned(folder, target, tuning, calibration, say)
            if target.is_file():
                files = {"float32": source, "int8": files["int8"], TUNED: target, **files}
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
            **about.get(form, {}),
        }
        if scores is not None:
            row |= scored(form)
            row["jaccard_lost"] = (rows[0] if rows else row)["jaccard"] - row["jaccard"]
            row["worth_it"] = bool(row["jaccard_lost"] <= LARGEST_LOSS)
        rows.append(row)
    write_json(folder / "quantized.json", rows)
    return rows


def _calibrated(folder: Path, calibration: list[Any], held: list[Any]) -> str:
    """Write `model.int8.onnx` by the calibration that differs least on the held frames; says which that is."""
    source, best = folder / "model.onnx", (math.inf, "")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".int8-") as scratch:
        for percentile in PERCENTILES:
            path = int8_file(source, Path(scratch) / "model.onnx", calibration, percentile=percentile)
            gap = _deviation(source, path, held)
            if gap < best[0]:
                best = (gap, "all values" if percentile is None else f"{percentile} percent of the values")
                path.replace(folder / "model.int8.onnx")
    return best[1]


def _tuned(
    folder: Path, target: Path, tuning: Tuning, calibration: list[Any], say: Callable[[str], None]
) -> dict[str, Any]:
    """Tune the network for its int8 file and write the tuned one, where it is better; says what was done."""
    say(f"tuning the weights for int8, {tuning.minutes:g} minutes")
    static = folder / "model.int8.onnx"
    tuned = tune(
        tuning.network,
        static,
        tuning.config,
        minutes=tuning.minutes,
        steps=tuning.steps,
        progress=tuning.progress,
    )
    say(
        f"{tuned.steps} steps: loss on validation frames {tuned.before:.4g} -> {tuned.after:.4g}"
        + ("" if tuned.better else "; the tuned weights are not kept")
    )
    if tuned.better:
        import onnx

        card = {entry.key: entry.value for entry in onnx.load(str(folder / "model.onnx")).metadata_props}
        with tempfile.TemporaryDirectory(dir=folder, prefix=".tuned-") as scratch:
            plain = export_onnx(tuned.network, Path(scratch) / "model.onnx", metadata=card)
            int8_file(plain, target, calibration[:1], ranges=activation_ranges(static))
    return {"tuning_steps": tuned.steps, "tuning_loss": [tuned.before, tuned.after]}


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
