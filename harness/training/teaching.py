"""What may stand beside a training's configuration: other batches, an objective instead of the loss alone."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from harness.ready import Network
from losses import Loss

from .config import TrainConfig


class Batches(Protocol):
    """Numbered batches: batch k is the same whenever it is asked for."""

    def batch(self, number: int) -> tuple[Tensor, Any]:
        """Frames, and what is to be found in them; None where that is not known."""
        ...


class Teaching(Protocol):
    """Changes how a network is trained, e.g. by a teacher."""

    def source(self, source: Batches, network: Network, config: TrainConfig, device: torch.device) -> Batches:
        """The batches to train on, from those of the configuration."""
        ...

    def objective(
        self, network: Network, loss: Loss, source: Batches, config: TrainConfig, device: torch.device
    ) -> nn.Module:
        """Called as `objective(network, frames, target)` for the loss of a step. Its parameters are trained too, but
        are no part of the network; its attribute `last` holds numbers to log."""
        ...

    def finish(self) -> dict[str, Any]:
        """Called when the training ends; gives what the card is to say of it."""
        ...
