"""Run an export folder on another processor, emulated: does a 64-bit ARM board find the same molecules?

    python -m harness.emulation EXPORT_FOLDER MOVIE [--file model.int8.onnx] [RUNNER'S OPTIONS]

The folder's `localize.py` runs twice, natively and on aarch64 under QEMU's user mode, and the tables are compared. For
the second run a tree with Debian's Python for arm64 and the wheels of numpy, ONNX Runtime and tifffile is put together
once and kept (about 55 MB to fetch, and 63 MB for QEMU where it is missing); nothing is installed into this system. It
needs Debian or a distribution of its kind (apt-get, dpkg-deb) and pip. Emulated times say nothing of a real board.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from harness.export import RUNNER
from harness.io.tables import as_localizations, read_table
from simulators import Localizations

QEMU = "qemu-aarch64-static"
PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
WHEELS = ("numpy", "tifffile", "onnxruntime==1.26.0")  # 1.31.1 crashes when it is loaded under QEMU 7.2
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
TOLERANCE_NM = 0.5
LEAST_SHARE = 0.995  # the others lie at the threshold, where the last bit decides


class CannotEmulate(RuntimeError):
    """What is needed to emulate is not to be had here; the message says what."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """An emulated computer with a Python that has the runner's three packages.

    Args:
        emulator: QEMU's program.
        root: of the file tree.
        python: in it. packages: folder of the wheels.
    """

    emulator: Path
    root: Path
    python: Path
    packages: Path

    def run(self, words: Sequence[str], *, timeout: float = 3600) -> str:
        """Run Python with these arguments; gives what it prints.

        Raises:
            RuntimeError: it failed; says how.
        """
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "LD_"))},
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": str(self.packages),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        command = [str(self.emulator), "-L", str(self.root), str(self.python), *words]
        return _checked(command, environment=environment, timeout=timeout)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well two tables of the same movie agree.

    Args:
        rows: of the first and of the second.
        paired: rows of the one with a row of the other in the same frame within the tolerance.
        largest_nm: distance of a pair, at most.
    """

    rows: tuple[int, int]
    paired: int
    largest_nm: float

    @property
    def share(self) -> float:
        """Of the longer table's rows that have a partner; two empty tables agree."""
        return self.paired / max(self.rows) if max(self.rows) else 1.0

    @property
    def passed(self) -> bool:
        """Whether enough rows have a partner."""
        return self.share >= LEAST_SHARE


def agreement(first: Localizations, second: Localizations, *, tolerance_nm: float = TOLERANCE_NM) -> Agreement:
    """Pair the rows of two tables: nearest neighbours of each other, in one frame, within the tolerance."""
    if not len(first) or not len(second):
        return Agreement(rows=(len(first), len(second)), paired=0, largest_nm=0.0)
    places = [
        np.column_stack([np.asarray(table.x_nm), np.asarray(table.y_nm), np.asarray(table.frame) * 1e6])
        for table in (first, second)
    ]
    distance, there = cKDTree(places[1]).query(places[0])
    _, back = cKDTree(places[0]).query(places[1])
    good = (back[there] == np.arange(len(first))) & (distance <= tolerance_nm)
    largest = float(distance[good].max()) if good.any() else 0.0
    return Agreement(rows=(len(first), len(second)), paired=int(good.sum()), largest_nm=largest)


def emulated(place: Path | None = None) -> Machine:
    """An aarch64 machine; its parts are fetched where they are not there yet.

    Args:
        place: folder that keeps them; default: in the cache (`SMLM_ZOO_CACHE`).

    Raises:
        CannotEmulate: no apt-get or dpkg-deb here, or a part cannot be fetched.
    """
    from zoo._places import cache

    place = (place or cache() / "aarch64").resolve()
    if not (place / "complete").is_file():
        for tool in ("apt-get", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise CannotEmulate(f"{tool} is missing: Debian's packages are needed to emulate aarch64")
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".aarch64-") as scratch:
            whole = _fetched(Path(scratch))
            shutil.rmtree(place, ignore_errors=True)
            whole.rename(place)
    installed = shutil.which(QEMU) or shutil.which("qemu-aarch64")
    emulator = Path(installed) if installed else place / QEMU
    root = place / "root"
    return Machine(emulator=emulator, root=root, python=_python_in(root), packages=place / "packages")


