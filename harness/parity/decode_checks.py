"""DECODE's network, loss, training steps, targets and post-processing against its program's numbers.

The program indexes images [x, y]: its first axis is our rows, so its "x" is our y. Its pixel centres are at whole
numbers, ours at index + 1/2.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import zoo
from losses.emitters import background_loss, count_loss, decode_per_frame, mixture_loss
from simulators import Emitters
from zoo import EmitterMaps, EmitterTargets
from zoo._originals import OriginalFileError, read_original
from zoo._originals._decode import parts, recognise
from zoo.decode import Decode

from .files import Case
from .rows import Row, compare, not_covered

TOLERANCE = 1e-4  # of networks
LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
STEP_TOLERANCES = {"loss": 5e-4, "norm": 1e-3}

Arrays = Mapping[str, np.ndarray]


def decode_network(path: Path) -> Decode:
    """Our DECODE with the weights of an original's file, in evaluation mode.

    Raises:
        OriginalFileError: the tensors are no DECODE's, or do not fit.
    """
    tensors = read_original(path).tensors
    options = recognise(tensors)
    if options is None:
        raise OriginalFileError(f"{path.name} holds no DECODE network")
    network = zoo.create_model("decode", **options)
    assert isinstance(network, Decode)
    places = parts(tensors)
    renamed = {
        f"{places[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": tensor
        for name, tensor in tensors.items()
        if name.rpartition(".")[0] in places
    }
    try:
        network.core.load_state_dict(renamed)
    except RuntimeError as error:
        raise OriginalFileError(f"{path.name} does not fit our DECODE: {error}") from None
    return network.eval()


def is_decode_network(case: Case) -> bool:
    """Inputs `x_K` with outputs `y_K`, and weights of that stem."""
    names = case.arrays.keys()
    return any(f"y_{k[2:]}" in names for k in names if k.startswith("x_")) and case.path.stem.endswith("_io")


def check_decode_network(case: Case) -> Iterator[Row]:
    """Rows for the maps, the 48 channels before the heads and the first U-Net, in torch; the maps as ONNX too."""
    from harness.export import export_onnx
    from harness.runtimes import OnnxMaps

    file, arrays = case.path.name, case.arrays
    if not case.weights:
        yield not_covered(file, "network", f"no weights: expected {case.stem}.safetensors beside it or in --weights")
        return
    network = decode_network(case.weights[0])
    core, note = network.core, f"decode with {sum(p.numel() for p in network.parameters())} numbers"
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        graph = OnnxMaps(export_onnx(network, Path(folder) / "model.onnx"), device="cpu")
        for key in arrays:
            tail = key[2:]
            if not key.startswith("x_") or f"y_{tail}" not in arrays:
                continue
            frames = torch.from_numpy(arrays[key])
            maps = core(frames)[:, 0]
            yield compare(file, f"y_{tail} (torch)", maps.numpy(), arrays[f"y_{tail}"], tolerance=TOLERANCE, note=note)
            found = np.concatenate([graph(window).numpy() for window in frames])
            yield compare(file, f"y_{tail} (ONNX)", found, arrays[f"y_{tail}"], tolerance=TOLERANCE)
            features = core.features(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
            if f"core_{tail}" in arrays:
                ours = core.context_net(features.flatten(1, 2)).numpy()
                yield compare(file, f"core_{tail}", ours, arrays[f"core_{tail}"], tolerance=TOLERANCE)
            for channel in range(frames.shape[1]):
                if f"shared_{tail}{channel}" in arrays:
                    name = f"shared_{tail}{channel}"
                    yield compare(file, name, features[:, channel].numpy(), arrays[name], tolerance=TOLERANCE)
        for height, width in case.sizes:
            frames = torch.randn(5, height, width, generator=torch.Generator().manual_seed(7))
            padded = frames[:, : height // 4 * 4, : width // 4 * 4]
            expected, found = network(padded[None])[0].numpy(), graph(padded).numpy()
            item = f"shipped graph {padded.shape[1]}x{padded.shape[2]}, 5 frames in"
            yield compare(file, item, found, expected, tolerance=TOLERANCE, note="ONNX against our torch")


def is_decode_loss(case: Case) -> bool:
    """Cases K with network output, padded table, mask and background."""
    return bool(_cases(case.arrays)) and any(key.startswith("loss_") for key in case.arrays)


def _cases(arrays: Arrays) -> list[str]:
    return [
        match[1]
        for key in arrays
        if (match := re.fullmatch(r"out_(\w+)", key)) and {f"tar_{match[1]}", f"mask_{match[1]}"} <= arrays.keys()
    ]


def padded_targets(tar: np.ndarray, mask: np.ndarray, background: np.ndarray | None) -> EmitterTargets:
    """Our targets from the program's table of slots (n, slots, [photons, x, y, z])."""
    filled = torch.from_numpy(np.asarray(mask, dtype=bool))
    rows = torch.from_numpy(np.asarray(tar, dtype=np.float32))[filled]
    light = None if background is None else torch.from_numpy(np.asarray(background, dtype=np.float32))
    return EmitterTargets(
        output=EmitterMaps(),
        frame=torch.nonzero(filled)[:, 0],
        photons=rows[:, 0],
        y=rows[:, 1] + 0.5,
        x=rows[:, 2] + 0.5,
        z=rows[:, 3],
        background=None if light is None else light.reshape(len(filled), *light.shape[-2:]),
        count=len(filled),
    )


