"""Losses, their gradients and metrics against `losses_io.npz`-like files.

Keys name what they hold: `loss__NAME__PARAMETERS` and `grad__NAME__PARAMETERS`, parameters such as
`lambda50`, `alpha0.3`, `fwhm3`, `width5`, `target46p9` (p = decimal point). All are evaluated on `pred`.
"""

import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from .rows import Row, compare, not_covered

LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4

# mean loss of the teacher in each epoch, as the reference run had it (README of the reference files)
TEACHER_LOSSES = (9.0, 4.0, 1.5, 0.5)

Arrays = Mapping[str, np.ndarray]
Parameters = Mapping[str, float]
Evaluate = Callable[[Tensor], Tensor]


def parse_key(key: str) -> tuple[str, str, dict[str, float], str | None]:
    """Kind, name, numeric parameters and target tag of a key.

    Example:
        >>> parse_key("loss__keras_deepstorm_l1l2__target46p9")
        ('loss', 'keras_deepstorm_l1l2', {'target': 46.9}, '46p9')
    """
    kind, _, rest = key.partition("__")
    name, *parts = rest.split("__")
    parameters: dict[str, float] = {}
    tag = None
    for word in (word for part in parts for word in part.split("_")):
        match = re.fullmatch(r"([a-z]+?)(\d+(?:[.p]\d+)?(?:e-?\d+)?)", word)
        if match is None:
            raise ValueError(f"the part {word!r} is no parameter with a number, e.g. lambda50 or target46p9")
        parameters[match[1]] = float(match[2].replace("p", "."))
        if match[1] == "target":
            tag = match[2]
    return kind, name, parameters, tag


def _target(arrays: Arrays, tag: str | None) -> Tensor:
    key = "target_spikes" if tag is None else f"target_heatmap_{tag}"
    if key not in arrays:
        raise ValueError(f"the file has no {key!r} to compute it with")
    return _tensor(arrays[key])


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float32))


def _preset(preset: str, **renamed: str) -> Callable[[Arrays, Parameters, str | None], Evaluate]:
    """A loss of ours by name; `renamed` maps the key's parameters to our options."""

    def build(arrays: Arrays, parameters: Parameters, tag: str | None) -> Evaluate:
        import losses

        unknown = set(parameters) - set(renamed) - {"target"}
        if unknown:
            raise ValueError(f"parameter {', '.join(sorted(unknown))} has no counterpart in our loss {preset!r}")
        options: dict[str, object] = {ours: parameters[key] for key, ours in renamed.items() if key in parameters}
        if tag is not None:
            options["target_kind"] = "heatmap"
        target = _target(arrays, tag)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lambda 1 collapses: known, and here only compared
            loss = losses.create_loss(preset, **options)  # type: ignore[arg-type]
        return lambda prediction: loss(prediction, target)

    return build


def _dsir(arrays: Arrays, parameters: Parameters, tag: str | None) -> Evaluate:
    """The preset has the published 5x5 kernel; other widths are the general loss with DSIR's unnormalised kernel."""
    import losses

    target, fwhm, width = _target(arrays, tag), parameters["fwhm"], int(parameters.get("width", 5))
    if width == 5:
        loss = losses.create_loss("dsir", fwhm=fwhm)
        return lambda prediction: loss(prediction, target)
    sigma = fwhm / math.sqrt(8 * math.log(2))
    return lambda prediction: losses.l1l2(
        prediction, target, kernel_size=width, sigma=sigma, unit_sum=False, l1_weight=0.0
    )


def _imitation_per_batch(arrays: Arrays, parameters: Parameters, tag: str | None) -> Evaluate:
    import losses
    from distill import attentive_imitation_per_batch

    target, teacher = _target(arrays, tag), _tensor(arrays["teacher"])
    history = [float(v) for v in np.ravel(arrays["teacher_losses"])] if "teacher_losses" in arrays else TEACHER_LOSSES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = losses.create_loss("dl4smlm_l1l2", lambda_=parameters["lambda"])
    return lambda student: attentive_imitation_per_batch(
        student, target, teacher, alpha=parameters["alpha"], loss=loss, teacher_losses=history
    )


