"""Our attention U-Net against numbers that it gave when it equalled the original."""

import json

import numpy as np
import pytest
import torch

from tests.goldens.make_attention_goldens import (
    FORMS,
    LOSSES,
    PATH,
    extraction_result,
    loss_result,
    model_result,
    movie,
    network,
)

GOLDENS = json.loads(PATH.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FORMS)
def test_the_network_still_gives_its_numbers(name):
    found, expected = model_result(name), GOLDENS["models"][name]
    assert found["shape"] == expected["shape"]
    for key in ("mean", "std", "values"):
        assert np.abs(np.subtract(found[key], expected[key])).max() <= 3e-4, key


@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_still_give_their_numbers(name):
    assert loss_result(name) == pytest.approx(GOLDENS["losses"][name], rel=1e-4)


def test_the_extraction_still_gives_its_list():
    assert np.allclose(extraction_result(), GOLDENS["extraction"], atol=1e-9)
    assert len(GOLDENS["extraction"]) > 10


def test_the_usual_mistake_would_be_seen():
    model = network("attention_unet_v2")
    model.core.time.norm.eps = 1e-3
    with torch.no_grad():
        maps = model(movie(6, *FORMS["attention_unet_v2"]))[0].double().flatten()
    values = maps[torch.linspace(0, len(maps) - 1, 16).long()].numpy()
    assert np.abs(values - GOLDENS["models"]["attention_unet_v2"]["values"]).max() > 3e-4