def check_decode_loss(case: Case) -> Iterator[Row]:
    """Rows for each case: the terms, both columns, the mean and its gradient."""
    file, arrays = case.path.name, case.arrays
    for tail in _cases(arrays):
        out = torch.from_numpy(arrays[f"out_{tail}"]).requires_grad_()
        targets = padded_targets(arrays[f"tar_{tail}"], arrays[f"mask_{tail}"], arrays.get(f"bg_{tail}"))
        count = count_loss(out[:, 0], targets.per_frame(), times_emitters=True)
        mixture, light = mixture_loss(out, targets), background_loss(out, targets)
        total = decode_per_frame(out, targets, times_emitters=True).mean()
        (gradient,) = torch.autograd.grad(total, out, retain_graph=True)
        ours = {
            "count_term": count,
            "gmm_term": mixture,
            "bg_term": light,
            "loss": 2 * torch.stack([count + mixture, light], dim=1),
            "mean": total,
            "grad": gradient,
        }
        for name, value in ours.items():
            key = f"{name}_{tail}"
            if key in arrays:
                tolerance = GRADIENT_TOLERANCE if name == "grad" else LOSS_TOLERANCE
                yield compare(file, key, value.detach().numpy(), arrays[key], tolerance=tolerance)


def is_targets(case: Case) -> bool:
    """Emitters with the padded table that the program makes of them."""
    return {"tar", "mask", "bg_tar"} <= case.arrays.keys() and "out_a" not in case.arrays


def is_post_processing(case: Case) -> bool:
    """Network outputs `net_K` with suppressed maps `nms_K_...`."""
    return any(key.startswith("net_") for key in case.arrays) and any(key.startswith("nms_") for key in case.arrays)


def suppressed(p: Tensor, threshold: float, *, clip: bool = True) -> Tensor:
    """The program's suppressed map of probabilities, ties and all."""
    return zoo.scores(p, rule="program", candidate=threshold, ties="all", clip=clip)