def _imitation_formula(arrays: Arrays, parameters: Parameters, tag: str | None) -> Evaluate:
    from distill import attentive_imitation

    target, teacher = _target(arrays, tag), _tensor(arrays["teacher"])
    eta = float(arrays["formula_ail_eta"])
    return lambda student: attentive_imitation(student, target, teacher, alpha=parameters["alpha"], error_range=eta)


LOSSES: dict[str, Callable[[Arrays, Parameters, str | None], Evaluate]] = {
    "dl4smlm_l1l2": _preset("dl4smlm_l1l2", **{"lambda": "lambda_"}),
    "dl4smlm_weighted_mse": _preset("dl4smlm_mse", **{"lambda": "lambda_"}),
    "dl4smlm_weighted_mae": _preset("dl4smlm_mae", **{"lambda": "lambda_"}),
    "dl4smlm_attentive_imitation": _imitation_per_batch,
    "formula_saputra_ail": _imitation_formula,
    "keras_deepstorm_l1l2": _preset("deepstorm"),
    "fidstorm_l1l2": _preset("fidstorm_l1l2"),
    "fidstorm_mse": _preset("fidstorm"),
    "sfhbarnett": _preset("sfhbarnett"),
    "dsir_mse": _dsir,
}


def check_losses(file: str, arrays: Arrays) -> Iterator[Row]:
    """Rows for every `loss__`, `grad__`, `metric__` and `formula_` key."""
    for key in arrays:
        if key.startswith(("loss__", "grad__")):
            yield _loss_row(file, key, arrays)
        elif key.startswith(("metric__", "formula_")):
            yield from _metric_rows(file, key, arrays)


def _loss_row(file: str, key: str, arrays: Arrays) -> Row:
    try:
        kind, name, parameters, tag = parse_key(key)
    except ValueError as error:
        return not_covered(file, key, str(error))
    if name not in LOSSES:
        return not_covered(file, key, f"no loss of ours stands for {name!r}")
    try:
        evaluate = LOSSES[name](arrays, parameters, tag)
    except (KeyError, ValueError) as error:
        return not_covered(file, key, f"cannot be computed from this file: {error}")
    prediction = _tensor(arrays["pred"]).clone().requires_grad_()
    value = evaluate(prediction)
    if kind == "loss":
        return compare(file, key, value.detach().numpy(), arrays[key], tolerance=LOSS_TOLERANCE)
    (gradient,) = torch.autograd.grad(value, prediction)
    return compare(file, key, gradient.numpy(), arrays[key], tolerance=GRADIENT_TOLERANCE)


def _metric_rows(file: str, key: str, arrays: Arrays) -> Iterator[Row]:
    from distill import teacher_confidence
    from harness.scoring.images import nmse_percent

    spikes = arrays.get("target_spikes")
    if spikes is not None and key == "metric__formula_nmse_per_image":
        ours = [nmse_percent(q, y) for q, y in zip(arrays["pred"], spikes, strict=True)]
        yield compare(file, key, ours, arrays[key], tolerance=LOSS_TOLERANCE)
    elif spikes is not None and key == "metric__dl4smlm_nmse":
        totals = [np.asarray(a, dtype=np.float64).sum().reshape(1, 1) for a in (arrays["pred"], spikes)]
        ours = [nmse_percent(totals[0], totals[1])]
        note = "theirs compares total intensities: it is our NMSE of the one-pixel images of the totals"
        yield compare(file, key, ours, np.ravel(arrays[key]), tolerance=LOSS_TOLERANCE, note=note)
    elif spikes is not None and key == "formula_ail_phi" and {"formula_ail_eta", "teacher"} <= arrays.keys():
        error = (_tensor(arrays["teacher"]) - _tensor(spikes)).square().flatten(1).mean(1)
        trust = teacher_confidence(error, error_range=float(arrays["formula_ail_eta"]))
        yield compare(file, key, trust.numpy(), arrays[key], tolerance=LOSS_TOLERANCE)
    elif key != "formula_ail_eta":  # an input of the two above
        yield not_covered(file, key, "no quantity of ours stands for it")
