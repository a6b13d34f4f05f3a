"""Thresholds are found on validation movies, alike for every model, and frozen."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import zoo
from harness.cli import main
from harness.models import open_model, ready
from harness.scoring import CHALLENGE_2D, score
from harness.shipping import add_threshold
from harness.thresholding import (
    SEED_STEP,
    TRIALS,
    ThresholdChoice,
    find_threshold,
    frozen_threshold,
    refuse_test_movies,
    validation_movies,
    validation_recipes,
)
from simulators import Localizations, load_recipe


@pytest.fixture(scope="module")
def movies():
    return validation_movies(movies=2, frames=3, size=(32, 32))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return open_model("fid_storm", precision="float32")


def test_validation_movies_are_other_movies_with_draws_of_their_own(movies):
    base = load_recipe("epfl-2d")
    assert [recipe.seed for recipe, _ in movies] == [base.seed + SEED_STEP, base.seed + SEED_STEP + 1]
    assert not np.array_equal(movies[0][1].frames, movies[1][1].frames)
    again = validation_movies(movies=2, frames=3, size=(32, 32))
    assert np.array_equal(again[1][1].frames, movies[1][1].frames)
    refuse_test_movies([r for r, _ in movies], [base, load_recipe("tubes-2d-hd")])
    with pytest.raises(ValueError, match="1 validation movies are test movies"):
        refuse_test_movies([r for r, _ in movies], [movies[0][0]])
    with pytest.raises(ValueError, match="0 movies"):
        validation_movies(movies=0)


def test_the_choice_is_the_best_of_its_trials_by_a_score_of_our_own(model, movies):
    choice = find_threshold(model, movies, trials=4)
    assert len(choice.curve) == choice.trials == 4
    levels = [point["threshold"] for point in choice.curve]
    np.testing.assert_allclose(levels, np.geomspace(0.01, 1, 4))
    # the same by hand: each movie localized and scored, frames of the second after those of the first
    from harness.localization import localize

    efficiencies = []
    for level in levels:
        tables = [localize(model, m.frames, camera=m.camera, threshold=level).localizations for _, m in movies]
        found = Localizations.concatenate([tables[0], tables[1].replace(frame=tables[1].frame + 3)])
        truth = movies[0][1].emitters.concatenate(
            [movies[0][1].emitters, movies[1][1].emitters.replace(frame=movies[1][1].emitters.frame + 3)]
        )
        efficiencies.append(score(truth=truth, found=found, field_nm=(3200, 3200)).efficiency)
    assert [point["efficiency"] for point in choice.curve] == pytest.approx(efficiencies, abs=1e-6)
    assert choice.efficiency == pytest.approx(max(efficiencies))
    assert "2 validation movies of epfl-2d, 6 frames, 4 trials" in choice.source


def test_a_threshold_is_frozen_until_something_that_it_depends_on_changes(model, movies, tmp_path):
    path = tmp_path / "t" / "fid.json"
    first = frozen_threshold(model, path, movies, trials=3)
    stored = json.loads(path.read_text())
    assert ThresholdChoice.from_dict(stored) == ThresholdChoice.from_dict(first.to_dict())
    stored["threshold"] = 0.123
    path.write_text(json.dumps(stored))
    assert frozen_threshold(model, path, movies, trials=3).threshold == 0.123  # read, not searched again
    assert frozen_threshold(model, path, movies, trials=2).threshold != 0.123
    path.write_text("{}")
    assert frozen_threshold(model, path, movies[:1], trials=3).movies[0]["hash"] == movies[0][0].hash


def test_a_card_may_bring_the_threshold_of_its_network(model, movies, tmp_path):
    choice = find_threshold(model, movies, trials=3)
    path = tmp_path / "none.json"

    def frozen(data, **changes):
        shipped = replace(model, card={**model.card, "threshold_choice": data}, **changes)
        return frozen_threshold(shipped, path, movies, trials=3)

    told = {**choice.to_dict(), "threshold": 0.123}
    assert frozen(told).threshold == 0.123
    assert not path.exists()
    other_movie = [{**told["movies"][0], "hash": "another"}, *told["movies"][1:]]
    for unfit in ({**told, "movies": other_movie}, {**told, "trials": 4}, {**told, "protocol": {}}):
        assert frozen(unfit) == choice
        path.unlink()
    for bad in (
        "text",
        {**told, "threshold": "0.1"},
        {**told, "threshold": -1},
        {**told, "curve": 3},
        {"threshold": 1},
    ):
        assert frozen(bad) == choice
        path.unlink()
    assert frozen(told, network=None) == choice  # an ONNX file's arithmetic may be another


@pytest.mark.parametrize("name", zoo.list_weights())
def test_shipped_cards_bring_the_threshold_of_todays_validation_movies(name):
    known = ThresholdChoice.from_dict(zoo.read_card(name)["threshold_choice"])
    domain = name.split(".")[1]
    assert [movie["hash"] for movie in known.movies] == [recipe.hash for recipe in validation_recipes(domain)]
    assert known.trials == TRIALS
    assert known.protocol == json.loads(json.dumps(asdict(CHALLENGE_2D)))
    assert known.efficiency == max(point["efficiency"] for point in known.curve)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.list_weights())
def test_shipped_thresholds_are_found_again(name):
    model = open_model(name, precision="float32")
    known = ThresholdChoice.from_dict(model.card["threshold_choice"])
    found = find_threshold(model, validation_movies(name.split(".")[1]))
    assert found.threshold == known.threshold
    assert found.efficiency == pytest.approx(known.efficiency, abs=0.5)


def test_other_fields_are_refused(model, movies):
    other = validation_movies(movies=1, frames=2, size=(24, 32))
    with pytest.raises(ValueError, match="differ in field"):
        find_threshold(model, [*movies, *other])
    with pytest.raises(ValueError, match="no validation movies"):
        find_threshold(model, [])


def test_localization_models_are_searched_over_probabilities(movies):
    torch.manual_seed(0)
    network = zoo.create_model("compact").eval()
    card = {"model": "compact", "options": {}, "threshold": 0.5}
    choice = find_threshold(ready(network, card, name="compact", device="cpu"), movies, trials=3)
    assert (choice.low, choice.high) == (0.3, 0.95)  # below 0.3 there are no candidates
    json.dumps(choice.to_dict(), allow_nan=False)


def test_threshold_command(capsys, tmp_path):
    words = ["threshold", "fid_storm", "--movies", 1, "--frames", 2, "--trials", 3, "-o", tmp_path / "t.json"]
    assert main([str(w) for w in words]) == 0
    assert "3 trials" in " ".join(capsys.readouterr().out.split())
    assert json.loads((tmp_path / "t.json").read_text())["fid_storm"]["trials"] == 3


def test_shipping_finds_the_threshold_of_stored_weights(tmp_path):
    torch.manual_seed(1)
    zoo.save_weights(zoo.create_model("compact", dimensions=2).eval(), tmp_path, {}, stem="compact.epfl-2d")
    card = tmp_path / "compact.epfl-2d.json"
    before = json.loads(card.read_text())
    assert "8 validation movies of epfl-2d, 64 frames, 20 trials" in add_threshold("compact.epfl-2d", card)
    after = json.loads(card.read_text())
    assert {key: after[key] for key in before} == before
    model = open_model(card, device="cpu")
    choice = frozen_threshold(model, tmp_path / "none.json", validation_movies())
    assert choice == ThresholdChoice.from_dict(after["threshold_choice"])
    assert not (tmp_path / "none.json").exists()  # the card's