def check_targets(case: Case) -> Iterator[Row]:
    """The filled slots, their number per frame and the background, from the raw emitters."""
    file, arrays = case.path.name, case.arrays
    scales = {name: float(arrays[name]) for name in ("phot_max", "z_max", "bg_max")}
    output = EmitterMaps(
        photons_scale=scales["phot_max"], z_scale_nm=scales["z_max"], background_scale=scales["bg_max"]
    )
    count, height, width = arrays["bg_tar"].shape
    xyz = arrays["xyz"].astype(np.float64)
    emitters = Emitters(
        frame=arrays["frame_ix"], x_nm=xyz[:, 1] + 0.5, y_nm=xyz[:, 0] + 0.5, z_nm=xyz[:, 2], photons=arrays["phot"]
    )  # pixels of 1 nm
    target = output.encode(
        emitters, count=count, height=height, width=width, pixel_size_nm=1.0,
        background=arrays["bg"], min_photons=float(arrays["phot_min"]),
    )  # fmt: skip
    mask = np.asarray(arrays["mask"], dtype=bool)
    yield compare(file, "mask: emitters per frame", target.per_frame().numpy(), mask.sum(1), tolerance=0.0)
    rows = torch.stack([target.photons, target.y - 0.5, target.x - 0.5, target.z], dim=1)
    yield compare(file, "tar: filled slots", rows.numpy(), arrays["tar"][mask], tolerance=1e-6)
    assert target.background is not None
    yield compare(file, "bg_tar", target.background.numpy(), arrays["bg_tar"], tolerance=1e-6)


def check_post_processing(case: Case) -> Iterator[Row]:
    """Suppressed maps and tables of localizations, at every threshold of the file."""
    file, arrays = case.path.name, case.arrays
    output = EmitterMaps(
        photons_scale=float(arrays["phot_max"]),
        z_scale_nm=float(arrays["z_max"]),
        background_scale=float(arrays["bg_max"]),
    )
    for key in arrays:
        if match := re.fullmatch(r"nms_(\w+?)_(\d+)(_sum)?", key):
            p = torch.from_numpy(arrays[f"net_{match[1]}"])[:, 0]
            ours = suppressed(p, int(match[2]) / 100, clip=match[3] is None)
            yield compare(file, key, ours.numpy(), arrays[key], tolerance=1e-6)
        elif match := re.fullmatch(r"(si|lu)_(\w+?)_(\d+)_xyz", key):
            maps, threshold = torch.from_numpy(arrays[f"net_{match[2]}"]), int(match[3]) / 100
            scored = maps[:, 0] if match[1] == "lu" else suppressed(maps[:, 0], threshold)
            yield from _table(file, key.removesuffix("_xyz"), arrays, maps, scored, output, threshold)
        elif match := re.fullmatch(r"abs_(\w+)", key):
            maps = torch.from_numpy(arrays[f"net_{match[1]}"])
            yield _everywhere(file, key, arrays[key], maps, output)


def _table(
    file: str, stem: str, arrays: Arrays, maps: Tensor, scored: Tensor, output: EmitterMaps, threshold: float
) -> Iterator[Row]:
    found = output.decode(maps, threshold=threshold, pixel_size_nm=1.0, scored=scored)
    columns = {
        "frame_ix": found.frame,
        "xyz": np.stack([found.y_nm - 0.5, found.x_nm - 0.5, found.z_nm], axis=1),
        "phot": found.photons,
        "prob": found.probability,
        "bg": found.background,
        "xyz_sig": np.stack([found.y_sigma_nm, found.x_sigma_nm, found.z_sigma_nm], axis=1),
        "phot_sig": found.photons_sigma,
    }
    for name, ours in columns.items():
        if f"{stem}_{name}" in arrays:
            yield compare(file, f"{stem}_{name}", ours, arrays[f"{stem}_{name}"], tolerance=1e-6)


def _everywhere(file: str, key: str, theirs: np.ndarray, maps: Tensor, output: EmitterMaps) -> Row:
    """All pixels as if each were a localization, put back into maps."""
    count, _, height, width = maps.shape
    found = output.decode(maps, threshold=0.5, pixel_size_nm=1.0, scored=torch.ones(count, height, width))
    columns = (
        *(maps[:, 0].flatten().numpy(), found.photons, found.y_nm - 0.5, found.x_nm - 0.5, found.z_nm),
        *(found.photons_sigma, found.y_sigma_nm, found.x_sigma_nm, found.z_sigma_nm, found.background),
    )
    ours = np.stack(columns, axis=1).reshape(count, height, width, len(columns)).transpose(0, 3, 1, 2)
    return compare(file, key, ours, theirs, tolerance=1e-6)


