"""The main job: every model on the same movies, scored, timed, and put into one leaderboard."""

import hashlib
import json
import platform
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import leaderboard
import zoo
from harness.devices import fastest_precision, pick_device
from harness.environment import commit, environment, onnxruntime_version, package_version
from harness.export import export_onnx
from harness.localization import localize, photons_of
from harness.models import in_onnx, load_network, model_name, open_model, ready
from harness.preview import enlarge, sheet, to_grey, to_heat, widen, write_png
from harness.ready import ImageModel, ReadyModel
from harness.scoring import CHALLENGE_2D, report, score
from harness.scoring.bounds import emitter_variances
from harness.scoring.image_quality import score_rendered
from harness.scoring.images import render
from harness.thresholding import MOVIES, ThresholdChoice, frozen_threshold, refuse_test_movies, validation_movies
from harness.timing import Times, time_models
from harness.training import resolve_config, train
from leaderboard import (
    Agreement,
    Dataset,
    Detail,
    Environment,
    Model,
    Picture,
    Result,
    Runtime,
    Scores,
    Settings,
    Timing,
)
from simulators import Emitters, Localizations, Movie, Recipe, load_recipe, simulate

AGREEMENT_FRAMES = 16
JACCARD_TOLERANCE = 0.5  # points
RMSE_TOLERANCE_NM = 0.5
TIMED_SIZE = 64  # camera pixels
ISOLATED_NM = 1000.0  # emitters with another one nearer in their frame are not held against the bound
DEFAULT_FRAMES = {"tubes-2d-ld": 400, "tubes-2d-hd": 300, "tubes-2d-uhd": 150}
FULL = ("tubes-2d-hd", "tubes-2d-hd-dim", "tubes-2d-ld", "tubes-2d-uhd")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Args:
        recipes: test movies, complete.
        seconds_per_cell: longest time spent on timing one form of one model.
        title: of the page.
        validation: number of validation movies that thresholds are found on, the same for every model; 0 takes the
            threshold of each model's card.
    """

    recipes: tuple[Recipe, ...]
    seconds_per_cell: float
    title: str
    validation: int = MOVIES

    @staticmethod
    def make(*, quick: bool = False, full: bool = False, datasets: Sequence[str] = ()) -> "Plan":
        """The usual plans: default (minutes), quick (a check), full (hours).

        Args:
            datasets: recipes, by name or file, instead of the plan's own.
        """
        if full:
            names = tuple(datasets) or FULL
            recipes = tuple(load_recipe(name) for name in names)
            recipes = tuple(
                recipe.with_(size=(64, 64), frames=2000 if recipe.name.endswith("-ld") else 1000) for recipe in recipes
            )
            return Plan(recipes=recipes, seconds_per_cell=20.0, title="SMLM Zoo leaderboard, full")
        names = tuple(datasets) or tuple(DEFAULT_FRAMES)
        recipes = tuple(load_recipe(name) for name in names)
        recipes = tuple(
            recipe.with_(size=(40, 40), frames=16 if quick else DEFAULT_FRAMES.get(recipe.name, 200))
            for recipe in recipes
        )
        title = "SMLM Zoo leaderboard, quick check" if quick else "SMLM Zoo leaderboard"
        seconds, validation = (1.0, 1) if quick else (5.0, MOVIES)
        return Plan(recipes=recipes, seconds_per_cell=seconds, title=title, validation=validation)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model in the comparison, in the forms it runs in; the first one is the float32 reference."""

    name: str
    source: str
    forms: dict[str, ReadyModel]
    record: Model
    threshold: ThresholdChoice | None = None


