"""Key maps: which original a set of tensors belongs to, and where each tensor goes in our networks.

A layout is recognised by its tensor names, and forms with equal names by shapes. Each maps parts of the
original (modules) to parts of our `core`; the tensors inside a part keep their names, Keras ones are
renamed. Tensors that the original never uses in its forward pass are reported as dead, counters as skipped;
anything else left over is refused.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from . import _decode
from ._attention import SOURCE as ATTENTION_SOURCE
from ._attention import attention_recognise, attention_v1_parts, attention_v2_parts
from ._errors import OriginalFileError

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """What the original means by its numbers; the spec's section 2.

    Attributes:
        normalisation: mode of our `Normalisation` that prepares frames as the original does.
        mean, std: its scalars; None where each training run has its own and the weight file does not hold
            them.
        assumed: the scalars taken when the user gives none, and where they come from.
        target_scale: what a lone emitter's spike (or the sum of its spot) comes out as; None: depends on the
            training.
        offset_px: (x, y) added to index + 1/2, fine pixels.
        offset_source: where that number comes from.
        maps: for localization networks: what differs from the model's own `EmitterMaps`.
        threshold: the original's own, for the card; None where it has none.
        caution: what the file cannot tell and the user should know.
    """

    normalisation: str
    mean: float | None = 0.0
    std: float | None = 1.0
    assumed: tuple[float, float, str] = (0.0, 1.0, "")
    target_scale: float | None = None
    offset_px: tuple[float, float] = (0.0, 0.0)
    offset_source: str = ""
    maps: Mapping[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    caution: tuple[str, ...] = ()

    @property
    def scalars(self) -> tuple[float, float]:
        """Mean and standard deviation, the assumed ones where the file does not hold them."""
        mean, std, _ = self.assumed
        return (mean if self.mean is None else self.mean), (std if self.std is None else self.std)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One original program's way to store one network.

    Attributes:
        name: of the layout, e.g. "dl4smlm_deepstorm".
        model: our model's name.
        source: repository the layout comes from.
        recognise: tensors -> our builder options, or None when they are not of this layout.
        parts: options -> {part of the original: part of our core}.
        conventions: see there.
        dead: regular expression of tensors that the original never uses.
    """

    name: str
    model: str
    source: str
    recognise: Callable[[Tensors], dict[str, Any] | None]
    parts: Callable[[Tensors], dict[str, str]]
    conventions: Conventions
    dead: str = r"(?!)"


# --------------------------------------------------------------------------------------------- the originals

_DL4SMLM = Conventions(
    normalisation="dataset",
    mean=None,
    std=None,
    assumed=(
        0.0,
        1.0,
        "the file does not hold the dataset's mean and standard deviation; frames stay as they are",
    ),
)
_DEEP_STORM = Conventions(
    normalisation="min_max",
    mean=None,
    std=None,
    assumed=(
        0.1961,
        0.1776,
        "the file does not hold its mean and standard deviation; those of Deep-STORM's demo 1 taken",
    ),
    target_scale=50.0,
    offset_px=(0.5, 0.5),
    offset_source="training scripts put emitters at round(x/p) - 1, so index j stands for (j + 1) p",
)
_FID_STORM = Conventions(
    normalisation="min_max",
    target_scale=1.0,
    offset_px=(0.5, 0.5),
    offset_source="training scripts put emitters at round(x/p) - 1, so index j stands for (j + 1) p",
)
_DSIR = Conventions(
    normalisation="z_score",
    target_scale=1.0,
    offset_px=(0.0, 0.0),
    offset_source="labels put emitters at floor(x/p), so index j stands for (j + 1/2) p",
)

_ATTENTION = Conventions(
    normalisation="block",
    maps={
        "reference_px": (1.0, 1.0),
        "background_scale": 0.25,
        "rule": "plus",
        # brightness is relative to each block's brightest emitter, so it stands for no number of photons
        "channels": ("probability", "", "y", "x", "", "y_sigma", "x_sigma", "", "", "background"),
    },
    offset_source="the program adds index + 1/2 and counts from the centre of the first pixel",
    threshold=0.7,
)

