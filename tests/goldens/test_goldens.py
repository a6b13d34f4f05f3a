"""Our networks and losses against numbers that they gave when they equalled the originals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import losses
import zoo
from tests.goldens.make_goldens import LOSSES, MODELS, fill_by_formula, frames, loss_result, model_result

GOLDENS = json.loads((Path(__file__).parent / "goldens.json").read_text(encoding="utf-8"))


def label(entry: dict) -> str:
    return f"{entry.get('model', entry.get('loss'))}-{entry.get('form', '')}".rstrip("-")


@pytest.mark.parametrize("entry", GOLDENS["models"], ids=label)
def test_a_network_still_gives_its_numbers(entry):
    found, expected = model_result(entry["model"], entry["options"]), entry["result"]
    assert found["shape"] == expected["shape"]
    tolerance = (5e-3 if entry["model"] == "dsir" else 1e-4) * abs(expected["largest"])
    for key in ("mean", "std", "largest", "values"):
        assert np.abs(np.subtract(found[key], expected[key])).max() <= tolerance, key


@pytest.mark.parametrize("entry", GOLDENS["losses"], ids=label)
def test_a_loss_still_gives_its_numbers(entry):
    found = loss_result(entry["loss"], entry["options"])
    for key, expected in entry["result"].items():
        scale = abs(entry["result"]["gradient_norm"]) if key == "gradient_sum" else abs(expected)
        assert found[key] == pytest.approx(expected, rel=1e-4, abs=1e-4 * scale), key


def test_every_network_form_and_loss_has_goldens():
    forms = {(name, form) for name in MODELS for form in ("", *zoo.get_spec(name).variants)}
    assert forms == {(entry["model"], entry["form"]) for entry in GOLDENS["models"]}
    assert set(losses._LOSSES) == set(LOSSES) == {entry["loss"] for entry in GOLDENS["losses"]}


def test_goldens_are_sensitive_and_not_empty():
    assert all(abs(entry["result"]["largest"]) > 1e-3 for entry in GOLDENS["models"])
    assert all(entry["result"]["std"] > 1e-4 for entry in GOLDENS["models"])
    entry = next(entry for entry in GOLDENS["models"] if label(entry) == "srcnn-dl4smlm")
    model = zoo.create_model("srcnn", variant="dl4smlm").eval()
    with torch.no_grad():
        fill_by_formula(model)
        model.normalisation.set_statistics(80.0, 60.0)
        model.core.map.norm.eps = 1e-3  # the usual mistake
        values = model(frames()).flatten()
    picked = values[torch.linspace(0, len(values) - 1, 16).long()].numpy()
    assert np.abs(picked - entry["result"]["values"]).max() > 1e-4 * abs(entry["result"]["largest"])