def _fetched(scratch: Path) -> Path:
    """The whole tree, in a folder of `scratch`."""
    tree, archives = scratch / "tree", scratch / "archives"
    state = scratch / "apt"
    for folder in (tree / "root", tree / "packages", archives / "partial", state / "lists" / "partial"):
        folder.mkdir(parents=True)
    foreign = ["-o", "APT::Architecture=arm64", "-o", "APT::Architectures=arm64", "-o", "APT::Sandbox::User=root"]
    foreign += ["-o", f"Dir::State::Lists={state / 'lists'}", "-o", "Dir::State::status=/dev/null"]
    foreign += ["-o", f"Dir::Cache={state}", "-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1"]
    fetch = ["--download-only", "--yes", "--no-install-recommends", "install", *PACKAGES]
    try:
        _checked(["apt-get", *foreign, "update"])
        _checked(["apt-get", *foreign, *fetch])
        for archive in sorted(archives.glob("*.deb")):
            _checked(["dpkg-deb", "-x", str(archive), str(tree / "root")])
        if not shutil.which(QEMU) and not shutil.which("qemu-aarch64"):
            own = scratch / "own"
            own.mkdir()
            _checked(["apt-get", "-o", "APT::Sandbox::User=root", "download", "qemu-user-static"], folder=own)
            _checked(["dpkg-deb", "-x", str(next(own.glob("*.deb"))), str(own)])
            (own / "usr" / "bin" / QEMU).rename(tree / QEMU)
        version = _python_in(tree / "root").name.removeprefix("python")
        platforms = [word for name in PLATFORMS for word in ("--platform", name)]
        words = ["install", "--quiet", "--no-compile", "--only-binary=:all:", "--python-version", version]
        _checked([sys.executable, "-m", "pip", *words, *platforms, "--target", str(tree / "packages"), *WHEELS])
    except RuntimeError as error:
        raise CannotEmulate(str(error)) from None
    (tree / "complete").touch()
    return tree


def _python_in(root: Path) -> Path:
    found = sorted((root / "usr" / "bin").glob("python3.*[0-9]"))
    if not found:
        raise CannotEmulate(f"no Python was unpacked into {root}")
    return found[-1]


def _checked(
    command: list[str], *, folder: Path | None = None, environment: dict[str, str] | None = None, timeout: float = 1800
) -> str:
    """What a command prints.

    Raises:
        RuntimeError: it failed.
    """
    try:
        answer = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"{Path(command[0]).name} did not finish: {error}") from None
    if answer.returncode:
        raise RuntimeError(
            f"{' '.join([Path(command[0]).name, *command[1:]])[:200]} failed ({answer.returncode}): "
            f"{(answer.stderr or answer.stdout).strip()[-400:]}"
        )
    return answer.stdout


def compare_on(machine: Machine, folder: Path, movie: Path, words: Sequence[str] = ()) -> Agreement:
    """Localize a movie with an export folder natively and emulated, and pair the rows.

    Args:
        machine: emulated.
        folder: written by export. movie: a TIFF.
        words: further options of the runner, e.g. --file model.int8.onnx --baseline 100.

    Raises:
        ValueError: no runner in the folder.
        RuntimeError: a run failed.
    """
    runner = folder / RUNNER
    if not runner.is_file():
        raise ValueError(f"{folder} holds no {RUNNER}; make it: smlm-zoo export MODEL -o {folder}")
    with tempfile.TemporaryDirectory() as scratch:
        tables = []
        for name in ("native", "emulated"):
            table = Path(scratch) / f"{name}.csv"
            given = [str(runner.resolve()), str(movie.resolve()), "-o", str(table), *words]
            if name == "native":
                _checked([sys.executable, *given])
            else:
                machine.run(given)
            tables.append(as_localizations(read_table(table)))
        return agreement(*tables)


def main(words: Sequence[str] | None = None) -> int:
    """The command line; 0 where the tables agree, 1 where they do not, 2 where it cannot be tried."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("folder", type=Path, help="written by smlm-zoo export")
    parser.add_argument("movie", type=Path, help="a TIFF movie")
    parser.add_argument("--place", type=Path, help="folder that keeps the emulated machine; default: in the cache")
    given, rest = parser.parse_known_args(words)
    try:
        machine = emulated(given.place)
        print(
            f"on {machine.run(['-c', 'import platform; print(platform.machine())']).strip()}, emulated ...", flush=True
        )
        found = compare_on(machine, given.folder, given.movie, rest)
    except (CannotEmulate, RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{platform.machine()}: {found.rows[0]} localizations, aarch64: {found.rows[1]}; {found.share:.2%} of them lie "
        f"within {TOLERANCE_NM:g} nm of each other, at most {found.largest_nm:.3g} nm apart: "
        f"{'they agree' if found.passed else f'at least {LEAST_SHARE:.1%} are needed'}"
    )
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main())