def run_board(
    folder: Path,
    plan: Plan,
    *,
    models: Sequence[str] = (),
    train_first: bool = False,
    add: Sequence[Path] = (),
    device: str = "auto",
) -> Path:
    """Measure what the plan asks for and write records, tables, plots and the page.

    A cell (model weights, movie, form) whose record is in the folder already is not measured again.

    Args:
        folder: written: records/, models/, pictures/, results.csv, leaderboard.md, plots and index.html.
        plan: from `Plan.make`.
        models: shipped models, folders or ONNX files; default: every shipped model.
        train_first: train each model of the zoo before, in folder/models.
        add: record files or folders of others.
        device: auto, cpu, cuda.

    Returns:
        Path of index.html.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = list(models)
    if train_first:
        sources = [str(_trained(name, folder / "models", device)) for name in sources or zoo.list_models()]
    if not sources:
        sources = zoo.list_weights()
    if not sources:
        raise ValueError("no weights are shipped with this installation; give trained folders, or --train")
    movies = {recipe.name: (recipe, simulate(recipe, recipe.rng())) for recipe in plan.recipes}
    validation = validation_movies(movies=plan.validation) if plan.validation else []
    refuse_test_movies((recipe for recipe, _ in validation), plan.recipes)
    records = folder / "records"
    known = leaderboard.read_results(records, on_error="warn") if records.is_dir() else []
    pictures: list[Picture] = []
    results: dict[str, Result] = {}
    entries: list[Entry] = []
    for name, (_, movie) in movies.items():
        pictures += _raw_and_truth(name, movie, folder / "pictures")
    with _cells(len(sources) * (1 + len(movies))) as step:
        for source in sources:
            with tempfile.TemporaryDirectory() as scratch:
                step(f"{source}: exporting", 0)
                entry = _open(source, Path(scratch), device)
                if validation:
                    step(f"{source}: threshold", 0)
                    entry = _with_threshold(entry, folder / "thresholds", validation)
                measured = _measure(entry, plan, movies, known, records, folder / "pictures", step)
            for result in measured:
                results[result.id] = result
            entries.append(entry)
    for entry in entries:
        shared = sum(other.record.name == entry.record.name for other in entries) > 1
        label = f"{entry.record.name} · {entry.record.tag}" if shared else entry.record.name  # as the tables say
        for name, (_, movie) in movies.items():
            path = _picture_path(folder / "pictures", name, entry)
            pictures.append(Picture(dataset=name, model=label, path=path, frame=_frame_shown(movie)))
    for name in movies:
        _write_sheet([p for p in pictures if p.dataset == name], folder / "pictures" / f"{_file_name(name)}.png")
    everything = list(results.values())
    for path in add:
        everything += leaderboard.read_results(path)
    notes = _notes(plan)
    return leaderboard.write_all(everything, folder, pictures=pictures, title=plan.title, notes=notes)["index.html"]


def _trained(name: str, folder: Path, device: str) -> Path:
    """The folder of a model's training, done now unless it was done before; one that was stopped goes on."""
    output = folder / name
    card = output / "card.json"
    if card.is_file() and not json.loads(card.read_text(encoding="utf-8")).get("training", {}).get("stopped", True):
        return output
    resume = (output / "last.ckpt").exists()
    train(resolve_config(name, run=output if resume else None), output, resume=resume, device=device)
    return output


def _open(source: str, scratch: Path, device: str) -> Entry:
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
                weights_sha256=_sha256(Path(source)),
                size_bytes=Path(source).stat().st_size,
                receptive_field_px=only.receptive_field_px,
                grid_floor_nm=_grid_floor(only),
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
            grid_floor_nm=_grid_floor(reference),
        ),
    )


def _with_threshold(entry: Entry, folder: Path, validation: list[tuple[Recipe, Movie]]) -> Entry:
    """The model with the threshold found on the validation movies, in every form; kept in a file for the next run."""
    path = folder / f"{_file_name(entry.name)}-{entry.record.weights_sha256[:8]}.json"
    choice = frozen_threshold(next(iter(entry.forms.values())), path, validation)
    forms = {
        form: replace(model, card={**model.card, "threshold": choice.threshold}) for form, model in entry.forms.items()
    }
    return replace(entry, forms=forms, threshold=choice)


