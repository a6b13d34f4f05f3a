"""Whether a movie out of a model's range is told from one within it."""

import json

import numpy as np
import pytest

import zoo
from harness.cli import main
from harness.io.movies import open_movie, write_movie
from harness.ranges import outside_range
from simulators import Camera, load_recipe, simulate

CAMERA = Camera(pixel_size_nm=100, baseline=0, e_per_adu=1)
CARD = zoo.read_card("decode.epfl-2d")


def notes_of(folder, *, camera=CAMERA, card=CARD, photons=3000, width=None, level=None, frames=20):
    """What is said of a sparse movie with an ideal camera, some of its settings moved."""
    recipe = load_recipe("tubes-2d-ld").with_(
        frames=frames, size=48, camera={"pixel_size_nm": 100}, photons=photons, structure={"kind": "uniform"}
    )
    if level is not None:
        recipe = recipe.with_(background=level)
    if width is not None:
        recipe = recipe.with_(psf={"kind": "gaussian", "sigma_nm": width})
    movie = simulate(recipe, np.random.default_rng(3))
    write_movie(folder / "movie.tif", movie.frames, pixel_size_nm=(100, 100))
    with open_movie(folder / "movie.tif") as reader:
        return outside_range(card, reader, camera, name="DECODE")


def test_a_movie_like_those_of_the_training_is_within(tmp_path):
    assert notes_of(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"level": 500}, "an empty pixel has about 50"),
        ({"width": 190}, "nm wide"),
        ({"photons": 60000}, "photons; DECODE learned on 300 to 10000"),
        ({"camera": Camera(pixel_size_nm=160, baseline=0, e_per_adu=1)}, "a pixel is 160 nm; DECODE learned on 100"),
        ({"camera": Camera(pixel_size_nm=100, baseline=900, e_per_adu=1)}, "baseline is too high"),
    ],
)
def test_what_is_outside_is_named(tmp_path, change, words):
    assert any(words in note for note in notes_of(tmp_path, **change))


def test_without_a_known_range_nothing_is_said(tmp_path):
    assert notes_of(tmp_path, card={}, level=500) == []


def test_localize_warns_and_keeps_the_warning(tmp_path, capsys):
    notes_of(tmp_path, level=900, frames=4)
    words = ["localize", "srcnn", str(tmp_path / "movie.tif"), "-o", str(tmp_path / "out")]
    assert main([*words, "--camera.baseline", "0"]) == 0
    assert "smlm-zoo: warning: an empty pixel has about 9" in capsys.readouterr().err
    assert any("empty pixel" in note for note in json.loads((tmp_path / "out" / "localize.json").read_text())["notes"])
