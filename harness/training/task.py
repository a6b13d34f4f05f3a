"""The training step as a Lightning module, and what happens at each validation."""

import math
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from harness.preview import save_preview
from harness.scoring import CHALLENGE_2D, choose_threshold, score
from losses import Loss
from zoo import ImageNetwork

from .config import TrainConfig
from .data import Pair, Validation

LOWEST_THRESHOLD = 0.01  # of a lone emitter's value: below it, a map is noise


class ImageTask(lightning.LightningModule):
    """Frames in, image out, one loss; the network inside stays an ordinary module.

    The learning rate warms up, stays, and falls over the last `decay_share` of this sitting, whichever end comes first:
    the last step, or the minutes given. So a training done in pieces leaves usable weights after each.
    """

    def __init__(self, network: ImageNetwork, loss: Loss, config: TrainConfig, *, minutes: float | None) -> None:
        super().__init__()
        self.network, self.loss, self.config, self.minutes = network, loss, config, minutes
        self.frames_seen = 0
        self.seconds_before = 0.0
        self.started: float | None = None
        self.first_step = 0

    def seconds(self) -> float:
        """Training time over all sittings."""
        return self.seconds_before + (time.monotonic() - self.started if self.started is not None else 0.0)

    def on_fit_start(self) -> None:
        self.started, self.first_step = time.monotonic(), self.global_step

    def training_step(self, batch: Pair, index: int) -> Tensor:
        frames, target = batch
        self.frames_seen += len(frames)
        loss = self.loss(self.network(frames.contiguous(memory_format=torch.channels_last)).float(), target)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {self.global_step}; lower the learning rate (now "
                f"{self.config.learning_rate:g}) and go on with --resume from the last checkpoint"
            )
        self.log("loss", loss)
        self.log("frames", float(self.frames_seen))
        return loss

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
            self.network.parameters(),
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


class Validate(Callback):
    """Score the fixed validation frames, keep the best weights, write a preview picture.

    The best weights are those of the highest efficiency (paired images without emitters: of the lowest loss), with the
    threshold at which it was reached.
    """

    def __init__(self, validation: Validation, folder: Path, every: int) -> None:
        self.validation, self.folder, self.every = validation, folder, every
        self.best = -math.inf
        self.threshold: float | None = None
        self.weights: dict[str, Tensor] = {}
        self.scores: dict[str, float] = {}
        self.last_step = -1

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "threshold": self.threshold, "weights": self.weights, "scores": self.scores}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.threshold = state_dict["best"], state_dict["threshold"]
        self.weights, self.scores = state_dict["weights"], state_dict["scores"]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % self.every == 0:
            self.run(pl_module, trainer)

    def run(self, task: ImageTask, trainer: Any = None) -> None:
        """Validate now, unless this step was validated already."""
        if task.global_step == self.last_step:
            return
        self.last_step = task.global_step
        found = evaluate(task.network, task.loss, self.validation, device=task.device)
        figure = found.get("efficiency", -found["validation_loss"])
        if figure > self.best:
            self.best, self.threshold = figure, found.get("threshold")
            self.weights = {k: v.detach().cpu().clone() for k, v in task.network.state_dict().items()}
            self.scores = {**found, "step": float(task.global_step)}
        save_preview(
            self.folder / "preview.png",
            self.validation.frames[0, 0],
            target=self.validation.target[0, 0],
            prediction=predict(task.network, self.validation.frames[:1], task.device)[0, 0],
        )
        if trainer is not None:
            for logger in trainer.loggers:
                logger.log_metrics({**found, "seconds": task.seconds(), "frames": task.frames_seen}, task.global_step)


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


def predict(network: ImageNetwork, frames: Tensor, device: torch.device) -> Tensor:
    """Images of frames (N, 1, H, W) in eval mode, a few at a time; buffers and mode stay as they were."""
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
    return torch.cat(parts)


def evaluate(network: ImageNetwork, loss: Loss, validation: Validation, *, device: torch.device) -> dict[str, float]:
    """Loss on the validation frames and, where emitters are known, the scores at the best of twenty thresholds."""
    images = predict(network, validation.frames, device)
    found = {"validation_loss": loss(images, validation.target).item()}
    if validation.emitters is None:
        return found
    height, width = validation.frames.shape[-2:]
    field = (width * validation.pixel_size_nm[0], height * validation.pixel_size_nm[1])
    threshold, _ = choose_threshold(
        lambda level: network.output.decode(images, threshold=level, pixel_size_nm=validation.pixel_size_nm),
        truth=validation.emitters,
        field_nm=field,
        low=LOWEST_THRESHOLD,
        high=1.0,
    )
    result = score(
        truth=validation.emitters,
        found=network.output.decode(images, threshold=threshold, pixel_size_nm=validation.pixel_size_nm),
        field_nm=field,
        protocol=CHALLENGE_2D,
    )
    found |= {"threshold": threshold, "efficiency": result.efficiency, "jaccard": result.jaccard}
    return found | ({"rmse_lateral_nm": result.rmse_lateral_nm} if result.tp else {})
