"""Numbers of our attention U-Net, made after it was shown to equal the original: they guard a clone without the
reference. Make them anew, from the project's root, only after `smlm-zoo parity` has passed and a change is meant:

    python -m tests.goldens.make_attention_goldens
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import losses
from harness.parity.attention_checks import attention_network, recipe_tensors
from zoo import EmitterMaps, EmitterTargets
from zoo._extraction import extract_plus
from zoo._originals import LAYOUTS, OriginalFile
from zoo.attention_unet import CHANNELS, AttentionUNet

PATH = Path(__file__).parent / "attention_goldens.json"
FORMS = {"attention_unet_v1": (12, 16), "attention_unet_v2": (11, 14)}  # layout -> height, width
LOSSES = ("gmm", "gmm_published")


def network(layout_name: str) -> AttentionUNet:
    """Width 8, weights by the recipe with salt 5."""
    layout = next(layout for layout in LAYOUTS if layout.name == layout_name)
    tensors = recipe_tensors(layout, width=8, salt=5)
    return attention_network(OriginalFile(path=PATH, format="recipe", tensors=tensors))[0]


def movie(frames: int, height: int, width: int) -> Tensor:
    """(1, T, H, W) photons: a blinking and a moving spot on a background."""
    t, y, x = np.mgrid[:frames, :height, :width].astype(np.float64)
    image = 40 + 5 * np.sin(0.7 * x + 1.3 * y + 0.4 * t)
    image += np.where(t % 2 == 0, 400, 0) * np.exp(-((x - 4.2) ** 2 + (y - 5.1) ** 2) / (2 * 1.3**2))
    image += 250 * np.exp(-((x - 8 - t / 2) ** 2 + (y - 7.6) ** 2) / (2 * 1.3**2))
    return torch.from_numpy(image.astype(np.float32))[None]


def model_result(layout_name: str) -> dict[str, Any]:
    """Mean and spread of each channel, and sixteen values."""
    with torch.no_grad():
        maps = network(layout_name)(movie(6, *FORMS[layout_name]))[0].double()
    flat = maps.flatten()
    return {
        "shape": list(maps.shape),
        "mean": maps.mean((0, 2, 3)).tolist(),
        "std": maps.std((0, 2, 3)).tolist(),
        "values": flat[torch.linspace(0, len(flat) - 1, 16).long()].tolist(),
    }


def loss_result(name: str) -> dict[str, float]:
    """Value and length of the gradient, on the maps of V2 and five emitters."""
    with torch.no_grad():
        maps = network("attention_unet_v2")(movie(6, 11, 14))
    maps.requires_grad_()
    number = torch.arange(5.0)
    targets = EmitterTargets(
        output=EmitterMaps(channels=CHANNELS),
        frame=torch.tensor([0, 0, 2, 4, 5]),
        photons=0.1 + 0.1 * number,
        x=3.3 + 1.7 * number,
        y=9.1 - 1.4 * number,
        z=0 * number,
        background=torch.full((6, 1, 1), 0.2),
        count=6,
    )
    value = losses.create_loss(name)(maps, targets)
    (gradient,) = torch.autograd.grad(value, maps)
    return {"value": value.item(), "gradient_norm": gradient.norm().item()}


def extraction_result() -> list[list[float]]:
    """Frame, row, column and gathered probability by rule "plus" in a map made by a formula."""
    index = torch.arange(2 * 9 * 10, dtype=torch.float64).reshape(2, 9, 10)
    p = (0.5 + 0.5 * torch.sin(1.7 * index + 0.3 * index.square())) ** 8
    return torch.stack([part.double() for part in extract_plus(p, threshold=0.7)], dim=1).tolist()


def make() -> dict[str, Any]:
    """All goldens."""
    return {
        "models": {name: model_result(name) for name in FORMS},
        "losses": {name: loss_result(name) for name in LOSSES},
        "extraction": extraction_result(),
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(make(), indent=1) + "\n", encoding="utf-8")
    print(PATH)
