"""Recipes: complete, validated descriptions of an experiment, as YAML and back."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from ._model import NotNegative, PositiveQuantity, Quantity, StrictModel, suggest
from .augment import DropoutBox
from .background import Pattern
from .blinking import OnTimeBlinking
from .camera import Camera
from .motion import Drift, Sweep
from .particles import ClustersStructure, GridsStructure, MaskStructure, PointsStructure, RingsStructure
from .psf import AstigmaticPSF, GaussianPSF
from .sensor import SensorSpread
from .spline import SplinePSF
from .states import FourStateBlinking, PaintBlinking
from .structures import FilamentsStructure, ReticulumStructure, Space, TubesStructure, UniformStructure
from .traces import TracesBlinking


def _size(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


AnyPSF = Annotated[GaussianPSF | AstigmaticPSF | SplinePSF, Field(discriminator="kind")]

Structure = Annotated[
    UniformStructure
    | TubesStructure
    | FilamentsStructure
    | ReticulumStructure
    | RingsStructure
    | GridsStructure
    | ClustersStructure
    | MaskStructure
    | PointsStructure,
    Field(discriminator="kind"),
]
AnyBlinking = Annotated[
    Annotated[OnTimeBlinking | FourStateBlinking | PaintBlinking | TracesBlinking, Field(discriminator="kind")],
    BeforeValidator(lambda value: {"kind": "on_time", **value} if isinstance(value, dict) else value),
]
_Pixels = Annotated[int, Field(ge=1, le=65536)]


class Recipe(StrictModel):
    """An experiment. Numbers named "or range" take `{low, high, scale: linear|log}` as well.

    Args:
        name: name, for messages and records.
        summary: what it stands for, one sentence.
        seed: seed of the movie that the recipe names.
        frames: number of frames of that movie.
        size: (height, width), pixels; one number for both.
        structure: where molecules are: `uniform`, `tubes`, `filaments`, `er`, `rings`, `grids`, `clusters`, `mask` or
            `points`.
        blinking: when they are on: `on_time`, `four_state`, `paint` or `traces`.
        photons: flux, photons per frame of a molecule on for the whole frame, before quantum efficiency;
            or range, drawn per molecule.
        density_um2: mean number of rows per frame and square micrometre of the field; or range, drawn per
            block of frames in a movie, per frame in training batches.
        background: photons per pixel and frame; or range, drawn likewise.
        pattern: how the background varies about that: `smooth`, `perlin` or `haze`; even if left out.
        psf: `gaussian` or `astigmatic`, its `sigma_nm` or range, drawn likewise; or `spline` from a `file`.
        camera: see `Camera`.
        sensor: pixels that differ, for sCMOS; see `SensorSpread`.
        drift: of the stage; see `Drift`.
        sweep: of a light sheet; see `Sweep`.
        dropout: boxes without molecules in training batches; see `DropoutBox`.
        z_range_nm: lowest and highest molecule, nm.
        margin_nm: how far outside the field molecules still are, nm; their light falls into it.

    Example:
        >>> load_recipe("tubes-2d-hd").with_(frames=10, size=40).size
        (40, 40)
    """

    name: Annotated[str, Field(min_length=1)]
    summary: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    frames: Annotated[int, Field(ge=1)] = 1000
    size: Annotated[tuple[_Pixels, _Pixels], BeforeValidator(_size)] = (64, 64)
    structure: Structure
    blinking: AnyBlinking = OnTimeBlinking()
    photons: PositiveQuantity
    density_um2: Quantity
    background: Quantity
    pattern: Pattern | None = None
    psf: AnyPSF
    camera: Camera
    sensor: SensorSpread | None = None
    drift: Drift | None = None
    sweep: Sweep | None = None
    dropout: DropoutBox | None = None
    z_range_nm: tuple[float, float] = (0.0, 0.0)
    margin_nm: NotNegative = 1000.0

    @model_validator(mode="after")
    def _ordered(self) -> Recipe:
        if self.z_range_nm[0] > self.z_range_nm[1]:
            raise ValueError(f"z_range_nm is {list(self.z_range_nm)}; give the lowest height first")
        maps = self.camera.map_shape
        if maps and maps != self.size:
            raise ValueError(f"the camera has a map of {maps[0]} x {maps[1]} but size is {list(self.size)}")
        if self.sensor and (maps or not self.camera.read_noise_e or self.camera.em_gain is not None):
            raise ValueError(
                "sensor draws the maps of an sCMOS: a camera with read noise, without EM gain and own maps"
            )
        return self

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the recipe as canonical JSON."""
        return recipe_hash(self)

    @property
    def area_um2(self) -> float:
        """Area of the field."""
        return self.space.width_nm * self.space.height_nm * 1e-6

    @property
    def space(self) -> Space:
        """The room that the structure fills."""
        pixel_x, pixel_y = self.camera.pixel_size_nm
        return Space(
            width_nm=self.size[1] * pixel_x,
            height_nm=self.size[0] * pixel_y,
            margin_nm=self.margin_nm,
            z_low_nm=self.z_range_nm[0],
            z_high_nm=self.z_range_nm[1],
        )

    def rng(self) -> np.random.Generator:
        """A generator started from the recipe's seed."""
        return np.random.default_rng(self.seed)

    def with_(self, **changes: Any) -> Recipe:
        """The recipe with some values exchanged, checked again.

        Raises:
            ValueError: an unknown key or a value that does not fit.
        """
        return parse_recipe({**self.model_dump(), **changes}, source=f"recipe {self.name!r}")

    def to_yaml(self) -> str:
        """The whole recipe, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def recipe_hash(recipe: Recipe) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the recipe as canonical JSON; files count by their content."""
    values = recipe.model_dump(mode="json")
    values["psf"].pop("file", None)
    for part in (values["structure"], values["blinking"]):
        if part.get("path"):
            file = Path(part["path"])
            part["path"] = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else file.name
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_recipe(values: Any, *, source: str, folder: str | os.PathLike[str] = ".") -> Recipe:
    """A recipe from plain values, with messages that name the source and the key.

    Args:
        values: keys and values.
        source: what to call it in messages.
        folder: where relative paths in it start.

    Raises:
        ValueError: what is wrong, a line per key.
    """
    if not isinstance(values, dict):
        raise ValueError(
            f"{source} holds {type(values).__name__}, not keys and values; start from one of list_recipes()"
        )
    try:
        return Recipe.model_validate(values, context={"folder": folder})
    except ValidationError as error:
        raise ValueError(f"{source} is no valid recipe:\n{_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False):
        # In a union pydantic puts the kind, or the type tried, between the key and what lies below it.
        parts = [str(part) for part in item["loc"]]
        if parts and parts[0] in ("structure", "blinking", "psf", "pattern"):
            del parts[1:2]
        where = ".".join(part for part in parts if part not in ("float", "Range"))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing":
            message = "is missing"
        elif item["type"] != "value_error":
            message += f", got {item['input']!r}"
        lines.append(f"  {where + ': ' if where else ''}{message}")
    return "\n".join(lines)


def _folder() -> Any:
    return resources.files(__package__) / "recipes"


def list_recipes(pattern: str = "*") -> list[str]:
    """Names of the recipes that come with the package, sorted.

    Args:
        pattern: with wildcards, e.g. "tubes-*".
    """
    names = [entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml")]
    return sorted(name for name in names if fnmatchcase(name, pattern))


def load_recipe(name: str | os.PathLike[str]) -> Recipe:
    """A named recipe of the package, or one from a YAML file.

    Args:
        name: one of `list_recipes()`, or a path that ends in .yaml or .yml.

    Raises:
        ValueError: unknown name (with a suggestion), no YAML, or no valid recipe.
        FileNotFoundError: there is no such file.

    Example:
        >>> load_recipe("tubes-2d-ld").density_um2
        0.05
    """
    text = os.fspath(name)
    known = list_recipes()
    if text in known:
        return parse_recipe(yaml.safe_load((_folder() / f"{text}.yaml").read_text("utf-8")), source=f"recipe {text!r}")
    path = Path(text)
    if path.suffix not in {".yaml", ".yml"} and not path.is_file():
        raise ValueError(
            f"No recipe named {text!r}.{suggest(text, known)} There are: {', '.join(known)}. "
            "A recipe of your own is a path that ends in .yaml."
        )
    if not path.is_file():
        raise FileNotFoundError(f"No file {text}. Give the path of a recipe in YAML, or one of: {', '.join(known)}")
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{text} is no YAML: {error}") from None
    return parse_recipe(values, source=text, folder=path.parent)


def save_recipe(recipe: Recipe, path: str | os.PathLike[str]) -> None:
    """Write a recipe as YAML, whole or not at all."""
    target = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(recipe.to_yaml())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
