"""Train a model: the whole run, from a configuration to weights with their card."""

import logging
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

import zoo
from harness.devices import describe_machine, pick_device, pick_precision, place
from harness.environment import commit, package_version
from harness.io.atomic import atomic_path
from harness.models import create_network, new_tile
from harness.ready import MapModel, Network
from losses import create_loss
from zoo import EmitterMaps, SRImage

from .config import Tier, TrainConfig, list_training_recipes, load_training_recipe, make_config, read_config
from .data import Endless, open_sources
from .teaching import Batches, Teaching

SIGMA_STREAM = 900_002
"""Beside the seed, of the molecules that sigmas are calibrated on."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Where a run stands: its folder, steps and frames in all, and the scores of the kept weights."""

    folder: Path
    steps: int
    frames: int
    seconds: float
    scores: dict[str, float]
    finished: bool


def train(
    config: TrainConfig,
    output: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
    teaching: Teaching | None = None,
) -> TrainResult:
    """Train a model and leave a folder that every other command reads.

    The folder holds `config.yaml` (resolved), `model.safetensors` and `card.json` (the best weights), `last.ckpt`
    (weights, optimiser, counters: what `resume` continues from), `csv/metrics.csv` (of later sittings in
    `csv-STEP/`), TensorBoard events and `preview.png`.

    Args:
        config: what to train, on what.
        output: folder to write; it must not hold another run unless `resume`.
        resume: go on from `last.ckpt`, for another sitting.
        device: auto, cpu, cuda.
        progress: show a bar.
        teaching: other batches and an objective beside the loss, e.g. from a teacher; not kept in the configuration, so
            give it again with `resume`.

    Raises:
        ValueError: the configuration does not fit the model or the data, the folder holds a run already, or another
            training is at work in it.
        KeyboardInterrupt: Ctrl-C; what is learned is saved first.
    """
    output.mkdir(parents=True, exist_ok=True)
    with _alone(output):
        return _train_alone(config, output, resume=resume, device=device, progress=progress, teaching=teaching)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other trainings out of a folder; the system frees it when this process ends, however it ends."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another training is at work in {folder}; wait for it, or give another folder with -o"
        ) from None
    except NotImplementedError:  # a file system without locks
        logging.getLogger(__name__).warning("%s cannot be locked: start no second training in it", folder)
    try:
        yield
    finally:
        lock.release()


def _train_alone(
    config: TrainConfig, output: Path, *, resume: bool, device: str, progress: bool, teaching: Teaching | None
) -> TrainResult:
    checkpoint = output / "last.ckpt"
    if checkpoint.exists() and not resume:
        raise ValueError(f"{output} already holds a run; go on with --resume, or give another folder with -o")
    if resume and not checkpoint.exists():
        raise ValueError(f"{output} holds no last.ckpt to resume from; start without --resume")
    where = pick_device(device)
    with atomic_path(output / "config.yaml") as temporary:
        temporary.write_text(config.to_yaml(), encoding="utf-8")
    from .task import Diverged

    _quiet()

    for attempt in range(1 + config.restarts):
        try:
            return _train(
                config, output, resume=resume, where=where, progress=progress, attempt=attempt, teaching=teaching
            )
        except Diverged as error:
            if attempt == config.restarts or checkpoint.exists():
                raise
            logging.getLogger(__name__).warning("%s; starting anew with other first weights", error)
    raise AssertionError("unreachable")


