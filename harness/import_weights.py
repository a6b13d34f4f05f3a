"""Turn the originals' weight files into model folders of ours: `smlm-zoo import FILE -o FOLDER`."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zoo
from harness.models import new_tile
from zoo import EmitterMaps, ImageNetwork, MapNetwork
from zoo._originals import OriginalFileError, Translation, fill, read_original, translate

_SETTINGS = ("mean", "std", "offset_px", "target_scale", "threshold")
_MAP_SETTINGS = ("mean", "std", "photons_scale", "background_scale", "z_scale_nm", "reference_px", "threshold")


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What `import_weights` did.

    Attributes:
        folder: the model folder that was written.
        layout: what the file was recognised as, e.g. "keras_deepstorm".
        model: our model's name.
        options: of its builder.
        copied: original tensor name -> ours.
        skipped: counters that need no place here.
        dead: tensors that the original never uses.
        warnings: what the file does not tell and was assumed.
        card: as written beside the weights.
    """

    folder: Path
    layout: str
    model: str
    options: Mapping[str, Any]
    copied: Mapping[str, str]
    skipped: tuple[str, ...]
    dead: tuple[str, ...]
    warnings: tuple[str, ...]
    card: Mapping[str, Any]

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        output = self.card["output"]
        lines = [
            f"{self.folder}: {self.model} ({options}), recognised as {self.layout}",
            f"copied {len(self.copied)} tensors, skipped {len(self.skipped)}, dead {len(self.dead)}",
            f"{_meaning(output)}, normalisation {self.card['normalisation']['mode']}",
        ]
        if self.dead:
            lines.append(f"dead (never used by the original): {_shorten(self.dead)}")
        lines += [f"note: {text}" for text in self.warnings]
        return "\n".join(lines)


