"""Losses: tensors -> number. `create_loss(name)` gives one ready to train with; `list_losses()` names them."""

import difflib
import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from .emitters import decode, decode_per_frame
from .gmm import gmm, gmm_per_sample, gmm_published, gmm_published_terms
from .image import (
    dl4smlm_mae,
    dl4smlm_mse,
    dsir,
    emitter_weighted_mae,
    emitter_weighted_mse,
    empty_optimum,
    gaussian_kernel,
    heatmap_mse,
    l1l2,
    sfhbarnett,
)

Loss = Callable[[Tensor, Any], Tensor]


def _dl4smlm_l1l2(prediction: Tensor, target: Tensor, *, lambda_: float, **options: Any) -> Tensor:
    return l1l2(
        prediction, target, kernel="dl4smlm", padding="valid", l2_weight=lambda_ / 2, l1_on="blurred", **options
    )


_LOSSES: dict[str, Callable[..., Tensor]] = {
    "l1l2": l1l2,
    "deepstorm": partial(l1l2, gain=2.0),
    "dl4smlm_l1l2": _dl4smlm_l1l2,
    "dl4smlm_mse": dl4smlm_mse,
    "dl4smlm_mae": dl4smlm_mae,
    "emitter_weighted_mse": emitter_weighted_mse,
    "emitter_weighted_mae": emitter_weighted_mae,
    "dsir": dsir,
    "fidstorm": heatmap_mse,
    "fidstorm_l1l2": partial(l1l2, gain=2.0, l1_weight=0.01),
    "sfhbarnett": sfhbarnett,
}
_MAP_LOSSES: dict[str, Callable[..., Tensor]] = {
    "decode": partial(decode, window=9),
    "decode_published": partial(decode, times_emitters=True),
    "gmm": partial(gmm, window=9),
    "gmm_published": gmm_published,
    "gmm_published_8": partial(gmm_published, count_divisor=100.0),
}


def list_losses() -> list[str]:
    """The names that `create_loss` takes."""
    return sorted(_LOSSES | _MAP_LOSSES)


def create_loss(name: str, *, target_scale: float = 1.0, **options: Any) -> Loss:
    """A loss `(prediction, target) -> number` with its options bound.

    For localization networks (target: `zoo.EmitterTargets`): `decode` (teaches empty frames too; components within 4
    pixels of an emitter), `decode_published` (the program's); `gmm`, and the attention U-Net's `gmm_published` and
    `gmm_published_8` (8 channels).
    For images, presets: `deepstorm` and `fidstorm_l1l2` (the codes' factor 2 on the prediction's kernel),
    `dl4smlm_l1l2`, `dl4smlm_mse`, `dl4smlm_mae` (need `lambda_`), `dsir`, `fidstorm`, `sfhbarnett`; `l1l2` is the
    paper's form.

    Args:
        target_scale: what a lone emitter's unit spike counts, from the model's output contract.
        options: of the loss function, e.g. `l1_weight=0.5`, `lambda_=50`, `fwhm=1`.

    Raises:
        ValueError: no such loss, or no such option.

    Warns:
        UserWarning: with these options an empty image is the loss's optimum.
    """
    if name in _MAP_LOSSES:
        return _map_loss(name, options)
    if name not in _LOSSES:
        near = difflib.get_close_matches(name, list_losses(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"No loss named {name!r}.{hint} There are: {', '.join(list_losses())}.")
    function = _LOSSES[name]
    try:
        empty = empty_optimum(function, target_scale=target_scale, **options)
    except TypeError as error:
        raise ValueError(f"loss {name!r} does not take these options: {error}") from None
    if empty:
        warnings.warn(
            f"loss {name!r} with {options or 'its defaults'} and target_scale {target_scale:g} is lowest for an empty "
            "image: a model trained with it finds nothing. Raise target_scale or lambda_, or lower l1_weight.",
            stacklevel=2,
        )
    return partial(function, target_scale=target_scale, **options)


def _map_loss(name: str, options: dict[str, Any]) -> Loss:
    function = _MAP_LOSSES[name]
    known = inspect.signature(function).parameters
    for key in options:
        if key not in known or known[key].kind is not inspect.Parameter.KEYWORD_ONLY:
            names = ", ".join(k for k, v in known.items() if v.kind is inspect.Parameter.KEYWORD_ONLY)
            raise ValueError(f"loss {name!r} has no option {key!r}; there are: {names}")
    return partial(function, **options)


__all__ = [
    "Loss",
    "create_loss",
    "decode",
    "decode_per_frame",
    "dl4smlm_mae",
    "dl4smlm_mse",
    "dsir",
    "emitter_weighted_mae",
    "emitter_weighted_mse",
    "empty_optimum",
    "gaussian_kernel",
    "gmm",
    "gmm_per_sample",
    "gmm_published",
    "gmm_published_terms",
    "heatmap_mse",
    "l1l2",
    "list_losses",
    "sfhbarnett",
]
