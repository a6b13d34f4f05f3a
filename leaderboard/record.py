"""One result record: a model's weights on a dataset, in one runtime, on one machine. Standard library only.

A record is a JSON object of at most 1 MB with the sections below. A missing number is `None` here and `null`
in the file; NaN is read and written as missing. Keys that this version does not know are kept in the `extra`
of their section and written back where they were, so a record survives a round trip through an older program.

Units: `jaccard` and the efficiencies are in percent (100 is best, as the SMLM Challenge prints them);
`precision`, `recall` and `f1` are fractions (0..1). Where the counts are given, the ratios must agree.
"""

import hashlib
import json
import math
import numbers
import re
import types
import typing
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from ._files import write_whole

SCHEMA = 1
MAX_BYTES = 1_000_000
MAX_TEXT = 10_000

# Control characters and the marks that turn the direction of text: they hide what a string says.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class RecordError(ValueError):
    """A record is not as this module describes it; the message names the file (if any) and the key."""


def _number(low: float | None = None, high: float | None = None) -> Any:
    return field(default=None, metadata={"low": low, "high": high})


def _clean(value: Any, *, inside: bool = False) -> Any:
    """Numbers to Python's own, NaN to None, unseen characters to U+FFFD; containers item by item.

    Args:
        inside: the value stands in a container, where infinity, which JSON does not have, becomes None too.
    """
    if isinstance(value, str):
        return _UNSEEN.sub("\ufffd", value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {_clean(str(key)): _clean(item, inside=True) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, inside=True) for item in value]
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return None if math.isnan(number) or (inside and math.isinf(number)) else number
    if type(value).__name__ == "bool":  # numpy's
        return bool(value)
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = typing.get_type_hints(kind)
    return _HINTS[kind]


@dataclass(frozen=True, kw_only=True)
class _Section:
    """Common to all sections: values are cleaned and checked when the object is made."""

    title: ClassVar[str] = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for item in fields(self):
            kind = _hints(type(self))[item.name]
            value = getattr(self, item.name)
            if not isinstance(value, _Section):
                value = _clean(value)
            key = f"{self.title}.{item.name}" if self.title else item.name
            object.__setattr__(self, item.name, _checked(value, kind, key, item.metadata))

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary; `extra` is spread back into its section."""
        own = {
            item.name: value.to_dict() if isinstance(value := getattr(self, item.name), _Section) else value
            for item in fields(self)
            if item.name != "extra"
        }
        return {**{key: value for key, value in self.extra.items() if key not in own}, **own}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Inverse of `to_dict`.

        Raises:
            RecordError: a value is missing, of the wrong type or out of range; names the key.
        """
        if not isinstance(data, Mapping):
            raise RecordError(f"{cls.title or 'the record'} is {_shown(data)}; expected a JSON object")
        known: dict[str, Any] = {}
        for item in fields(cls):
            if item.name == "extra":
                continue
            if item.name not in data:
                if item.default is MISSING and item.default_factory is MISSING:
                    key = f"{cls.title}.{item.name}" if cls.title else item.name
                    raise RecordError(f"key '{key}' is missing; every record needs it")
                continue
            value = data[item.name]
            section = _section_of(_hints(cls)[item.name])
            known[item.name] = section.from_dict(value) if section and value is not None else value
        return cls(**known, extra={str(key): value for key, value in data.items() if key not in known})


def _section_of(kind: Any) -> type[_Section] | None:
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, _Section)), None)


