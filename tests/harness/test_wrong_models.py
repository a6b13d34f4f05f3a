"""A good model and forms of it that are wrong on purpose: each is ranked and flagged as it should be."""

from datetime import UTC, datetime

import numpy as np
import pytest

from harness.recording import dataset_record, detail_record, score_movie, scores_record
from harness.scoring import report
from harness.scoring.flags import random_points
from leaderboard import Model, Result, Runtime, Settings
from leaderboard.table import make_board, summary
from simulators import Emitters, Localizations, Movie, load_recipe

FRAMES, SIDE = 100, 6400.0


@pytest.fixture(scope="module")
def movie():
    """The truth of a movie of even molecules; the frames themselves are not looked at."""
    rng = np.random.default_rng(0)
    recipe = load_recipe("tubes-2d-hd").with_(frames=FRAMES, size=(64, 64), structure={"kind": "uniform"})
    count = 2000
    truth = Emitters(
        frame=np.sort(rng.integers(0, FRAMES, count)),
        x_nm=rng.uniform(0, SIDE, count),
        y_nm=rng.uniform(0, SIDE, count),
        photons=rng.uniform(500, 5000, count),
        background=90.0,
        id=np.arange(count),
    )
    frames = np.zeros((FRAMES, 64, 64), np.uint16)
    return recipe, Movie(frames=frames, emitters=truth, background=np.full(FRAMES, 90.0), camera=recipe.camera)


def good(truth, rng) -> Localizations:
    """95 % of the molecules, errors as predicted, a few false alarms."""
    seen = rng.random(len(truth)) < 0.95
    sigma = rng.uniform(8, 20, len(truth))
    real = Localizations(
        frame=truth.frame,
        x_nm=truth.x_nm + rng.normal(0, sigma),
        y_nm=truth.y_nm + rng.normal(0, sigma),
        photons=truth.photons * rng.normal(1, 0.05, len(truth)),
        x_sigma_nm=sigma,
        y_sigma_nm=sigma,
    ).pick(seen)
    stray = Localizations(
        frame=rng.integers(0, FRAMES, 60),
        x_nm=rng.uniform(0, SIDE, 60),
        y_nm=rng.uniform(0, SIDE, 60),
        photons=800.0,
        x_sigma_nm=15.0,
        y_sigma_nm=15.0,
    )
    return Localizations.concatenate([real, stray])


WRONG = {
    "shifted": ("x is off by", "y is off by"),
    "transposed": ("x and y look exchanged",),
    "upside_down": ("y looks mirrored",),
    "mirrored": ("x looks mirrored",),
    "late": ("frames look off by one",),
    "blank": ("nothing was found",),
    "random": ("no better than chance",),
    "almost_blind": ("hardly anything is right",),
    "in_pixels": ("nothing that was found lies near a molecule",),
    "over_confident": ("over-confident: errors in x", "over-confident: errors in y"),
    "timid": ("under-confident: errors in x", "under-confident: errors in y"),
}


def broken(name: str, found: Localizations, truth) -> Localizations:
    return {
        "shifted": lambda: found.replace(x_nm=found.x_nm + 50, y_nm=found.y_nm + 50),
        "transposed": lambda: found.replace(x_nm=found.y_nm, y_nm=found.x_nm),
        "upside_down": lambda: found.replace(y_nm=SIDE - found.y_nm),
        "mirrored": lambda: found.replace(x_nm=SIDE - found.x_nm),
        "late": lambda: found.replace(frame=found.frame + 1),
        "blank": Localizations.empty,
        "random": lambda: random_points(truth, field_nm=(SIDE, SIDE), rng=np.random.default_rng(9)),
        "almost_blind": lambda: found.pick(np.arange(len(found)) % 50 == 0),
        "in_pixels": lambda: found.replace(x_nm=found.x_nm / 100, y_nm=found.y_nm / 100),
        "over_confident": lambda: found.replace(x_sigma_nm=found.x_sigma_nm / 3, y_sigma_nm=found.y_sigma_nm / 3),
        "timid": lambda: found.replace(x_sigma_nm=found.x_sigma_nm * 3, y_sigma_nm=found.y_sigma_nm * 3),
    }[name]()


@pytest.fixture(scope="module")
def results(movie):
    recipe, one = movie
    found = good(one.emitters, np.random.default_rng(1))
    tables = {"good": found, **{name: broken(name, found, one.emitters) for name in WRONG}}
    records = {}
    for name, table in tables.items():
        figures = score_movie(one, table, recipe=recipe, curves=False, images=False)
        records[name] = Result(
            model=Model(name=name),
            dataset=dataset_record(recipe),
            runtime=Runtime(name="torch"),
            scores=scores_record(figures),
            detail=detail_record(figures),
            settings=Settings(tolerance_nm=250, border_nm=450, quantile=0.25),
            date=datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
        )
    return records


def test_a_good_model_is_not_flagged(results):
    assert results["good"].detail.flags == ""
    assert results["good"].scores.efficiency > 70
    assert results["good"].scores.sigma_z_std == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", WRONG)
def test_each_mistake_is_named_and_nothing_else(results, name):
    said = results[name].detail.flags.split("; ")
    assert len(said) == len(WRONG[name])
    for sentence, words in zip(said, WRONG[name], strict=True):
        assert words in sentence


def test_the_good_model_leads_and_wrong_ones_are_where_they_belong(results):
    board = make_board(results.values())
    (condition,) = board.conditions
    rank = {name: board.rank(name, condition) for name in results}
    # wrong sigmas leave the positions alone: the same score, a shared first rank, and a flag
    assert rank["good"] == rank["over_confident"] == rank["timid"] == 2
    assert rank["shifted"] == 4
    others = set(WRONG) - {"over_confident", "timid", "shifted"}
    assert all(rank[name] > rank["shifted"] for name in others)
    assert results["shifted"].scores.rmse_lateral_nm == pytest.approx(
        np.hypot(results["good"].scores.rmse_lateral_nm, 50 * 2**0.5), rel=0.02
    )
    for name in ("blank", "in_pixels"):
        assert results[name].scores.efficiency == -100
    assert summary(results.values()).model.tolist()[3] == "shifted"


def test_axes_are_found_exchanged_in_a_field_that_is_no_square():
    rng = np.random.default_rng(0)
    truth = Emitters(
        frame=np.sort(rng.integers(0, 40, 600)),
        x_nm=rng.uniform(0, 6400, 600),
        y_nm=rng.uniform(0, 3200, 600),
        photons=rng.uniform(500, 5000, 600),
    )
    found = Localizations(frame=truth.frame, x_nm=truth.y_nm, y_nm=truth.x_nm)
    one = report(truth=truth, found=found, field_nm=(6400, 3200), n_frames=40, resamples=0, curves=False)
    assert any("x and y look exchanged" in flag for flag in one.flags)
