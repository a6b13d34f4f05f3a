"""Times of localization networks against the published way: the training step, and from movie file to table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

import zoo
from harness.as_published import PublishedDecode, bare_convolutions, published_loss, published_maps
from harness.devices import fastest_precision, pick_device, place
from harness.io.movies import open_movie, write_movie
from harness.io.tables import as_localizations, read_table, write_table
from harness.localization import localize_rows, photons_of
from harness.memory import keep_memory
from harness.models import create_network, in_onnx, load_network, ready
from harness.scoring import CHALLENGE_2D, score
from harness.training.fit import no_denormals
from losses import create_loss
from simulators import Camera, Localizations, load_recipe, simulate
from simulators.windows import draw_movies
from zoo import EmitterMaps
from zoo.decode import Decode

from .timing import interleaved, training_step


def _decode_network(source: str) -> tuple[Decode, dict[str, Any]]:
    """A network of DECODE's kind, with weights where the source has them."""
    if source in zoo.list_weights() or Path(source).is_dir() or f"{source}.epfl-2d" in zoo.list_weights():
        network, card = load_network(source)
    else:
        network, card = create_network(source).eval(), {"output": {}}
    if not isinstance(network, Decode):
        raise ValueError(f"{source} is no DECODE; only that has a published way to compare with")
    return network, card


def time_map_training(
    source: str, *, batch: int = 64, size: int = 40, seconds: float = 5.0, device: str = "auto"
) -> list[dict[str, Any]]:
    """Rows of a table: one training step on `batch` windows, as published and as this program does it.

    The baseline passes every frame of every window of three through the first U-Net, in contiguous float32, with 250
    slots per frame in the loss. This program takes blocks of 16 consecutive frames and real emitters only. The last
    row runs only the baseline's bare convolutions, forward and backward: what PyTorch itself reaches.
    """
    where = pick_device(device)
    spec = zoo.get_spec(source)
    block = min(16, batch)
    movies = -(-batch // block)
    windows = movies * block
    network = create_network(source)
    assert isinstance(network, zoo.MapNetwork)
    side = network.frames_before
    recipe = load_recipe(spec.recipe).with_(density_um2=1.5, size=size)
    drawn = draw_movies(recipe, movies, block + 2 * side, np.random.default_rng(1))
    frames = drawn.photons.view(movies, block + 2 * side, size, size)
    emitters = drawn.emitters()
    movie, step = np.divmod(emitters.frame, block + 2 * side)
    inner = (step >= side) & (step < side + block)
    rows = emitters.pick(inner).replace(frame=(movie * block + step - side)[inner])
    targets = network.output.encode(
        rows, count=windows, height=size, width=size, pixel_size_nm=recipe.camera.pixel_size_nm,
        background=np.full(windows, 50.0), device=where,
    )  # fmt: skip
    offsets = range(network.frames_in)
    triples = torch.stack([frames[:, o : o + block] for o in offsets], dim=2).flatten(0, 1).contiguous()

    def ours(*, bfloat16: bool) -> Callable[[], None]:
        network = create_network(source)
        network.normalisation.set_statistics(100.0, 50.0)
        place(network, where)
        loss = create_loss(spec.loss)
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6)
        step = training_step(network, loss, optimiser, frames.to(where), targets, bfloat16=bfloat16)

        def run() -> None:
            with no_denormals():  # as in training
                step()

        return run

    calls: dict[str, Callable[[], None]] = {}
    work: dict[str, float] = {}
    if isinstance(network, Decode) and where.type == "cpu":
        other = create_network(source)
        assert isinstance(other, Decode)
        other.normalisation.set_statistics(100.0, 50.0)
        published = PublishedDecode(other)
        optimiser = torch.optim.AdamW(published.parameters(), lr=1e-6)

        def run() -> None:
            published_loss(published(triples), targets).backward()
            optimiser.step()
            optimiser.zero_grad()

        calls["as published, float32"] = run
        calls["its bare convolutions"] = bare_convolutions(published, triples, backward=True)
        work["as published, float32"] = work["its bare convolutions"] = 6.0 * windows * published_macs(size)
    calls["blocks, channels-last, float32"] = ours(bfloat16=False)
    calls["blocks, channels-last, bfloat16"] = ours(bfloat16=True)
    times = interleaved(calls, seconds=seconds)
    base = next(iter(times.values())).median
    return [
        {
            "model": source,
            f"training step, {windows} windows of {size}x{size}": name,
            "ms (median)": f"{1e3 * taken.median:.0f}",
            "fastest": f"{1e3 * taken.best:.0f}",
            "GFLOP/s": f"{work[name] / taken.median / 1e9:.0f}" if name in work else "",
            "speed": f"{base / taken.median:.2f}x",
            "repeats": len(taken.seconds),
        }
        for name, taken in times.items()
    ]


