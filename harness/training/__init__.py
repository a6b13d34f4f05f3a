"""Training: a configuration in, weights with their card out; stops cleanly, goes on later."""

from .config import TrainConfig, list_training_recipes, load_training_recipe, make_config
from .fit import TrainResult, resolve_config, train

__all__ = [
    "TrainConfig",
    "TrainResult",
    "list_training_recipes",
    "load_training_recipe",
    "make_config",
    "resolve_config",
    "train",
]
