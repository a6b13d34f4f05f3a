"""Losses, training steps, activations and extraction of the attention U-Net against its original."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from losses.gmm import gmm_published, gmm_published_terms, relative_brightness
from zoo import EmitterMaps, EmitterTargets
from zoo._extraction import extract_plus, plus_scores
from zoo._originals import OriginalFileError, read_original
from zoo.attention_unet import CHANNELS, AttentionUNet, gmm_activation, gmm_activation_8

from .attention_checks import OUTPUT_TOLERANCE, attention_network, output_rows, tensor_of
from .files import WEIGHT_SUFFIXES, Case
from .rows import Row, compare, not_covered, off

LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
STEP_TOLERANCE = {"total": 5e-4, "location": 1e-2, "count": 5e-2, "background": 5e-5}
GRADIENT_NORM_TOLERANCE = 1e-3
WEIGHT_TOLERANCE, STATISTICS_TOLERANCE = 0.2, 1e-2
NO_GRADIENT = re.compile(r".*\.k\.bias")  # truly zero: a shift of all keys changes no attention
EXACT = 1e-5
LEARNING_RATE = 4e-4

#: Contract of the original: integer positions are centres of pixels, units as in its files.
THEIRS = EmitterMaps(channels=CHANNELS, reference_px=(1.0, 1.0), photons_scale=1.0, background_scale=1.0)
THEIRS_8 = EmitterMaps(
    channels=("probability", "y", "x", "y_sigma", "x_sigma", "background", "", ""),
    reference_px=(1.0, 1.0),
    background_scale=1.0,
)


def padded_targets(truth: np.ndarray, mask: np.ndarray, background: np.ndarray, output: EmitterMaps) -> EmitterTargets:
    """Rows of real emitters out of the original's padded slots (row, column, photons)."""
    frame, slot = torch.from_numpy(np.asarray(mask) > 0).nonzero(as_tuple=True)
    y, x, photons = tensor_of(truth)[frame, slot].unbind(1)
    return EmitterTargets(
        output=output,
        frame=frame,
        photons=photons,
        x=x + 0.5,
        y=y + 0.5,
        z=torch.zeros_like(x),
        background=tensor_of(background),
        count=len(mask),
    )


def is_gmm_losses(case: Case) -> bool:
    """Whether the file holds terms of the mixture losses."""
    return any(key.endswith("_loc_count_bg") for key in case.arrays)


def check_gmm_losses(case: Case) -> Iterator[Row]:
    """Terms, totals and gradients of the published losses, and the normalised truth."""
    file, arrays = case.path.name, case.arrays
    used: set[str] = set()
    outputs = (key for key in arrays if key.endswith("_output") and not key.endswith("_grad_output"))
    for name in sorted(key.removesuffix("_output") for key in outputs):
        older = "gmmloss8" in name
        group = name.removesuffix("_gmmloss8")
        parts = [f"{group}_{part}" for part in ("truth", "mask", "bg")]
        if not set(parts) <= arrays.keys():
            yield not_covered(file, name, f"the file lacks {', '.join(sorted(set(parts) - arrays.keys()))}")
            continue
        truth, mask, background = (arrays[part] for part in parts)
        targets = padded_targets(truth, mask, background, THEIRS_8 if older else THEIRS)
        used |= {f"{name}_output", *parts}
        maps = tensor_of(arrays[f"{name}_output"]).requires_grad_()
        divisor = 100.0 if older else 10.0
        terms = gmm_published_terms(maps, targets, count_divisor=divisor).detach()[0]
        for key in (key for key in arrays if key.startswith(f"{name}_") and ("gmmloss8" in key) == older):
            row = _loss_row(file, key, key.removeprefix(f"{name}_"), arrays[key], maps, targets, terms, divisor)
            if row:
                used.add(key)
                yield from row
    for key in arrays.keys() - used:
        yield not_covered(file, key, "nothing of ours stands for it")


