#!/usr/bin/env python3
"""Localize the molecules of a TIFF movie with an exported model. Needs numpy, onnxruntime and tifffile, nothing else.

    python localize.py movie.tif -o localizations.csv --baseline 100 --e-per-adu 45 --em-gain 300 --pixel-size-nm 100

It reads model.onnx and card.json beside itself (or --model). Positions are in nm from the outer corner of the first
pixel, x along columns, y along rows; frames count from 0; photons are those that reach the sensor.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tifffile
from numpy.typing import NDArray

TILE = 96  # camera pixels; larger frames are cut, so that memory stays bounded
FIELD_REACH = 13  # camera pixels beyond a tile, where statistics of the field enter
AT_ONCE = 8  # frames


def to_photons(counts: NDArray, camera: dict[str, Any]) -> NDArray[np.float32]:
    """Counts as photons, float32."""
    signal = np.asarray(counts, np.float32) - np.float32(camera["baseline"])
    if camera["rounding"] != "nearest":  # the half count that was lost
        signal += np.float32(0.5) * np.sign(signal) if camera["rounding"] == "truncate" else np.float32(0.5)
    scale = camera["e_per_adu"] / camera["em_gain"] / camera["quantum_efficiency"]
    photons = signal * np.float32(scale)
    return photons - np.float32(camera["spurious_charge_e"] / camera["quantum_efficiency"])


def pad(frames: NDArray, multiple: int) -> NDArray:
    """Repeat the last row and column of (N, H, W) until both sides are multiples."""
    height, width = frames.shape[-2:]
    return np.pad(frames, ((0, 0), (0, -height % multiple), (0, -width % multiple)), mode="edge")


class Network:
    """The file and what its card says."""

    def __init__(self, folder: Path, threads: int, file: str = "model.onnx") -> None:
        card = Path(folder) / "card.json"
        path = Path(folder) / file
        for needed in (card, path):
            if not needed.is_file():
                raise SystemExit(f"no {needed}; give the export folder with --model")
        self.card = json.loads(card.read_text(encoding="utf-8"))
        self.output = self.card["output"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name
        self.maps = "channels" in self.output
        self.multiple = int(self.card.get("size_multiple", 1))
        self.before = int(self.card.get("frames_before") or 0)
        self.after = int(self.card.get("frames_after") or 0)
        self.context = self.card.get("context")
        self.reach = self.card.get("receptive_field_px")
        # Where statistics of the field enter, the result depends on the tile: the card's then, or none.
        self.tile = TILE if self.reach else self.card.get("tile_px")
        if self.maps and self.output.get("rule", "paper") not in ("paper", "plus"):
            raise SystemExit(f"rule {self.output['rule']!r} of the card is not known here; use smlm-zoo localize")

    def __call__(self, frames: NDArray) -> list[NDArray]:
        """Photons (N, 1, H, W) -> [images (N, s H, s W)]; or blocks (1, T, H, W) -> [maps, scores]."""
        height, width = frames.shape[-2:]
        padded = pad(frames.reshape(-1, height, width), self.multiple)
        padded = padded.reshape(*frames.shape[:2], *padded.shape[-2:])
        results = self.session.run(None, {self.name: np.ascontiguousarray(padded, np.float32)})
        if self.maps:
            maps, scores = (part[0][..., :height, :width] for part in results)
            return [maps, scores]
        s = int(self.output["upsampling"])
        return [results[0][:, 0, : s * height, : s * width]]

    def tiled(self, frames: NDArray) -> list[NDArray]:
        """The same for frames of any size, in tiles that look beyond what they keep."""
        height, width = frames.shape[-2:]
        if not self.tile or max(height, width) <= self.tile:
            return self(frames)
        s = 1 if self.maps else int(self.output["upsampling"])
        beyond = self.reach / 2 if self.reach else FIELD_REACH
        halo = math.ceil((beyond + 3) / self.multiple) * self.multiple
        step = max(self.multiple, max(self.tile - 2 * halo, self.tile // 2) // self.multiple * self.multiple)
        whole: list[NDArray] | None = None
        for top in range(0, height, step):
            for left in range(0, width, step):
                first_row, first_column = max(0, top - halo), max(0, left - halo)
                part = frames[
                    ..., first_row : min(height, top + step + halo), first_column : min(width, left + step + halo)
                ]
                results = self(part)
                if whole is None:
                    whole = [np.empty((*r.shape[:-2], s * height, s * width), np.float32) for r in results]
                rows, columns = min(step, height - top), min(step, width - left)
                y, x = s * (top - first_row), s * (left - first_column)
                for kept, result in zip(whole, results, strict=True):
                    kept[..., s * top : s * (top + rows), s * left : s * (left + columns)] = result[
                        ..., y : y + s * rows, x : x + s * columns
                    ]
        assert whole is not None
        return whole


def lone(output: dict[str, Any]) -> tuple[float, float]:
    """Peak and 3x3 sum of a lone emitter in an ideal image."""
    if output.get("kind", "spikes") == "spikes":
        return output["target_scale"], output["target_scale"]
    sigma = output["heatmap_sigma"]
    radius = max(3, math.ceil(3 * sigma))
    profile = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1)]
    total = sum(profile)
    peak, window = profile[radius] / total, sum(profile[radius - 1 : radius + 2]) / total
    return output["target_scale"] * peak**2, output["target_scale"] * window**2


def peaks_of(
    images: NDArray, output: dict[str, Any], threshold: float, pixel_nm: float, first: int
) -> Iterator[tuple[Any, ...]]:
    """Rows (frame, x_nm, y_nm, probability): local maxima refined by the centre of gravity of their 3x3 window."""
    peak, total = lone(output)
    s = output["upsampling"]
    offset = output.get("offset_px", (0.0, 0.0))
    padded = np.clip(np.pad(images, ((0, 0), (1, 1), (1, 1))), 0, None)
    frame, row, column = np.nonzero(images > threshold * peak)
    window = np.stack([padded[frame, row + i, column + j] for i in range(3) for j in range(3)], 1).astype(np.float64)
    centre = window[:, 4:5]
    keep = (window[:, :4] < centre).all(1) & (window[:, 5:] <= centre).all(1)
    frame, row, column, window = frame[keep], row[keep], column[keep], window[keep]
    mass = window.sum(1)
    grid = window.reshape(-1, 3, 3)
    x = column + (grid[:, :, 2] - grid[:, :, 0]).sum(1) / mass
    y = row + (grid[:, 2] - grid[:, 0]).sum(1) / mass
    yield from zip(
        (frame + first).tolist(),
        ((x + 0.5 + offset[0]) * pixel_nm / s).tolist(),
        ((y + 0.5 + offset[1]) * pixel_nm / s).tolist(),
        np.minimum(mass / total, 1).tolist(),
        strict=True,
    )


def paper_scores(probability: NDArray, candidate: float) -> NDArray:
    """Scores of the pixels (N, H, W) by the rule "paper": the sum over a pixel and its four edge neighbours where it is
    above `candidate` and the highest of them, or above 0.6; of equal neighbours the first counts."""
    height, width = probability.shape[-2:]
    around = np.pad(probability, ((0, 0), (1, 1), (1, 1)))
    steps = ((-1, 0), (0, -1), (1, 0), (0, 1))
    beside = [around[:, 1 + i : 1 + i + height, 1 + j : 1 + j + width] for i, j in steps]
    highest = np.maximum.reduce([probability, *beside])
    alive = ((probability > candidate) & (probability == highest)) | (probability > 0.6)
    alive &= (probability != beside[0]) & (probability != beside[1])
    return np.where(alive, np.minimum(probability + sum(beside), 1), 0)


def emitters_of(
    maps: NDArray, scores: NDArray, output: dict[str, Any], threshold: float, pixel_nm: float, first: int
) -> Iterator[tuple[Any, ...]]:
    """Rows (frame, x_nm, y_nm, probability, z_nm, photons, background, sigmas ...) in the order of `columns_of`."""
    channels = output["channels"]
    reference = output.get("reference_px", (0.5, 0.5))
    units = units_of(output, pixel_nm)
    frame, row, column = np.nonzero(scores >= threshold)
    found = maps[frame, :, row, column].astype(np.float64)
    x = (column + reference[0] + found[:, channels.index("x")]) * pixel_nm
    y = (row + reference[1] + found[:, channels.index("y")]) * pixel_nm
    rows = [(frame + first).tolist(), x.tolist(), y.tolist(), np.minimum(scores[frame, row, column], 1).tolist()]
    for name, unit in units.items():
        scale, power = calibration_of(output, name)
        rows.append((unit * scale * found[:, channels.index(name)] ** power).tolist())
    yield from zip(*rows, strict=True)


def units_of(output: dict[str, Any], pixel_nm: float) -> dict[str, float]:
    """What the value 1 of each further channel stands for."""
    units = {
        "z": output["z_scale_nm"],
        "photons": output["photons_scale"],
        "background": output["background_scale"],
        "x_sigma": pixel_nm,
        "y_sigma": pixel_nm,
        "z_sigma": abs(output["z_scale_nm"]),
        "photons_sigma": output["photons_scale"],
    }
    return {name: unit for name, unit in units.items() if name in output["channels"]}


def calibration_of(output: dict[str, Any], name: str) -> tuple[float, float]:
    """Scale and power that make a channel's values what they should be; of sigmas alone other than 1."""
    if not name.endswith("_sigma"):
        return 1.0, 1.0
    which = ("photons", "x", "y", "z").index(name.removesuffix("_sigma"))
    scale, power = (output[key][which] if key in output else 1.0 for key in ("sigma_scale", "sigma_power"))
    return scale, power


