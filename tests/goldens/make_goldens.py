"""Numbers of our own program, made after it was shown to equal the originals: they guard a clone without the
reference.

Weights, frames and loss inputs follow formulas, so that no large file is needed. Make them anew, from the
project's root, only after `smlm-zoo parity` has passed and a change of results is meant:

    python -m tests.goldens.make_goldens
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import losses
import zoo

FOLDER = Path(__file__).parent
MODELS = ("deep_storm", "drl_storm", "dsir", "fid_storm", "skip_storm", "srcnn", "u_storm")
LOSSES: dict[str, dict[str, Any]] = {
    "l1l2": {"target_scale": 20.0},
    "deepstorm": {"target_scale": 20.0},
    "dl4smlm_l1l2": {"lambda_": 50.0},
    "dl4smlm_mse": {"lambda_": 50.0},
    "dl4smlm_mae": {"lambda_": 50.0},
    "emitter_weighted_mse": {"emitter_weight": 8.0},
    "emitter_weighted_mae": {"emitter_weight": 8.0},
    "dsir": {"fwhm": 3.0},
    "fidstorm": {"target_scale": 1.0},
    "fidstorm_l1l2": {"target_scale": 20.0},
    "sfhbarnett": {"target_scale": 20.0},
}


def wave(count: int, phase: float) -> np.ndarray:
    """Numbers in -1..1 without a visible pattern, the same on every machine."""
    index = np.arange(count, dtype=np.float64)
    return 2 * np.modf(np.abs(np.sin(index * 12.9898 + phase) * 43758.5453))[0] - 1


def fill_by_formula(model: nn.Module) -> None:
    """Kernels of Kaiming size, norms near (1, 0), running statistics near (0, 1)."""
    state = model.state_dict()
    for number, (name, value) in enumerate(state.items()):
        if (
            not value.is_floating_point()
            or not name.startswith("core.")
            or "gaussian" in name
            or name.endswith("kernel")
        ):
            continue
        numbers = torch.from_numpy(wave(value.numel(), float(number))).reshape(value.shape)
        if value.ndim > 1:
            numbers = numbers * (6 / value[0].numel()) ** 0.5
        elif name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
            numbers = 1 + 0.3 * numbers
        elif name.endswith("running_mean"):
            numbers = 0.1 * numbers
        else:
            numbers = 0.2 + 0.1 * numbers
        value.copy_(numbers)


def frames() -> Tensor:
    """(1, 1, 16, 16) photons: three spots on a background."""
    y, x = np.mgrid[:16, :16] + 0.5
    image = 40 + 5 * wave(256, 0.5).reshape(16, 16)
    for column, row, photons in ((4.2, 5.1, 300.0), (10.7, 4.4, 500.0), (8.3, 12.6, 250.0)):
        image = image + photons * np.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * 1.3**2))
    return torch.from_numpy(image.astype(np.float32))[None, None]


def model_result(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Shape, moments and sixteen values of a network's output."""
    model = zoo.create_model(name, **options)
    with torch.no_grad():
        fill_by_formula(model)
        model.normalisation.set_statistics(80.0, 60.0)  # type: ignore[operator, union-attr]
        image = model.eval()(frames())
    flat = image.double().flatten()
    picked = flat[torch.linspace(0, len(flat) - 1, 16).long()]
    largest = flat[flat.abs().argmax()]
    return {
        "shape": list(image.shape),
        "mean": flat.mean().item(),
        "std": flat.std().item(),
        "largest": largest.item(),
        "values": picked.tolist(),
    }


def loss_result(name: str, options: dict[str, Any]) -> dict[str, float]:
    """Value of a loss and length and sum of its gradient."""
    target = torch.zeros(2, 1, 16, 12)
    target[0, 0, 3, 4] = target[0, 0, 9, 9] = target[1, 0, 15, 0] = 1
    noise = torch.from_numpy(wave(target.numel(), 1.5).astype(np.float32)).reshape(target.shape)
    prediction = (target * options.get("target_scale", 1.0) * 0.7 + 0.2 * noise).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = losses.create_loss(name, **options)(prediction, target)
    (gradient,) = torch.autograd.grad(value, prediction)
    return {
        "value": value.item(),
        "gradient_norm": gradient.norm().item(),
        "gradient_sum": gradient.sum().item(),
    }


def make() -> dict[str, Any]:
    """All goldens: `models` and `losses`."""
    models = []
    for name in MODELS:
        forms = {"": {}} | {label: dict(v.options) for label, v in zoo.get_spec(name).variants.items()}
        models += [
            {"model": name, "form": label, "options": options, "result": model_result(name, options)}
            for label, options in forms.items()
        ]
    return {
        "models": models,
        "losses": [
            {"loss": name, "options": options, "result": loss_result(name, options)} for name, options in LOSSES.items()
        ],
    }


if __name__ == "__main__":
    path = FOLDER / "goldens.json"
    path.write_text(json.dumps(make(), indent=1) + "\n", encoding="utf-8")
    print(path)
