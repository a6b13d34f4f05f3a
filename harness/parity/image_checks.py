"""Preparation of frames, labels and the way from a map to localizations, against files of the originals."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

import zoo
from zoo import SRImage

from .files import Case
from .rows import Row, compare, not_covered, off

Arrays = Mapping[str, np.ndarray]

PREPARED_TOLERANCE = 1e-5
POSITION_TOLERANCE = 1e-5
CLEAN_FRAME_TOLERANCE = 1e-3  # their Gaussians end at 4 sigma (in whole pixels), ours at 5

# key -> normalisation, enlarging, prefix of the keys with its mean and standard deviation
PREPARATIONS = {
    "keras_deepstorm": ("min_max", "nearest", "keras"),
    "dsir": ("z_score", "bilinear", ""),
    "fidstorm": ("min_max", "none", ""),
    "dl4smlm": ("dataset", "none", "dl4smlm"),
}

PEAK_THRESHOLD = 0.1  # of the L2 weight, as the notebook's peak finder was run


def prepare(raw: np.ndarray, shape: tuple[int, ...], mode: str, enlarge: str, mean: float, std: float) -> np.ndarray:
    """Raw frames (..., H, W) as one of our networks would see them, in the shape (..., sH, sW) that is asked for."""
    frames = torch.from_numpy(np.asarray(raw, dtype=np.float32)).reshape(-1, 1, *raw.shape[-2:])
    normalise = zoo.Normalisation(mode)
    normalise.set_statistics(mean, std)
    bigger = zoo.Enlarge(enlarge, max(1, shape[-1] // raw.shape[-1]))
    steps = (bigger, normalise) if normalise.after_enlarging else (normalise, bigger)
    for step in steps:
        frames = step(frames)
    return frames.numpy().reshape(*raw.shape[:-2], *frames.shape[-2:])


def check_preparation(case: Case) -> Iterator[Row]:
    """Rows for the network input that each original makes of the raw frames."""
    file, arrays = case.path.name, case.arrays
    for key, theirs in arrays.items():
        if key == "raw" or key.endswith(("_mean", "_std")):
            continue
        if key not in PREPARATIONS:
            yield not_covered(file, key, "no preparation of ours stands for it")
            continue
        mode, enlarge, prefix = PREPARATIONS[key]
        mean, std = float(arrays.get(f"{prefix}_mean", 0.0)), float(arrays.get(f"{prefix}_std", 1.0))
        ours = prepare(arrays["raw"], theirs.shape, mode, enlarge, mean, std)
        yield compare(file, key, ours, theirs, tolerance=PREPARED_TOLERANCE, note=f"{enlarge}, {mode}")


def check_label(case: Case) -> Iterator[Row]:
    """The label image of positions (DSIR): one fine pixel per emitter."""
    file, arrays = case.path.name, case.arrays
    positions, label = np.asarray(arrays["positions_nm"], dtype=np.float64), arrays["label"]
    upsampling = int(arrays["upsampling"])
    spikes = SRImage(upsampling=upsampling).spikes(
        torch.zeros(len(positions), dtype=torch.long),
        torch.from_numpy(positions[:, 0].copy()),
        torch.from_numpy(positions[:, 1].copy()),
        count=1,
        height=label.shape[-2] // upsampling,
        width=label.shape[-1] // upsampling,
        pixel_size_nm=float(arrays["pixel_size_nm"]),
    )
    ours = spikes.clamp(max=1).numpy().reshape(label.shape)
    yield compare(file, "label", ours, label, tolerance=0.0, note="our spikes, two in one pixel counted once as there")


_PIPELINE_INPUTS = {
    "x_nm",
    "y_nm",
    "photons",
    "sigma_nm",
    "pixel_size_nm",
    "upsampling",
    "l2_weighting_factor",
    "raw",
    "norm_mean",
    "norm_std",
    "map",
}


def check_pipeline(case: Case) -> Iterator[Row]:
    """Positions -> frame, spikes, heatmap, and map -> localizations (ZeroCostDL4Mic's Deep-STORM)."""
    file, arrays = case.path.name, case.arrays
    for key in arrays:
        if key in _PIPELINE_INPUTS or key.startswith("loc_"):
            continue
        step = {
            "clean_frame": _clean_frame,
            "spikes": _spikes,
            "histogram": _spikes,
            "heatmap": _heatmap,
            "network_input": _network_input,
        }.get(key)
        if step is None:
            yield not_covered(file, key, "no step of ours stands for it")
            continue
        try:
            yield step(file, key, arrays)
        except KeyError as error:
            yield not_covered(file, key, f"the file lacks {error} to compute it with")
    yield from _localizations(file, arrays)


def _columns(arrays: Arrays, *names: str) -> list[Tensor]:
    return [torch.from_numpy(np.array(arrays[name], dtype=np.float64)) for name in names]


def _clean_frame(file: str, key: str, arrays: Arrays) -> Row:
    from simulators import GaussianPSF

    x, y, photons, sigma = _columns(arrays, "x_nm", "y_nm", "photons", "sigma_nm")
    theirs = arrays[key]
    pixel = float(arrays["pixel_size_nm"])
    ours = GaussianPSF(sigma_nm=float(sigma.mean())).expected(
        frame=torch.zeros(len(x), dtype=torch.long),
        x_nm=x,
        y_nm=y,
        z_nm=torch.zeros_like(x),
        photons=photons,
        frames=1,
        shape=(theirs.shape[-2], theirs.shape[-1]),
        pixel_size_nm=(pixel, pixel),
        sigma_nm=sigma,
    )
    note = "our PSF; theirs ends at 4 sigma"
    return compare(file, key, ours[0].numpy(), theirs, tolerance=CLEAN_FRAME_TOLERANCE, note=note)


def _rounded_spikes(arrays: Arrays, shape: tuple[int, ...]) -> Tensor:
    """Our spikes of positions moved by half a fine pixel and kept in the field: there the index is round(x / p)."""
    upsampling, pixel = int(arrays["upsampling"]), float(arrays["pixel_size_nm"])
    fine = pixel / upsampling
    x, y = _columns(arrays, "x_nm", "y_nm")
    x = (x + fine / 2).clamp(fine / 4, (shape[-1] - 0.25) * fine)
    y = (y + fine / 2).clamp(fine / 4, (shape[-2] - 0.25) * fine)
    return SRImage(upsampling=upsampling).spikes(
        torch.zeros(len(x), dtype=torch.long),
        x,
        y,
        count=1,
        height=shape[-2] // upsampling,
        width=shape[-1] // upsampling,
        pixel_size_nm=pixel,
    )


def _spikes(file: str, key: str, arrays: Arrays) -> Row:
    theirs = arrays[key]
    ours = _rounded_spikes(arrays, theirs.shape)
    if key == "spikes":
        ours = ours.clamp(max=1)
    note = "our spikes, positions moved by half a fine pixel as there"
    return compare(file, key, ours[0, 0].numpy(), theirs, tolerance=0.0, note=note)


def _heatmap(file: str, key: str, arrays: Arrays) -> Row:
    from losses import gaussian_kernel

    theirs = arrays[key]
    spikes = _rounded_spikes(arrays, theirs.shape).clamp(max=1).numpy()
    mirrored = torch.from_numpy(np.pad(spikes, ((0, 0), (0, 0), (4, 4), (4, 4)), mode="symmetric"))
    blurred = torch.nn.functional.conv2d(mirrored, gaussian_kernel(9, 1.0)[None, None])
    ours = float(arrays["l2_weighting_factor"]) * blurred[0, 0].numpy()
    return compare(
        file, key, ours, theirs, tolerance=PREPARED_TOLERANCE, note="our kernel 9x9, edges mirrored as there"
    )


def _network_input(file: str, key: str, arrays: Arrays) -> Row:
    mean, std = float(arrays["norm_mean"]), float(arrays["norm_std"])
    ours = prepare(arrays["raw"], arrays[key].shape, "min_max", "nearest", mean, std)
    return compare(file, key, ours, arrays[key], tolerance=PREPARED_TOLERANCE, note="nearest, min_max")


def _localizations(file: str, arrays: Arrays) -> Iterator[Row]:
    """The map's localizations through `SRImage.decode`; with `loc_max_` the peak pixels they came from."""
    keys = [key for key in arrays if key.startswith("loc_")]
    needed = {"map", "upsampling", "pixel_size_nm", "l2_weighting_factor"}
    if not needed <= arrays.keys():
        for key in keys:
            yield not_covered(file, key, f"the file lacks {', '.join(sorted(needed - arrays.keys()))}")
        return
    maps = torch.from_numpy(np.array(arrays["map"], dtype=np.float32))
    maps = maps.reshape(-1, 1, *maps.shape[-2:])
    upsampling, pixel = int(arrays["upsampling"]), float(arrays["pixel_size_nm"])
    weight, fine = float(arrays["l2_weighting_factor"]), pixel / upsampling
    contract = SRImage(upsampling=upsampling, target_scale=weight, offset_px=(-0.5, -0.5))  # x = j p, as there
    found = contract.decode(maps, threshold=PEAK_THRESHOLD, pixel_size_nm=pixel, first_frame=1)
    rows, columns = _peak_pixels(maps, found.frame - 1, found.y_nm / fine, found.x_nm / fine)
    ours = {
        "frame": found.frame,
        "avg_x_nm": found.x_nm,
        "avg_y_nm": found.y_nm,
        "avg_confidence": found.probability,
        "max_x_nm": columns * fine,
        "max_y_nm": rows * fine,
        "max_confidence": maps.numpy()[found.frame - 1, 0, rows, columns] / weight,
    }
    for key in keys:
        name = key.removeprefix("loc_")
        values = ours.get("frame" if name in ("avg_frame", "max_frame") else name)
        if values is None:
            yield not_covered(file, key, "no quantity of ours stands for it")
        elif len(values) != len(arrays[key]):
            yield off(file, key, f"we find {len(values)} localizations, the reference has {len(arrays[key])}")
        else:
            note = "the pixel of our localization's peak" if name.startswith("max") else "SRImage.decode"
            yield compare(file, key, values, arrays[key], tolerance=POSITION_TOLERANCE, note=note)


def _peak_pixels(maps: Tensor, frame: np.ndarray, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The highest pixel within one pixel of each (refined) position."""
    padded = np.pad(maps.numpy()[:, 0], ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    near_row, near_column = np.rint(row).astype(int), np.rint(column).astype(int)
    steps = [(i, j) for i in range(3) for j in range(3)]
    values = np.stack([padded[frame, near_row + i, near_column + j] for i, j in steps])
    best = np.array(steps)[values.argmax(0)] - 1 if len(frame) else np.zeros((0, 2), dtype=int)
    return near_row + best[:, 0], near_column + best[:, 1]
