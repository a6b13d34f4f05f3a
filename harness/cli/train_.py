"""smlm-zoo train"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ._shared import OptionalOutput, Plugins, load_plugins, parse_options


@dataclass(frozen=True)
class Train:
    """Train a model, on simulated frames without end, on a movie with its table, or on paired images.

    Without further options the model's own training recipe is used. Ctrl-C stops after the current step and saves;
    --resume goes on. Examples:

        smlm-zoo train deep_storm -o runs/deep_storm --minutes 10
        smlm-zoo train deep_storm -o runs/deep_storm --tier full --device cuda
        smlm-zoo train decode --init decode.epfl-2d --recipe mine.yaml -o runs/mine --minutes 10
        smlm-zoo train fid_storm --movie frames.tif --table gt.csv --pixel-size-nm 100 -o runs/mine
    """

    model: Annotated[str, tyro.conf.Positional]
    """Name in the zoo (see `smlm-zoo models`)."""
    output: OptionalOutput = None
    """Folder of the run; default: smlm-zoo-train-MODEL."""
    training_recipe: str | None = None
    """A training recipe's name or YAML file, instead of the model's own."""
    tier: Literal["cpu", "full"] = "cpu"
    """The recipe's settings for two cores, as the shipped weights were trained, or for one GPU."""
    init: str | None = None
    """Weights to begin from: a shipped model (decode.epfl-2d) or a folder; all that fits is copied, the rest named."""
    recipe: str | None = None
    """Simulation to train on: a recipe's name or YAML file."""
    movie: str | None = None
    """A movie to train on instead, with --table."""
    table: str | None = None
    """The movie's emitters: any readable table."""
    pixel_size_nm: float | None = None
    """The movie's pixel, nm, where its file does not say."""
    baseline: float | None = None
    """The movie's counts without light."""
    photons_per_count: float | None = None
    """Photons that a count of the movie stands for."""
    inputs: str | None = None
    """Folder of frames, paired by name with --targets."""
    targets: str | None = None
    """Folder of target images."""
    option: tuple[str, ...] = ()
    """Options of the model, key=value, e.g. upsampling=4 variant=dl4smlm."""
    loss: str | None = None
    """Loss, instead of the model's own."""
    loss_option: tuple[str, ...] = ()
    """Options of the loss, key=value."""
    steps: int | None = None
    """Training steps in all."""
    minutes: float | None = None
    """End this sitting cleanly after so many minutes, with the learning rate brought down by then."""
    batch_size: int | None = None
    """Frames per step."""
    size: int | None = None
    """Side of a training frame, camera pixels."""
    learning_rate: float | None = None
    """Highest learning rate."""
    precision: Literal["auto", "float32", "bfloat16"] | None = None
    """Arithmetic; auto takes the one that is faster here."""
    validate_every: int | None = None
    """Steps between validations."""
    seed: int | None = None
    """Seed of all random numbers."""
    device: str = "auto"
    """auto, cpu, cuda."""
    resume: bool = False
    """Go on with the run in the output folder."""
    plugin: Plugins = ()
    """Python files that register further models."""

    def run(self) -> int:
        from harness.training import TrainConfig, resolve_config, train

        load_plugins(self.plugin)
        folder = self.output or Path(f"smlm-zoo-train-{self.model}")
        names = [f.name for f in fields(self) if f.name in TrainConfig.model_fields and f.name != "model"]
        changes = {name: getattr(self, name) for name in names}
        options, loss_options = parse_options(self.option), parse_options(self.loss_option)
        config = resolve_config(
            self.model,
            training_recipe=self.training_recipe,
            tier=self.tier,
            run=folder if self.resume else None,
            **changes,
            **({"options": options} if options else {}),
            **({"loss_options": loss_options} if loss_options else {}),
        )
        try:
            result = train(config, folder, resume=self.resume, device=self.device)
        except KeyboardInterrupt:
            print(f"stopped and saved; go on with: smlm-zoo train {self.model} -o {folder} --resume")
            return 130
        figures = ", ".join(f"{key} {value:.4g}" for key, value in result.scores.items())
        minutes = result.seconds / 60
        print(f"{folder}: {result.steps} steps, {result.frames} frames, {minutes:.1f} minutes; {figures}")
        if not result.finished:
            print(f"time is up; go on with: smlm-zoo train {self.model} -o {folder} --resume")
        return 0