def _loss_row(
    file: str,
    key: str,
    what: str,
    theirs: np.ndarray,
    maps: Tensor,
    targets: EmitterTargets,
    terms: Tensor,
    divisor: float,
) -> list[Row]:
    if what == "loc_count_bg":
        names = ("location", "count", "background")
        return [
            compare(file, f"{key}: {name}", [ours], [value], tolerance=LOSS_TOLERANCE)
            for name, ours, value in zip(names, terms.tolist(), theirs, strict=True)
        ]
    if what == "truth_after":
        relative = relative_brightness(targets, blocks=1)
        ours = torch.stack([relative.y - 0.5, relative.x - 0.5, relative.photons], dim=1)
        real = theirs.reshape(-1, 3)[_real_slots(targets, theirs)]
        note = "theirs changes its input; ours makes new targets"
        return [compare(file, key, ours.numpy(), real, tolerance=LOSS_TOLERANCE, note=note)]
    match = re.fullmatch(r"total(?:_multiplier_([\d.]+)_([\d.]+)_([\d.]+))?", what)
    if match is None and what != "grad_output":
        return []
    weights = tuple(float(w) for w in match.groups()) if match and match[1] else (1.0, 1.0, 1.0)
    total = gmm_published(maps, targets, weights=weights, count_divisor=divisor)  # type: ignore[arg-type]
    if what == "grad_output":
        (gradient,) = torch.autograd.grad(total, maps)
        return [compare(file, key, gradient.numpy(), theirs, tolerance=GRADIENT_TOLERANCE)]
    return [compare(file, key, [total.item()], np.ravel(theirs), tolerance=LOSS_TOLERANCE)]


def _real_slots(targets: EmitterTargets, slots: np.ndarray) -> np.ndarray:
    """Flat indices of the padded slots that the rows of the targets came from, which fill each frame from the first."""
    per_frame = targets.per_frame().long()
    rank = torch.arange(len(targets)) - (per_frame.cumsum(0) - per_frame)[targets.frame]
    return (targets.frame * slots.shape[1] + rank).numpy()


def is_training(case: Case) -> bool:
    """Whether the file holds a block with its truth, and figures of training steps stand beside it."""
    return {"input", "truth", "mask", "bg"} <= case.arrays.keys() and case.path.with_suffix(".json").name in {
        path.name for folder in case.folders for path in folder.glob("*.json")
    }


def check_training(case: Case) -> Iterator[Row]:
    """Training steps with AdamW and no dropout: losses of each step, gradients before the first, weights after the
    last.

    The steps run in float64: AdamW's first steps follow the signs of the gradients, so that rounding grows; that of the
    reference is in the tolerances, ours would come on top.
    """
    file, arrays = case.path.name, case.arrays
    figures = json.loads(case.beside(f"{case.path.stem}.json")[0].read_text(encoding="utf-8"))
    candidates = case.beside(*(f"*train*init*{suffix}" for suffix in WEIGHT_SUFFIXES))
    networks = []
    for path in candidates:
        try:
            networks.append((path, *attention_network(read_original(path), dropout=0.0)))
        except OriginalFileError as error:
            yield off(file, f"weights {path.name}", str(error))
    if not networks:
        yield not_covered(file, "weights", "no weight file train_init... beside it")
        return
    frames = tensor_of(arrays["input"])[None, :, 0]
    outputs = [_first_output(network, frames) for _, network, _ in networks]
    chosen = 0
    if "out_step0" in arrays:  # of several weight files, the one that made it
        chosen = int(np.argmin([np.abs(maps.numpy() - arrays["out_step0"]).max() for maps in outputs]))
        item = f"out_step0 ({networks[chosen][0].name})"
        yield from output_rows(file, item, outputs[chosen], arrays["out_step0"], tolerance=OUTPUT_TOLERANCE)
    _, network, names = networks[chosen]
    targets = padded_targets(arrays["truth"], arrays["mask"], arrays["bg"], THEIRS)
    yield from _steps(file, network.double(), names, frames.double(), targets, figures)