def _checked(value: Any, kind: Any, key: str, metadata: Mapping[str, Any]) -> Any:
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None and type(None) in kinds:
        return None
    section = _section_of(kind)
    if section:
        if isinstance(value, section):
            return value
        raise RecordError(f"key '{key}' is {_shown(value)}; expected a {section.__name__}")
    if str in kinds:
        if not isinstance(value, str):
            raise RecordError(f"key '{key}' is {_shown(value)}; expected text")
        if len(value) > MAX_TEXT:
            raise RecordError(f"key '{key}' has {len(value)} characters; at most {MAX_TEXT} are allowed")
        return value
    if bool in kinds:
        if not isinstance(value, bool):
            raise RecordError(f"key '{key}' is {_shown(value)}; expected true or false")
        return value
    if int in kinds or float in kinds:
        what = "a number" if float in kinds else "a whole number"
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RecordError(f"key '{key}' is {_shown(value)}; expected {what}")
        if not math.isfinite(value) or abs(value) > 1e18:
            raise RecordError(f"key '{key}' is {_shown(value)}; expected {what} of sensible size")
        if float not in kinds and value != int(value):
            raise RecordError(f"key '{key}' is {_shown(value)}; expected a whole number")
        low, high = metadata.get("low"), metadata.get("high")
        if (low is not None and value < low) or (high is not None and value > high):
            limits = f"{'' if low is None else f'{low:g}'} .. {'' if high is None else f'{high:g}'}"
            raise RecordError(f"key '{key}' is {value!r}; expected {limits}")
        return float(value) if float in kinds else int(value)
    wanted = list if typing.get_origin(kind) is list else dict
    if not isinstance(value, wanted):
        what = "a JSON list" if wanted is list else "a JSON object"
        raise RecordError(f"key '{key}' is {_shown(value)}; expected {what}")
    return value


@dataclass(frozen=True, kw_only=True)
class Model(_Section):
    """Which network, with which weights. `macs_64`: multiply-accumulates for one 64x64 frame.

    `context_frames`: consecutive frames that the localizations of one frame are found from (1: that frame alone);
    `trained_on`: name of the recipe that the weights were trained on; `baseline`: no model, but what any model is to
    be compared with (nothing found, random points, a fit).
    """

    title: ClassVar[str] = "model"
    name: str
    tag: str = ""
    variant: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    parameters: int | None = _number(0)
    macs_64: int | None = _number(0)
    receptive_field_px: float | None = _number(0)
    size_bytes: int | None = _number(0)
    grid_floor_nm: float | None = _number(0)
    context_frames: int | None = _number(1)
    trained_on: str = ""
    baseline: bool = False
    training_seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset(_Section):
    """Which test movie. `density` is in emitters per square micrometre and frame.

    `condition`: in what the movie departs from the simulation that is the standard: "matched" (in nothing), "density",
    "photons", "background", "psf", "foreign" (another simulator), "real"; `value`: how far, in the condition's unit.
    `dimensions`: 2 where only the lateral position is asked for, 3 where z is too.
    """

    title: ClassVar[str] = "dataset"
    name: str
    recipe_hash: str = ""
    frames: int | None = _number(0)
    height: int | None = _number(0)
    width: int | None = _number(0)
    seed: int | None = None
    density: float | None = _number(0)
    condition: str = "matched"
    value: float | None = None
    dimensions: int = field(default=2, metadata={"low": 2, "high": 3})