_DECODE = Conventions(
    normalisation="dataset",
    mean=None,
    std=None,
    maps={"z_scale_nm": -900.0, "photons_scale": 10000.0, "background_scale": 200.0, "rule": "program"},
    offset_source="the program counts from pixel centres",
    threshold=0.1,
    caution=(
        "the file does not hold its scaling; param_run.yaml beside it does: give --option mean=OFFSET std=SCALE "
        "photons_scale=PHOT_MAX background_scale=BG_MAX z_scale_nm=-Z_MAX; 0, 1, 10000, 200 and -900 taken",
    ),
)

_NO_PHOTONS = (
    "the brightness that it gives is relative to each block's brightest emitter; photons stay unknown; if you know "
    "what the value 1 stands for, give --option photons_scale=..."
)
_DL4SMLM_SOURCE = "github.com/MichealBReed/DL4SMLM"
_DEEP_BLOCKS = {"first": 0, "second": 0, "third": 0, "fourth": 1, "fifth": 1, "sixth": 1, "seventh": 0}


def _block(theirs: str, ours: str, first: int = 0) -> dict[str, str]:
    """Convolution and norm of a sequential part whose convolution has the index `first`."""
    return {f"{theirs}.{first}": f"{ours}.conv", f"{theirs}.{first + 1}": f"{ours}.norm"}


def _has(*names: str, shape: tuple[str, tuple[int | None, ...]] | None = None, **options: Any) -> Any:
    """A recogniser: all names are there, and one tensor has the shape (None: any length)."""

    def recognise(tensors: Tensors) -> dict[str, Any] | None:
        if not all(name in tensors for name in names):
            return None
        if shape is not None:
            found = tuple(tensors[shape[0]].shape)
            same = len(found) == len(shape[1]) and all(
                want in (None, have) for want, have in zip(shape[1], found, strict=True)
            )
            if not same:
                return None
        return dict(options)

    return recognise


def _deep_storm_parts(_: Tensors) -> dict[str, str]:
    parts = _block("reconstruction", "rebuild")
    for step, (name, first) in enumerate(_DEEP_BLOCKS.items(), start=1):
        parts |= _block(f"{name}_convolution_block", f"trunk.block{step}", first)
    return parts


def _u_storm_parts(_: Tensors) -> dict[str, str]:
    names = (
        "feature_representation",
        *(f"{n}_convolution_block" for n in ("first", "second", "third", "fourth")),
    )
    parts = _block("reconstruction", "rebuild")
    for theirs, ours in zip(names, ("features", "down1", "down2", "middle", "up"), strict=True):
        parts |= _block(theirs, ours)
    return parts


def _drl_storm_parts(_: Tensors) -> dict[str, str]:
    halves = {
        "first": ("second", "third", "fourth", "fifth", "sixth", "seventh", "eigth"),
        "second": ("ninth", "tenth", "eleventh", "twelfth", "thirtheenth", "fourteenth", "fifteenth"),
    }
    steps = ("down1", "down2", "down3", "middle", "up1", "up2", "up3")
    parts = {"": "residual"} | _block("first_convolution_block", "features") | _block("reconstruction", "rebuild")
    for half, names in halves.items():
        for name, step in zip(names, steps, strict=True):
            parts |= _block(f"{name}_convolution_block", f"{half}.{step}", int(step.startswith("up")))
    return parts


def _concat_parts(_: Tensors) -> dict[str, str]:
    parts = {"input_convolution": "first"}
    for i, name in enumerate(("first", "second", "third", "fourth", "fifth")):
        parts |= _block(f"{name}_residual_block", f"body.{i}")
    for i, name in enumerate(("first", "second", "third"), start=1):
        parts[f"{name}_deconvolution"] = f"rebuild{i}"
    return parts


def _srcnn_parts(_: Tensors) -> dict[str, str]:
    names = {"feature_representation": "extract", "non_linear_mapping": "map", "reconstruction": "rebuild"}
    parts: dict[str, str] = {}
    for theirs, ours in names.items():
        parts |= _block(theirs, ours)
    return parts