def is_train_steps(case: Case) -> bool:
    """A fixed batch with the losses of some optimiser steps."""
    return {"x", "tar", "mask", "bg", "y_step0", "grad_norm_before_clip"} <= case.arrays.keys()


def check_train_steps(case: Case) -> Iterator[Row]:
    """AdamW steps (rate 2e-5, decay 0.1, clip 0.03) from the folder's weights: losses, gradients, parameters."""
    file, arrays = case.path.name, case.arrays
    path = _matching_weights(case)
    if path is None:
        yield not_covered(file, "steps", f"no weights of a {arrays['x'].shape[1]}-frame DECODE beside it")
        return
    network = decode_network(path).train()
    core, places = network.core, parts(read_original(path).tensors)
    targets = padded_targets(arrays["tar"], arrays["mask"], arrays["bg"])
    frames = torch.from_numpy(arrays["x"])
    optimiser = torch.optim.AdamW(core.parameters(), lr=2e-5, weight_decay=0.1)
    named = dict(core.named_parameters())

    def ours(name: str) -> str:
        part, _, tail = name.rpartition(".")
        return f"{places[part]}.{tail}"

    losses, norms, terms = [], [], []
    for step in range(len(arrays["loss"])):
        maps = core(frames)[:, 0]
        if step == 0:
            yield compare(
                file, "y_step0", maps.detach().numpy(), arrays["y_step0"], tolerance=TOLERANCE, note=path.name
            )
        loss = decode_per_frame(maps, targets, times_emitters=True).mean()
        light = background_loss(maps, targets)
        both = decode_per_frame(maps, targets, times_emitters=True, background_weight=0.0)
        terms.append(2 * torch.stack([both, light], dim=1).detach().numpy())
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            known = [str(name) for name in arrays["grad_tensor_names"]]
            gradients = [float(_grad(named[ours(name)]).norm()) for name in known]
            theirs = arrays["grad_norm_per_tensor_step0"]
            yield compare(file, "grad_norm_per_tensor_step0", gradients, theirs, tolerance=STEP_TOLERANCES["norm"])
        norms.append(float(torch.nn.utils.clip_grad_norm_(core.parameters(), 0.03)))
        losses.append(loss.item())
        optimiser.step()
    yield compare(file, "loss", losses, arrays["loss"], tolerance=STEP_TOLERANCES["loss"])
    if "loss_terms" in arrays:
        yield compare(file, "loss_terms", np.stack(terms), arrays["loss_terms"], tolerance=STEP_TOLERANCES["loss"])
    theirs = arrays["grad_norm_before_clip"]
    yield compare(file, "grad_norm_before_clip", norms, theirs, tolerance=STEP_TOLERANCES["norm"])
    kept = [(i, str(n)) for i, n in enumerate(arrays["param_names"]) if str(n) != "sigma_eps"]
    after = [float(named[ours(name)].detach().norm()) for _, name in kept]
    theirs = arrays["param_norm_per_tensor_after4"][[i for i, _ in kept]]
    yield compare(file, "param_norm_per_tensor_after4", after, theirs, tolerance=STEP_TOLERANCES["norm"])


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _matching_weights(case: Case) -> Path | None:
    """The weight file of the folders whose network takes the batch's number of frames."""
    for folder in case.folders:
        for path in sorted(folder.glob("*.safetensors")):
            try:
                options = recognise(read_original(path).tensors)
            except (OriginalFileError, OSError):
                continue
            if options is not None and options["frames"] == case.arrays["x"].shape[1]:
                return path
    return None