def _first_output(network: AttentionUNet, frames: Tensor) -> Tensor:
    """Maps in training mode; the running statistics stay as they are."""
    state = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        maps = network.train()(frames)[0]
    network.load_state_dict(state)
    return maps


def _steps(
    file: str,
    network: AttentionUNet,
    names: Mapping[str, str],
    frames: Tensor,
    targets: EmitterTargets,
    figures: Mapping[str, Any],
) -> Iterator[Row]:
    expected = figures["loss_total_loc_count_bg_per_step"]
    back = {f"core.{ours}": theirs for theirs, ours in names.items()}
    optimiser = torch.optim.AdamW(network.train().parameters(), lr=LEARNING_RATE)
    losses = []
    for step in range(len(expected)):
        optimiser.zero_grad()
        terms = gmm_published_terms(network(frames), targets)[0]
        terms.sum().backward()
        losses.append([terms.sum().item(), *terms.tolist()])
        if step == 0:
            norms = {back[key]: float(p.grad.norm()) for key, p in network.named_parameters() if p.grad is not None}
            yield from _gradient_rows(file, norms, figures.get("grad_norm_step0", {}))
        optimiser.step()
    for column, (name, tolerance) in enumerate(STEP_TOLERANCE.items()):
        ours, theirs = np.array(losses)[:, column], np.array(expected)[:, column]
        item = f"{name} loss of {len(expected)} steps"
        yield compare(file, item, ours / theirs, np.ones_like(theirs), tolerance=tolerance, note="each step's ratio")
    after = next((key for key in figures if key.startswith("param_sum_after")), None)
    if after is not None:
        yield from _weight_rows(file, after, network, back, figures[after], len(expected))


def _gradient_rows(file: str, norms: Mapping[str, float], theirs: Mapping[str, float]) -> Iterator[Row]:
    keys = [key for key in theirs if not NO_GRADIENT.fullmatch(key)]
    if not keys:
        return
    missing = [key for key in keys if key not in norms]
    if missing:
        yield off(file, "gradient norms of step 0", f"no gradient of ours for {', '.join(missing[:3])}")
        return
    ours = np.array([norms[key] / theirs[key] if theirs[key] else 1 + norms[key] for key in keys])
    item = f"gradient norms of step 0, {len(keys)} tensors"
    yield compare(file, item, ours, np.ones_like(ours), tolerance=GRADIENT_NORM_TOLERANCE, note="each one's ratio")


def _weight_rows(
    file: str, item: str, network: nn.Module, back: Mapping[str, str], theirs: Mapping[str, list[float]], steps: int
) -> Iterator[Row]:
    """Sums of each tensor: weights in units of the farthest that AdamW can have moved them, statistics as shares."""
    weights = {back[key] for key, _ in network.named_parameters()}
    state = {back[key]: value.double() for key, value in network.state_dict().items() if key in back}
    for kind, keys, tolerance in (
        ("weights", [key for key in theirs if key in weights and not NO_GRADIENT.fullmatch(key)], WEIGHT_TOLERANCE),
        ("statistics", [key for key in theirs if key in state and key not in weights], STATISTICS_TOLERANCE),
    ):
        if not keys:
            continue
        ours = np.array([[state[key].sum().item(), state[key].abs().sum().item()] for key in keys])
        expected = np.array([theirs[key] for key in keys])
        moved = np.array([[state[key].numel() * LEARNING_RATE * steps] for key in keys])
        scale = moved if kind == "weights" else np.maximum(np.abs(expected[:, 1:]), 1e-12)
        note = f"{len(keys)} tensors; {'shares of what the steps can move' if kind == 'weights' else 'shares'}"
        difference = (ours - expected) / scale
        yield compare(file, f"{item}: {kind}", 1 + difference, np.ones_like(difference), tolerance=tolerance, note=note)


def is_activations(case: Case) -> bool:
    """Whether the file holds pairs NAME_in, NAME_out of maps with 8 or 10 channels."""
    return any(
        key.endswith("_in") and f"{key[:-3]}_out" in case.arrays and array.ndim >= 3 and array.shape[-3] in (8, 10)
        for key, array in case.arrays.items()
    )


