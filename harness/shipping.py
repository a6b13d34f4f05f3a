"""For developers: put a trained run into the package as shipped weights.

    python -m harness.shipping RUN...

Kernels are stored in half precision where, on the run's own validation frames, the efficiency stays within 0.2 points;
else in single precision. The threshold is looked for and sigmas are calibrated anew.
"""

import argparse
from pathlib import Path

import torch

import zoo
from harness.models import load_network
from harness.training.config import read_config
from harness.training.data import open_sources
from harness.training.fit import calibrated
from harness.training.task import evaluate
from losses import create_loss

WRITTEN = ("format", "model", "options", "normalisation", "output", "dtype", "files")
TOLERANCE = 0.2  # points of efficiency


def ship(run: Path, *, folder: Path | None = None) -> str:
    """Write a run's weights as `MODEL.TAG` into the package's weights.

    Args:
        run: folder of a training.
        folder: to write into; default: the weights of this checkout.

    Returns:
        A line that says what was written and what half precision would change.
    """
    target = folder or Path(zoo.__file__).parent / "weights"
    network, card = load_network(run)
    config = read_config(run / "config.yaml")
    tag = f"{config.model}.{config.recipe or zoo.get_spec(config.model).recipe}"
    kept = {key: value for key, value in card.items() if key not in WRITTEN}
    _, validation = open_sources(config, network, torch.device("cpu"))
    options = dict(config.loss_options)
    if isinstance(network.output, zoo.SRImage):
        options["target_scale"] = network.output.target_scale
    loss = create_loss(config.loss or zoo.get_spec(config.model).loss, **options)
    full = evaluate(network, loss, validation, device=torch.device("cpu"))
    kept["threshold"] = full.get("threshold", card.get("threshold"))
    if isinstance(network, zoo.MapNetwork) and config.source == "recipe":
        network.output = calibrated(network, kept["threshold"], config.simulation(), seed=config.seed, frames=720)
    half_network = zoo.create_model(config.model, **config.options)
    half_network.load_state_dict(
        {k: v.half().to(v.dtype) if v.ndim > 1 else v for k, v in network.state_dict().items()}
    )
    half_network.output = network.output  # type: ignore[assignment]
    half = evaluate(half_network, loss, validation, device=torch.device("cpu"))  # type: ignore[arg-type]
    change = abs(half["efficiency"] - full["efficiency"])
    zoo.save_weights(network, target, kept, stem=tag, float16=change <= TOLERANCE)
    stored = "half" if change <= TOLERANCE else "single"
    return f"{tag}: efficiency {full['efficiency']:.2f}, in half precision {half['efficiency']:.2f}; stored in {stored}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    for path in parser.parse_args().runs:
        print(ship(path), flush=True)
