"""Weight files: safetensors beside a JSON card that says what they are.

Two places: a folder of the user's with `model.safetensors` and `card.json`, and the package's own
`zoo/weights` with `NAME.TAG.safetensors` and `NAME.TAG.json`. Above 15 MB the tensors are split into
`NAME.TAG-00001-of-00002.safetensors` and so on. The card names every file with its sha256; the card is
written last, so that a half-written folder is noticed.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ._emitter_maps import EmitterMaps
from ._outputs import SRImage
from ._places import fetch, is_address, listed
from ._registry import create_model, get_spec, list_models

CARD_FORMAT = 1
MAX_SHARD_BYTES = 15_000_000
_FLOAT16_MAX = 65504.0


def save_weights(
    model: nn.Module,
    folder: str | Path,
    card: Mapping[str, Any] | None = None,
    *,
    stem: str = "model",
    float16: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> dict[str, Any]:
    """Write a model's parameters and buffers with a card; each file under a temporary name first, then
    renamed.

    Args:
        model: from `create_model`, or any module with `model_name`.
        folder: made if missing.
        card: what else is known: threshold, valid ranges, training config, scores ... (JSON values).
        stem: "model" writes model.safetensors and card.json; "NAME.TAG" writes NAME.TAG.safetensors and
            NAME.TAG.json.
        float16: store kernels in half precision (they are read back as float32); vectors and statistics stay
            float32.
        max_shard_bytes: larger weights are split into files of at most this size.

    Returns:
        The card as written: model, options, normalisation, output, files with sha256, and the fields of
            `card`.

    Raises:
        ValueError: the model has no name, the card sets a field that is written here or holds what JSON
            cannot, or the weights hold nan or infinity.
    """
    name = getattr(model, "model_name", None)
    if name is None:
        raise ValueError("the model has no model_name; build it with zoo.create_model, or set it to its name")
    tensors = {key: _stored(key, value, float16) for key, value in model.state_dict().items()}
    written = _describe(model) | {"dtype": "float16" if float16 else "float32"}
    extra = dict(card or {})
    if clash := sorted(set(extra) & (set(written) | {"files"})):
        raise ValueError(f"card fields {', '.join(clash)} are written from the model; leave them out")
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the card cannot be written as JSON: {error}") from None

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards = list(_shards(tensors, max_shard_bytes))
    records = []
    for number, shard in enumerate(shards, start=1):
        part = "" if len(shards) == 1 else f"-{number:05d}-of-{len(shards):05d}"
        content = save(shard, metadata={"format": "pt"})
        file = f"{stem}{part}.safetensors"
        _write(folder / file, content)
        records.append({"name": file, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)})
    whole = written | extra | {"files": records}
    _write(folder / _card_name(stem), (json.dumps(whole, indent=2, allow_nan=False) + "\n").encode())
    return whole


def load_model(source: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Build a model from its card and load its weights.

    Args:
        source: a folder with card.json, a card file, "NAME.TAG" of `list_weights` (or NAME alone, for the model's usual
            weights), or the web address of a card or folder, which is fetched once.

    Returns:
        The model in evaluation mode, and the card.

    Raises:
        FileNotFoundError: no such folder, card or shipped weights.
        ConnectionError: a web address cannot be reached.
        ValueError: a file is damaged, or does not fit the model.
    """
    place, stem = _locate(source)
    card = _read_card(place, stem)
    return _build(place, stem, card), card


def read_card(source: str | Path) -> dict[str, Any]:
    """The card of a weights source, as in `load_model`.

    Raises:
        FileNotFoundError, ValueError: as `load_model`.
    """
    return _read_card(*_locate(source))


def load_weights(model: nn.Module, source: str | Path) -> dict[str, Any]:
    """Load weights into a model that is there already; give their card.

    The model is left as it was when anything does not fit.

    Raises:
        FileNotFoundError, ValueError: as `load_model`; also when the card is of another model.
    """
    place, stem = _locate(source)
    card = _read_card(place, stem)
    name = getattr(model, "model_name", card["model"])
    if card["model"] != name:
        raise ValueError(f"{_where(place, _card_name(stem))} holds weights of '{card['model']}', not of '{name}'")
    _load_into(model, place, stem, card)
    return card


