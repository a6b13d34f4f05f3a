"""The training step as a Lightning module, and what happens at each validation."""

import copy
import math
import time
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from harness.io.tables import as_localizations
from harness.preview import save_preview
from harness.ready import drawn
from harness.recording import protocol_for
from harness.scoring import choose_threshold, score
from losses import Loss
from simulators import Localizations
from zoo import EmitterMaps, EmitterTargets, ImageNetwork, MapNetwork

from .config import TrainConfig
from .data import Pair, Validation

LOWEST_THRESHOLD = 0.01  # of a lone emitter's value: below it, a map is noise


class Diverged(FloatingPointError):
    """The loss is no number any more."""


class Task(lightning.LightningModule):
    """Frames in, image or maps out, one loss; the network inside stays an ordinary module.

    The learning rate warms up, stays, and falls over the last `decay_share` of this sitting, whichever end comes first:
    the last step, or the minutes given. So a training done in pieces leaves usable weights after each.
    """

    def __init__(
        self,
        network: ImageNetwork | MapNetwork,
        loss: Loss,
        config: TrainConfig,
        *,
        minutes: float | None,
        objective: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network, self.loss, self.config, self.minutes = network, loss, config, minutes
        self.objective = objective
        self.averaged: AveragedModel | None = None
        if config.average:
            self.averaged = AveragedModel(network, multi_avg_fn=_running_mean(config.average), use_buffers=True)
        self.frames_seen = 0
        self.seconds_before = 0.0
        self.started: float | None = None
        self.first_step = 0

    def seconds(self) -> float:
        """Training time over all sittings."""
        return self.seconds_before + (time.monotonic() - self.started if self.started is not None else 0.0)

    @property
    def best_network(self) -> ImageNetwork | MapNetwork:
        """The network that is validated and kept: the averaged one where there is one."""
        return self.network if self.averaged is None else cast(MapNetwork, self.averaged.module)

    def on_train_batch_end(self, *_: Any) -> None:
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    def on_fit_start(self) -> None:
        self.started, self.first_step = time.monotonic(), self.global_step

    def training_step(self, batch: Pair, index: int) -> Tensor:
        frames, target = batch
        self.frames_seen += _counted(frames, target)
        if self.objective is None:
            loss = self.loss(self.network(frames.contiguous(memory_format=torch.channels_last)).float(), target)
        else:
            loss = self.objective(self.network, frames, target)
            parts: Any = self.objective.last
            self.log_dict({f"objective_{name}": value for name, value in parts.items()})
        if not torch.isfinite(loss):
            raise Diverged(
                f"the loss is {loss.item()} at step {self.global_step}; lower the learning rate (now "
                f"{self.config.learning_rate:g}) and go on with --resume from the last checkpoint"
            )
        self.log("loss", loss)
        self.log("frames", float(self.frames_seen))
        return loss

    def transfer_batch_to_device(self, batch: Pair, device: torch.device, dataloader_idx: int) -> Pair:
        """Nothing to do: sources make their batches on the device."""
        return batch

    def progress(self) -> float:
        """Share of this sitting that is done, 0 ... 1."""
        steps = (self.global_step - self.first_step) / max(1, self.config.steps - self.first_step)
        if self.minutes is None or self.started is None:
            return min(1.0, steps)
        return min(1.0, max(steps, (time.monotonic() - self.started) / (60 * self.minutes)))

    def rate(self) -> float:
        """Factor on the learning rate now."""
        warm = min(1.0, (self.global_step - self.first_step + 1) / max(1, self.config.warmup_steps))
        left = (1 - self.progress()) / self.config.decay_share if self.config.decay_share else 1.0
        return warm * (0.5 - 0.5 * math.cos(math.pi * min(1.0, left)) if left < 1 else 1.0) + 1e-3

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.AdamW(
            [*self.network.parameters(), *(self.objective.parameters() if self.objective else ())],
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            eps=1e-12,  # heatmaps of unit sum have gradients below the usual 1e-8
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda _: self.rate())
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["frames_seen"], checkpoint["seconds"] = self.frames_seen, self.seconds()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.frames_seen, self.seconds_before = checkpoint["frames_seen"], checkpoint["seconds"]
        for schedule in checkpoint["lr_schedulers"]:  # the rate of this sitting may be another one
            schedule["base_lrs"] = [self.config.learning_rate] * len(schedule["base_lrs"])


class Validate(Callback):
    """Score the fixed validation frames, keep the best weights, write a preview picture.

    The best weights are those of the highest efficiency (paired images without emitters: of the lowest loss), with the
    threshold at which it was reached. A training that goes on from given weights (`begun`) scores them first: where
    nothing better is learned they are kept.
    """

    def __init__(self, validation: Validation, folder: Path, every: int, *, begun: bool = False) -> None:
        self.validation, self.folder, self.every, self.begun = validation, folder, every, begun
        self.best = -math.inf
        self.threshold: float | None = None
        self.weights: dict[str, Tensor] = {}
        self.scores: dict[str, float] = {}
        self.curve: list[dict[str, float]] = []
        self.last_step = -1

    def state_dict(self) -> dict[str, Any]:
        kept = {"best": self.best, "threshold": self.threshold, "weights": self.weights, "scores": self.scores}
        return kept | {"curve": self.curve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.threshold = state_dict["best"], state_dict["threshold"]
        self.weights, self.scores = state_dict["weights"], state_dict["scores"]
        self.curve = list(state_dict.get("curve", []))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Score what there is: given weights, or those of an earlier sitting, whose figure may be another program's."""
        if not self.weights:
            if self.begun:
                self.run(pl_module, trainer)
            return
        network = copy.deepcopy(pl_module.best_network)
        network.load_state_dict(self.weights)
        found = evaluate(network, pl_module.loss, self.validation, device=pl_module.device)
        self.best, self.threshold = _figure(found), found.get("threshold")
        self.scores = {**found, "step": self.scores.get("step", 0.0)}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % self.every == 0:
            self.run(pl_module, trainer)

    def run(self, task: Task, trainer: Any = None) -> None:
        """Validate now, unless this step was validated already."""
        if task.global_step == self.last_step:
            return
        self.last_step = task.global_step
        network = task.best_network
        found = evaluate(network, task.loss, self.validation, device=task.device)
        spent = {"step": task.global_step, "minutes": round(task.seconds() / 60, 3), "frames": task.frames_seen}
        self.curve.append(spent | {key: float(f"{value:.5g}") for key, value in found.items()})
        if _figure(found) > self.best:
            self.best, self.threshold = _figure(found), found.get("threshold")
            self.weights = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}
            self.scores = {**found, "step": float(task.global_step)}
        save_preview(self.folder / "preview.png", **_first_frame(network, self.validation, self.threshold, task.device))
        if trainer is not None:
            for logger in trainer.loggers:
                logger.log_metrics({**found, "seconds": task.seconds(), "frames": task.frames_seen}, task.global_step)


def _figure(found: dict[str, float]) -> float:
    """What decides which weights are kept: larger is better."""
    return found.get("efficiency", -found["validation_loss"])


class ShowProgress(Callback):
    """A bar for people: how much of this sitting is done, the loss, the best score so far, the time left."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
            console=Console(stderr=True),
            refresh_per_second=2,
        )
        self.title = title
        self.mean: float | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.task = self.bar.add_task(f"training {self.title}", total=1.0, state="")
        self.bar.start()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = float(outputs["loss"])
        self.mean = loss if self.mean is None else 0.98 * self.mean + 0.02 * loss
        best = next((c.best for c in trainer.callbacks if isinstance(c, Validate)), -math.inf)
        score = f", best {best:.4g}" if math.isfinite(best) else ""
        state = f"step {trainer.global_step}, loss {self.mean:.4g}{score}"
        self.bar.update(self.task, completed=pl_module.progress(), state=state)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.bar.stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.bar.stop()


def _counted(frames: Tensor, target: Tensor | EmitterTargets | None) -> int:
    """Frames that a batch trains; without a target, all that it holds."""
    if isinstance(target, EmitterTargets):
        return target.count
    return frames.shape[0] * frames.shape[1] if target is None else len(target)


def _running_mean(memory: float) -> Any:
    """The weights' running mean, faster at the start: the plain mean until it holds 1 / (1 - memory) steps."""

    def update(mean: list[Tensor], now: list[Tensor], steps: Tensor | int) -> None:
        share = max(1 - memory, 1 / (float(steps) + 1))
        for old, new in zip(mean, now, strict=True):
            if old.is_floating_point():
                old.lerp_(new, share)
            else:
                old.copy_(new)

    return torch.no_grad()(update)


def predict(network: ImageNetwork | MapNetwork, frames: Tensor, device: torch.device) -> Tensor:
    """Images, or maps (N, C, H, W), of frames in eval mode, a few at a time; buffers and mode stay as they were."""
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            parts = [
                network(part.to(device).contiguous(memory_format=torch.channels_last)).float().cpu()
                for part in frames.split(8)
            ]
    finally:
        network.train(training)
    result = torch.cat(parts)
    return result.flatten(0, 1) if isinstance(network, MapNetwork) else result


def evaluate(
    network: ImageNetwork | MapNetwork, loss: Loss, validation: Validation, *, device: torch.device
) -> dict[str, float]:
    """Loss on the validation frames and, where emitters are known, the scores at the best of twenty thresholds.

    Networks that tell z are scored in 3D.
    """
    images = predict(network, validation.frames, device)
    found = {"validation_loss": loss(images, validation.target).item()}
    if validation.emitters is None:
        return found
    height, width = validation.frames.shape[-2:]
    field = (width * validation.pixel_size_nm[0], height * validation.pixel_size_nm[1])
    output = network.output
    axial = isinstance(output, EmitterMaps) and output.axial
    protocol = protocol_for(3 if axial else 2)
    lowest, highest = output.thresholds if isinstance(output, EmitterMaps) else (LOWEST_THRESHOLD, 1.0)

    def decode(level: float) -> Localizations:
        return output.decode(images, threshold=level, pixel_size_nm=validation.pixel_size_nm)

    threshold, _ = choose_threshold(
        decode, truth=validation.emitters, field_nm=field, low=lowest, high=highest, protocol=protocol
    )
    result = score(truth=validation.emitters, found=decode(threshold), field_nm=field, protocol=protocol)
    found |= {"threshold": threshold, "efficiency": result.efficiency, "jaccard": result.jaccard}
    if result.tp:
        found["rmse_lateral_nm"] = result.rmse_lateral_nm
        found |= {"rmse_axial_nm": result.rmse_axial_nm} if axial else {}
    return found


def _first_frame(
    network: ImageNetwork | MapNetwork, validation: Validation, threshold: float | None, device: torch.device
) -> dict[str, Any]:
    """Input, target and prediction of the first validation frame, as pictures."""
    maps = predict(network, validation.frames[:1], device)[:1]
    if not isinstance(network, MapNetwork):
        assert isinstance(validation.target, Tensor)
        return {"frame": validation.frames[0, 0], "target": validation.target[0, 0], "prediction": maps[0, 0]}
    assert validation.emitters is not None
    height, width = validation.frames.shape[-2:]
    pixel = validation.pixel_size_nm
    found = network.output.decode(maps, threshold=threshold or 0.5, pixel_size_nm=pixel)
    first = validation.emitters.pick(validation.emitters.frame == 0)

    return {
        "frame": validation.frames[0, network.frames_before],
        "target": drawn(as_localizations(first), height=height, width=width, pixel_size_nm=pixel),
        "prediction": drawn(found, height=height, width=width, pixel_size_nm=pixel),
    }
