"""For developers: put a trained run into the package as shipped weights.

    python -m harness.shipping RUN...
    python -m harness.shipping --thresholds

Kernels are stored in half precision where, on the run's own validation frames, the efficiency stays within 0.2 points;
else in single precision. The threshold is looked for and sigmas are calibrated anew. The card also gets the threshold
that comparisons use, found on the movies of `harness.thresholding`, so that nobody need look for it again; the second
form finds it for all shipped weights, which a change of those movies asks for.
"""

import argparse
import json
from pathlib import Path

import torch

import zoo
from harness.io.json_files import write_json
from harness.models import load_network, open_model
from harness.thresholding import CARD_KEY, find_threshold, validation_movies
from harness.training.config import read_config
from harness.training.data import open_sources
from harness.training.fit import calibrated
from harness.training.task import evaluate
from losses import create_loss

WRITTEN = ("format", "model", "options", "normalisation", "output", "dtype", "files")
TOLERANCE = 0.2  # points of efficiency
WEIGHTS = Path(zoo.__file__).parent / "weights"


def ship(run: Path, *, folder: Path | None = None) -> str:
    """Write a run's weights as `MODEL.TAG` into the package's weights.

    Args:
        run: folder of a training.
        folder: to write into; default: the weights of this checkout.

    Returns:
        A line that says what was written and what half precision would change.
    """
    target = folder or WEIGHTS
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
    add_threshold(tag, target / f"{tag}.json")
    stored = "half" if change <= TOLERANCE else "single"
    return f"{tag}: efficiency {full['efficiency']:.2f}, in half precision {half['efficiency']:.2f}; stored in {stored}"


def add_threshold(tag: str, card: Path) -> str:
    """Find the threshold of stored weights on the validation movies of their domain and write it into their card."""
    model = open_model(card, device="cpu", precision="float32")
    choice = find_threshold(model, validation_movies(tag.split(".")[1]))
    data = {**json.loads(card.read_text(encoding="utf-8")), CARD_KEY: choice.to_dict()}
    write_json(card, data, allow_nan=False)
    return f"{tag}: threshold {choice.threshold:.3f}, efficiency {choice.efficiency:.1f} on {choice.source}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--thresholds", action="store_true", help="find the thresholds of all shipped weights anew")
    given = parser.parse_args()
    for path in given.runs:
        print(ship(path), flush=True)
    for path in sorted(WEIGHTS.glob("*.json")) if given.thresholds else ():
        print(add_threshold(path.stem, path), flush=True)