@dataclass(frozen=True, kw_only=True)
class Scores(_Section):
    """Counts over the movie and what follows from them; `n_truth` is the number of true molecules scored.

    `jaccard`, `efficiency` and `efficiency_quantile0` in percent; `precision`, `recall`, `f1` as fractions.
    `efficiency` holds for `Settings.quantile`; `efficiency_quantile0` counts every molecule, however weak;
    `efficiency_100nm` allows 100 nm instead of `Settings.tolerance_nm`. `_low` and `_high` are the ends of 95 %
    intervals from resampled blocks of frames. `rmsmd_nm` compares point sets over the whole movie, clipped at 250 nm.
    `sigma_z_std` is the standard deviation of error / predicted sigma over the lateral axes (1 at best);
    `rmse_over_crlb` the lateral RMSE of isolated molecules over their Cramer-Rao bound for one frame.
    """

    title: ClassVar[str] = "scores"
    tp: int | None = _number(0)
    fp: int | None = _number(0)
    fn: int | None = _number(0)
    n_truth: int | None = _number(0)
    n_found: int | None = _number(0)
    jaccard: float | None = _number(0, 100)
    precision: float | None = _number(0, 1)
    recall: float | None = _number(0, 1)
    f1: float | None = _number(0, 1)
    rmse_lateral_nm: float | None = _number(0)
    efficiency: float | None = _number(None, 100)
    bias_x_nm: float | None = None
    bias_y_nm: float | None = None
    efficiency_quantile0: float | None = _number(None, 100)
    efficiency_100nm: float | None = _number(None, 100)
    efficiency_low: float | None = _number(None, 100)
    efficiency_high: float | None = _number(None, 100)
    jaccard_low: float | None = _number(0, 100)
    jaccard_high: float | None = _number(0, 100)
    rmse_lateral_low_nm: float | None = _number(0)
    rmse_lateral_high_nm: float | None = _number(0)
    rmse_axial_nm: float | None = _number(0)
    rmse_volume_nm: float | None = _number(0)
    efficiency_lateral: float | None = _number(None, 100)
    efficiency_axial: float | None = _number(None, 100)
    bias_z_nm: float | None = None
    mad_nm: float | None = _number(0)
    photon_correlation: float | None = _number(-1, 1)
    rmsmd_nm: float | None = _number(0)
    sigma_z_std: float | None = _number(0)
    rmse_over_crlb: float | None = _number(0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tp is None or self.fp is None or self.fn is None:
            return
        for name, scale, below in (
            ("jaccard", 100.0, self.tp + self.fp + self.fn),
            ("precision", 1.0, self.tp + self.fp),
            ("recall", 1.0, self.tp + self.fn),
        ):
            value = getattr(self, name)
            if value is None or below == 0:
                continue
            expected = scale * self.tp / below
            if abs(value - expected) > 1e-3 * scale:
                raise RecordError(
                    f"key 'scores.{name}' is {value:g}, but tp={self.tp}, fp={self.fp}, fn={self.fn} give "
                    f"{expected:g}; jaccard is in percent, precision and recall are fractions"
                )


@dataclass(frozen=True, kw_only=True)
class Detail(_Section):
    """What belongs to a score and is no single number; left out of the CSV.

    `blocks`: counts by blocks of frames (`leaderboard.statistics.Blocks`), from which intervals and comparisons
    follow; `curves`: over z, photons, density, crowding and threshold; `molecules`, `calibration`, `crlb`, `settings`
    as the scorer names them; `images`: scores of the rendered image (FWHM and pixel in it), `nmse` a share after the
    least-squares factor, `nmse_percent` as it is; `flags`: what looks wrong, in words; `card`: of the weights, with
    how they were trained.
    `worst`: the frames with most mistakes, each a dict of `frame`, `tp`, `fp`, `fn`, and for the picture `field_nm`
    (width, height), `truth` and `found`: lists of [x_nm, y_nm, kind]; kind 1 is a hit, 0 a miss or a false alarm, -1
    neither (weak, or near the border).
    """

    title: ClassVar[str] = "detail"
    blocks: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    molecules: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    crlb: dict[str, Any] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    flags: str = ""
    card: dict[str, Any] = field(default_factory=dict)
    worst: list[Any] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Settings(_Section):
    """What the score depends on. `precision` is the arithmetic of the scored run: float32, bfloat16, ..."""

    title: ClassVar[str] = "settings"
    tolerance_nm: float | None = _number(0)
    border_nm: float | None = _number(0)
    quantile: float | None = _number(0, 1)
    threshold: float | None = None
    threshold_source: str = ""
    threshold_trials: int | None = _number(0)
    wobble: str = "none"
    precision: str = "float32"
    rule: str = "greedy"


@dataclass(frozen=True, kw_only=True)
class Runtime(_Section):
    """What ran the network: `name` torch, onnxruntime, ...; `provider` as really used (CPU, CUDA, ...)."""

    title: ClassVar[str] = "runtime"
    name: str
    provider: str = ""
    precision: str = "float32"
    threads: int | None = _number(0)


@dataclass(frozen=True, kw_only=True)
class Timing(_Section):
    """Times on the fixed 64x64 frames of `smlm-zoo time`; network only where nothing else is said.

    `ms_p50`, `ms_p90`, `ms_p99`, `ms_min`, `ms_max`: milliseconds per frame of calls that give `batch` frames (1:
    latency), over `repeats` calls; percentiles by nearest rank; `frames_per_second` follows from `ms_p50`.
    `best_batch`: the batch size of largest throughput, with `best_frames_per_second` and `megapixels_per_second`
    (camera pixels) there. `first_call_ms`: the first call of a fresh process. `peak_memory_mb`: largest resident
    memory of that process (10^6 bytes) up to its warming up, on a GPU its memory. `spread`: relative difference of
    the medians of the first and the second half of the repeats; `machine_gflops`: of a float32 matrix
    multiplication beside the repeats, the median; `noisy`: the spread, or the difference of `machine_gflops` from
    what it is for most rows of the run, is beyond 10 %, and the row is left out of speed rankings. `gflops`: 2 x
    multiply-accumulates done / time, at the best batch; `peak_gflops`: of a matrix multiplication in the same
    process; `peak_share`: the first over the second. `movie_frames_per_second`: from movie file to table file.
    `cpu_seconds_per_1000_frames`: of all threads, at `best_batch`. `hours_per_million_frames`: at `best_batch`;
    `cost_per_million_frames`: that times a price per hour.
    """

    title: ClassVar[str] = "timing"
    ms_p50: float | None = _number(0)
    ms_min: float | None = _number(0)
    ms_max: float | None = _number(0)
    batch: int | None = _number(0)
    frames_per_second: float | None = _number(0)
    repeats: int | None = _number(0)
    ms_p90: float | None = _number(0)
    ms_p99: float | None = _number(0)
    best_batch: int | None = _number(1)
    best_frames_per_second: float | None = _number(0)
    megapixels_per_second: float | None = _number(0)
    first_call_ms: float | None = _number(0)
    peak_memory_mb: float | None = _number(0)
    spread: float | None = _number(0)
    noisy: bool | None = None
    machine_gflops: float | None = _number(0)
    gflops: float | None = _number(0)
    peak_gflops: float | None = _number(0)
    peak_share: float | None = _number(0)
    cpu_seconds_per_1000_frames: float | None = _number(0)
    movie_frames_per_second: float | None = _number(0)
    hours_per_million_frames: float | None = _number(0)
    cost_per_million_frames: float | None = _number(0)


@dataclass(frozen=True, kw_only=True)
class Agreement(_Section):
    """How far this run is from torch float32 on the first `frames` frames.

    `jaccard_delta` in percentage points, `rmse_delta_nm` in nm, `max_abs_deviation` of the output tensors
    (ONNX against torch), in the output's unit.
    """

    title: ClassVar[str] = "agreement"
    jaccard_delta: float | None = None
    rmse_delta_nm: float | None = None
    max_abs_deviation: float | None = _number(0)
    frames: int | None = _number(0)


@dataclass(frozen=True, kw_only=True)
class Environment(_Section):
    """Where it ran. Versions as the programs print them; empty where a program was not there."""

    title: ClassVar[str] = "environment"
    machine: str = ""
    cpu: str = ""
    gpu: str = ""
    os: str = ""
    python: str = ""
    torch: str = ""
    onnxruntime: str = ""
    smlm_zoo: str = ""
    commit: str = ""


@dataclass(frozen=True, kw_only=True)
class Result(_Section):
    """One record. `date` is ISO 8601; `command` repeats the row; sections not measured may be `None`.

    Example:
        >>> r = Result(model=Model(name="srcnn"), dataset=Dataset(name="ld"), runtime=Runtime(name="torch"))
        >>> Result.from_json(r.to_json()) == r
        True
    """

    schema: int = SCHEMA
    model: Model
    dataset: Dataset
    runtime: Runtime
    scores: Scores | None = None
    settings: Settings = field(default_factory=Settings)
    timing: Timing | None = None
    agreement: Agreement | None = None
    detail: Detail | None = None
    environment: Environment = field(default_factory=Environment)
    date: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.schema <= SCHEMA:
            raise RecordError(
                f"key 'schema' is {self.schema}; this version reads 1 .. {SCHEMA}. "
                "Update smlm-zoo to read newer records"
            )
        for section in (self.model, self.dataset, self.runtime):
            if not section.name.strip():
                raise RecordError(f"key '{section.title}.name' is empty; every record needs it")
        if self.date:
            try:
                datetime.fromisoformat(self.date)
            except ValueError as error:
                raise RecordError(
                    f"key 'date' is {_shown(self.date)}; expected ISO 8601, e.g. 2025-01-31T12:00:00+00:00"
                ) from error

    @property
    def when(self) -> datetime:
        """`date` as a time with zone (UTC where none is given); the year 1 where there is no date."""
        if not self.date:
            return datetime.min.replace(tzinfo=UTC)
        time = datetime.fromisoformat(self.date)
        return time if time.tzinfo else time.replace(tzinfo=UTC)

    @property
    def id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the content; also the name of the file."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:16]

    def to_json(self) -> str:
        """Indented JSON text with a final newline; NaN is written as null."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "") -> "Result":
        """Read and check one record.

        Args:
            text: JSON, UTF-8 where bytes.
            source: name of the file, for messages.

        Raises:
            RecordError: no JSON, or a key is missing, of the wrong type or out of range.
        """
        start = f"{source}: " if source else ""
        if len(text) > MAX_BYTES:
            raise RecordError(f"{start}larger than {MAX_BYTES:,} bytes; a result record is a few kilobytes")
        try:
            return cls.from_dict(json.loads(text))
        except RecordError as error:
            raise RecordError(f"{start}{error}") from error
        except RecursionError as error:
            raise RecordError(f"{start}nested too deeply for a result record") from error
        except ValueError as error:  # JSON, UTF-8, endless digits
            raise RecordError(f"{start}not readable as JSON ({error})") from error


def write_result(result: Result, folder: str | Path) -> Path:
    """Add a record to a folder; returns its file.

    The name comes from the content alone, so nothing in a record can choose where it is written. The same
    record twice is one file.

    Raises:
        FileExistsError: a different record stands under that name (it was edited); nothing is overwritten.
    """
    path = Path(folder) / f"{result.id}.json"
    text = result.to_json()
    if len(text.encode()) > MAX_BYTES:
        raise RecordError(f"the record has {len(text):,} characters; at most {MAX_BYTES:,} bytes can be read again")
    if path.exists():
        if path.read_text(encoding="utf-8") == text:
            return path
        raise FileExistsError(f"{path} holds a different record; it was edited after it was written. Move it away")
    return write_whole(path, text)


def read_results(
    source: str | Path | Iterable[str | Path], *, on_error: Literal["raise", "warn"] = "raise"
) -> list[Result]:
    """Read records from a folder (its *.json), a file, or several of both; equal records are returned once.

    Args:
        source: folder, file, or an iterable of them.
        on_error: "raise", or "warn" to skip files that are no record with a warning that names each.

    Raises:
        FileNotFoundError: a path does not exist.
        RecordError: a file is no record; names file and key.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    files: list[Path] = []
    for item in map(Path, sources):
        if item.is_dir():
            files += sorted(p for p in item.glob("*.json") if not p.name.startswith("."))
        elif item.exists():
            files.append(item)
        else:
            raise FileNotFoundError(f"{item} does not exist; give a folder of result records or a JSON file")
    results: dict[str, Result] = {}
    for file in files:
        try:
            result = _read_file(file)
        except RecordError as error:
            if on_error == "raise":
                raise
            warnings.warn(f"skipped: {error}", stacklevel=2)
            continue
        results.setdefault(result.id, result)
    return list(results.values())


def _read_file(path: Path) -> Result:
    if not path.is_file():
        raise RecordError(f"{path}: not a regular file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from error
    return Result.from_json(content, source=str(path))


def shipped_results() -> list[Result]:
    """The records that come with the package (`leaderboard/results/*.json`)."""
    folder = resources.files("leaderboard") / "results"
    if not folder.is_dir():
        return []
    return [
        Result.from_json(item.read_bytes(), source=item.name)
        for item in sorted(folder.iterdir(), key=lambda item: item.name)
        if item.name.endswith(".json")
    ]


def flat(result: Result) -> dict[tuple[str, str], Any]:
    """(section, field) -> value for every field, in a fixed order; None where a section was not measured."""
    out: dict[tuple[str, str], Any] = {("", name): getattr(result, name) for name in ("schema", "date", "command")}
    for section in _SECTIONS:
        values = getattr(result, section.title)
        for item in fields(section):
            if item.name != "extra":
                out[section.title, item.name] = getattr(values, item.name) if values is not None else None
    return out


_SECTIONS: tuple[type[_Section], ...] = (
    Model, Dataset, Runtime, Scores, Settings, Timing, Agreement, Environment,
)  # fmt: skip

WHOLE_NUMBERS = [
    (section.title, name) for section in _SECTIONS for name, kind in _hints(section).items() if kind == int | None
]
