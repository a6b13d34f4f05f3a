"""Tables and images of any program as result records: entries of the leaderboard beside the models."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from harness.recording import dataset_record, detail_record, result_record, scores_record, settings_record
from harness.scoring import CHALLENGE_2D, Protocol, Report
from harness.scoring.image_quality import score_image, score_rendered
from harness.scoring.wobble import wobble_settings
from leaderboard import Dataset, Detail, Model, Result, Runtime
from simulators import Emitters, Localizations, Recipe, load_recipe

CHOSEN = "chosen by its authors"


def recipe_of(truth: Path, name: str | None = None) -> Recipe | None:
    """The recipe of a test movie: the one named, or recipe.yaml beside the truth; None where there is none.

    Args:
        truth: table of the emitters, or the folder that smlm-zoo simulate wrote.
        name: a recipe's name or a YAML file.

    Raises:
        ValueError: the truth has another recipe beside it.
    """
    beside = (truth if truth.is_dir() else truth.parent) / "recipe.yaml"
    own = load_recipe(beside) if beside.is_file() else None
    named = None if name is None else load_recipe(name)
    if own is not None and named is not None and own.hash != named.hash:
        ours, theirs = (
            f"{one.name} ({one.frames} frames of {one.size[0]}x{one.size[1]}, hash {one.hash})" for one in (own, named)
        )
        raise ValueError(f"the truth's own recipe is {ours}, not {theirs}; leave --dataset out")
    return named or own


def field_of(recipe: Recipe) -> tuple[float, float]:
    """Width and height of the movie's field, nm."""
    return recipe.space.width_nm, recipe.space.height_nm


def check_field(recipe: Recipe, field_nm: tuple[float, float]) -> None:
    """Refuse a field that is not that of the recipe's movie.

    Raises:
        ValueError: the sides differ, so that the truth is of another movie.
    """
    expected = field_of(recipe)
    if any(abs(a - b) > 1e-6 * b for a, b in zip(field_nm, expected, strict=True)):
        raise ValueError(
            f"the field is {field_nm[0]:g} x {field_nm[1]:g} nm, but recipe {recipe.name!r} makes movies of "
            f"{expected[0]:g} x {expected[1]:g} nm; give the recipe.yaml that smlm-zoo simulate wrote beside the truth"
        )


def dataset_of(recipe: Recipe | None, *, name: str, n_frames: int | None, truth: Emitters, dimensions: int) -> Dataset:
    """What the record says of the test: of the recipe's movie the same as for models; else a hash of the truth."""
    if recipe is not None:
        return dataset_record(recipe, dimensions=dimensions)
    digest = hashlib.sha256()
    for column in ("frame", "x_nm", "y_nm", "z_nm"):
        digest.update(getattr(truth, column).tobytes())
    return Dataset(
        name=name,
        recipe_hash=digest.hexdigest()[:16],
        frames=n_frames,
        condition="foreign",
        dimensions=dimensions,
    )


def table_record(
    one: Report,
    *,
    name: str,
    dataset: Dataset,
    found: Localizations,
    truth: Emitters,
    field_nm: tuple[float, float],
    n_frames: int | None = None,
    wobble: ArrayLike | None = None,
    command: str = "",
) -> Result:
    """A record of localizations that another program made.

    Args:
        one: from `recording.score_table`, with intervals.
        name: of the entry.
        dataset: from `dataset_of`.
        found, truth, field_nm, n_frames: as scored; for the image scores.
        wobble: the table that was used.
        command: repeats the score.
    """
    images = score_rendered(truth=truth, found=found, field_nm=field_nm, n_frames=n_frames)
    figures: dict[str, Any] = {**one.to_dict(), "images": images}
    used = wobble_settings(wobble)
    return result_record(
        model=Model(name=name),
        dataset=dataset,
        runtime=Runtime(name="table"),
        scores=scores_record(figures),
        detail=detail_record(figures),
        settings=settings_record(
            one.score.protocol,
            threshold_source=CHOSEN,
            wobble="none" if used is None else f"{used['rows']} rows, {used['sha256'][:8]}",
        ),
        command=command,
    )


def image_record(
    image: ArrayLike,
    *,
    name: str,
    dataset: Dataset,
    truth: Emitters,
    field_nm: tuple[float, float],
    protocol: Protocol = CHALLENGE_2D,
    command: str = "",
) -> Result:
    """A record of a super-resolved image: image scores only, so it is shown but in no ranking."""
    figures = score_image(image, truth=truth, field_nm=field_nm)
    return result_record(
        model=Model(name=name),
        dataset=dataset,
        runtime=Runtime(name="image"),
        detail=Detail(images=figures),
        settings=settings_record(protocol),
        command=command,
    )