def published_macs(size: int) -> float:
    """Multiply-accumulates of one window of three frames as published (8.527 GFLOP for 64x64)."""
    return 8.527e9 / 2 * (size / 64) ** 2


def _as_published(
    published: PublishedDecode, output: EmitterMaps, file: Path, table: Path, camera: Camera, threshold: float
) -> None:
    """The whole movie in memory, three passes of the first U-Net a frame, the table at the end."""
    with open_movie(file) as reader:
        photons = photons_of(reader, camera)(0, len(reader))
    rows = [
        output.decode(maps, threshold=threshold, pixel_size_nm=camera.pixel_size_nm, first_frame=first)
        for first, maps in published_maps(published, photons)
    ]
    write_table(Localizations.concatenate(rows), table)


def time_movie_to_table(
    source: str, *, frames: int = 1000, size: int = 64, recipe: str = "tubes-2d-hd", rounds: int = 2
) -> list[dict[str, Any]]:
    """Rows of a table: from movie file to localization table on the CPU, as published and in our forms, interleaved.

    The published way has a process of its own: memory that our forms keep would serve it too (half as fast again).
    Scores are against the simulation's truth, so that what a form loses is seen. The last row runs only the bare
    convolutions of the published way.
    """
    network, card = _decode_network(source)
    made = load_recipe(recipe).with_(frames=frames, size=size)
    movie = simulate(made, made.rng())
    camera, pixel = movie.camera, movie.camera.pixel_size_nm
    threshold = float(card.get("threshold") or 0.5)
    published = PublishedDecode(_decode_network(source)[0])
    keep_memory()  # as every command does
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process,  # starts with its first call
    ):
        folder = Path(name)
        file, table = folder / "movie.tif", folder / "table.csv"
        write_movie(file, movie.frames, pixel_size_nm=pixel)
        forms = {"channels-last, float32": ready(network, card, name=source, device="cpu", precision="float32")}
        if fastest_precision(torch.device("cpu")) == "bfloat16":
            forms["channels-last, bfloat16"] = ready(network, card, name=source, device="cpu", precision="bfloat16")
        from harness.export import export_onnx

        path = export_onnx(network, folder / "model.onnx")
        forms["ONNX Runtime, float32"] = in_onnx(forms["channels-last, float32"], path, device="cpu")

        some = torch.from_numpy(movie.photons()[:66])
        windows = torch.stack([some[:-2], some[1:-1], some[2:]], dim=1)
        given = (published, network.output, file, table, camera, threshold)
        calls: dict[str, Callable[[], Any]] = {
            "as published, float32": lambda: process.submit(_as_published, *given).result()
        }
        for form, model in forms.items():
            calls[form] = partial(localize_rows, model, file, table, camera=camera, threshold=threshold)
        scores = {}
        field = (size * pixel[0], size * pixel[1])
        for form, call in calls.items():
            call()
            found = as_localizations(read_table(table))
            scores[form] = score(truth=movie.emitters, found=found, field_nm=field, protocol=CHALLENGE_2D)
        calls["bare convolutions of 64 windows"] = bare_convolutions(published, windows, backward=False)
        times = interleaved(calls, seconds=0.0, least=rounds)
    base = times["as published, float32"].median
    work = 2 * published_macs(size)
    rows = []
    for form, taken in times.items():
        count = frames if form in scores else 64
        row: dict[str, Any] = {
            "model": source,
            f"{frames} frames of {size}x{size}, file to table": form,
            "frames/s": f"{count / taken.median:.1f}",
            "speed": f"{base / frames * count / taken.median:.2f}x",
            "GFLOP/s": f"{work * count / taken.median / 1e9:.0f}" if form not in forms else "",
        }
        if form in scores:
            row |= {"Jaccard": f"{scores[form].jaccard:.2f}", "RMSE (nm)": f"{scores[form].rmse_lateral_nm:.2f}"}
            row["efficiency"] = f"{scores[form].efficiency:.2f}"
        else:
            row |= {"Jaccard": "", "RMSE (nm)": "", "efficiency": ""}
        rows.append(row)
    return rows
