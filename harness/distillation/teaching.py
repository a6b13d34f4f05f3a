"""A teacher in a training: what the trainer asks for, made from the teacher's folder and its card."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from distill import Distillation, Settings, Teacher
from distill.teacher import neighbours
from harness.devices import place
from harness.ranges import limits, same_pixels
from harness.ready import Network
from harness.training import TrainConfig
from harness.training.data import MovieFrames, PairedFrames, SimulatedFrames, SimulatedMovies
from harness.training.teaching import Batches
from losses import Loss
from simulators import Recipe
from zoo import EmitterMaps, ImageNetwork, MapNetwork

from .sources import LABELLED_AT, Mixed, MovieBlocks, SimulatedBlocks

SURVEY_BATCHES = 8
BLOCK = 4  # consecutive frames of an image student whose teacher looks at neighbours


def check_card(card: dict[str, Any], recipe: Recipe | None, *, name: str) -> list[str]:
    """What stands between a teacher and the frames it is to teach on.

    Args:
        card: of the teacher.
        recipe: of the frames.

    Returns:
        Warnings.

    Raises:
        ValueError: the teacher was trained on another pixel size: its grid cannot be brought to the student's.
    """
    known = card.get("valid_range") or {}
    if recipe is None or not known:
        return [f"the card of {name} does not say what it was trained on"] if recipe is not None else []
    own, pixel = known.get("pixel_size_nm"), recipe.camera.pixel_size_nm
    if own and not same_pixels(own, pixel):
        raise ValueError(
            f"{name} was trained for pixels of {own[0]:g} x {own[1]:g} nm, not of {pixel[0]:g} x {pixel[1]:g} nm: such "
            "grids cannot be aligned. Take a teacher for these pixels, or another recipe"
        )
    warnings = []
    for key in ("photons", "background", "density_um2"):
        seen, asked = limits(known.get(key)), getattr(recipe, key)
        most = getattr(asked, "high", asked)
        if seen and most > 1.5 * seen[1]:
            warnings.append(f"{key} goes up to {most:g}, but {name} has seen {seen[1]:g} at most")
    return warnings


class Lessons:
    """`harness.training.teaching.Teaching` by a teacher network.

    Args:
        network: the teacher; copied, never changed.
        card: of the teacher.
        settings: of the objective.
        name: of the teacher, for records.
        movie: (reader, camera) of a movie without a truth to mix in, or None.
        share: share of the batches that come from it.
    """

    def __init__(
        self,
        network: Network,
        card: dict[str, Any],
        settings: Settings,
        *,
        name: str,
        movie: tuple[Any, Any] | None = None,
        share: float = 0.0,
    ) -> None:
        if not 0 <= share <= 1 or (share and movie is None):
            raise ValueError(f"unlabelled_share is {share}; give a share of 0..1, with a movie")
        self.network, self.card, self.settings, self.name = _absolute(network, card), card, settings, name
        self.movie, self.share = movie, share if movie is not None else 0.0
        self.built: Distillation | None = None

    def source(self, source: Batches, network: Network, config: TrainConfig, device: torch.device) -> Batches:
        """The training's batches, with the neighbours that either network needs and the unlabelled ones among them."""
        if isinstance(source, PairedFrames | MovieFrames):
            raise ValueError(
                "distillation learns from a recipe's frames and from movies without a table; give one of them"
            )
        assert isinstance(source, SimulatedFrames | SimulatedMovies)
        for warning in check_card(self.card, source.recipe, name=self.name):
            logging.getLogger(__name__).warning(warning)
        own, theirs = neighbours(network), neighbours(self.network)
        before, after = (max(pair) for pair in zip(own, theirs, strict=True))
        multiple = math.lcm(network.size_multiple, self.network.size_multiple)
        if config.size % multiple:
            raise ValueError(f"size is {config.size}; teacher and student need multiples of {multiple} pixels")
        labelled: Batches = source
        context = getattr(self.network, "context", None)
        block = min(config.block, config.batch_size) if context is None else context
        if isinstance(source, SimulatedMovies):
            labelled = replace(source, before=before, after=after)
            block = source.block
        elif before or after or isinstance(self.network, MapNetwork):
            block = block if context is not None else min(BLOCK, config.batch_size)
            labelled = SimulatedBlocks(
                recipe=source.recipe,
                output=source.output,
                batch_size=max(1, config.batch_size // block),
                block=block,
                before=before,
                after=after,
                size=config.size,
                min_photons=config.min_photons,
                seed=config.seed,
                device=device,
            )
        else:
            block = 1
        if self.movie is None or not self.share:
            return labelled
        reader, camera = self.movie
        crops = MovieBlocks(
            movie=reader,
            camera=camera,
            batch_size=max(1, config.batch_size // block) if isinstance(network, ImageNetwork) else config.batch_size,
            length=block + before + after,
            size=config.size,
            multiple=multiple,
            seed=config.seed,
            device=device,
        )
        return Mixed(labelled=labelled, unlabelled=crops, share=self.share)

    def objective(
        self, network: Network, loss: Loss, source: Batches, config: TrainConfig, device: torch.device
    ) -> nn.Module:
        """The objective, after one pass of the teacher over labelled frames."""
        teacher = Teacher(place(self.network, device))
        built = Distillation(network, teacher, loss, settings=self.settings, size=config.size).to(device)
        record = built.survey(source.batch(LABELLED_AT + number) for number in range(SURVEY_BATCHES))
        logging.getLogger(__name__).info("teacher %s: %s", self.name, record)
        self.built = built
        return built

    def finish(self) -> dict[str, Any]:
        """Proof that the teacher is unchanged, and what the card is to say.

        Raises:
            RuntimeError: the teacher changed.
        """
        assert self.built is not None
        self.built.teacher.check_unchanged()
        return {
            "teacher": self.name,
            "settings": asdict(self.settings),
            "survey": asdict(self.built.record),
            "grid": asdict(self.built.grid),
            "frozen": self.built.frozen,
            "unlabelled_share": self.share,
            "teacher_unchanged": True,
        }


def _absolute(network: Network, card: dict[str, Any]) -> Network:
    """The teacher without channels that have no absolute unit: brightness relative to the block's brightest emitter."""
    config = (card.get("training") or {}).get("config") or {}
    loss = config.get("loss") or (card.get("training") or {}).get("loss") or ""
    if isinstance(network, MapNetwork) and str(loss).startswith("gmm_published"):
        output: EmitterMaps = network.output
        names = tuple("" if name.startswith("photons") else name for name in output.channels)
        network.output = output.with_(channels=names)
    return network


__all__ = ["Lessons", "check_card"]
