"""Begin from weights that were made for something else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ._weights import open_weights, some


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """What became of every tensor when a model began from other weights.

    Args:
        copied: names taken over.
        reshaped: names whose shape differs, with (theirs, ours); the model keeps its own.
        new: names that the weights lack; the model keeps its own.
        unused: names that the model lacks.
    """

    copied: tuple[str, ...]
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.copied)} tensors copied"]
        if self.reshaped:
            shapes = [f"{key} {theirs} instead of {ours}" for key, (theirs, ours) in self.reshaped.items()]
            parts.append(f"{len(shapes)} of another shape left as they were: {some(shapes)}")
        if self.new:
            parts.append(f"{len(self.new)} not in the weights left as they were: {some(list(self.new))}")
        if self.unused:
            parts.append(f"{len(self.unused)} of the weights not used: {some(list(self.unused))}")
        return "; ".join(parts)


def adopt_weights(model: nn.Module, source: str | Path) -> tuple[Adopted, dict[str, Any]]:
    """Begin from weights of this or another model: copy every tensor whose name and shape fit, leave the others.

    Args:
        model: changed in place.
        source: as in `load_model`.

    Returns:
        What became of each tensor, and the card of the weights.

    Raises:
        FileNotFoundError, ValueError: as `load_model`; also when not one parameter fits.
    """
    theirs, card, where = open_weights(source)
    own = model.state_dict()
    shared = [key for key in own if key in theirs]
    copied = tuple(key for key in shared if theirs[key].shape == own[key].shape)
    if not set(copied) & {key for key, _ in model.named_parameters()}:
        name = getattr(model, "model_name", type(model).__name__)
        raise ValueError(
            f"{where} holds weights of '{card['model']}'; no tensor of them fits "
            f"'{name}' by name and shape, so there is nothing to begin from"
        )
    model.load_state_dict({**own, **{key: theirs[key] for key in copied}})
    reshaped = {
        key: (tuple(theirs[key].shape), tuple(own[key].shape)) for key in shared if theirs[key].shape != own[key].shape
    }
    new, unused = (tuple(key for key in a if key not in b) for a, b in ((own, theirs), (theirs, own)))
    return Adopted(copied=copied, reshaped=reshaped, new=new, unused=unused), card