def _sfhbarnett_parts(_: Tensors) -> dict[str, str]:
    names = ("down1.level", "down2.level", "down3.level", "midsection", "up1.conv", "up2.conv", "up3.conv")
    parts = {"up4": "rebuild.conv"}
    for step, name in enumerate(names, start=1):
        parts |= _block(name, f"trunk.block{step}")
    return parts


def _keras_prefix(tensors: Tensors) -> str | None:
    """What stands before F1..F7 in the layer names: "CNN" in the published code."""
    found = {m[1] for name in tensors if (m := re.fullmatch(r"conv-(.*)F[1-7]/kernel", name))}
    return found.pop() if len(found) == 1 else None


def _keras_recognise(tensors: Tensors) -> dict[str, Any] | None:
    return {"variant": "nehme"} if _keras_prefix(tensors) is not None and "Prediction/kernel" in tensors else None


def _keras_parts(tensors: Tensors) -> dict[str, str]:
    prefix = _keras_prefix(tensors)
    parts = {"Prediction": "rebuild.conv"}
    for step in range(1, 8):
        parts[f"conv-{prefix}F{step}"] = f"trunk.block{step}.conv"
        parts[f"BN-{prefix}F{step}"] = f"trunk.block{step}.norm"
    return parts


def _count(tensors: Tensors, pattern: str) -> int:
    indices = {int(m[1]) for name in tensors if (m := re.fullmatch(pattern, name))}
    if indices != set(range(len(indices))):
        raise OriginalFileError(f"blocks {sorted(indices)} are not numbered 0, 1, 2, ...: some are missing")
    return len(indices)


def _fid_recognise(tensors: Tensors) -> dict[str, Any] | None:
    if not {"first_part.0.weight", "resBlocks.0.conv.weight", "convup1.weight"} <= tensors.keys():
        return None
    return {"n_blocks": _count(tensors, r"resBlocks\.(\d+)\.conv\.weight"), "body_activation": "leaky_relu"}


def _fid_parts(tensors: Tensors) -> dict[str, str]:
    parts = {"first_part.0": "first.conv"} | {f"convup{i}": f"up{i}.conv" for i in (1, 2, 3)}
    for i in range(_count(tensors, r"resBlocks\.(\d+)\.conv\.weight")):
        parts |= {f"resBlocks.{i}.conv": f"body.{i}.conv", f"resBlocks.{i}.norm_layer": f"body.{i}.norm"}
    return parts


def _folded_recognise(tensors: Tensors) -> dict[str, Any] | None:
    if not {"first.weight", "body.0.weight", "body.0.bias", "convup1.weight"} <= tensors.keys():
        return None
    blocks = _count(tensors, r"body\.(\d+)\.weight")
    activation = "relu" if blocks == 13 else "leaky_relu"
    return {"n_blocks": blocks, "folded": True, "body_activation": activation}


def _folded_parts(tensors: Tensors) -> dict[str, str]:
    parts = {"first": "first.conv"} | {f"convup{i}": f"up{i}.conv" for i in (1, 2, 3)}
    return parts | {f"body.{i}": f"body.{i}.conv" for i in range(_count(tensors, r"body\.(\d+)\.weight"))}


def _dsir_parts(_: Tensors) -> dict[str, str]:
    names = ("conv1", "conv2", "conv3", "conv4", "convt1", "convt2", "convt3", "bn1", "bn2", "bn4")
    return {name: name for name in names}