def _measure(
    entry: Entry,
    plan: Plan,
    movies: dict[str, tuple[Recipe, Movie]],
    known: list[Result],
    records: Path,
    pictures: Path,
    step: Any,
) -> list[Result]:
    """Records of one model: times of every form, agreement of the forms, scores of the fastest that agrees.

    Each record is written as soon as it is known. What is in `known` for this plan is not measured again.
    """
    hashes = {recipe.hash: name for name, (recipe, _) in movies.items()}
    mine = [
        result
        for result in known
        if result.model.weights_sha256 == entry.record.weights_sha256 and result.dataset.recipe_hash in hashes
    ]
    scored = {hashes[result.dataset.recipe_hash] for result in mine if result.scores is not None}
    timed = {_form_key(result.runtime) for result in mine}
    wanted = {form: _form_key(_runtime(model)) for form, model in entry.forms.items()}
    missing = [name for name in movies if name not in scored or not _picture_path(pictures, name, entry).is_file()]
    if not missing and set(wanted.values()) <= timed:
        step(f"{entry.source}: measured before", 1 + len(movies))
        return mine
    step(f"{entry.source}: timing {len(entry.forms)} forms", 0)
    times = time_models(
        entry.forms,
        size=TIMED_SIZE,
        seconds=plan.seconds_per_cell,
        least=1 if plan.seconds_per_cell <= 1 else 3,
    )
    agreement, compared, found_there = _agreement(entry, movies)
    agreeing = [form for form in entry.forms if _agrees(agreement[form])]
    chosen = min(agreeing, key=lambda form: times[form].median)
    step(f"{entry.source}: scoring in {chosen}", 1)

    def keep(form: str, recipe: Recipe, scores: dict[str, Any] | None) -> None:
        result = _result(entry, entry.forms[form], recipe, scores, times[form], agreement[form])
        leaderboard.write_result(result, records)
        mine.append(result)

    first_recipe = next(iter(movies.values()))[0]
    for form in entry.forms:
        if form != chosen and wanted[form] not in timed:
            keep(form, first_recipe, None)
    if len(missing) < len(movies):
        step(f"{entry.source}: {len(movies) - len(missing)} movies scored before", len(movies) - len(missing))
    for name in missing:
        recipe, movie = movies[name]
        model = entry.forms[chosen]
        frame = _frame_shown(movie)
        read = photons_of(movie.frames, movie.camera)
        picture = model.picture(read, len(movie), frame, pixel_size_nm=movie.camera.pixel_size_nm)
        write_png(_picture_path(pictures, name, entry), _map_picture(picture.numpy()))
        if name not in scored:
            whole = name == compared and len(movie) <= AGREEMENT_FRAMES  # then it was localized just now
            found = found_there[chosen] if whole else localize(model, movie.frames, camera=movie.camera).localizations
            scores = _scores(recipe, movie, found)
            keep(chosen, recipe, scores)
            step(f"{entry.source} on {name}: efficiency {scores['efficiency']:.1f}", 1)
        else:
            step(f"{entry.source} on {name}: picture made", 1)
    return mine


def _picture_path(folder: Path, dataset: str, entry: Entry) -> Path:
    return folder / _file_name(dataset) / f"{_file_name(entry.name)}.png"


def _runtime(model: ReadyModel) -> Runtime:
    info = model.info
    return Runtime(name=info.name, provider=info.provider, precision=info.precision, threads=info.threads)


def _form_key(runtime: Runtime) -> tuple[Any, ...]:
    return (runtime.name, runtime.provider, runtime.precision, runtime.threads)


def _agreement(
    entry: Entry, movies: dict[str, tuple[Recipe, Movie]]
) -> tuple[dict[str, Agreement], str, dict[str, Localizations]]:
    """How far each form's localizations are from those of the first form (float32), on 16 frames of the densest movie.

    Returns:
        The agreement of each form, the movie's name, and what each form found there.
    """
    name = max(movies, key=lambda name: len(movies[name][1].emitters) / len(movies[name][1]))
    movie = movies[name][1]
    frames = movie.frames[:AGREEMENT_FRAMES]
    truth = movie.emitters.pick(movie.emitters.frame < len(frames))
    part = Movie(frames=frames, emitters=truth, background=movie.background[: len(frames)], camera=movie.camera)
    read = photons_of(frames, part.camera)
    maps = {form: model.raw(read, len(frames), len(frames)) for form, model in entry.forms.items()}
    reference = maps[next(iter(maps))]
    pixel = movie.camera.pixel_size_nm
    found = {
        form: model.decode(maps[form], threshold=model.threshold, pixel_size_nm=pixel)
        for form, model in entry.forms.items()
    }
    field = _field_nm(part)
    figures = {form: score(truth=truth, found=found[form], field_nm=field).to_dict() for form in entry.forms}
    base = figures[next(iter(figures))]
    scale = float(reference.abs().max()) or 1.0
    agreement = {
        form: Agreement(
            jaccard_delta=figure["jaccard"] - base["jaccard"],
            rmse_delta_nm=_difference(figure["rmse_lateral_nm"], base["rmse_lateral_nm"]),
            max_abs_deviation=float((maps[form] - reference).abs().max()) / scale,
            frames=len(frames),
        )
        for form, figure in figures.items()
    }
    return agreement, name, found


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _agrees(agreement: Agreement) -> bool:
    return (
        abs(agreement.jaccard_delta or 0.0) <= JACCARD_TOLERANCE
        and abs(agreement.rmse_delta_nm or 0.0) <= RMSE_TOLERANCE_NM
    )