def import_weights(
    path: str | Path,
    *,
    output: str | Path,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> ImportReport:
    """Read an original's weight file and write a model folder (`model.safetensors`, `card.json`).

    Nothing in the file is run. The family, its form and its sizes are told by the tensors' names and shapes.

    Args:
        path: safetensors, PyTorch state dict or pickled module, Keras HDF5, or FID-STORM's ONNX.
        output: folder to write.
        model: our model's name; only needed to insist on it, since the file tells.
        options: builder options (`body_activation`, `statistics`, `upsampling`, ...), and what a file may
            not tell: `mean` and `std` of the normalisation, `threshold`; for image networks `offset_px` (one number
            or (x, y), fine pixels) and `target_scale`; for localization networks `photons_scale`,
            `background_scale`, `z_scale_nm` and `reference_px` (as `offset_px`, camera pixels).

    Returns:
        What was copied, skipped, dead and assumed.

    Raises:
        OriginalFileError: not readable, of no known original, or it does not fit; names tensor and shapes.
        ValueError: another model than the file holds, or an option that contradicts the file.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    wanted = dict(options or {})
    activation = wanted.get("body_activation")
    translation = translate(read_original(path), body_activation=activation)
    maps = isinstance(zoo.get_spec(translation.layout.model).output, EmitterMaps)
    settings = {key: wanted.pop(key) for key in (_MAP_SETTINGS if maps else _SETTINGS) if key in wanted}
    if model is not None and model != translation.layout.model:
        zoo.get_spec(model)  # a misspelt name gets its suggestion
        raise ValueError(
            f"{path.name} holds weights of {translation.layout.model} ({translation.layout.name}), not of {model}"
        )
    for key, value in translation.options.items():
        if key in wanted and wanted[key] != value:
            raise ValueError(
                f"the tensors of {path.name} say {key}={value!r}, not {wanted[key]!r}; leave the option out"
            )
    network, warnings = _configure(translation, path.name, wanted, settings)
    card = zoo.save_weights(network, output, _card(path, translation, network, settings, warnings))
    return ImportReport(
        folder=Path(output),
        layout=translation.layout.name,
        model=translation.layout.model,
        options=network.model_options,  # type: ignore[arg-type]
        copied=translation.copied,
        skipped=translation.skipped,
        dead=translation.dead,
        warnings=tuple(warnings),
        card=card,
    )


def _configure(
    translation: Translation, file: str, wanted: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[ImageNetwork | MapNetwork, list[str]]:
    """The filled network with the original's normalisation, scale and offset, and what had to be assumed."""
    conventions = translation.layout.conventions
    options = {"normalisation": conventions.normalisation, **translation.options, **wanted}
    network = zoo.create_model(translation.layout.model, **options)
    if not isinstance(network, ImageNetwork | MapNetwork):
        raise OriginalFileError(f"{translation.layout.model} is neither an image nor a localization network")
    fill(network.core, translation, file=file)
    network.eval()
    warnings = [*translation.guessed.values(), *conventions.caution]
    if isinstance(network, MapNetwork):
        return _configure_maps(network, translation, wanted, settings, warnings)
    mean, std = conventions.scalars
    if None in (conventions.mean, conventions.std) and not {"mean", "std"} <= settings.keys():
        reason = conventions.assumed[2]
        warnings.append(f"{reason} (mean {mean:g}, std {std:g}); give --option mean=... --option std=...")
    network.normalisation.set_statistics(float(settings.get("mean", mean)), float(settings.get("std", std)))
    scale = settings.get("target_scale", conventions.target_scale)
    if scale is None:
        scale = network.output.target_scale
        warnings.append(
            f"the file does not tell what a lone emitter comes out as; {scale:g} taken; give --option target_scale=..."
        )
    network.output = dataclasses.replace(
        network.output,
        target_scale=float(scale),
        offset_px=_offset(settings["offset_px"]) if "offset_px" in settings else translation.offset[0],
    )
    return network, warnings


def _configure_maps(
    network: MapNetwork,
    translation: Translation,
    wanted: Mapping[str, Any],
    settings: Mapping[str, Any],
    warnings: list[str],
) -> tuple[MapNetwork, list[str]]:
    """The same for a localization network: the meaning of its channels."""
    changes = dict(translation.layout.conventions.maps)
    for key in ("photons_scale", "background_scale", "z_scale_nm"):
        if key in settings:
            changes[key] = float(settings[key])
    if "photons_scale" in settings:
        changes.pop("channels", None)
        warnings = [text for text in warnings if "photons_scale" not in text]
    if "reference_px" in settings:
        changes["reference_px"] = _offset(settings["reference_px"], "reference_px", "camera")
    if "normalisation" in wanted:
        warnings = [text for text in warnings if "normalisation=" not in text]
    if "mean" in settings or "std" in settings:
        network.normalisation.set_statistics(float(settings.get("mean", 0.0)), float(settings.get("std", 1.0)))
    network.output = dataclasses.replace(network.output, **changes)
    return network, warnings


def _offset(value: Any, name: str = "offset_px", grid: str = "fine") -> tuple[float, float]:
    pair = (value, value) if isinstance(value, int | float) else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int | float) for v in pair):
        raise ValueError(f"{name} is {value!r}; give one number, or [x, y], in {grid} pixels")
    return float(pair[0]), float(pair[1])


def _meaning(output: Mapping[str, Any]) -> str:
    """The conversion that a card stores, in words."""
    if output["contract"] == EmitterMaps.__name__:
        x, y = output["reference_px"]
        known = ", ".join(name for name in output["channels"] if name)
        return f"positions from ({x:g}, {y:g}) camera pixels (x, y) inside a pixel, maps of {known}"
    x, y = output["offset_px"]
    return f"offset {x:+g}, {y:+g} fine pixels (x, y), {output['kind']} of {output['target_scale']:g}"


def _card(
    path: Path,
    translation: Translation,
    network: ImageNetwork | MapNetwork,
    settings: Mapping[str, Any],
    warnings: list[str],
) -> dict[str, Any]:
    given = {"offset_px", "reference_px"} & settings.keys()
    offset_source = "given by the user" if given else translation.offset[1]
    card: dict[str, Any] = {
        "imported": {
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "layout": translation.layout.name,
            "source": translation.layout.source,
            "copied": len(translation.copied),
            "skipped": list(translation.skipped),
            "dead": list(translation.dead),
            "offset_source": offset_source or "not known; 0 taken",
            "assumed": warnings,
        },
        "licence": zoo.get_spec(translation.layout.model).licence,
        **new_tile(network),
    }
    if getattr(network.core, "statistics", "running") in ("image", "block"):
        card["imported"]["statistics"] = f"of each {network.core.statistics} alone: results depend on the crop"
    threshold = settings.get("threshold", translation.layout.conventions.threshold)
    if threshold is not None:
        card["threshold"] = float(threshold)
    return card


def _shorten(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