def open_weights(source: str | Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """All tensors, the card, and where the card is, of a source as in `load_model`.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: as `load_model`.
    """
    place, stem = _locate(source)
    card = _read_card(place, stem)
    return _tensors(place, stem, card), card, _where(place, _card_name(stem))


def load_pretrained(name: str, tag: str, options: Mapping[str, Any]) -> nn.Module:
    """The shipped weights NAME.TAG as a model; `options` may only repeat what the card says.

    Raises:
        FileNotFoundError: none shipped under this name; the message lists those that are.
        ValueError: options that contradict the card.
    """
    place, stem = _locate(f"{name}.{tag}")
    card = _read_card(place, stem)
    for key, value in options.items():
        stored = card["options"].get(key, _default_option(name, key))
        if value != stored:
            raise ValueError(
                f"the weights {stem} were made with {key}={stored!r}, not {value!r}; leave the option out, "
                "or build without pretrained weights"
            )
    return _build(place, stem, card)


def list_weights(pattern: str = "*") -> list[str]:
    """Tags "NAME.TAG" of the weights at hand that match the wildcard pattern, sorted.

    They are those shipped with the package and those of the places in `SMLM_ZOO_WEIGHTS` (folders and web addresses).
    """
    return sorted(fnmatch.filter({*_shipped_stems(), *listed()}, pattern))


def _describe(model: nn.Module) -> dict[str, Any]:
    """The card's fields that follow from the model itself."""
    fields: dict[str, Any] = {
        "format": CARD_FORMAT,
        "model": model.model_name,
        "options": dict(getattr(model, "model_options", {})),
    }
    normalisation = getattr(model, "normalisation", None)
    if normalisation is not None:
        fields["normalisation"] = {
            "mode": normalisation.mode,
            "mean": float(normalisation.mean),
            "std": float(normalisation.std),
        }
    output = getattr(model, "output", None)
    if output is not None:
        settings = json.loads(json.dumps(dataclasses.asdict(output)))  # pairs become lists, as they are read back
        fields["output"] = settings | {"contract": type(output).__name__}
    return fields


def _stored(key: str, value: Tensor, float16: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    if value.is_floating_point():
        if not torch.isfinite(value).all():
            raise ValueError(f"weight '{key}' holds nan or infinity; such weights are not saved")
        if float16 and value.ndim >= 2 and value.abs().max() < _FLOAT16_MAX:
            return value.half()
    return value.clone()  # safetensors refuses tensors that share memory


def _shards(tensors: dict[str, Tensor], limit: int) -> Iterator[dict[str, Tensor]]:
    """Tensors in their order, grouped so that each group's file stays within the limit."""
    shard: dict[str, Tensor] = {}
    size = 0
    for key, value in tensors.items():
        needed = value.numel() * value.element_size() + len(key) + 200  # 200: its entry in the file's header
        if shard and size + needed > limit - 1000:
            yield shard
            shard, size = {}, 0
        shard[key] = value
        size += needed
    yield shard


def _write(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _shipped() -> Traversable:
    return files("zoo").joinpath("weights")


def _shipped_stems() -> list[str]:
    place = _shipped()
    if not place.is_dir():
        return []
    return [entry.name[: -len(".json")] for entry in place.iterdir() if entry.name.endswith(".json")]


def _card_name(stem: str) -> str:
    return "card.json" if stem == "model" else f"{stem}.json"


def _where(place: Traversable, file: str) -> str:
    return str(place.joinpath(file))


def _locate(source: str | Path) -> tuple[Traversable, str]:
    """Folder and stem of a weights source; one on the web is fetched into the cache."""
    if is_address(source):
        card = fetch(str(source))
        return card.parent, _stem(card)
    path = Path(source).expanduser()
    if (path / "card.json").is_file():
        return path, "model"
    if path.suffix == ".json" and path.is_file():
        return path.parent, _stem(path)
    stem = str(source)
    if stem in list_models():
        stem = f"{stem}.{get_spec(stem).recipe}"  # its usual weights
    if stem in _shipped_stems():  # also where some folder here happens to have that name
        return _shipped(), stem
    if path.is_dir():
        raise FileNotFoundError(f"{path} has no card.json; give a folder that `save_weights` wrote")
    further = listed()
    if stem in further:
        place = further[stem]
        return _locate(place) if isinstance(place, str) else (place, stem)
    known = sorted({*_shipped_stems(), *further})
    have = f"there are: {', '.join(known)}" if known else "there are none"
    raise FileNotFoundError(f"no weights '{source}': neither a folder, nor a card, nor shipped or listed ({have})")


def _stem(card: Path) -> str:
    return "model" if card.name == "card.json" else card.name[: -len(".json")]


def _read_card(place: Traversable, stem: str) -> dict[str, Any]:
    file = _card_name(stem)
    try:
        card = json.loads(place.joinpath(file).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{_where(place, file)} is not a JSON card: {error}") from None
    if not isinstance(card, dict):
        raise ValueError(f"{_where(place, file)} is not a card: it holds a {type(card).__name__}, not an object")
    for key, kind in (("format", int), ("model", str), ("options", dict), ("files", list)):
        if not isinstance(card.get(key), kind):
            raise ValueError(f"{_where(place, file)} is not a card: field '{key}' is missing or no {kind.__name__}")
    if card["format"] > CARD_FORMAT:
        raise ValueError(
            f"{_where(place, file)} has format {card['format']}, this version reads up to {CARD_FORMAT}; "
            "update smlm-zoo"
        )
    return card


def _build(place: Traversable, stem: str, card: dict[str, Any]) -> nn.Module:
    model = create_model(card["model"], **card["options"])
    _load_into(model, place, stem, card)
    output = dict(card.get("output") or {})
    contract = type(getattr(model, "output", None))
    if output and contract in (SRImage, EmitterMaps):
        output.pop("contract", None)
        try:
            model.output = contract(**output)  # e.g. an imported file's offset
        except TypeError as error:
            raise ValueError(f"{_where(place, _card_name(stem))}: field 'output' does not fit: {error}") from None
    return model.eval()


def _tensors(place: Traversable, stem: str, card: dict[str, Any]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for record in card["files"]:
        tensors |= _read_shard(place, stem, record)
    return tensors


def _load_into(model: nn.Module, place: Traversable, stem: str, card: dict[str, Any]) -> None:
    tensors = _tensors(place, stem, card)
    own = model.state_dict()
    where = _where(place, _card_name(stem))
    if missing := sorted(set(own) - set(tensors)):
        raise ValueError(f"{where}: weights for '{card['model']}' lack {some(missing)}")
    if unknown := sorted(set(tensors) - set(own)):
        raise ValueError(f"{where}: '{card['model']}' with options {card['options']} has no {some(unknown)}")
    wrong = [
        f"{key} is {tuple(value.shape)}, the model has {tuple(own[key].shape)}"
        for key, value in tensors.items()
        if value.shape != own[key].shape
    ]
    if wrong:
        raise ValueError(f"{where}: shapes do not fit '{card['model']}': {some(wrong, '; ')}")
    model.load_state_dict(tensors)


def _read_shard(place: Traversable, stem: str, record: Any) -> dict[str, Tensor]:
    name = record.get("name") if isinstance(record, dict) else None
    if not isinstance(name, str) or name != Path(name).name or not name.endswith(".safetensors"):
        raise ValueError(f"{_where(place, _card_name(stem))}: field 'files' holds {record!r}, not a file beside it")
    file = place.joinpath(name)
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; its card {_card_name(stem)} names it")
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != record.get("sha256"):
        raise ValueError(
            f"{file} is damaged or not the file of its card: sha256 {digest[:16]}..., "
            f"the card says {str(record.get('sha256'))[:16]}... "
            f"({len(content)} bytes, the card says {record.get('bytes')})"
        )
    try:
        return load(content)
    except Exception as error:
        raise ValueError(f"{file} is not a safetensors file: {error}") from None


def some(items: list[str], separator: str = ", ") -> str:
    """The first four and the number of the others, for a message."""
    rest = f"{separator}and {len(items) - 4} more" if len(items) > 4 else ""
    return separator.join(items[:4]) + rest


def _default_option(name: str, key: str) -> Any:
    parameters = inspect.signature(get_spec(name).builder).parameters
    return parameters[key].default if key in parameters else None