def check_activations(case: Case) -> Iterator[Row]:
    """Both activations; ours leave their input as it is."""
    file, arrays = case.path.name, case.arrays
    for key in (key for key in arrays if key.endswith("_in")):
        theirs = arrays[f"{key[:-3]}_out"]
        function = {8: gmm_activation_8, 10: gmm_activation}.get(theirs.shape[-3])
        if function is None:
            yield not_covered(file, key, f"no activation of ours has {theirs.shape[-3]} channels")
            continue
        logits = tensor_of(arrays[key])
        yield compare(file, f"{key[:-3]}_out", function(logits).numpy(), theirs, tolerance=EXACT)
        yield compare(file, f"{key}, afterwards", logits.numpy(), arrays[key], tolerance=0.0)


_EXTRACTION = re.compile(r"(.*)_th([\d.]+)_frame_x_y_sigx_sigy_N_p")


def is_extraction(case: Case) -> bool:
    """Whether the file holds lists of localizations at thresholds."""
    return any(_EXTRACTION.fullmatch(key) for key in case.arrays)


def check_extraction(case: Case) -> Iterator[Row]:
    """Lists of localizations by rule "plus". Where candidates lie in the first row or column the original reads the
    opposite edge: there ours must differ, and agree away from it."""
    file, arrays = case.path.name, case.arrays
    for key, theirs in arrays.items():
        match = _EXTRACTION.fullmatch(key)
        if match is None:
            if not key.endswith("_output"):
                yield not_covered(file, key, "nothing of ours stands for it")
            continue
        if f"{match[1]}_output" not in arrays:
            yield not_covered(file, key, f"the file lacks {match[1]}_output")
            continue
        maps, threshold = tensor_of(arrays[f"{match[1]}_output"]), float(match[2])
        ours, inner = _plus_list(maps, threshold)
        _, gathered = plus_scores(maps[:, 0], repeat_border=True)
        if bool((gathered[:, 0] > threshold).any() or (gathered[:, :, 0] > threshold).any()):
            yield from _border_rows(file, key, ours, ours[inner], theirs)
        elif len(ours) != len(theirs):
            yield off(file, key, f"we find {len(ours)} localizations, the reference has {len(theirs)}")
        else:
            ours, theirs = (rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))] for rows in (ours, theirs))
            yield compare(file, key, ours, theirs, tolerance=1e-6, note=f"{len(ours)} localizations")


def _plus_list(maps: Tensor, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows as the original lists them (its x runs along rows; nm at 100 nm a pixel, integer = centre; channel 5 for
    both sigmas and 7 for N), and which of them lie away from the first two rows and columns."""
    frame, row, column, gathered = extract_plus(maps[:, 0], threshold=threshold, repeat_border=True)
    found = maps[frame, :, row, column].double()
    ours = [
        frame.double(),
        100 * (row + 0.5 + found[:, 2]),
        100 * (column + 0.5 + found[:, 3]),
        found[:, 5],
        found[:, 5],
        found[:, 7],
        gathered.double(),
    ]
    return torch.stack(ours, dim=1).numpy(), ((row > 1) & (column > 1)).numpy()


def _border_rows(file: str, key: str, ours: np.ndarray, inner: np.ndarray, theirs: np.ndarray) -> Iterator[Row]:
    note = "theirs reads the opposite edge at the first row and column"
    same = len(ours) == len(theirs) and np.allclose(np.sort(ours, 0), np.sort(theirs, 0), rtol=1e-6)
    if same:
        yield off(file, f"{key}, at the border", f"ours equals the original, but {note}")
    else:
        yield compare(file, f"{key}, at the border", [0.0], [0.0], tolerance=0.0, note=f"ours differs: {note}")
    if len(inner) and len(theirs):
        nearest = np.stack([theirs[np.abs(theirs - row).max(1).argmin()] for row in inner])
        yield compare(file, f"{key}, away from it", inner, nearest, tolerance=1e-6, note=f"{len(inner)} localizations")
