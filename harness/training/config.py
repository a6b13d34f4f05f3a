"""What a training run is: one validated description, read from YAML and written beside every result."""

import difflib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from simulators import Recipe, load_recipe

Tier = Literal["cpu", "full"]
"""How large a training is: for two cores and minutes, or for a GPU."""


class TrainConfig(BaseModel):
    """A training run, complete: the same file and the same seed give the same run.

    `data` is a recipe's name or file (endless simulated frames), a movie with its table (`movie` and `table`), or two
    folders of paired images (`inputs` and `targets`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="name in the zoo, e.g. deep_storm")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the model, e.g. {variant: dl4smlm}")
    init: str | None = Field(default=None, description="weights to begin from: a shipped model or a folder")
    recipe: str | None = Field(default="epfl-2d", description="simulation to train on: a name or a YAML file")
    recipe_changes: dict[str, Any] = Field(
        default_factory=dict, description="keys of the recipe to replace, e.g. {density_um2: 0.5}"
    )
    movie: str | None = Field(default=None, description="movie to train on instead of a simulation")
    table: str | None = Field(default=None, description="its emitters: any readable table")
    pixel_size_nm: float | None = Field(default=None, gt=0, description="of the movie, where its file does not say")
    baseline: float = Field(default=0.0, description="camera counts without light, of the movie")
    photons_per_count: float = Field(default=1.0, gt=0, description="photons a count stands for, of the movie")
    inputs: str | None = Field(default=None, description="folder of frames (TIFF), paired with `targets`")
    targets: str | None = Field(default=None, description="folder of target images (TIFF)")
    loss: str | None = Field(default=None, description="name of the loss; the model's own where empty")
    loss_options: dict[str, Any] = Field(default_factory=dict)
    contract: dict[str, Any] = Field(
        default_factory=dict,
        description="changes of what the network is to give (SRImage, EmitterMaps), e.g. {kind: heatmap}",
    )
    min_photons: float = Field(default=100.0, ge=0, description="dimmer emitters are not asked for in the target")
    size: int = Field(default=26, ge=4, description="side of a training frame, camera pixels")
    batch_size: int = Field(default=16, ge=1, description="frames (localization networks: blocks of frames) a step")
    block: int = Field(default=16, ge=1, description="consecutive frames of a block, for localization networks")
    steps: int = Field(default=2000, ge=1, description="training steps in all, over all sittings")
    minutes: float | None = Field(default=None, gt=0, description="a sitting ends after so long, cleanly")
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=20, ge=0)
    decay_share: float = Field(default=0.4, ge=0, le=1, description="last share of a sitting in which the rate falls")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    average: float = Field(
        default=0.0, ge=0, lt=1, description="keep a running mean of the weights with this memory, e.g. 0.999; 0: none"
    )
    restarts: int = Field(default=2, ge=0, description="how often a training that diverges early starts anew")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    validation_frames: int = Field(default=48, ge=1)
    validate_every: int = Field(default=200, ge=1, description="steps between validations")
    seed: int = 1

    @field_validator("size")
    @classmethod
    def _even(cls, size: int) -> int:
        if size % 2:
            raise ValueError(f"size is {size} camera pixels; take an even number")
        return size

    def model_post_init(self, context: Any) -> None:
        sources = [self.movie is not None, self.inputs is not None]
        if sum(sources) > 1:
            raise ValueError("both a movie and paired folders are given; train on one of them")
        if (self.movie is None) != (self.table is None):
            raise ValueError("a movie needs its table of emitters: give both `movie` and `table`")
        if (self.inputs is None) != (self.targets is None):
            raise ValueError("paired training needs both folders: give `inputs` and `targets`")
        if not any(sources) and self.recipe is None:
            raise ValueError("nothing to train on: give a recipe, or a movie with its table, or two folders of images")

    def simulation(self) -> Recipe:
        """The recipe to train on, with its changes.

        Raises:
            ValueError: no such recipe, or a change that it does not allow.
        """
        if self.recipe is None:
            raise ValueError(f"training from {self.source} needs no recipe")
        recipe = load_recipe(self.recipe)
        return recipe.with_(**self.recipe_changes) if self.recipe_changes else recipe

    @property
    def source(self) -> Literal["recipe", "movie", "pairs"]:
        """Where frames and targets come from."""
        if self.movie is not None:
            return "movie"
        return "pairs" if self.inputs is not None else "recipe"

    def to_yaml(self) -> str:
        """The resolved configuration, complete."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def list_training_recipes() -> list[str]:
    """Names of the training recipes in the package."""
    folder = resources.files("harness.training") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_training_recipe(name_or_path: str, tier: Tier = "cpu") -> dict[str, Any]:
    """The settings of a training recipe: a name of `list_training_recipes`, or a YAML file.

    Args:
        name_or_path: the recipe.
        tier: "full" replaces what stands under the recipe's key `full`.

    Raises:
        ValueError: no such recipe, it has no such tier, or the file is not a mapping.
    """
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise ValueError(f"no training recipe at {path}")
        text = path.read_text(encoding="utf-8")
    elif name_or_path in list_training_recipes():
        text = (resources.files("harness.training") / "recipes" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    else:
        near = difflib.get_close_matches(name_or_path, list_training_recipes(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"No training recipe named {name_or_path!r}.{hint} There are: {', '.join(list_training_recipes())}."
        )
    settings = _mapping(text, name_or_path)
    larger = settings.pop("full", None)
    if tier == "cpu":
        return settings
    if not isinstance(larger, dict):
        raise ValueError(
            f"{name_or_path} has no tier 'full': its key `full` holds {larger!r}, not a mapping of settings"
        )
    return {**settings, **larger}


def read_config(path: Path) -> TrainConfig:
    """The configuration of an earlier run.

    Raises:
        ValueError: the file is not a training configuration; says which key is wrong.
    """
    return make_config(_mapping(path.read_text(encoding="utf-8"), str(path)), origin=str(path))


def make_config(settings: dict[str, Any], *, origin: str = "the command line") -> TrainConfig:
    """A checked configuration; errors name the key, what came and what is known."""
    unknown = set(settings) - set(TrainConfig.model_fields)
    if unknown:
        key = sorted(unknown)[0]
        near = difflib.get_close_matches(key, TrainConfig.model_fields, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{origin}: no setting named {key!r}.{hint} There are: {', '.join(TrainConfig.model_fields)}.")
    try:
        return TrainConfig.model_validate(settings)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'all'}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise ValueError(f"{origin}: " + "; ".join(lines)) from None


def _mapping(text: str, origin: str) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{origin} is not YAML: {error}") from None
    if not isinstance(loaded, dict):
        raise ValueError(f"{origin} holds {type(loaded).__name__}; a training recipe is a mapping of settings")
    return loaded
