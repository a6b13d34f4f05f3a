"""The models in the comparison: their forms, what records say of them, their thresholds."""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zoo
from harness.devices import fastest_precision, pick_device
from harness.export import export_onnx
from harness.models import in_onnx, load_network, model_name, open_model, ready
from harness.ready import ImageModel, ReadyModel
from harness.thresholding import ThresholdChoice, frozen_threshold
from harness.training import resolve_config, train
from leaderboard import Model, Runtime
from simulators import Movie, Recipe


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model in the comparison, in the forms it runs in; the first one is the float32 reference."""

    name: str
    source: str
    forms: dict[str, ReadyModel]
    record: Model
    threshold: ThresholdChoice | None = None


def trained(name: str, folder: Path, device: str) -> Path:
    """The folder of a model's training, done now unless it was done before; one that was stopped goes on."""
    output = folder / name
    card = output / "card.json"
    if card.is_file() and not json.loads(card.read_text(encoding="utf-8")).get("training", {}).get("stopped", True):
        return output
    resume = (output / "last.ckpt").exists()
    train(resolve_config(name, run=output if resume else None), output, resume=resume, device=device)
    return output


def open_entry(source: str, scratch: Path, device: str) -> Entry:
    """All forms of a model, and what its records say of it."""
    if source.endswith(".onnx"):
        only = open_model(source, device=device)
        return Entry(
            name=only.name,
            source=source,
            forms={"onnxruntime float32": only},
            record=Model(
                name=str(only.card.get("model", Path(source).stem)),
                tag=str(only.card.get("tag", "")),
                options=dict(only.card.get("options", {})),
                weights_sha256=sha256_of(Path(source)),
                size_bytes=Path(source).stat().st_size,
                receptive_field_px=only.receptive_field_px,
                grid_floor_nm=grid_floor(only),
            ),
        )
    network, card = load_network(source)
    name = model_name(source, card)
    reference = ready(network, card, name=name, device=device, precision="float32")
    forms = {"torch float32": reference}
    if fastest_precision(pick_device(device)) == "bfloat16":
        forms["torch bfloat16"] = ready(network, card, name=name, device=device, precision="bfloat16")
    path = export_onnx(network, scratch / "model.onnx")
    forms["onnxruntime float32"] = in_onnx(reference, path, device=device)
    base, _, tag = name.partition(".")
    digest = hashlib.sha256("".join(sorted(f["sha256"] for f in card["files"])).encode()).hexdigest()
    return Entry(
        name=name,
        source=source,
        forms=forms,
        record=Model(
            name=base,
            tag=tag,
            variant=str(card.get("options", {}).get("variant", "")),
            options=dict(card.get("options", {})),
            weights_sha256=digest,
            parameters=zoo.count_parameters(network),
            macs_64=zoo.count_macs(network, 64, 64).done,
            receptive_field_px=reference.receptive_field_px,
            size_bytes=path.stat().st_size,
            grid_floor_nm=grid_floor(reference),
        ),
    )


def with_threshold(entry: Entry, folder: Path, validation: list[tuple[Recipe, Movie]]) -> Entry:
    """The model with the threshold found on the validation movies, in every form; kept in a file for the next run."""
    path = folder / f"{file_name(entry.name)}-{entry.record.weights_sha256[:8]}.json"
    choice = frozen_threshold(next(iter(entry.forms.values())), path, validation)
    forms = {
        form: replace(model, card={**model.card, "threshold": choice.threshold}) for form, model in entry.forms.items()
    }
    return replace(entry, forms=forms, threshold=choice)


def runtime_of(model: ReadyModel) -> Runtime:
    info = model.info
    return Runtime(name=info.name, provider=info.provider, precision=info.precision, threads=info.threads)


def form_key(runtime: Runtime) -> tuple[Any, ...]:
    return (runtime.name, runtime.provider, runtime.precision, runtime.threads)


def grid_floor(model: ReadyModel) -> float:
    """Lateral RMSE of a perfect map whose emitters are known to a fine pixel only, 100 nm camera pixels."""
    return 100.0 / model.upsampling / 6**0.5 if isinstance(model, ImageModel) else 0.0


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.") or "unnamed"