def _train(
    config: TrainConfig,
    output: Path,
    *,
    resume: bool,
    where: torch.device,
    progress: bool,
    attempt: int,
    teaching: Teaching | None,
) -> TrainResult:
    """One attempt: first weights from the seed and the attempt's number."""
    from lightning.pytorch import Trainer

    from .task import ShowProgress, Task, Validate

    checkpoint = output / "last.ckpt"
    torch.manual_seed(config.seed + attempt)
    spec = zoo.get_spec(config.model)
    network = create_network(config.model, **config.options)
    begun = _begin_from(network, config.init, again=resume) if config.init else None
    note = flatness(network, config)
    if note and not resume:
        logging.getLogger(__name__).warning(note)
    loss_name = config.loss or spec.loss
    loss_options = dict(config.loss_options)
    if isinstance(network, zoo.MapNetwork):
        network.output = scaled_maps(network.output, config, begun=begun is not None)
    else:
        network.output = change_output(network.output, config.contract)
        loss_options["target_scale"] = network.output.target_scale
    loss = create_loss(loss_name, **loss_options)
    if config.size % network.size_multiple:
        raise ValueError(f"size is {config.size}; {config.model} needs multiples of {network.size_multiple} pixels")
    plain, validation = open_sources(config, network, where)
    source: Batches = plain if teaching is None else teaching.source(plain, network, config, where)
    if not resume and (begun is None or "normalisation.mean" not in begun.copied):
        network.normalisation.set_statistics(*frame_statistics(source))
    place(network, where)
    objective = None if teaching is None else teaching.objective(network, loss, source, config, where)

    task = Task(network, loss, config, minutes=config.minutes, objective=objective)
    validate = Validate(validation, output, config.validate_every, begun=begun is not None)
    precision = pick_precision(config.precision, where)
    first = torch.load(checkpoint, weights_only=True, map_location="cpu")["global_step"] if resume else 0
    if first >= config.steps:
        raise ValueError(f"the run in {output} has done its {first} steps; give more with --steps, e.g. {2 * first}")
    stop = StopRequest()
    keeper = _keeper(output, config.minutes, stop)
    bar = [ShowProgress(config.model)] if progress else []
    trainer = Trainer(
        accelerator="gpu" if where.type == "cuda" else "cpu",
        devices=[where.index or 0] if where.type == "cuda" else 1,
        precision="bf16-mixed" if precision == "bfloat16" else "32-true",
        max_steps=config.steps,
        max_epochs=-1,
        min_epochs=0,
        gradient_clip_val=config.clip,
        logger=_loggers(output, first),
        callbacks=[keeper, validate, *bar],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        log_every_n_steps=10,
        default_root_dir=output,
    )
    loader = torch.utils.data.DataLoader(Endless(source, first), batch_size=None)
    with stop, no_denormals(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        trainer.fit(task, loader, ckpt_path=str(checkpoint) if resume else None, weights_only=True)
        validate.run(task, trainer)
        keeper.save(trainer)
    scores = {key: value for key, value in validate.scores.items() if key != "threshold"}
    run = {"loss": loss_name, "precision": precision, "stopped": stop.made}
    if teaching is not None:
        run["teaching"] = teaching.finish()
    if begun is not None:
        run["init"] = {"source": config.init, "report": str(begun)}
    _write_model(output, network, validate, scores, task, run)
    if stop.made:
        raise KeyboardInterrupt
    return TrainResult(
        folder=output,
        steps=task.global_step,
        frames=task.frames_seen,
        seconds=task.seconds(),
        scores=scores,
        finished=task.global_step >= config.steps,
    )


def flatness(network: Network, config: TrainConfig) -> str | None:
    """What to say where a network gives no heights although spots of the recipe's PSF tell them; None elsewhere."""
    if config.source != "recipe" or not isinstance(network, zoo.MapNetwork) or network.output.axial:
        return None
    recipe = config.simulation()
    low, high = recipe.z_range_nm
    if recipe.psf.kind == "gaussian" or low == high:
        return None
    return (
        f"the recipe {recipe.name} has molecules at z {low:g} to {high:g} nm and a PSF of kind {recipe.psf.kind}, but "
        f"this {config.model} gives x and y alone; for z as well: --option dimensions=3"
    )


def _begin_from(network: Network, source: str, *, again: bool) -> zoo.Adopted:
    """Copy the weights named, with what their numbers stand for, and say what was copied and what was not.

    Args:
        again: another sitting, whose own weights come afterwards.
    """
    adopted, card = zoo.adopt_weights(network, source)
    if not again:
        logging.getLogger(__name__).warning("beginning from %s: %s", source, adopted)
    settings = card.get("output") or {}
    if isinstance(network, zoo.MapNetwork):
        known: tuple[str, ...] = ("photons_scale", "background_scale", "z_scale_nm")
    else:
        known = ("target_scale", "kind", "heatmap_sigma")
    network.output = replace(network.output, **{key: settings[key] for key in known if key in settings})
    return adopted


def scaled_maps(output: EmitterMaps, config: TrainConfig, *, begun: bool = False) -> EmitterMaps:
    """The contract with scales that hold all the recipe can draw, with a fifth to spare, and the configured changes.

    Args:
        begun: the scales are those of weights to begin from; only one that is too small is changed.

    Raises:
        ValueError: a change that is no setting of `EmitterMaps`.
    """
    found: dict[str, Any] = {}
    if config.source == "recipe":
        recipe = config.simulation()
        needed = {
            "photons_scale": _highest(recipe.photons),
            "background_scale": max(_highest(recipe.background), 1.0),
            "z_scale_nm": max(abs(z) for z in recipe.z_range_nm),
        }
        found = {
            key: 1.2 * most
            for key, most in needed.items()
            if most and not (begun and most <= abs(getattr(output, key)))
        }
    known = ("photons_scale", "background_scale", "z_scale_nm", "rule", "candidate")
    for key in config.contract:
        if key not in known:
            raise ValueError(f"contract has no setting {key!r} to train for; there are: {', '.join(known)}")
    return output.with_(**{**found, **config.contract})


def _highest(quantity: Any) -> float:
    return float(getattr(quantity, "high", quantity))


def change_output(output: SRImage, changes: dict[str, Any]) -> SRImage:
    """The output contract with some fields changed.

    Raises:
        ValueError: no such field, or another upsampling, which is an option of the model.
    """
    known = ("target_scale", "kind", "heatmap_sigma")
    for key in changes:
        if key not in known:
            raise ValueError(f"contract has no setting {key!r} to train for; there are: {', '.join(known)}")
    return replace(output, **changes)


def frame_statistics(source: Batches, batches: int = 4) -> tuple[float, float]:
    """Mean and standard deviation of the photons per pixel of a source's first batches."""
    frames = torch.cat([source.batch(number)[0].flatten().double().cpu() for number in range(batches)])
    return frames.mean().item(), max(frames.std().item(), 1e-6)


def resolve_config(
    model: str | None,
    *,
    training_recipe: str | None = None,
    tier: Tier = "cpu",
    run: Path | None = None,
    **settings: Any,
) -> TrainConfig:
    """The configuration of a command line: an earlier run's, or the model's training recipe, with changes on top.

    Raises:
        ValueError: no such model or recipe, the recipe has no such tier, the run is another model's, or a setting is
            wrong.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    if run is not None and (run / "config.yaml").is_file():
        base = read_config(run / "config.yaml").model_dump()
        if model is not None and model != base["model"]:
            raise ValueError(f"{run} is a run of {base['model']!r}, not of {model!r}")
    else:
        if model is None:
            raise ValueError("no model named; give one of: " + ", ".join(zoo.list_models()))
        spec = zoo.get_spec(model)
        own = f"{model}.{given.get('recipe') or spec.recipe}"
        if own not in list_training_recipes():
            own = f"{model}.{spec.recipe}"
        name = training_recipe or (own if own in list_training_recipes() else None)
        if tier == "full" and name is None:
            raise ValueError(f"{model} has no training recipe, so no tier 'full'; give one with --training-recipe")
        base = load_training_recipe(name, tier) if name else {}
        base["model"] = model
        if given.get("init"):
            base["options"] = {**base.get("options", {}), **zoo.read_card(given["init"])["options"]}
        if given.get("recipe") not in (None, base.get("recipe")):
            base.pop("recipe_changes", None)  # of another recipe
    if given.get("movie") or given.get("inputs"):
        base["recipe"] = None
    base["options"] = {**base.get("options", {}), **given.pop("options", {})}
    return make_config({**base, **given})


@contextmanager
def no_denormals() -> Iterator[None]:
    """Numbers below 1e-38 count as 0 meanwhile.

    Likelihoods far from an emitter have such gradients, and a processor takes a hundred times longer for them: a
    training step of DECODE was measured at 58 s with them, at 4 s without.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class StopRequest:
    """While active, the first Ctrl-C (or SIGTERM) asks the training to end after this step; a second one aborts it."""

    def __init__(self) -> None:
        self.made = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: Any) -> None:
        if self.made:
            raise KeyboardInterrupt
        self.made = True