def _field_nm(movie: Movie) -> tuple[float, float]:
    height, width = movie.frames.shape[1:]
    size_x, size_y = movie.camera.pixel_size_nm
    return width * size_x, height * size_y


def _scores(recipe: Recipe, movie: Movie, found: Localizations) -> dict[str, Any]:
    """Everything that the record of a score holds."""
    field = _field_nm(movie)
    width = getattr(recipe.psf, "sigma_nm", None)
    bound = None
    if isinstance(width, int | float):  # one PSF for the whole movie
        bound = emitter_variances(movie.emitters, psf=recipe.psf, camera=movie.camera)
    one = report(
        truth=movie.emitters,
        found=found,
        field_nm=field,
        protocol=CHALLENGE_2D,
        n_frames=len(movie),
        crlb=bound,
        isolated_nm=ISOLATED_NM,
    )
    images = score_rendered(truth=movie.emitters, found=found, field_nm=field, n_frames=len(movie))
    return {**one.to_dict(), "images": images}


def _result(
    entry: Entry,
    model: ReadyModel,
    recipe: Recipe,
    scores: dict[str, Any] | None,
    times: Times,
    agreement: Agreement,
) -> Result:
    machine = environment()
    protocol = CHALLENGE_2D
    return Result(
        model=entry.record,
        dataset=_dataset(recipe),
        runtime=_runtime(model),
        scores=None if scores is None else _recorded(scores),
        detail=None
        if scores is None
        else Detail(**{name: scores[name] for name in _DETAILS}, flags="; ".join(scores["flags"])),
        settings=Settings(
            tolerance_nm=protocol.tolerance_nm,
            border_nm=protocol.border_nm,
            quantile=protocol.quantile,
            threshold=model.threshold,
            threshold_source=entry.threshold.source if entry.threshold else "validation frames of its training",
            threshold_trials=entry.threshold.trials if entry.threshold else None,
            precision=model.info.precision,
            rule=protocol.rule,
        ),
        timing=Timing(
            ms_p50=1e3 * times.median,
            ms_min=1e3 * times.best,
            ms_max=1e3 * times.worst,
            batch=1,
            frames_per_second=1 / times.median,
            repeats=len(times.seconds),
        ),
        agreement=agreement,
        environment=Environment(
            machine=f"{machine['cpu']}, {machine['cores']} cores",
            cpu=machine["cpu"],
            gpu=machine.get("gpu", ""),
            os=machine["system"],
            python=platform.python_version(),
            torch=torch.__version__,
            onnxruntime=onnxruntime_version(),
            smlm_zoo=package_version("smlm-zoo"),
            commit=commit(),
        ),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=f"smlm-zoo leaderboard {entry.source} --dataset {recipe.name}",
    )


_DETAILS = ("blocks", "curves", "molecules", "calibration", "crlb", "images", "settings")
_SHARES = ("precision", "recall", "f1")


