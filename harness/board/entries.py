"""The models in the comparison, made ready once: exported, counted, with threshold and agreement of their forms."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import zoo
from harness.board.agreement import AGREEMENT_VERSION, agreement_of, agrees
from harness.board.plan import Plan
from harness.forms import Form, forms_of
from harness.io.json_files import read_json, write_json
from harness.models import load_network, model_name
from harness.ready import ReadyModel
from harness.recording import gives_height, model_record, weights_digest
from harness.thresholding import ThresholdChoice, frozen_threshold
from leaderboard import Agreement, Model
from simulators import simulate


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model in the comparison, in the forms that it runs in; the first one is the float32 reference.

    `level` is its threshold: that of `choice`, found on validation movies, or without one its card's. `height`: whether
    it gives z. An entry can be sent to another process, which opens what it needs.
    """

    name: str
    source: str
    forms: tuple[Form, ...]
    record: Model
    level: float
    choice: ThresholdChoice | None
    agreement: dict[str, Agreement]
    height: bool

    @property
    def stem(self) -> str:
        """Of the names of its files."""
        return f"{file_name(self.name)}-{self.record.weights_sha256[:8]}"

    @property
    def agreeing(self) -> list[Form]:
        """The forms whose localizations are those of the reference."""
        return [form for form in self.forms if agrees(self.agreement[form.name])]

    def open(self, form: Form) -> ReadyModel:
        """A form, ready, with the threshold that was found."""
        return form.open(threshold=self.level)


def prepare(source: str, folder: Path, plan: Plan, device: str) -> Entry:
    """Everything about a model that comes before its scores and times.

    What was done before is read from the folder: the exported file (exports/), the threshold (thresholds/), the record
    of the model and the agreement of its forms (prepared/).

    Raises:
        ValueError: no such model, or one that cannot be exported.
    """
    digest, name = _weights_of(source)
    stem = f"{file_name(name)}-{digest[:8]}"
    file = Path(source) if source.endswith(".onnx") else folder / "exports" / f"{stem}.onnx"
    key = {
        "source": source,
        "device": device,
        "recipes": [recipe.hash for recipe in plan.recipes],
        "validation": plan.validation,
        "domain": plan.domain,
        "frames": plan.agreement_frames,
        "version": AGREEMENT_VERSION,
    }
    cache = folder / "prepared" / f"{stem}.json"
    known = _prepared(cache, key) if file.is_file() else None
    validation = plan.validation_movies()
    if known is not None:
        forms = tuple(Form(**form) for form in known["forms"])
    else:
        forms = tuple(forms_of(source, file, device=device, slow_bfloat16=False, openvino=False, label=name))
    choice: ThresholdChoice | None = None
    if validation:
        choice = frozen_threshold(forms[0].open(), folder / "thresholds" / f"{stem}.json", validation)
    if known is not None and (choice is None or known["threshold"] == choice.threshold):
        record, agreement = Model.from_dict(known["record"]), known["agreement"]
        return Entry(
            name=name,
            source=source,
            forms=forms,
            record=record,
            level=known["threshold"],
            choice=choice,
            agreement={form: Agreement.from_dict(value) for form, value in agreement.items()},
            height=known["height"],
        )
    models = {form.name: form.open(threshold=choice.threshold if choice else None) for form in forms}
    reference = models[forms[0].name]
    movies = {recipe.name: simulate(recipe, recipe.rng()) for recipe in plan.recipes}
    found = agreement_of(models, movies, frames=plan.agreement_frames)
    more: dict[str, Any] = {"weights_sha256": digest, "size_bytes": file.stat().st_size}
    if reference.network is not None:
        more["macs_64"] = zoo.count_macs(reference.network, 64, 64).done
    else:
        more |= {"name": str(reference.card.get("model", file.stem)), "tag": str(reference.card.get("tag", ""))}
    entry = Entry(
        name=name,
        source=source,
        forms=forms,
        record=model_record(reference, **more),
        level=reference.threshold,
        choice=choice,
        agreement=found,
        height=gives_height(reference),
    )
    cache.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        cache,
        {
            "key": key,
            "threshold": entry.level,
            "height": entry.height,
            "forms": [asdict(form) for form in forms],
            "record": entry.record.to_dict(),
            "agreement": {form: value.to_dict() for form, value in found.items()},
        },
    )
    return entry


def _weights_of(source: str) -> tuple[str, str]:
    """SHA-256 of the weights, and the model's name for people."""
    if source.endswith(".onnx"):
        model = Form(name="", source=source, runtime="onnx", device="cpu").open()
        with Path(source).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), model.name
    _, card = load_network(source)
    return weights_digest(card), model_name(source, card)


def _prepared(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """What was prepared for the same plan; None otherwise."""
    known = read_json(path)
    return known if isinstance(known, dict) and known.get("key") == key else None


def train_all(names: Sequence[str], folder: Path, device: str) -> list[str]:
    """The folders of the models' trainings, done now unless they were done before; one that was stopped goes on."""
    from harness.training import resolve_config, train

    folders = []
    for name in names:
        output = folder / name
        card, resume = output / "card.json", (output / "last.ckpt").exists()
        done = card.is_file() and not json.loads(card.read_text(encoding="utf-8")).get("training", {}).get(
            "stopped", True
        )
        if not done:
            train(resolve_config(name, run=output if resume else None), output, resume=resume, device=device)
        folders.append(str(output))
    return folders


def file_name(text: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.") or "unnamed"
