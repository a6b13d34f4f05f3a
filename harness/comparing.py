"""Two models or two tables on the same movies: their records and pictures, for the paired comparison."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import leaderboard
from harness.board.entries import file_name
from harness.board.pictures import frame_shown, map_picture, raw_and_truth
from harness.conditions import Cell, Study, run_study
from harness.localization import photons_of
from harness.models import open_model
from harness.preview import to_heat, write_png
from harness.scoring.images import render
from leaderboard import Picture, Result
from simulators import Emitters, Localizations, Recipe, simulate

Say = Callable[[str, int], None]
PICTURE_SIDE = 640


def holds_records(place: Path) -> bool:
    """Whether a path is a record, or a folder of records."""
    files = sorted(place.glob("*.json"))[:1] if place.is_dir() else [place] if place.suffix == ".json" else []
    try:
        return any({"model", "dataset", "runtime"} <= json.loads(f.read_text(encoding="utf-8")).keys() for f in files)
    except (ValueError, OSError, AttributeError):
        return False


def records_named(records: Sequence[Result], name: str) -> list[Result]:
    """The records of one model: by its name, or its label where several share the name.

    Raises:
        ValueError: there is none, or the name stands for several.
    """
    from leaderboard.labels import all_labels

    labels, _, _ = all_labels(list(records))
    exact = [r for r, label in zip(records, labels, strict=True) if label == name]
    own = exact or [r for r in records if name in (r.model.name, f"{r.model.name}.{r.model.tag}")]
    found = sorted({label for r, label in zip(records, labels, strict=True) if r in own})
    if not own:
        raise ValueError(f"no records of {name!r}; there are those of {', '.join(sorted(set(labels)))}")
    if len(found) > 1:
        raise ValueError(f"{name!r} stands for {', '.join(found)}; give one of these")
    return own


def run_models(
    sources: tuple[str, str],
    recipes: Sequence[Recipe],
    folder: Path,
    *,
    validation: int,
    device: str = "auto",
    say: Say = lambda text, done: None,
) -> tuple[list[list[Result]], list[Picture]]:
    """Records of both models on the movies of the recipes, and what both make of one frame of each.

    Thresholds come from the same validation movies. What is in the folder already is not measured again.

    Args:
        sources: shipped models, folders or ONNX files.
        recipes: test movies, complete.
        folder: written: records/, thresholds/, pictures/.
        validation: number of validation movies.
    """
    cells = tuple(
        Cell(condition="matched", value=None, source=r, dimensions=2 if r.psf.kind == "gaussian" else 3)
        for r in recipes
    )
    base = Study.make(sources, conditions=("matched",), baselines=())
    records = []
    for source in sources:
        study = Study(
            recipe=base.recipe, cells=cells, pairs=None, validation=validation, models=(source,), baselines=()
        )
        records.append(run_study(study, folder, device=device, say=say))
    pictures: list[Picture] = []
    for recipe in recipes:
        movie = simulate(recipe, recipe.rng())
        pictures += raw_and_truth(recipe.name, movie, folder / "pictures")
        frame = frame_shown(movie)
        for source, own in zip(sources, records, strict=True):
            path = folder / "pictures" / file_name(recipe.name) / f"{file_name(source)}.png"
            if not path.is_file():
                model = open_model(source, device=device, precision="float32")
                read = photons_of(movie.frames, movie.camera)
                image = model.picture(read, len(movie), frame, pixel_size_nm=movie.camera.pixel_size_nm)
                write_png(path, map_picture(image.numpy()))
            pictures.append(Picture(dataset=recipe.name, model=_label(own, records), path=path, frame=frame))
    return records, pictures


def _label(own: list[Result], records: list[list[Result]]) -> str:
    """The name, with the tag where both models have the same."""
    model = own[0].model
    shared = len({one[0].model.name for one in records}) < 2
    return f"{model.name} · {model.tag}" if shared and model.tag else model.name


def table_pictures(
    tables: dict[str, Emitters | Localizations], *, dataset: str, field_nm: tuple[float, float], folder: Path
) -> list[Picture]:
    """Every table drawn as an image of the whole movie, for the page."""
    folder.mkdir(parents=True, exist_ok=True)
    pixel = max(field_nm) / PICTURE_SIDE
    pictures = []
    for i, (name, table) in enumerate(tables.items()):
        image = render(table, field_nm=field_nm, pixel_nm=pixel, fwhm_nm=2.5 * pixel)
        path = write_png(folder / f"{i}-{file_name(name)}.png", to_heat(image, size=PICTURE_SIDE))
        pictures.append(Picture(dataset=dataset, model=name, path=path, caption="whole movie"))
    return pictures


def read_all(places: Sequence[Path]) -> list[Result]:
    """Records of files and folders; a leaderboard's folder stands for its records."""
    return leaderboard.read_results([p / "records" if (p / "records").is_dir() else p for p in places])