def _recorded(scores: dict[str, Any]) -> Scores:
    """The numbers of a report as a record has them: shares as fractions, intervals as two numbers."""
    own = {item.name for item in fields(Scores)} & scores.keys() - set(_SHARES)
    ends = {
        f"{stem}_{end}{unit}": scores["intervals"][f"{stem}{unit}"][end]
        for stem, unit in (("efficiency", ""), ("jaccard", ""), ("rmse_lateral", "_nm"))
        for end in ("low", "high")
    }
    lateral = [scores["calibration"][axis]["z_std"] for axis in "xy" if axis in scores["calibration"]]
    return Scores(
        **{name: scores[name] for name in own},
        **{name: scores[name] / 100 for name in _SHARES},
        **ends,
        rmse_over_crlb=_over_bound(scores["crlb"]),
        sigma_z_std=sum(lateral) / len(lateral) if lateral else None,
    )


def _over_bound(crlb: dict[str, dict[str, Any]]) -> float | None:
    """Lateral RMSE over the lateral bound."""
    lateral = [crlb[axis] for axis in "xy" if axis in crlb]
    if len(lateral) < 2 or not all(axis["n"] for axis in lateral):
        return None
    rmse, bound = (sum(axis[name] ** 2 for axis in lateral) for name in ("rmse", "bound"))
    return (rmse / bound) ** 0.5


def _dataset(recipe: Recipe) -> Dataset:
    height, width = recipe.size
    density = recipe.density_um2
    return Dataset(
        name=recipe.name,
        recipe_hash=recipe.hash,
        frames=recipe.frames,
        height=height,
        width=width,
        seed=recipe.seed,
        density=float(density) if isinstance(density, int | float) else None,
    )


def _grid_floor(model: ReadyModel) -> float:
    """Lateral RMSE of a perfect map whose emitters are known to a fine pixel only, 100 nm camera pixels."""
    return 100.0 / model.upsampling / 6**0.5 if isinstance(model, ImageModel) else 0.0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.") or "unnamed"


def _frame_shown(movie: Movie) -> int:
    """The frame with the most emitters among the first 16: what is shown of sparse movies should not be empty."""
    counts = np.bincount(movie.emitters.frame, minlength=len(movie))[:AGREEMENT_FRAMES]
    return int(counts.argmax())


def _raw_and_truth(name: str, movie: Movie, folder: Path) -> Iterator[Picture]:
    frame = _frame_shown(movie)
    place = folder / _file_name(name)
    place.mkdir(parents=True, exist_ok=True)
    height, width = movie.frames.shape[1:]
    size_x, size_y = movie.camera.pixel_size_nm
    here: Emitters = movie.emitters.pick(movie.emitters.frame == frame)
    truth = render(here, field_nm=(width * size_x, height * size_y), pixel_nm=size_x / 8, fwhm_nm=2.5 * size_x / 8)
    pictures = {"raw": enlarge(to_grey(movie.frames[frame]), 320), "truth": to_heat(truth, size=truth.shape[0])}
    for label, picture in pictures.items():
        path = write_png(place / f"{label}.png", picture)
        yield Picture(dataset=name, model=label, path=path, frame=frame)


def _map_picture(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A network's map in the colours of the truth, blurred by one fine pixel so that single spikes are seen."""
    return to_heat(widen(image), size=image.shape[0])


def _write_sheet(pictures: Sequence[Picture], path: Path) -> None:
    """All pictures of one movie on one sheet, five in a row."""
    from PIL import Image

    panels = {picture.model: np.asarray(Image.open(picture.path).convert("RGB")) for picture in pictures}
    write_png(path, sheet(panels, columns=5))


def _notes(plan: Plan) -> str:
    frames = ", ".join(f"{r.name} {r.frames} frames of {r.size[0]}x{r.size[1]} pixels" for r in plan.recipes)
    return (
        f"Movies: {frames}. Times are for one frame of {TIMED_SIZE}x{TIMED_SIZE} pixels, network only, on the machine "
        "named in each record. Scores follow the SMLM Challenge: pairs within 250 nm, 450 nm border, the weakest "
        "quarter of the molecules neither asked for nor punished; thresholds were chosen on validation "
        "movies, the same and with as many trials for every model."
    )


@contextmanager
def _cells(total: int) -> Iterator[Any]:
    """A progress bar over the cells; gives a function of (what is done now, cells finished)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("simulating movies", total=total)

        def step(text: str, finished: int) -> None:
            bar.update(task, description=text, advance=finished)
            if not console.is_terminal:
                print(text, flush=True)

        yield step