_REBUILD = "reconstruction.0.weight"

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="dl4smlm_drlstorm",
        model="drl_storm",
        source=_DL4SMLM_SOURCE,
        recognise=_has("gaussian_weights", "fifteenth_convolution_block.1.weight", variant="dl4smlm"),
        parts=_drl_storm_parts,
        conventions=_DL4SMLM,
    ),
    Layout(
        name="dl4smlm_skipstorm",
        model="skip_storm",
        source=_DL4SMLM_SOURCE,
        recognise=_has(
            "seventh_convolution_block.0.weight",
            _REBUILD,
            shape=(_REBUILD, (1, None, 3, 3)),
            trunk="dl4smlm",
        ),
        parts=_deep_storm_parts,
        conventions=_DL4SMLM,
    ),
    Layout(
        name="dl4smlm_deepstorm",
        model="deep_storm",
        source=_DL4SMLM_SOURCE,
        recognise=_has("seventh_convolution_block.0.weight", _REBUILD, variant="dl4smlm"),
        parts=_deep_storm_parts,
        conventions=_DL4SMLM,
    ),
    Layout(
        name="dl4smlm_srcnn",
        model="srcnn",
        source=_DL4SMLM_SOURCE,
        recognise=_has("non_linear_mapping.0.weight", _REBUILD, variant="dl4smlm"),
        parts=_srcnn_parts,
        conventions=_DL4SMLM,
    ),
    Layout(
        name="dl4smlm_ustorm",
        model="u_storm",
        source=_DL4SMLM_SOURCE,
        recognise=_has("feature_representation.0.weight", "fourth_convolution_block.0.weight", _REBUILD),
        parts=_u_storm_parts,
        conventions=_DL4SMLM,
    ),
    Layout(
        name="dl4smlm_fidstorm",
        model="fid_storm",
        source=_DL4SMLM_SOURCE,
        recognise=_has("input_convolution.weight", "first_residual_block.0.weight", variant="dl4smlm"),
        parts=_concat_parts,
        conventions=_DL4SMLM,
    ),
    Layout(
        name="sfhbarnett_deepstorm",
        model="deep_storm",
        source="github.com/sfhbarnett/DeepSTORM",
        recognise=_has("down1.level.0.weight", "midsection.0.weight", "up4.weight", variant="sfhbarnett"),
        parts=_sfhbarnett_parts,
        conventions=_DEEP_STORM,
    ),
    Layout(
        name="keras_deepstorm",
        model="deep_storm",
        source="github.com/EliasNehme/Deep-STORM",
        recognise=_keras_recognise,
        parts=_keras_parts,
        conventions=_DEEP_STORM,
    ),
    Layout(
        name="fidstorm",
        model="fid_storm",
        source="github.com/SRMLabHUST/FID-STORM",
        recognise=_fid_recognise,
        parts=_fid_parts,
        conventions=_FID_STORM,
        dead=r"last_part\..*|normlayerUp\d+\..*",
    ),
    Layout(
        name="fidstorm_onnx",
        model="fid_storm",
        source="github.com/SRMLabHUST/FID-STORM",
        recognise=_folded_recognise,
        parts=_folded_parts,
        conventions=_FID_STORM,
    ),
    Layout(
        name="dsir",
        model="dsir",
        source="github.com/leaxp/Deep-Learning-Super-Resolution-Image-Reconstruction-DSIR",
        recognise=_has("conv1.weight", "convt1.weight", "bn1.weight", "bn4.weight"),
        parts=_dsir_parts,
        conventions=_DSIR,
    ),
    Layout(
        name="attention_unet_v2",
        model="attention_unet",
        source=ATTENTION_SOURCE,
        recognise=attention_recognise(
            "unet.initial_conv.weight", "unet2.initial_conv.weight", "mha.mha.mha.in_proj_weight"
        ),
        parts=attention_v2_parts,
        conventions=replace(
            _ATTENTION,
            caution=(
                "the file does not tell its normalisation; mean and standard deviation of the block taken, as since "
                "July 2024; older weights need --option normalisation=block_min_max",
                _NO_PHOTONS,
            ),
        ),
    ),
    Layout(
        name="attention_unet_v1",
        model="attention_unet_v1",
        source=ATTENTION_SOURCE,
        recognise=attention_recognise("decoder.unet.encoder.0.0.weight", "decoder.mha.mha.in_proj_weight"),
        parts=attention_v1_parts,
        conventions=replace(_ATTENTION, normalisation="block_max", caution=(_NO_PHOTONS,)),
        dead=r"decoder\.(mha2|mlp2)\..*",
    ),
    Layout(
        name="decode",
        model="decode",
        source=_decode.SOURCE,
        recognise=_decode.recognise,
        parts=_decode.parts,
        conventions=_DECODE,
        dead=_decode.SIGMA_FLOOR,
    ),
)
