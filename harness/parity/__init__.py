"""Compare our networks, losses and image steps with numbers that the original programs made.

Files are recognised by what they hold, never by a list of names. A kind of file is one entry of `KINDS`: the
first whose test says yes makes the rows; later models add theirs with `register_kind`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .attention_checks import check_forward, is_forward
from .attention_loss_checks import (
    check_activations,
    check_extraction,
    check_gmm_losses,
    check_training,
    is_activations,
    is_extraction,
    is_gmm_losses,
    is_training,
)
from .decode_checks import (
    check_decode_loss,
    check_decode_network,
    check_post_processing,
    check_targets,
    check_train_steps,
    is_decode_loss,
    is_decode_network,
    is_post_processing,
    is_targets,
    is_train_steps,
)
from .files import SIZES, WEIGHT_SUFFIXES, Case, find_weights, read_arrays, read_document
from .rows import Row, Status, compare, not_covered, off
from .scoring_checks import (
    check_emitter_tools,
    check_matching,
    check_optimal,
    is_emitter_tools,
    is_matching,
    is_optimal,
)
from .simulator_checks import (
    check_camera,
    check_dropout_box,
    check_emitter_sampling,
    check_noise,
    check_photophysics,
    check_rate,
    is_camera,
    is_dropout_box,
    is_emitter_sampling,
    is_noise,
    is_photophysics,
    is_rate,
)

Recognise = Callable[[Case], bool]
Check = Callable[[Case], Iterable[Row]]

KINDS: dict[str, tuple[Recognise, Check]] = {}


def register_kind(name: str, recognise: Recognise, check: Check) -> None:
    """Add a kind of reference file; kinds are tried in the order in which they were added.

    Raises:
        ValueError: the name is taken.
    """
    if name in KINDS:
        raise ValueError(f"a kind of reference file named {name!r} is registered already")
    KINDS[name] = (recognise, check)


def run_parity(
    folder: str | Path,
    *,
    weights: str | Path | None = None,
    sizes: tuple[tuple[int, int], ...] = SIZES,
) -> list[Row]:
    """Compare with every reference file in a folder (not in its sub-folders).

    Args:
        folder: holds `NAME_io.npz`, `NAME.safetensors` and so on, or a part of them; or one such npz.
        weights: folder with the weight files, if they lie elsewhere; looked into after `folder`.
        sizes: (height, width) of the photon frames on which each network's exported graph is compared with
            the network itself, camera pixels; () leaves that out.

    Returns:
        A row for each compared item; `exit_status` judges them.

    Raises:
        FileNotFoundError: no such folder.
    """
    return list(iter_parity(folder, weights=weights, sizes=sizes))


def iter_parity(
    folder: str | Path,
    *,
    weights: str | Path | None = None,
    sizes: tuple[tuple[int, int], ...] = SIZES,
) -> Iterator[Row]:
    """The rows of `run_parity`, each as soon as it is there."""
    base = Path(folder)
    places = (base,) if weights is None else (base, Path(weights))
    for place in places:
        if not place.exists():
            raise FileNotFoundError(f"{place} is not there; give the folder with the reference files")
    if base.is_file():
        files, others = [base], []
        places = (base.parent, *places[1:])
    else:
        files = sorted(base.glob("*.npz"))
        others = sorted(path for path in base.iterdir() if path.is_file() and not path.name.startswith("."))
    used: set[Path] = set()
    for path in files:
        found = find_weights(path.stem.removesuffix("_io"), places)
        used.update(found, [path.with_suffix(".json")])  # figures beside arrays belong to the arrays
        yield from _check_file(path, found, places, sizes, used)
    for path in others:
        if path in used or path.suffix in (".npz", ".md", ".txt"):
            continue
        if path.suffix in WEIGHT_SUFFIXES:
            yield not_covered(path.name, "weights", f"no reference outputs {path.stem}_io.npz beside it")
        elif path.suffix == ".json":
            yield from _check_file(path, (), places, sizes, used)
        else:
            yield not_covered(path.name, "file", "no kind of file that is compared")


def _check_file(
    path: Path,
    weights: tuple[Path, ...],
    folders: tuple[Path, ...],
    sizes: tuple[tuple[int, int], ...],
    used: set[Path],
) -> Iterator[Row]:
    try:
        document = read_document(path) if path.suffix == ".json" else {}
        arrays = {} if path.suffix == ".json" else read_arrays(path)
    except ValueError as error:
        yield off(path.name, "file", str(error))
        return
    case = Case(path=path, arrays=arrays, weights=weights, folders=folders, sizes=sizes, used=used, document=document)
    for recognise, check in KINDS.values():
        if recognise(case):
            try:
                yield from check(case)
            except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
                yield off(path.name, "file", f"cannot be compared: {type(error).__name__}: {error}")
            return
    some = ", ".join([*arrays, *document][:4])
    yield not_covered(path.name, "file", f"no kind of file that is compared (it holds {some or 'nothing'})")


def exit_status(rows: Iterable[Row], *, strict: bool = False) -> int:
    """0: everything compared is equal. 1: a row is off, nothing was compared, or (strict) a row is not covered."""
    states: list[Status] = [row.status for row in rows]
    bad = "off" in states or "equal" not in states or (strict and "not covered" in states)
    return int(bad)


def print_parity(rows: Iterable[Row], *, strict: bool = False) -> int:
    """Print rows as aligned lines and a line that counts them; give the exit status."""
    listed = []
    for row in rows:
        listed.append(row)
        print(format_row(row), flush=True)
    print(summarise(listed) + ("" if any(row.status == "equal" for row in listed) else ": nothing compared is equal"))
    return exit_status(listed, strict=strict)


def format_row(row: Row) -> str:
    """One row as a line: status, deviation, tolerance, file, item, note."""
    numbers = " " * 20 if row.deviation != row.deviation else f"{row.deviation:9.2e} {row.tolerance:9.2e} "
    note = f"  ({_printable(row.note)})" if row.note else ""
    return f"{row.status:<11} {numbers} {_printable(row.file)}  {_printable(row.item)}{note}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def summarise(rows: Iterable[Row]) -> str:
    """How many rows of each status, e.g. "120 equal, 0 off, 2 not covered"."""
    states = [row.status for row in rows]
    return ", ".join(f"{states.count(status)} {status}" for status in ("equal", "off", "not covered"))


def as_records(rows: Iterable[Row]) -> list[dict[str, object]]:
    """Rows as plain dicts, for JSON."""
    return [dataclasses.asdict(row) for row in rows]


def _is_network(case: Case) -> bool:
    from .network_checks import is_network

    return is_network(case)


def _check_network(case: Case) -> Iterable[Row]:
    from .network_checks import check_network

    return check_network(case)


def _is_losses(case: Case) -> bool:
    return "pred" in case.arrays and any(k.startswith(("loss__", "grad__", "metric__")) for k in case.arrays)


def _check_losses(case: Case) -> Iterable[Row]:
    from .loss_checks import check_losses

    return check_losses(case.path.name, case.arrays)


def _is_preparation(case: Case) -> bool:
    return "raw" in case.arrays and case.path.stem.startswith("preprocess")


def _check_preparation(case: Case) -> Iterable[Row]:
    from .image_checks import check_preparation

    return check_preparation(case)


def _is_label(case: Case) -> bool:
    return {"positions_nm", "label", "pixel_size_nm", "upsampling"} <= case.arrays.keys()


def _check_label(case: Case) -> Iterable[Row]:
    from .image_checks import check_label

    return check_label(case)


def _is_pipeline(case: Case) -> bool:
    return "x_nm" in case.arrays and bool({"clean_frame", "heatmap", "map"} & case.arrays.keys())


def _check_pipeline(case: Case) -> Iterable[Row]:
    from .image_checks import check_pipeline

    return check_pipeline(case)


def _is_gaussian_psf(case: Case) -> bool:
    from .psf_checks import is_gaussian_psf

    return is_gaussian_psf(case)


def _check_gaussian_psf(case: Case) -> Iterable[Row]:
    from .psf_checks import check_gaussian_psf

    return check_gaussian_psf(case)


def _is_spline_psf(case: Case) -> bool:
    from .psf_checks import is_spline_psf

    return is_spline_psf(case)


def _check_spline_psf(case: Case) -> Iterable[Row]:
    from .psf_checks import check_spline_psf

    return check_spline_psf(case)


register_kind("losses", _is_losses, _check_losses)
register_kind("preparation", _is_preparation, _check_preparation)
register_kind("label", _is_label, _check_label)
register_kind("pipeline", _is_pipeline, _check_pipeline)
register_kind("network", _is_network, _check_network)
register_kind("DECODE network", is_decode_network, check_decode_network)
register_kind("DECODE loss", is_decode_loss, check_decode_loss)
register_kind("DECODE training steps", is_train_steps, check_train_steps)
register_kind("DECODE targets", is_targets, check_targets)
register_kind("DECODE post-processing", is_post_processing, check_post_processing)
register_kind("matching", is_matching, check_matching)
register_kind("optimal assignment", is_optimal, check_optimal)
register_kind("emitter tools", is_emitter_tools, check_emitter_tools)
register_kind("gaussian_psf", _is_gaussian_psf, _check_gaussian_psf)
register_kind("cubic_spline_psf", _is_spline_psf, _check_spline_psf)
register_kind("attention U-Net", is_forward, check_forward)
register_kind("attention training steps", is_training, check_training)
register_kind("attention losses", is_gmm_losses, check_gmm_losses)
register_kind("attention activations", is_activations, check_activations)
register_kind("attention extraction", is_extraction, check_extraction)

register_kind("camera", is_camera, check_camera)
register_kind("emitter sampling", is_emitter_sampling, check_emitter_sampling)
register_kind("simulator rate", is_rate, check_rate)
register_kind("simulator noise", is_noise, check_noise)
register_kind("photophysics", is_photophysics, check_photophysics)
register_kind("dropout box", is_dropout_box, check_dropout_box)

__all__ = [
    "KINDS",
    "SIZES",
    "Case",
    "Row",
    "as_records",
    "compare",
    "exit_status",
    "format_row",
    "iter_parity",
    "not_covered",
    "off",
    "print_parity",
    "register_kind",
    "run_parity",
    "summarise",
]