def _keeper(output: Path, minutes: float | None, stop: StopRequest) -> Any:
    """The callback that writes `last.ckpt` every two minutes and at the end, and stops when time is up or asked to."""
    from lightning.pytorch.callbacks import Callback

    class Keep(Callback):
        def __init__(self) -> None:
            self.saved = self.started = time.monotonic()

        def save(self, trainer: Any) -> None:
            with atomic_path(output / "last.ckpt") as temporary:
                trainer.save_checkpoint(temporary)
            self.saved = time.monotonic()

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.started = time.monotonic()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if time.monotonic() - self.saved > 120:
                self.save(trainer)
            if stop.made or (minutes is not None and time.monotonic() - self.started > 60 * minutes):
                trainer.should_stop = True

    return Keep()


def _loggers(output: Path, first: int) -> list[Any]:
    """Where a sitting from step `first` on writes its figures: a table of its own, as the logger empties its folder."""
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    table = f"csv-{first}" if first else "csv"
    return [TensorBoardLogger(output, name="", version="tensorboard"), CSVLogger(output, name="", version=table)]


def _quiet() -> None:
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _write_model(
    output: Path, network: Network, validate: Any, scores: dict[str, float], task: Any, run: dict[str, Any]
) -> None:
    """Write the best weights with their card; the network keeps the last ones."""
    config: TrainConfig = task.config
    current = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
    network.cpu().load_state_dict(validate.weights)
    recipe = config.simulation() if config.source == "recipe" else None
    if recipe is not None and isinstance(network, zoo.MapNetwork):
        network.output = calibrated(
            network, validate.threshold, recipe, seed=config.seed, frames=config.validation_frames
        )
    card = {
        "threshold": validate.threshold,
        "scores": scores,
        "training": {
            "config": config.model_dump(mode="json"),
            **run,
            "recipe_hash": recipe.hash if recipe else None,
            "frames_seen": task.frames_seen,
            "steps": task.global_step,
            "minutes": round(task.seconds() / 60, 2),
            "machine": describe_machine(),
            "torch": torch.__version__,
            "smlm_zoo": package_version("smlm-zoo"),
            "commit": commit(),
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "curve": validate.curve,
        },
        "valid_range": valid_range(recipe) if recipe else None,
        **new_tile(network),
    }
    zoo.save_weights(network, output, card)
    network.load_state_dict(current)


def calibrated(network: zoo.MapNetwork, threshold: float | None, recipe: Any, *, seed: int, frames: int) -> EmitterMaps:
    """The network's contract, its sigmas made the spread of its errors on lone molecules in about so many frames."""
    from harness.models import ready
    from harness.scoring.isolated import SCENES, sigma_calibration

    if threshold is None:
        return network.output
    model = ready(network, {"threshold": threshold}, name="trained", device="cpu", precision="float32")
    assert isinstance(model, MapModel)
    rng = np.random.default_rng([seed, SIGMA_STREAM])
    return sigma_calibration(model, recipe, rng, frames=max(3, frames // SCENES))


def valid_range(recipe: Any) -> dict[str, Any]:
    """What a model trained on a recipe has seen: pixel size, PSF width, photons, background, density, camera."""
    settings = recipe.model_dump(mode="json")
    return {
        "pixel_size_nm": list(recipe.camera.pixel_size_nm),
        **{key: settings[key] for key in ("psf", "photons", "background", "density_um2") if key in settings},
        "camera": settings["camera"],
    }