def columns_of(output: dict[str, Any], pixel_nm: float) -> list[str]:
    """Names of the columns of the table."""
    names = ["frame", "x_nm", "y_nm", "probability"]
    lengths = ("z", "x_sigma", "y_sigma", "z_sigma")
    if "channels" in output:
        names += [f"{name}_nm" if name in lengths else name for name in units_of(output, pixel_nm)]
    return names


def blocks(
    network: Network, read: Callable[[int, int], NDArray], total: int, at_once: int
) -> Iterator[tuple[int, list[NDArray]]]:
    """Results of a movie, block after block of `at_once` frames: (first frame, results)."""
    if not network.maps:
        for first in range(0, total, at_once):
            yield first, network.tiled(read(first, min(total, first + at_once))[:, None])
    elif network.context is None:
        for first in range(0, total, at_once):
            last = min(total, first + at_once)
            frames = read(max(0, first - network.before), min(total, last + network.after))
            missing_before, missing_after = max(0, network.before - first), max(0, last + network.after - total)
            frames = np.concatenate([frames[:1]] * missing_before + [frames] + [frames[-1:]] * missing_after)
            yield first, network.tiled(frames[None])
    else:  # windows overlap by half; each frame is taken from the window in which it lies nearest the middle
        length = min(int(network.context), total)
        starts = list(range(0, total - length + 1, max(1, length // 2)))
        if starts[-1] != total - length:
            starts.append(total - length)
        bounds = [0, *((a + b + length) // 2 for a, b in itertools.pairwise(starts)), total]
        for place, start in enumerate(starts):
            results = network.tiled(read(start, start + length)[None])
            first, last = bounds[place], bounds[place + 1]
            yield first, [result[first - start : last - start] for result in results]


def localize(
    movie: Path,
    network: Network,
    camera: dict[str, Any],
    threshold: float,
    sink: Callable[[Iterator[tuple[Any, ...]]], None],
    at_once: int = AT_ONCE,
) -> int:
    """Rows of a movie go to `sink` block by block; gives the number of frames."""
    with tifffile.TiffFile(movie) as file:
        series = file.series[0]
        height, width = series.shape[-2:]
        total = int(np.prod(series.shape[:-2], dtype=int)) if len(series.shape) > 2 else 1
        pages: Any = series.pages

        def read(first: int, last: int) -> NDArray[np.float32]:
            frames: Any
            if len(pages) >= total:
                frames = [pages[number].asarray() for number in range(first, last)]
            else:  # one large page that holds all frames
                frames = series.asarray().reshape(total, height, width)[first:last]
            return to_photons(np.stack(list(frames)), camera)

        for first, results in blocks(network, read, total, at_once):
            if network.maps:
                maps, scores = results
                if network.output.get("rule", "paper") == "paper":  # the file's know of the padding at the border
                    probability = maps[:, network.output["channels"].index("probability")]
                    scores = paper_scores(probability, network.output.get("candidate", 0.3))
                sink(emitters_of(maps, scores, network.output, threshold, camera["pixel_size_nm"], first))
            else:
                sink(peaks_of(results[0], network.output, threshold, camera["pixel_size_nm"], first))
    return total


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("movie", type=Path, help="a TIFF movie")
    parser.add_argument("-o", "--output", type=Path, default=Path("localizations.csv"), help="table to write (CSV)")
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parent, help="the export folder")
    parser.add_argument("--file", default="model.onnx", help="which ONNX file of it, e.g. model.int8.onnx")
    parser.add_argument("--pixel-size-nm", type=float, default=100.0, help="camera pixel in the sample")
    parser.add_argument("--baseline", type=float, default=0.0, help="counts without light")
    parser.add_argument("--e-per-adu", type=float, default=1.0, help="electrons per count")
    parser.add_argument("--em-gain", type=float, default=1.0)
    parser.add_argument("--quantum-efficiency", type=float, default=1.0)
    parser.add_argument("--spurious-charge-e", type=float, default=0.0)
    parser.add_argument("--rounding", choices=("nearest", "truncate", "floor"), default="nearest", help="of the camera")
    parser.add_argument("--threshold", type=float, help="default: the card's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="frames computed together; fewer need less memory")
    given = parser.parse_args(words)
    if given.at_once < 1:
        parser.error(f"--at-once is {given.at_once}; give at least 1 frame")
    network = Network(given.model, given.threads, given.file)
    threshold = network.card.get("threshold") if given.threshold is None else given.threshold
    if threshold is None:
        parser.error("the card holds no threshold; give one with --threshold, e.g. 0.2")
    names = ("pixel_size_nm", "baseline", "e_per_adu", "em_gain", "quantum_efficiency", "spurious_charge_e", "rounding")
    camera = {name: getattr(given, name) for name in names}
    temporary = given.output.with_suffix(given.output.suffix + ".part")
    rows = 0
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns_of(network.output, camera["pixel_size_nm"]))

        def sink(found: Iterator[tuple[Any, ...]]) -> None:
            nonlocal rows
            for row in found:
                writer.writerow([row[0], *(f"{value:.6g}" for value in row[1:])])
                rows += 1

        try:
            frames = localize(given.movie, network, camera, threshold, sink, given.at_once)
        except Exception as error:
            temporary.unlink()
            if isinstance(error, MemoryError) or "alloc" in str(error) or "arena" in str(error):  # as ONNX Runtime says
                raise SystemExit(
                    f"not enough memory for {given.at_once} frames at once; try fewer, --at-once 1"
                ) from None
            raise
    os.replace(temporary, given.output)
    print(f"{given.output}: {rows} localizations in {frames} frames")
    return 0


if __name__ == "__main__":
    sys.exit(main())
