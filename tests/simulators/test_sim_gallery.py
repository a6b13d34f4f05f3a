"""The pictures of the README come from one command and show every kind that a recipe takes."""

from typing import get_args

import numpy as np
import pytest
from skimage.io import imread

from simulators import gallery
from simulators.recipe import AnyBlinking, Structure


def test_every_picture_is_written_and_shows_something(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "list_recipes", lambda: ["tubes-2d-hd", "epfl-2d"])
    written = list(gallery.make(tmp_path / "new", seed=3))
    assert [path.stem for path in written] == list(gallery.PICTURES)
    for path in written:
        assert imread(path)[..., :3].astype(float).std() > 20
    first = written[0].read_bytes()
    next(gallery.make(tmp_path / "again", seed=3))
    assert (tmp_path / "again" / written[0].name).read_bytes() == first


def kinds(union):
    if hasattr(union, "model_fields"):
        return {union.model_fields["kind"].default}
    return set().union(*(kinds(part) for part in get_args(union) if get_args(part) or hasattr(part, "model_fields")))


@pytest.mark.parametrize(("draw", "union"), [(gallery.structures, Structure), (gallery.blinking, AnyBlinking)])
def test_every_kind_is_shown(draw, union):
    titles = {axis.get_title().replace(",", " ").split()[0] for axis in draw(np.random.default_rng(1)).axes
              if axis.get_title()}  # fmt: skip
    assert titles == kinds(union)
